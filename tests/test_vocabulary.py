"""One word for one thing: what classes and functions may not be called."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [path for name in ("channels", "codec", "sim") for path in (ROOT / name).rglob("*.py")]

GIVEN_UP = re.findall(
    r"\w+",
    """
    How Steps Crew Alone Pool DaskCrew Workshop Materials Grain grain Clean CleanTask GivenStream
    Appender Journal mark mark_of pixel_mark Found Shown Taken Sent Told Desk Helper Reception
    Originals SamePictures Notes Watch History LossCount Later later OneLineErrors told weighed
    weighs weigh difficulty told_levels Looks looks LOOKS_WEIGHT Critics Optimised pull push fooled
    onward shown Words Arriving ArrivingFrames Expected SendingEnd ReceivingEnd hear passed
    Timeline rings alarms Doorkeeper Receptions rivals CannotReach Lap LAP Job Point
    """,
)
"""The left column of a table whose right one has RunOptions, ProgressCallback, Executor, cache_key,
StreamMonitor, ReassemblyBuffer, token_importance, codebook_size and so on. Left out are words that
were wrong in their place only, such as `part`, `size` and `record`."""

SUPERLATIVES = re.compile(r"_?(MOST|FEWEST)_|_?least_")
"""Limits are MAX_... and MIN_..."""


def defined() -> Iterator[tuple[str, str, bool]]:
    """(name, file, whether it is a class) of each class, function and constant."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            place = path.relative_to(ROOT).as_posix()
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, place, isinstance(node, ast.ClassDef)
            elif isinstance(node, ast.Name) and node.id.isupper():
                yield node.id, place, False


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict[str, list[str]](list)
    for name, place, is_class in defined():
        if is_class:
            places[name].append(place)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_words_that_were_given_up_stay_away() -> None:
    found = [(name, place) for name, place, _ in defined() if name.lstrip("_") in GIVEN_UP]
    assert found == []


def test_limits_are_named_alike() -> None:
    assert [(name, place) for name, place, _ in defined() if SUPERLATIVES.match(name)] == []
