"""The cells that a run consists of, and the words for the points of its sweep."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.scenario.schema import CLEAN, Scenario


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the sweep and one repeat: one stream.

    Attributes:
        index: its number among those of its run, from 0.
        point: the number of its point, from 0.
        values: what the sweep sets here, by dotted key; empty without a sweep.
        scenario: with those values in place.
        repeat: from 0; seeds the channel together with the scenario's seed, so that cells of one
            repeat at different points are paired.
    """

    index: int
    point: int
    values: Mapping[str, Any]
    scenario: Scenario
    repeat: int


def name_of(path: Path) -> str:
    """A scenario's name where it has none: its file's, with _ for what `Scenario.name` refuses."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).lstrip("._-")[:100] or "scenario"


def cells(
    points: Sequence[tuple[Mapping[str, Any], Scenario]], repeats: Sequence[int]
) -> Iterator[Cell]:
    """Every point of a sweep times its number of repeats, points outermost."""
    index = itertools.count()
    for point, ((values, scenario), count) in enumerate(zip(points, repeats, strict=True)):
        for repeat in range(count):
            yield Cell(next(index), point, values, scenario, repeat)


def values_label(values: Mapping[str, Any]) -> str:
    """A point's sweep values in one short line: "channel=uniform channel.loss=0.2"."""
    return " ".join(f"{key}={value_label(value)}" for key, value in values.items())


def value_label(value: object) -> str:
    """A swept value in a word: a section by its type, or else by its content."""
    if isinstance(value, Mapping):
        kind = value.get("type") or value.get("preset")
        return str(kind) if kind else " ".join(f"{k}={v}" for k, v in value.items())
    return str(value)


def plain_label(repair: str) -> str:
    """A repair's name for people."""
    return "no loss" if repair == CLEAN else repair.replace("_", " ")


def with_label(repair: str) -> str:
    """The same in a sentence: "with inpaint", "without repair", "without loss"."""
    without = {CLEAN: "loss", "none": "repair"}
    return f"without {without[repair]}" if repair in without else f"with {plain_label(repair)}"


def shown_repairs(repairs: Sequence[str]) -> tuple[str, str]:
    """Which two of one or more repairs to show where there is no room for all: the one that does
    least and the strongest, which are one if there is only one."""
    ranked = ("inpaint_memory", "inpaint", repairs[-1])
    return (
        "none" if "none" in repairs else repairs[0],
        next(name for name in ranked if name in repairs),
    )


def setting_label(values: Mapping[str, Any]) -> str:
    """A point's sweep values, one after the other: "channel: uniform, playout delay: 0.2 s"."""
    parts = []
    for key, value in values.items():
        name = key.rpartition(".")[2]
        unit = " s" if name.endswith("_s") else ""
        parts.append(
            f"{plain_label(name.removesuffix('_s'))}: {plain_label(value_label(value))}{unit}"
        )
    return ", ".join(parts)


def count_label(count: int, what: str) -> str:
    """So many of something: "1 image", "2 images"."""
    return f"{count:,} {what}{'s' * (count != 1)}"
