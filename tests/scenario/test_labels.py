"""Which repairs are shown where there is no room for all."""

from __future__ import annotations

from itertools import permutations

import pytest

from sim.scenario.labels import shown_repairs

ALL = ("none", "telea", "previous", "inpaint", "inpaint_memory")


@pytest.mark.parametrize("count", range(1, len(ALL) + 1))
def test_the_least_and_the_strongest_whatever_their_order(count: int) -> None:
    for repairs in permutations(ALL, count):
        least, strongest = shown_repairs(repairs)
        assert least == ("none" if "none" in repairs else repairs[0])
        transformers = [name for name in ("inpaint_memory", "inpaint") if name in repairs]
        assert strongest == (transformers or [repairs[-1]])[0]
