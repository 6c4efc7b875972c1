"""What a sweep expands to."""

from __future__ import annotations

from typing import Any

import pytest

from sim.scenario.sweep import SweepError, expand


def points(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The values of every point."""
    return [point.values for point in expand(sweep)]


def test_a_grid_has_its_last_key_fastest() -> None:
    assert points({}) == [{}]
    assert points({"a": [1, 2], "b": ["x"]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert [p["b"] for p in points({"a": [1, 2], "b": [3, 4]})] == [3, 4, 3, 4]


@pytest.mark.parametrize(
    ("span", "values"),
    [
        ({"from": 0, "to": 0.3, "step": 0.1}, [0, 0.1, 0.2, 0.3]),
        ({"from": 0.3, "to": 0, "step": -0.1}, [0.3, 0.2, 0.1, 0]),
        ({"from": 1, "to": 6, "step": 2}, [1, 3, 5]),
        ({"from": 0, "to": 1, "count": 5}, [0, 0.25, 0.5, 0.75, 1]),
        ({"from": 8, "to": 128, "count": 5, "log": True}, [8, 16, 32, 64, 128]),
        ({"from": 0.01, "to": 1, "count": 3, "log": True}, [0.01, 0.1, 1]),
    ],
    ids=str,
)
def test_ranges(span: dict[str, Any], values: list[float]) -> None:
    found = [point["k"] for point in points({"k": span})]
    assert found == values
    whole = all(isinstance(span[end], int) for end in ("from", "to")) and "count" not in span
    assert not whole or all(isinstance(value, int) for value in found)


def test_zipped_keys_vary_together() -> None:
    sweep = {"zip": {"a": [1, 2], "b": {"from": 10, "to": 20, "step": 10}}, "c": [5, 6]}
    assert [tuple(p.values()) for p in points(sweep)] == [
        (1, 10, 5),
        (1, 10, 6),
        (2, 20, 5),
        (2, 20, 6),
    ]
    twice = {"zip": [{"a": [1, 2], "b": [3, 4]}, {"c": [5, 6], "d": [7, 8]}]}
    assert len(points(twice)) == 4


def test_points_are_as_written() -> None:
    sweep = {"points": [{"a": 1}, {"a": 2, "b": 3}], "c": [7, 8]}
    first = [{"a": 1, "c": 7}, {"a": 1, "c": 8}]
    assert points(sweep) == [*first, {"a": 2, "b": 3, "c": 7}, {"a": 2, "b": 3, "c": 8}]


@pytest.mark.parametrize(
    ("sweep", "place", "problem"),
    [
        ({"a": 3}, ("a",), "must be a list of values or a range"),
        ({"a": {"from": 0, "to": 1}}, ("a",), "needs either step or count"),
        ({"a": {"from": 0, "step": 1}}, ("a",), "to is missing"),
        ({"a": {"from": 0, "to": 1, "steps": 1}}, ("a", "steps"), "unknown key"),
        ({"a": {"from": 0, "to": 1, "step": -1}}, ("a", "step"), "does not lead from 0 to 1"),
        ({"a": {"from": 0, "to": 1, "step": 1e-9}}, ("a", "step"), "more than 100,000"),
        ({"a": {"from": 0, "to": 1, "count": 3, "log": True}}, ("a", "log"), "above 0"),
        ({"a": {"from": 0, "to": 1, "count": 1}}, ("a", "count"), "from 2 to"),
        ({"a": {"from": "x", "to": 1, "count": 1}}, ("a", "from"), "must be a number"),
        ({"zip": {"a": [1], "b": [1, 2]}}, ("zip", "b"), "has 2 values but a has 1"),
        ({"zip": 3}, ("zip",), "must be a mapping"),
        ({"points": {}}, ("points",), "must be a list of points"),
        ({"points": [3]}, ("points", 0), "a point is a mapping"),
        ({"zip": {"a": [1]}, "a": [1]}, ("a", 0), "a is swept twice"),
        ({"a": list(range(400)), "b": list(range(400))}, (), "makes 160,000 points"),
    ],
    ids=str,
)
def test_mistakes(sweep: dict[str, Any], place: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(SweepError) as caught:
        points(sweep)
    assert caught.value.place == place
    assert problem in caught.value.problem
