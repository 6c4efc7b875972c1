"""The README's commands work."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Cli = Callable[..., Any]
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def test_commands_are_of_known_kinds() -> None:
    assert "make run" in COMMANDS and "make test" in COMMANDS
    for command in COMMANDS:
        assert command.split()[0] in ("make", "sim", "python3", ".venv/bin/pip"), command


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets(command: str) -> None:
    words = shlex.split(command)
    dry = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr


def test_by_hand_and_make_install_the_same() -> None:
    makefile = (ROOT / "Makefile").read_text()
    pinned = (ROOT / "constraints.txt").read_text()
    version = re.search(r"^torch==(\S+)$", pinned, re.MULTILINE)
    assert version and f"torch=={version[1]}" in makefile
    assert f"torch=={version[1]} --index-url" in README
    assert "-c constraints.txt -e" in README and "-c constraints.txt -e" in makefile


def test_sim_commands_run(cli: Cli) -> None:
    """In order, in an empty folder, on one small image, in virtual time, untrained."""
    Path("my-photos").mkdir()
    Image.radial_gradient("L").resize((48, 32)).save("my-photos/photo.png")
    photos = ["--set", "images=[my-photos]"]
    small = ["--set", "transport=virtual", "--set", "repeats=1", "--model", "random"]

    for command in (c for c in COMMANDS if c.startswith("sim ")):
        words = shlex.split(command)[1:]
        if "loss-sweep" in words:
            words += ["--set", "sweep={channel.loss: [0, 0.2]}"]
        if "call" in words:
            words += ["--set", "video.frames=2", "--set", "video.size=64"]
        elif words[0] == "run":
            words += photos
        result = cli(*words, *(small if words[0] == "run" else []))
        if words[0] == "train":  # one photograph is not enough; all else is as it should be
            assert result.exit_code == 2 and "photos" in result.stderr, (
                f"{command}: {result.output}"
            )
        else:
            assert result.exit_code == 0, f"{command}: {result.output}"
    assert Path("my-run/images/inpaint/photo.png").is_file()


def test_the_map_of_the_folders() -> None:
    for folder in re.findall(r"^(\S+/) {2,}\S", README, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
