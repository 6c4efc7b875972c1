"""The context coder: exact in whole numbers, whatever the machine; laws of every slice coder."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import codec.context
from codec.codebook import Ladder
from codec.context import (
    ACTIVATION_BITS,
    SCORE_BITS,
    WEIGHT_BITS,
    ContextCoder,
    ContextTables,
    integer_shares,
)
from codec.entropy import FixedCoder, fixed_bytes
from codec.range_coder import CorruptPayload
from codec.training.context import ContextConfig, ContextNetwork, earlier_tokens
from codec.waves import coding_waves
from sim.protocol.interleaver import INTERLEAVERS, slice_positions
from sim.training.masks import random_slices

SIZES = (8, 64, 2048)
TABLES = ContextTables.random(SIZES, seed=1)
CODERS = {size: ContextCoder(TABLES, size) for size in SIZES}
GRID = (7, 9)


def small_ladder(size: int = 64) -> Ladder:
    words = torch.nn.functional.normalize(torch.randn(size, 16), dim=1)
    return Ladder.pairs(words)


@given(
    st.sampled_from(SIZES),
    st.integers(1, 12),
    st.sampled_from(INTERLEAVERS),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_any_tokens_come_back(size: int, slices: int, interleaver: str, seed: int) -> None:
    tokens = np.random.default_rng(seed).integers(0, size, GRID[0] * GRID[1])
    if seed % 2:
        tokens[:] = tokens[0]
    for positions in slice_positions(GRID, slices, interleaver):
        indices = tokens[positions]
        data = CODERS[size].encode(indices, positions, GRID)
        assert len(data) <= fixed_bytes(len(indices), size)
        decoded = CODERS[size].decode(data, positions, GRID)
        assert decoded.dtype == np.int64
        np.testing.assert_array_equal(decoded, indices)


@given(st.sampled_from(SIZES), st.integers(1, 9), st.binary(max_size=60))
@settings(max_examples=40, deadline=None)
def test_any_bytes_decode_or_are_refused(size: int, slices: int, data: bytes) -> None:
    positions = slice_positions(GRID, slices, "random")[0]
    with suppress(CorruptPayload):
        indices = CODERS[size].decode(data, positions, GRID)
        assert indices.shape == positions.shape
        assert 0 <= indices.min() <= indices.max() < size


@given(st.integers(1, 40), st.sampled_from(INTERLEAVERS), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_slices_decoded_in_step_are_slices_decoded_alone(
    slices: int, interleaver: str, seed: int
) -> None:
    """Of any lengths, in any order, damaged or not."""
    rng = np.random.default_rng(seed)
    cells = [places[: rng.integers(1, 64)] for places in slice_positions(GRID, slices, interleaver)]
    tokens = [rng.integers(0, rng.integers(2, 65), len(places)) for places in cells]
    coder = CODERS[64]
    payloads = coder.encode_all(np.concatenate(tokens), cells, GRID)
    for number in rng.integers(0, len(cells), len(cells) // 3):
        payloads[number] = rng.bytes(int(rng.integers(0, 12)))
    found, errors = coder.decode_all(payloads, cells, GRID)
    parts = np.split(found, np.cumsum([len(places) for places in cells])[:-1])
    for number, (data, places) in enumerate(zip(payloads, cells, strict=True)):
        try:
            np.testing.assert_array_equal(parts[number], coder.decode(data, places, GRID))
            assert number not in errors
        except CorruptPayload as error:
            assert str(errors[number]) == str(error)
            assert (parts[number] == -1).all()


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from(INTERLEAVERS),
)
@settings(max_examples=40, deadline=None)
def test_tokens_of_a_wave_do_not_see_each_other(
    height: int, width: int, slices: int, reach: int, interleaver: str
) -> None:
    """So what a token sees is what comes before it in the slice, whatever the waves."""
    grid = (height, width)
    for positions in slice_positions(grid, min(slices, height * width), interleaver):
        waves = coding_waves(positions, grid, reach)
        assert waves.tolist() == reference_waves(positions.tolist(), width, reach)
        rows, columns = positions // width, positions % width
        near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) <= reach
        sooner, rank = waves < waves[:, None], np.arange(len(positions))
        np.testing.assert_array_equal(near & sooner, near & (rank < rank[:, None]))


def test_waves_are_few() -> None:
    """As the module says; each is one round of products for the decoder."""
    (whole,) = slice_positions((32, 48), 1, "raster")
    assert coding_waves(whole, (32, 48), 6).max() == 265
    dispersed = slice_positions((32, 48), 5, "low_discrepancy")
    assert max(coding_waves(part, (32, 48), 6).max() for part in dispersed) == 17


def test_a_slice_that_does_not_compress_is_bit_packed() -> None:
    positions = np.arange(30)
    rng = np.random.default_rng(0)
    packed = 0
    for _ in range(20):
        indices = rng.integers(0, 64, 30)
        data = CODERS[64].encode(indices, positions, (5, 6))
        if len(data) == fixed_bytes(30, 64):
            packed += 1
            assert data == FixedCoder(64).encode(indices, positions, (5, 6))
    assert packed


def reference_weights(
    tables: ContextTables,
    size: int,
    indices: NDArray[np.int64],
    positions: NDArray[np.int64],
    width: int,
) -> list[list[int]]:
    """The specification in Python's own integers, which have no precision to lose: for each token
    of a slice, from those of earlier waves, what constriction is given."""
    arrays: dict[str, Any] = {name: array.tolist() for name, array in tables.arrays.items()}
    reach = tables.reach
    waves = reference_waves(positions.tolist(), width, reach)
    result = []
    for here, wave in zip(positions.tolist(), waves, strict=True):
        slice_ = zip(positions.tolist(), indices.tolist(), waves, strict=True)
        before = [(place, token) for place, token, when in slice_ if when < wave]
        x: list[int] = []
        for head, floor in enumerate(arrays["floors"]):
            total, mass = [0] * len(arrays[f"embed.{size}"][0]), 0
            for place, token in before:
                weight = 1
                if head < len(arrays["heads"]):
                    dy, dx = place // width - here // width, place % width - here % width
                    if max(abs(dy), abs(dx)) > reach:
                        continue
                    weight = arrays["heads"][head][(dy + reach) * (2 * reach + 1) + dx + reach]
                mass += weight
                embed = arrays[f"embed.{size}"][token]
                total = [t + weight * e for t, e in zip(total, embed, strict=True)]
            x += [t // (mass + floor) for t in total]
            x.append((mass << ACTIVATION_BITS) // (mass + floor))
        for name, bias in (("layer1", f"bias1.{size}"), ("layer2", "bias2")):
            x = [min(max(v >> WEIGHT_BITS, 0), 2**15 - 1) for v in layer(x, arrays, name, bias)]
        query = layer(x, arrays, "query", "query_bias")
        x = [min(max(v >> WEIGHT_BITS, 1 - 2**15), 2**15 - 1) for v in query]
        shift = ACTIVATION_BITS + WEIGHT_BITS - SCORE_BITS
        keys, biases = arrays[f"keys.{size}"], arrays[f"bias.{size}"]
        scores = [
            sum(q * k for q, k in zip(x, key, strict=True)) + bias >> shift
            for key, bias in zip(keys, biases, strict=True)
        ]
        result.append(reference_shares(scores))
    return result


def reference_waves(positions: list[int], width: int, reach: int) -> list[int]:
    waves: list[int] = []
    for i, here in enumerate(positions):
        near = [
            wave
            for place, wave in zip(positions[:i], waves, strict=True)
            if abs(place // width - here // width) <= reach
            and abs(place % width - here % width) <= reach
        ]
        waves.append(1 + max(near, default=0))
    return waves


def layer(x: list[int], arrays: dict[str, Any], name: str, bias: str) -> list[int]:
    columns = zip(*arrays[name], strict=True)
    return [
        sum(a * w for a, w in zip(x, column, strict=True)) + b
        for column, b in zip(columns, arrays[bias], strict=True)
    ]


@lru_cache
def reference_power(part: int) -> int:
    """The largest whole r with r <= 2^(24 - part / 256), so r^256 <= 2^(24 * 256 - part)."""
    low, high = 0, 2**25
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**256 <= 2 ** (24 * 256 - part) else (low, middle)
    return low


def reference_shares(scores: list[int]) -> list[int]:
    best, size = max(scores), len(scores)
    powers = []
    for score in scores:
        whole, part = divmod(best - score, 256)
        powers.append(reference_power(part) >> min(whole, 24))
    free = 2**24 - 2 * size
    shares = [1 + power * free // sum(powers) for power in powers]
    shares[scores.index(best)] += 2**24 - size - sum(shares)
    return shares


@pytest.mark.parametrize("interleaver", ["raster", "low_discrepancy"])
def test_the_network_is_evaluated_in_whole_numbers(interleaver: str) -> None:
    """float64 matrix products give what Python's integers give, to the last digit."""
    for size in (8, 64):
        tokens = np.random.default_rng(size).integers(0, size, GRID[0] * GRID[1])
        positions = slice_positions(GRID, 4, interleaver)[1]
        indices = tokens[positions]
        weights = np.zeros((len(positions), size))
        for tokens, part in CODERS[size]._all_weights(indices, positions, GRID):
            weights[tokens] = part
        expected = reference_weights(TABLES, size, indices, positions, GRID[1])
        assert weights.astype(np.int64).tolist() == expected


@pytest.mark.parametrize("how", ["reversed", "by pieces"])
def test_the_order_of_summation_does_not_matter(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that adds in another order writes the same bytes: here, encoder and decoder do."""
    size, positions = 64, np.arange(GRID[0] * GRID[1])
    indices = np.random.default_rng(3).integers(0, size, len(positions))
    data = CODERS[size].encode(indices, positions, GRID)
    matmul = np.matmul

    def other(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        if how == "reversed":
            product = matmul(a[..., ::-1], b[..., ::-1, :])
        else:
            third = a.shape[-1] // 3
            product = matmul(a[..., :third], b[..., :third, :]) + matmul(
                a[..., third:], b[..., third:, :]
            )
        if out is not None:
            out[...] = product
        return product

    monkeypatch.setattr(codec.context, "multiply", other)
    assert CODERS[size].encode(indices, positions, GRID) == data
    np.testing.assert_array_equal(CODERS[size].decode(data, positions, GRID), indices)


def test_even_the_largest_weights_stay_exact() -> None:
    """Every weight at the end of its range: sums of products stay below 2^53."""
    widths = {"heads": 3, "reach": 6, "embed": 24, "hidden": 160, "query": 64}
    inputs = (widths["heads"] + 1) * (widths["embed"] + 1)
    window = (2 * widths["reach"] + 1) ** 2
    most = 2**15
    assert window * most * most < 2**53
    for count in (inputs, widths["hidden"], widths["query"]):
        assert count * most * most + 2**31 < 2**53
    arrays = {
        name: np.full_like(array, np.iinfo(array.dtype).max)
        for name, array in TABLES.arrays.items()
    }
    coder = ContextCoder(ContextTables(arrays), 64)
    positions = np.arange(63)
    indices = np.random.default_rng(0).integers(0, 64, 63)
    data = coder.encode(indices, positions, GRID)
    np.testing.assert_array_equal(coder.decode(data, positions, GRID), indices)


@given(st.integers(2, 2048), st.integers(0, 2**32), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_shares_are_a_softmax_in_whole_numbers(size: int, seed: int, spread: int) -> None:
    scores = np.random.default_rng(seed).integers(-spread * 256, spread * 256, (3, size))
    shares = integer_shares(scores)
    assert shares.min() >= 1 and (shares.sum(1) == 2**24 - size).all()
    exact = np.exp2((scores - scores.max(1, keepdims=True)) / 256)
    exact /= exact.sum(1, keepdims=True)
    likely = exact > 2**-12
    np.testing.assert_allclose(
        shares[likely] / 2**24, exact[likely], rtol=1e-3, atol=3 * size / 2**24
    )


@given(st.integers(1, 2**40), st.integers(1, 2**40), st.integers(-1, 1))
def test_quotients_round_down_as_whole_numbers_do(divisor: int, quotient: int, more: int) -> None:
    """The hardest are those next to a whole number."""
    for sign in (1, -1):
        whole = sign * min(divisor * quotient, 2**52 // divisor * divisor) + more
        assert math.floor(np.float64(whole) / np.float64(divisor)) == whole // divisor


def test_a_slice_sees_no_other() -> None:
    tokens = np.random.default_rng(0).integers(0, 64, GRID[0] * GRID[1])
    first, second = slice_positions(GRID, 2, "low_discrepancy")
    data = CODERS[64].encode(tokens[first], first, GRID)
    tokens[second] = 0
    assert CODERS[64].encode(tokens[first], first, GRID) == data


def test_golden_bytes() -> None:
    """The wire format: these never change. Bytes were chosen first, as what they decode to is
    likely enough for an untrained network to be range-coded."""
    coder, positions, grid = CODERS[64], np.arange(40), (4, 10)
    assert coding_waves(positions, grid, TABLES.reach).max() < 20
    indices = coder.decode(bytes.fromhex(GOLDEN), positions, grid)
    assert indices.tolist() == GOLDEN_INDICES
    assert coder.encode(indices, positions, grid).hex() == GOLDEN


GOLDEN = "5b62779acb0f5cb7259c26b95f13d0a07e6a646c"
GOLDEN_INDICES = [
    *(22, 32, 12, 4, 11, 2, 5, 10, 16, 22, 54, 46, 29, 44, 53, 44, 48, 11, 16, 24),
    *(17, 45, 3, 10, 5, 13, 5, 28, 32, 28, 56, 35, 22, 28, 42, 35, 22, 28, 17, 61),
]


def test_integers_mean_what_the_network_means() -> None:
    """Rounding the trained network hardly changes what a token costs."""
    torch.manual_seed(0)
    ladder = small_ladder()
    network = ContextNetwork(ladder, ContextConfig(heads=3, reach=3, embed=6, hidden=24, query=12))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tables = network.tables()
    grid, rng = (8, 8), np.random.default_rng(2)
    for size in (8, 64):
        indices = rng.integers(0, size, 64)
        slices = random_slices(np.random.default_rng(4), grid)
        with torch.no_grad():
            earlier = earlier_tokens(slices, 8, reach=3)
            logits = network(torch.from_numpy(indices)[None], earlier, size)[0]
        wanted = -torch.log_softmax(logits, 1).numpy()[np.arange(64), indices] / np.log(2)
        coder = ContextCoder(tables, size)
        got = np.empty(64)
        for positions in slices:
            got[positions] = coder.information(indices[positions], positions, grid)
        likely = wanted < 12  # what is rarer has few places left
        assert likely.sum() > 30
        np.testing.assert_allclose(got[likely], wanted[likely], atol=0.05)


def test_a_network_starts_from_tables() -> None:
    """Training can go on from what ships: the network becomes what the integers stand for."""
    torch.manual_seed(0)
    config = ContextConfig(heads=3, reach=3, embed=6, hidden=24, query=12)
    first, second = (ContextNetwork(small_ladder(), config) for _ in range(2))
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tables = first.tables()
    second.start_from(tables)
    for name, wanted in tables.arrays.items():
        np.testing.assert_allclose(second.tables().arrays[name], wanted, atol=1, rtol=1e-6)
    with pytest.raises(ValueError, match="another shape"):
        ContextNetwork(small_ladder(), ContextConfig(heads=2)).start_from(tables)
