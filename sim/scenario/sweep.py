"""The points of a sweep.

Every key of a ``sweep:`` section is a factor; its points are the grid of all factors, the last
one fastest::

    channel.loss: [0, 0.1, 0.2]                          values
    channel.loss: {from: 0, to: 0.5, step: 0.1}          both ends included
    stream.slices: {from: 8, to: 128, count: 5, log: true}
    zip: {codec.codebook: [256, 1024], stream.slices: [24, 32]}   varied together; or a list of such
    points: [{channel.loss: 0.1}, {channel.loss: 0.3, stream.slices: 64}]   named one by one
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ZIP, POINTS = "zip", "points"
MAX_POINTS = 100_000

Place = tuple[str | int, ...]
"""Keys and indices from the sweep section to a value."""

_RANGE = ("from", "to", "step", "count", "log")


class SweepError(ValueError):
    """A sweep that cannot be expanded.

    Attributes:
        place: where in the section.
        problem: what is wrong, in a few words.
    """

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place, self.problem = place, problem


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One point.

    Attributes:
        values: by dotted key, in the order of the section.
        places: where each of them stands in the section.
    """

    values: dict[str, Any]
    places: dict[str, Place]


def expand(sweep: Mapping[str, Any]) -> Iterator[SweepPoint]:
    """Every point of a sweep in order; one without values for an empty sweep.

    Args:
        sweep: the section as read from YAML.

    Raises:
        SweepError: a factor that is no list or range or has no values, zipped lists of different
            lengths, a key in two factors, more than 100,000 points.
    """
    factors = [factor for key, spec in sweep.items() for factor in _factors(key, spec)]
    seen: set[str] = set()
    for factor in factors:
        keys = {key for point in factor for key in point.values}
        for key in keys & seen:
            raise SweepError(factor[0].places.get(key, ()), f"{key} is swept twice")
        seen |= keys
    count = math.prod(map(len, factors))
    if count > MAX_POINTS:
        raise SweepError((), f"makes {count:,} points; at most {MAX_POINTS:,}")
    for parts in itertools.product(*factors):
        values: dict[str, Any] = {}
        places: dict[str, Place] = {}
        for part in parts:
            values |= part.values
            places |= part.places
        yield SweepPoint(values, places)


def _factors(key: str, spec: object) -> Iterator[list[SweepPoint]]:
    if key == POINTS:
        yield _listed(spec)
    elif key == ZIP and isinstance(spec, Sequence) and not isinstance(spec, str):
        for at, part in enumerate(spec):
            yield _zipped(part, (ZIP, at))
    elif key == ZIP:
        yield _zipped(spec, (ZIP,))
    else:
        yield [SweepPoint({key: v}, {key: place}) for v, place in _axis(spec, (key,))]


def _listed(spec: object) -> list[SweepPoint]:
    if not isinstance(spec, list) or not spec:
        raise SweepError((POINTS,), "must be a list of points, such as [{channel.loss: 0.1}]")
    for at, point in enumerate(spec):
        if not isinstance(point, Mapping) or not point:
            raise SweepError((POINTS, at), "a point is a mapping, such as {channel.loss: 0.1}")
    return [
        SweepPoint(dict(point), {key: (POINTS, at, key) for key in point})
        for at, point in enumerate(spec)
    ]


def _zipped(spec: object, place: Place) -> list[SweepPoint]:
    if not isinstance(spec, Mapping) or not spec:
        raise SweepError(place, "must be a mapping of keys to lists of one length")
    axes = {key: _axis(values, (*place, key)) for key, values in spec.items()}
    (first, longest), *others = ((key, len(axis)) for key, axis in axes.items())
    for key, length in others:
        if length != longest:
            raise SweepError(
                (*place, key), f"has {length} values but {first} has {longest}; zip needs as many"
            )
    return [
        SweepPoint(
            {key: value for key, (value, _) in zip(axes, row, strict=True)},
            {key: where for key, (_, where) in zip(axes, row, strict=True)},
        )
        for row in zip(*axes.values(), strict=True)
    ]


def _axis(spec: object, place: Place) -> list[tuple[Any, Place]]:
    """Values of one key, each with its place."""
    if isinstance(spec, list):
        if not spec:
            raise SweepError(place, "has no values")
        return [(value, (*place, at)) for at, value in enumerate(spec)]
    if isinstance(spec, Mapping):
        return [(value, place) for value in _range(spec, place)]
    raise SweepError(
        place, "must be a list of values or a range such as {from: 0, to: 1, step: 0.1}"
    )


def _range(spec: Mapping[str, Any], place: Place) -> list[float]:
    """The values of a range; whole numbers where all of them are and both ends were."""
    for key, value in spec.items():
        if key not in _RANGE:
            raise SweepError((*place, key), f"unknown key; a range has {', '.join(_RANGE)}")
        kind = bool if key == "log" else int if key == "count" else (int, float)
        if not isinstance(value, kind) or (key != "log" and isinstance(value, bool)):
            raise SweepError((*place, key), f"must be a number, got {value!r}")
    for key in ("from", "to"):
        if not math.isfinite(spec.get(key, math.nan)):
            raise SweepError(place, f"{key} is missing; a range needs from, to, and step or count")
    start, end = spec["from"], spec["to"]
    if ("step" in spec) == ("count" in spec):
        raise SweepError(place, "a range needs either step or count")
    if "step" in spec:
        values = _stepped(start, end, spec, place)
    else:
        values = _counted(start, end, spec, place)
    whole = isinstance(start, int) and isinstance(end, int) and all(v == round(v) for v in values)
    return [round(value) for value in values] if whole else values


def _stepped(start: float, end: float, spec: Mapping[str, Any], place: Place) -> list[float]:
    step = spec["step"]
    if spec.get("log"):
        raise SweepError((*place, "log"), "goes with count, not with step")
    if not math.isfinite(step) or step == 0 or (end - start) / step < 0:
        raise SweepError((*place, "step"), f"does not lead from {start} to {end}")
    steps = (end - start) / step
    if steps > MAX_POINTS:
        raise SweepError((*place, "step"), f"makes more than {MAX_POINTS:,} values")
    size = max(abs(start), abs(end))
    return [_tidy(start + i * step, size) for i in range(math.floor(steps + 1e-9) + 1)]


def _counted(start: float, end: float, spec: Mapping[str, Any], place: Place) -> list[float]:
    count = spec["count"]
    if not 2 <= count <= MAX_POINTS:
        raise SweepError((*place, "count"), f"must be from 2 to {MAX_POINTS:,}, got {count}")
    shares = [i / (count - 1) for i in range(count)]
    if not spec.get("log"):
        size = max(abs(start), abs(end))
        return [_tidy(start + (end - start) * share, size) for share in shares]
    if min(start, end) <= 0:
        raise SweepError((*place, "log"), "needs from and to above 0")
    return [_tidy(start * (end / start) ** share, 0.0) for share in shares]


def _tidy(value: float, size: float) -> float:
    """Without the noise of binary fractions: 0.1 * 3 is to read 0.3 in tables and names, and what
    is nothing beside values of that size is to read 0."""
    return 0.0 if abs(value) < 1e-12 * size else float(f"{value:.12g}")
