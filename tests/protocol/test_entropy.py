from __future__ import annotations

import pickle
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec.coders import CoderBook
from codec.entropy import (
    ENTROPY_MODES,
    FREQUENCY_TOTAL,
    FixedCoder,
    SliceCoder,
    StaticCoder,
    fixed_bytes,
)
from codec.range_coder import CorruptPayload

SIZES = [1 << bits for bits in range(1, 16)]
GRID = (1, 1)  # these coders do not look at it


def table(codebook_size: int, seed: int = 0, evenness: float = 0.3) -> NDArray[np.uint32]:
    """An uneven frequency table: uint32[K], >= 1, summing to 2**16."""
    shares = np.random.default_rng(seed).dirichlet(np.full(codebook_size, evenness))
    frequencies = 1 + np.floor((FREQUENCY_TOTAL - codebook_size) * shares).astype(np.int64)
    frequencies[frequencies.argmax()] += FREQUENCY_TOTAL - frequencies.sum()
    return frequencies.astype(np.uint32)


def coders(codebook_size: int) -> list[SliceCoder]:
    return [
        FixedCoder(codebook_size),
        StaticCoder(table(codebook_size)),
        StaticCoder(table(codebook_size, evenness=1e3)),
    ]


def positions(n: int) -> NDArray[np.int64]:
    return np.arange(n)


@given(st.sampled_from(SIZES), st.integers(1, 120), st.integers(0, 2**32), st.booleans())
def test_any_tokens_come_back(size: int, n: int, seed: int, likely: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = table(size) / FREQUENCY_TOTAL if likely else None
    indices = rng.choice(size, n, p=weights)
    for coder in coders(size):
        data = coder.encode(indices, positions(n), GRID)
        assert len(data) <= fixed_bytes(n, size)
        decoded = coder.decode(data, positions(n), GRID)
        assert decoded.dtype == np.int64
        np.testing.assert_array_equal(decoded, indices)


@pytest.mark.parametrize("size", SIZES)
def test_extreme_tokens_come_back(size: int) -> None:
    for coder in coders(size):
        for indices in ([0], [size - 1], [0] * 50, [size - 1] * 50, [0, size - 1] * 20):
            tokens = np.array(indices)
            data = coder.encode(tokens, positions(len(tokens)), GRID)
            np.testing.assert_array_equal(coder.decode(data, positions(len(tokens)), GRID), tokens)


@given(st.sampled_from(SIZES), st.integers(1, 60), st.binary(max_size=150))
def test_any_bytes_decode_or_are_refused(size: int, n: int, data: bytes) -> None:
    for coder in coders(size):
        try:
            indices = coder.decode(data, positions(n), GRID)
        except CorruptPayload:
            continue
        assert indices.shape == (n,)
        assert indices.min() >= 0
        assert indices.max() < size


@given(st.integers(1, 60), st.integers(0, 2**32), st.data())
def test_damaged_bytes_decode_or_are_refused(n: int, seed: int, data: st.DataObject) -> None:
    coder = StaticCoder(table(256))
    good = coder.encode(np.random.default_rng(seed).integers(0, 256, n), positions(n), GRID)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(bad)))
    for damaged in (bytes(bad), bytes(bad[:cut]), bytes(bad) + b"\1"):
        with suppress(CorruptPayload):
            assert len(coder.decode(damaged, positions(n), GRID)) == n


@pytest.mark.parametrize("size", [8, 64, 1024, 2048])
def test_the_slack_of_a_slice_is_less_than_a_byte(size: int) -> None:
    frequencies = table(size)
    coder = StaticCoder(frequencies)
    rng = np.random.default_rng(1)
    for _ in range(300):
        indices = rng.choice(size, rng.integers(1, 80), p=frequencies / FREQUENCY_TOTAL)
        information = np.log2(FREQUENCY_TOTAL / frequencies[indices]).sum()
        data = coder.encode(indices, positions(len(indices)), GRID)
        assert 8 * len(data) < information + 8


def reference_range_coder(indices: NDArray[np.int64], frequencies: NDArray[np.uint32]) -> bytes:
    """The wire format of `StaticCoder` in whole numbers: Martin's range coder (1979) with 64 bits
    of range, 24 of probability, 32-bit words; then the shortest fraction in the interval."""
    starts = np.concatenate([[0], np.cumsum(frequencies, dtype=np.int64)])
    low, size, places = 0, (1 << 64) - 1, 64
    for token in indices:
        unit = size >> 24
        low += unit * (int(starts[token]) << 8)
        size = unit * (int(frequencies[token]) << 8)
        if size < 1 << 32:
            low, size, places = low << 32, size << 32, places + 32
    for n in range(places // 8 + 1):
        code = -(-low >> (places - 8 * n)) << (places - 8 * n)
        if code < low + size:
            return (code >> (places - 8 * n)).to_bytes(n, "big")
    raise AssertionError


@given(
    st.sampled_from(SIZES), st.integers(1, 80), st.integers(0, 2**32), st.sampled_from([0.03, 9])
)
def test_the_coder_sees_exactly_the_integer_table(
    size: int, n: int, seed: int, evenness: float
) -> None:
    frequencies = table(size, seed, evenness)
    indices = np.random.default_rng(seed).choice(size, n, p=frequencies / FREQUENCY_TOTAL)
    data = StaticCoder(frequencies).encode(indices, positions(n), GRID)
    expected = reference_range_coder(indices, frequencies)
    if len(expected) < fixed_bytes(n, size):
        assert data == expected
    else:
        assert data == FixedCoder(size).encode(indices, positions(n), GRID)


def test_golden_bytes() -> None:
    """The wire format: these never change."""
    indices = (np.arange(24) ** 2 * 5) % 16
    even = FixedCoder(16).encode(indices, positions(24), GRID)
    assert even.hex() == "054d0d45" * 3
    frequencies = np.array([20000, 1, 1, 1, 15000, 20000, 1, 1, 1, 1, 1, 1, 1, 10524, 1, 1])
    static = StaticCoder(frequencies).encode(indices, positions(24), GRID)
    assert static.hex() == "35d3ed56070320"


def test_a_slice_that_does_not_compress_is_bit_packed() -> None:
    coder = StaticCoder(table(64, evenness=0.05))
    rare = np.full(30, int(table(64, evenness=0.05).argmin()))
    data = coder.encode(rare, positions(30), GRID)
    assert data == FixedCoder(64).encode(rare, positions(30), GRID)
    np.testing.assert_array_equal(coder.decode(data, positions(30), GRID), rare)


@pytest.mark.parametrize("bad", [-1, 16, 1 << 31, (1 << 32) + 3, -(1 << 40)])
def test_a_token_outside_the_codebook_is_refused(bad: int) -> None:
    for coder in coders(16):
        with pytest.raises(ValueError, match=r"0\.\.15"):
            coder.encode(np.array([3, bad, 2]), positions(3), GRID)


@pytest.mark.parametrize("size", [0, 1, 3, 1000, 1 << 16])
def test_a_codebook_must_be_a_power_of_two(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        FixedCoder(size)


@pytest.mark.parametrize(
    "frequencies", [[65535, 0, 1, 0], [1, 2, 3, 4], [0.5, 0.5], [[32768, 32768]]]
)
def test_a_frequency_table_is_checked(frequencies: object) -> None:
    with pytest.raises(ValueError, match="frequencies"):
        StaticCoder(frequencies)  # type: ignore[arg-type]


def test_the_book_finds_coders_and_says_when_there_is_none() -> None:
    book = CoderBook({64: table(64)})
    copy = pickle.loads(pickle.dumps(book))
    indices = np.arange(64)
    for mode, name in enumerate(ENTROPY_MODES[:2]):
        assert book(mode, 64).mode == mode, name
        data = book(mode, 64).encode(indices, positions(64), GRID)
        assert copy(mode, 64).encode(indices, positions(64), GRID) == data
    assert book(0, 2048).mode == 0
    for mode, size in ((1, 128), (2, 64)):
        with pytest.raises(LookupError, match=str(size)):
            book(mode, size)


@given(st.sampled_from([2, 64, 1024]), st.integers(1, 40), st.integers(1, 30), st.integers(0, 99))
def test_slices_coded_together_are_slices_coded_alone(
    size: int, slices: int, tokens: int, seed: int
) -> None:
    """Of any lengths, in any order, damaged or not."""
    rng = np.random.default_rng(seed)
    cells = [positions(int(n)) for n in rng.integers(1, tokens + 1, slices)]
    likely = table(size) / FREQUENCY_TOTAL if seed % 2 else None
    parts = [rng.choice(size, len(places), p=likely) for places in cells]
    for coder in coders(size):
        payloads = coder.encode_all(np.concatenate(parts), cells, GRID)
        for data, part, places in zip(payloads, parts, cells, strict=True):
            assert data == coder.encode(part, places, GRID)
        for number in rng.integers(0, slices, slices // 3):
            payloads[number] = rng.bytes(int(rng.integers(0, 12)))
        found, errors = coder.decode_all(payloads, cells, GRID)
        at = 0
        for number, (data, places) in enumerate(zip(payloads, cells, strict=True)):
            part, at = found[at : at + len(places)], at + len(places)
            try:
                np.testing.assert_array_equal(part, coder.decode(data, places, GRID))
                assert number not in errors
            except CorruptPayload as error:
                assert str(errors[number]) == str(error)
                assert (part == -1).all()
