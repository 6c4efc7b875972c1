"""`sim train report`: what is committed of a training run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LINES = [
    {"step": 50, "seconds": 9.0, "kind": "train", "loss": 2.0},
    {"step": 50, "seconds": 9.0, "kind": "held_out", "psnr_db": 20.0},
    {"step": 100, "seconds": 18.0, "kind": "train", "loss": 1.5},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return folder


def test_a_run_with_samples_and_without(run: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    result = cli("train", "report", run, "--out", tmp_path / "bare", "--json")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {
        "config.json",
        "log.jsonl",
        "curve.png",
    }
    (run / "samples").mkdir()
    for name in ("0000050.webp", "0000100.webp"):
        (run / "samples" / name).write_text(name)
    assert cli("train", "report", run, "--out", tmp_path / "full").exit_code == 0
    assert (tmp_path / "full" / "samples.webp").read_text() == "0000100.webp", "the last"


@pytest.mark.parametrize("log", ["", "no JSON", "[]\n", '{"loss": 1}\n'])
def test_what_is_no_run_is_said_in_one_line(run: Path, cli: Callable[..., Any], log: str) -> None:
    (run / "log.jsonl").write_text(log)
    result = cli("train", "report", run, "--out", run / "out")
    assert result.exit_code == 2
    assert "not a training run" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (run / "out").exists()
