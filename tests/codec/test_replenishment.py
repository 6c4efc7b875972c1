"""Slices of which only some tokens are sent <-> bytes."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec.coders import CoderBook
from codec.context import ContextTables
from codec.range_coder import CorruptPayload
from codec.replenishment import KEPT, ReplenishmentCoder, replenishment_bytes

SIZES = (8, 64, 1024)
GRID = (20, 30)
BOOK = CoderBook(
    {size: np.repeat([2**16 // size * 2 - 8, 8], size // 2) for size in SIZES},
    ContextTables.random(SIZES),
)
MODES = (0, 1, 2)


def coder(mode: int, size: int) -> ReplenishmentCoder:
    return ReplenishmentCoder(BOOK(mode, size), size)


@st.composite
def slices(draw: st.DrawFn) -> tuple[int, list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """K, and of some slices the tokens and their positions; any share of them is kept."""
    size, count = draw(st.sampled_from(SIZES)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    lengths = [draw(st.integers(1, 60)) for _ in range(count)]
    cells = np.split(rng.permutation(600), np.cumsum(lengths))[:-1]
    shares = [draw(st.sampled_from([0, 0.05, 0.3, 1])) for _ in range(count)]
    lowest = draw(st.sampled_from([0, size // 2]))  # the latter half is rare: a surprise
    tokens = [
        np.where(rng.random(n) < share, rng.integers(lowest, size, n), KEPT)
        for n, share in zip(lengths, shares, strict=True)
    ]
    return size, tokens, cells


@given(slices(), st.sampled_from(MODES))
def test_any_change_map_comes_back_and_every_slice_is_decodable_alone(
    given_: tuple[int, list[NDArray[np.int64]], list[NDArray[np.int64]]], mode: int
) -> None:
    size, tokens, cells = given_
    found = coder(mode, size).encode_all(np.concatenate(tokens), cells, GRID)
    together, errors = coder(mode, size).decode_all(found, cells, GRID)
    assert not errors and together.dtype == np.int64
    np.testing.assert_array_equal(together, np.concatenate(tokens))
    for data, expected, where in zip(found, tokens, cells, strict=True):
        assert len(data) <= replenishment_bytes(len(expected), size)
        np.testing.assert_array_equal(coder(mode, size).decode(data, where, GRID), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_extreme_slices_are_within_the_bound(mode: int, size: int) -> None:
    for n in (1, 2, 60, 2000):
        cells = np.arange(n)
        for tokens in (
            np.full(n, size - 1),
            np.where(cells % 2, size - 1, KEPT),
            np.where(cells < n // 2, size - 1, KEPT),
            np.where(cells < n // 2, KEPT, size - 1),
        ):
            data = coder(mode, size).encode(tokens, cells, (1, n))
            assert len(data) <= replenishment_bytes(n, size)
            np.testing.assert_array_equal(coder(mode, size).decode(data, cells, (1, n)), tokens)


def test_what_it_costs() -> None:
    cells, rng = np.arange(38), np.random.default_rng(1)
    assert coder(1, 64).encode(np.full(38, KEPT), cells, GRID) == b""
    for sent in range(1, 38):
        tokens = np.full(38, KEPT)
        where = rng.permutation(38)[:sent]
        tokens[where] = 5
        data = coder(0, 64).encode(tokens, cells, GRID)
        share = sent / 38
        entropy = -38 * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
        assert 8 * len(data) <= entropy + np.log2(38) / 2 + 1 + 6 * sent + 8


def test_golden_bytes() -> None:
    """The wire format: these never change."""
    tokens = np.array([3, KEPT, KEPT, 40, 63, KEPT, 0, KEPT])
    made = [coder(mode, 64).encode(tokens, np.arange(8), GRID).hex() for mode in MODES[:2]]
    assert made == ["8d1656fc70", "8d1b0ca2be28"]


@given(st.sampled_from(SIZES), st.sampled_from(MODES), st.integers(1, 60), st.binary(max_size=99))
def test_any_bytes_decode_or_are_refused(size: int, mode: int, n: int, data: bytes) -> None:
    with suppress(CorruptPayload):
        tokens = coder(mode, size).decode(data, np.arange(n), GRID)
        assert tokens.shape == (n,)
        assert np.all((tokens == KEPT) | (tokens >= 0) & (tokens < size))


def test_what_does_not_decode_harms_no_other() -> None:
    tokens, cells = np.array([1, KEPT, 2, 3]), [np.arange(2), np.arange(2, 4)]
    good = coder(1, 64).encode_all(tokens, cells, GRID)
    found, errors = coder(1, 64).decode_all([b"\1\0", good[1]], cells, GRID)
    assert list(errors) == [0]
    np.testing.assert_array_equal(found, [-1, -1, 2, 3])


def test_a_token_outside_the_codebook_is_an_error() -> None:
    for mode in MODES:
        for wrong in (64, -1, -3):
            with pytest.raises(ValueError, match="63"):
                coder(mode, 64).encode(np.array([1, wrong]), np.arange(2), GRID)
