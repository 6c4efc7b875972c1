"""Tokens of a video that stay while they are nearly as good as others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codec.hysteresis import SteadyTokens


@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 2**32))
def test_a_token_changes_only_where_it_must(others: int, codewords: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steady, before = SteadyTokens(), None
    for near in rng.integers(0, codewords, (8, 3, 5, others)):
        tokens = steady.next_frame(near)
        assert (near == tokens[..., None]).any(axis=-1).all()
        if before is None:
            np.testing.assert_array_equal(tokens, near[..., 0])
        else:
            may_stay = (near == before[..., None]).any(axis=-1)
            np.testing.assert_array_equal(tokens[may_stay], before[may_stay])
            np.testing.assert_array_equal(tokens[~may_stay], near[..., 0][~may_stay])
        before = tokens


def test_a_frame_of_another_size_begins_anew() -> None:
    steady = SteadyTokens()
    steady.next_frame(np.zeros((2, 2, 2), np.int64))
    near = np.stack([np.ones((2, 3), np.int64), np.zeros((2, 3), np.int64)], axis=-1)
    np.testing.assert_array_equal(steady.next_frame(near), np.ones((2, 3)))
