"""The lessons: what they have you type works, and what theory says in them is so."""

from __future__ import annotations

import doctest
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docs.lessons.figures import FOLDER, THEORY, draw
from sim.scenario.library import find_scenario
from sim.scenario.loader import load_scenario

Cli = Callable[..., Any]
LESSONS = sorted(FOLDER.parent.glob("[0-9]*.md"))
GALLERY = FOLDER.parent.parent.parent / "results" / "gallery"
SMALL = 60_000  # bytes of a figure


def commands(lesson: Path) -> list[list[str]]:
    """The commands of a lesson, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", lesson.read_text(), re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_there_are_enough_and_all_are_listed() -> None:
    listed = re.findall(r"\]\((\d\d-[a-z0-9-]+\.md)\)", (FOLDER.parent / "README.md").read_text())
    assert listed == [path.name for path in LESSONS]
    assert len(LESSONS) >= 8


def test_a_lesson_has_its_parts(lesson: Path) -> None:
    text = lesson.read_text()
    parts = [
        "**Question.**",
        "**Predict.**",
        "## Run it",
        "```sh\nsim ",
        "![",
        "## What happened",
        "## Exercise",
        "<details>",
        "**References.**",
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)


def test_python_in_a_lesson_prints_what_is_written(lesson: Path) -> None:
    failed, _ = doctest.testfile(str(lesson), module_relative=False, encoding="utf-8")
    assert failed == 0


def test_figures_are_there_and_small(lesson: Path) -> None:
    for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", lesson.read_text()):
        if "gallery" in target and not GALLERY.exists():
            pytest.skip("sim gallery has not been run here")
        assert 0 < (lesson.parent / target).stat().st_size < SMALL, target


@pytest.mark.parametrize("name", THEORY)
def test_drawings_are_what_their_program_draws(name: str, tmp_path: Path) -> None:
    """Byte for byte with the libraries of constraints.txt, whose version is in the file."""
    kept = (FOLDER / f"{name}.svg").read_text()
    drawn = draw(name, tmp_path).read_text()
    version = re.compile(r"Matplotlib v([\d.]+)")
    ours, theirs = version.search(kept), version.search(drawn)
    assert ours and theirs
    if ours[1] != theirs[1]:
        pytest.skip(f"drawn with matplotlib {ours[1]}, here is {theirs[1]}")
    assert drawn == kept


def test_commands_are_known_and_name_what_ships(lesson: Path) -> None:
    for words in commands(lesson):
        assert words[0] == "sim" and words[1] in ("run", "channel", "report"), words
        if words[1] == "run":
            assert find_scenario(Path(words[2])).is_file()


@pytest.mark.slow
def test_commands_run(lesson: Path, cli: Cli, photo: Path) -> None:
    """In order, in an empty folder, on one small image, with the ends of each swept list; then the
    Python that reads what they made."""
    shown = any(words[1] == "report" for words in commands(lesson))  # needs the runs' figures
    for _, *words in commands(lesson):
        extra = []
        if words[0] == "run":
            scenario = load_scenario(find_scenario(Path(words[1]))).scenario
            sweep = {key: [values[0], values[-1]] for key, values in scenario.sweep.items()}
            few = "images=[../photo.png]" if scenario.video is None else "video.frames=2"
            for text in (few, "repeats=1", f"sweep={json.dumps(sweep)}"):
                extra += ["--set", text]
            extra += ["--set", "transport=virtual", "--model", "random"]
            extra += [] if shown else ["--no-figures"]
        result = cli(*words, *extra)
        assert result.exit_code == 0, f"{words}: {result.output}"
    for block in re.findall(r"^```python\n(.*?)^```", lesson.read_text(), re.DOTALL | re.MULTILINE):
        if not block.startswith(">>>"):  # those are checked above, what they print as well
            exec(compile(block, lesson.name, "exec"), {})
