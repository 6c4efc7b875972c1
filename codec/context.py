"""Entropy coding in the context of a slice's own tokens, by a small network of whole numbers.

Each token gets its own probabilities, from a network whose inputs are the tokens of the *same
slice* that are coded before it and near it in the image, wherever the interleaver has put them. No
token of another slice is an input, so a slice still decodes alone.

**In waves.** A slice's tokens are coded wave by wave (`coding_waves`). Those of a wave are not in
each other's context, so a decoder evaluates them at once, as the encoder does. On a grid of 32 x 48
one slice of 1,536 tokens in raster order takes 265 waves, a dispersed one of five takes 17.

**Equal on every machine by construction.** A decoder must find the very integers that the encoder
had, and floating-point sums depend on the order in which a machine adds. So every number here is an
integer: weights, activations, scores and probabilities are fixed-point. They are held in float64
for the sake of fast matrix products, and no sum of products can reach 2^53 (weights are int16,
activations at most 2^15, biases int32, at most 2^22 of them are added; checked when tables are
made), so every product and partial sum is exact, whatever their order, and fused or not. Between
layers values are divided by powers of two and rounded down, which is exact. Means are quotients
a / d of whole numbers, rounded down: IEEE 754 gives the double nearest to a / d, off by at most
2^-53 a / d, less than the 1 / d that may lack to the next whole number, as |a| < 2^53. The
exponential is a table made by integer square roots. Nothing else is computed: no library function
whose last bit a platform chooses.

The network, for one token:

    1. For each of B heads, the mean of the embeddings of the coded tokens at most `reach` rows and
       columns away, weighted by a learnt table over displacements; and the mean of all tokens of
       earlier waves. A constant in each embedding and in the divisor encodes the total weight.
    2. Two layers with ReLU, the first with a bias that depends on the codebook size.
    3. Scores: a query times the key of each codeword, plus the codeword's bias, in base 2.

Trained in floating point by `codec.training.context`, then rounded. numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import pairwise
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from codec.entropy import FixedCoder, Positions, SliceCoder, check_range, fixed_bytes
from codec.range_coder import CorruptPayload, shortest_code, words_of
from codec.waves import coding_waves

Exact = NDArray[np.float64]
"""Whole numbers below 2^53."""

ACTIVATION_BITS = 10
WEIGHT_BITS = 12
HEAD_BITS = 14
SCORE_BITS = 8
"""Binary places: of activations and embeddings, of weights, of a head's table, of scores."""

_MODEL_BITS = 24  # constriction's fixed-point probabilities
_LIMIT = 2**15 - 1  # activations are clipped to it
_CHUNK = 64  # tokens evaluated at once
_TOGETHER = 16  # slices decoded in step; bounds the memory

_FAMILY = constriction.stream.model.Categorical(perfect=False)

multiply = np.matmul
"""Every matrix product here; tests replace it by ones that sum in another order."""


class ContextTables:
    """The network's integers for every codebook of a ladder. Can be pickled.

    Arrays by name, E the size of an embedding, H of a layer, Q of a query, R the reach:
    ``heads`` int16[B, (2R+1)^2] >= 0; ``floors`` int32[B+1] >= 1, added to each mean's divisor;
    ``layer1`` int16[(B+1)(E+1), H]; ``layer2`` int16[H, H]; ``bias2`` int32[H]; ``query``
    int16[H, Q]; ``query_bias`` int32[Q]; and for each codebook size K ``embed.K`` int16[K, E],
    ``bias1.K`` int32[H], ``keys.K`` int16[K, Q], ``bias.K`` int32[K].
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises ValueError where an array is missing or of another type, shape or range."""
        self.arrays = dict(arrays)
        self.codebook_sizes = tuple(sorted(int(k[5:]) for k in arrays if k.startswith("keys.")))
        try:
            self._check()
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not the tables of a context coder ({error!r})") from None

    @classmethod
    def random(cls, sizes: Iterable[int], seed: int = 0) -> ContextTables:
        """A tiny untrained network: for tests, not for compression."""
        rng = np.random.default_rng(seed)
        heads, reach, embed, hidden, query = 2, 2, 3, 8, 6

        def wide(*shape: int) -> NDArray[np.int32]:
            return rng.integers(-(1 << 20), 1 << 20, shape, np.int32)

        def narrow(*shape: int) -> NDArray[np.int16]:
            return rng.integers(-4000, 4000, shape, np.int16)

        arrays: dict[str, NDArray[Any]] = {
            "heads": rng.integers(0, 1 << HEAD_BITS, (heads, (2 * reach + 1) ** 2), np.int16),
            "floors": rng.integers(1, 1 << HEAD_BITS, heads + 1, np.int32),
            "layer1": narrow((heads + 1) * (embed + 1), hidden),
            "layer2": narrow(hidden, hidden),
            "bias2": wide(hidden),
            "query": narrow(hidden, query),
            "query_bias": wide(query),
        }
        for size in sizes:
            arrays |= {f"embed.{size}": narrow(size, embed), f"bias1.{size}": wide(hidden)}
            arrays |= {f"keys.{size}": narrow(size, query), f"bias.{size}": wide(size)}
        return cls(arrays)

    def _check(self) -> None:
        heads, window = self.arrays["heads"].shape
        self.reach = (math.isqrt(window) - 1) // 2
        hidden, query = self.arrays["query"].shape
        inputs, embed = (
            len(self.arrays["layer1"]),
            self.arrays[f"embed.{self.codebook_sizes[0]}"].shape[1],
        )
        shapes: dict[str, tuple[int, ...]] = {
            "heads": (heads, (2 * self.reach + 1) ** 2),
            "floors": (heads + 1,),
            "layer1": ((heads + 1) * (embed + 1), hidden),
            "layer2": (hidden, hidden),
            "bias2": (hidden,),
            "query": (hidden, query),
            "query_bias": (query,),
        }
        for size in self.codebook_sizes:
            shapes |= {f"embed.{size}": (size, embed), f"bias1.{size}": (hidden,)}
            shapes |= {f"keys.{size}": (size, query), f"bias.{size}": (size,)}
        for name, shape in shapes.items():
            array = self.arrays[name]
            wide = name.startswith(("floors", "bias", "query_bias"))
            if array.shape != shape or array.dtype != (np.int32 if wide else np.int16):
                raise ValueError(f"{name}: {array.dtype}{array.shape} where {shape} is needed")
        if max(window, inputs, hidden, query) > 2**22:  # 2^22 * 2^15 * 2^15 + 2^31 < 2^53
            raise ValueError("too wide for exact sums")
        if self.arrays["heads"].min() < 0 or self.arrays["floors"].min() < 1:
            raise ValueError("heads must be >= 0 and floors >= 1")


class ContextCoder(SliceCoder):
    """A range coder whose probabilities follow the slice's tokens so far; see the module.

    Bytes are cut and bit-packed as those of `codec.entropy.StaticCoder`.
    """

    mode = 2

    def __init__(self, tables: ContextTables, codebook_size: int) -> None:
        """Raises LookupError if the tables are not for this codebook size."""
        if codebook_size not in tables.codebook_sizes:
            raise LookupError(f"no context tables for a codebook of {codebook_size}")
        self.codebook_size = codebook_size
        self._fixed = FixedCoder(codebook_size)
        self._reach = tables.reach
        array = {name: values.astype(np.float64) for name, values in tables.arrays.items()}
        self._heads, self._floors = array["heads"], array["floors"][:, None]
        # Scaled by powers of two, so that sums need only be rounded down.
        part = 2.0**-WEIGHT_BITS
        self._layers = tuple(
            (array[matrix] * part, array[bias] * part)
            for matrix, bias in (
                ("layer1", f"bias1.{codebook_size}"),
                ("layer2", "bias2"),
                ("query", "query_bias"),
            )
        )
        part = 2.0 ** (SCORE_BITS - ACTIVATION_BITS - WEIGHT_BITS)
        self._keys = np.ascontiguousarray(array[f"keys.{codebook_size}"].T) * part
        self._bias = array[f"bias.{codebook_size}"] * part
        # One more row, of zeros, for tokens not yet coded; one more column, the constant.
        embed = array[f"embed.{codebook_size}"]
        self._embed = np.zeros((codebook_size + 1, embed.shape[1] + 1))
        self._embed[:-1, :-1] = embed
        self._embed[:-1, -1] = 1 << ACTIVATION_BITS

    def encode_all(
        self, indices: NDArray[np.int64], positions: Positions, grid: tuple[int, int]
    ) -> list[bytes]:
        """See `SliceCoder.encode_all`."""
        ends = np.cumsum([len(cells) for cells in positions])
        parts = np.split(indices, ends[:-1])
        return [self._encode(*part, grid) for part in zip(parts, positions, strict=True)]

    def decode_all(
        self, payloads: Sequence[bytes], positions: Positions, grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], dict[int, CorruptPayload]]:
        """See `SliceCoder.decode_all`."""
        found: list[NDArray[np.int64]] = [np.full(len(cells), -1) for cells in positions]
        errors: dict[int, CorruptPayload] = {}
        entropy_coded: list[tuple[int, Any]] = []
        for number, (data, cells) in enumerate(zip(payloads, positions, strict=True)):
            try:
                if len(data) >= fixed_bytes(len(cells), self.codebook_size):
                    found[number] = self._fixed.decode(data, cells, grid)
                else:
                    decoder = constriction.stream.queue.RangeDecoder(words_of(data))
                    entropy_coded.append((number, decoder))
            except CorruptPayload as error:
                errors[number] = error
        where = [positions[number] for number, _ in entropy_coded]
        tokens, wrong = self.read([decoder for _, decoder in entropy_coded], where, grid)
        for place, (number, _) in enumerate(entropy_coded):
            if place in wrong:
                errors[number] = wrong[place]
            else:
                found[number] = tokens[place]
        return np.concatenate(found), errors

    def write(
        self,
        encoder: Any,
        indices: NDArray[np.int64],
        positions: NDArray[np.int64],
        grid: tuple[int, int],
    ) -> None:
        """See `SliceCoder.write`."""
        check_range(indices, self.codebook_size)
        with _one_thread():
            for tokens, weights in self._all_weights(indices, positions, grid):
                encoder.encode(indices[tokens].astype(np.int32), _FAMILY, weights)

    def read(
        self, decoders: Sequence[Any], positions: Positions, grid: tuple[int, int]
    ) -> tuple[list[NDArray[np.int64]], dict[int, CorruptPayload]]:
        """See `SliceCoder.read`."""
        found: list[NDArray[np.int64]] = []
        errors: dict[int, CorruptPayload] = {}
        for start in range(0, len(decoders), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            with _one_thread():
                tokens, wrong = self._decode(decoders[some], positions[some], grid)
            found += tokens
            errors |= {start + place: error for place, error in wrong.items()}
        return found, errors

    def _encode(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> bytes:
        encoder = constriction.stream.queue.RangeEncoder()
        self.write(encoder, indices, positions, grid)
        data = shortest_code(encoder)
        if len(data) < fixed_bytes(len(indices), self.codebook_size):
            return data
        return self._fixed.encode(indices, positions, grid)

    def _decode(
        self, decoders: Sequence[Any], positions: Positions, grid: tuple[int, int]
    ) -> tuple[list[NDArray[np.int64]], dict[int, CorruptPayload]]:
        """Slices in step: a wave of each, and then the next of each. Errors by place."""
        window = 2 * self._reach + 1
        corners = [self._corners(cells, grid) for cells in positions]
        height, width = (max(int(part[axis].max()) for part in corners) + window for axis in (0, 1))
        coded = np.full(len(positions) * height * width, self.codebook_size)  # the margin's, too
        near = (np.arange(window)[:, None] * width + np.arange(window)).ravel()
        middle = self._reach * (width + 1)
        # Of all tokens: their slice, their wave, the cell where their window begins.
        lengths = [len(cells) for cells in positions]
        owner = np.repeat(np.arange(len(positions)), lengths)
        wave = np.concatenate([coding_waves(cells, grid, self._reach) for cells in positions])
        rows, columns = (np.concatenate(parts) for parts in zip(*corners, strict=True))
        first = (owner * height + rows) * width + columns
        turns = np.lexsort((owner, wave))
        indices = np.zeros_like(first)
        sums = np.zeros((len(positions), self._embed.shape[1]))
        errors: dict[int, CorruptPayload] = {}
        for together in np.split(turns, np.flatnonzero(np.diff(wave[turns])) + 1):
            earlier = sums.copy()
            for start in range(0, len(together), _CHUNK):
                tokens = together[start : start + _CHUNK]
                slices, cells = owner[tokens], first[tokens]
                weights = self._weights(coded.take(cells[:, None] + near), earlier[slices])
                found = np.zeros_like(tokens)
                runs = [0, *(np.flatnonzero(slices[1:] != slices[:-1]) + 1).tolist()]
                for run, end in pairwise([*runs, len(tokens)]):
                    place = int(slices[run])
                    if place in errors:
                        continue
                    try:
                        found[run:end] = decoders[place].decode(_FAMILY, weights[run:end])
                    except AssertionError as error:  # how constriction reports an impossible code
                        errors[place] = CorruptPayload(str(error))
                indices[tokens] = coded[cells + middle] = found
                sums[slices[runs]] += np.add.reduceat(self._embed.take(found, 0), runs)
        return np.split(indices, np.cumsum(lengths)[:-1]), errors

    def information(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Bits that each token of a slice costs, float64[n]; for people, not for coding."""
        bits = np.empty(len(indices))
        for tokens, weights in self._all_weights(indices, positions, grid):
            frequency = np.take_along_axis(weights, indices[tokens, None], 1)[:, 0] + 1
            bits[tokens] = _MODEL_BITS - np.log2(frequency)
        return bits

    def _all_weights(
        self, indices: NDArray[np.int64], positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> Iterator[tuple[NDArray[np.int64], Exact]]:
        """(tokens [m], weights [m,K]) for all tokens of a slice in coding order, some at a time."""
        window = 2 * self._reach + 1
        rows, columns = self._corners(positions, grid)
        wave = coding_waves(positions, grid, self._reach)
        order = np.argsort(wave, kind="stable")
        shape = int(rows.max()) + window, int(columns.max()) + window
        coded = np.full(shape, self.codebook_size)  # and no tokens in the margin
        when = np.full(shape, len(wave))
        inner = rows + self._reach, columns + self._reach
        coded[inner], when[inner] = indices, wave
        view = np.lib.stride_tricks.sliding_window_view
        all_near, all_when = (view(grid_, (window, window)) for grid_ in (coded, when))
        # Sums of the embeddings of all before a token in this order, of which its wave's first
        # token's counts.
        begin = np.searchsorted(wave[order], wave[order])
        sums = np.zeros((len(order), self._embed.shape[1]))
        np.cumsum(self._embed.take(indices[order[:-1]], 0), 0, out=sums[1:])
        for start in range(0, len(order), _CHUNK):
            tokens = order[start : start + _CHUNK]
            corner = rows[tokens], columns[tokens]
            earlier = all_when[corner] < wave[tokens, None, None]
            near = np.where(earlier, all_near[corner], self.codebook_size)
            before = sums[begin[start : start + _CHUNK]]
            yield tokens, self._weights(near.reshape(len(tokens), -1), before)

    @staticmethod
    def _corners(
        positions: NDArray[np.int64], grid: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each token's window begins in the slice's part of the grid, which has a margin of
        `reach` around it: rows and columns int64[n]."""
        rows, columns = positions // grid[1], positions % grid[1]
        return rows - rows.min(), columns - columns.min()

    def _weights(self, near: NDArray[np.int64], before: Exact) -> Exact:
        """The weights of every codeword for m tokens, whole numbers [m,K] >= 1, which constriction
        turns into frequencies ``weight + 1`` that sum to 2^24.

        Args:
            near: int64[m,(2R+1)^2], the coded tokens around each, K where there is none.
            before: [m,E+1], the sum of the embeddings of all tokens of earlier waves.
        """
        sums = np.empty((len(near), len(self._heads) + 1, self._embed.shape[1]))
        multiply(self._heads, self._embed.take(near, 0), out=sums[:, :-1])
        sums[:, -1] = before
        x = sums / (sums[..., -1:] * 2.0**-ACTIVATION_BITS + self._floors)
        x = np.floor(x, out=x).reshape(len(sums), -1)
        for (matrix, bias), least in zip(self._layers, (0, 0, -_LIMIT), strict=True):
            x = multiply(x, matrix)
            x += bias
            np.floor(x, out=x)
            np.maximum(x, least, out=x)
            np.minimum(x, _LIMIT, out=x)
        scores = multiply(x, self._keys)
        scores += self._bias
        return integer_shares(np.floor(scores, out=scores).astype(np.int64))


def _one_thread() -> AbstractContextManager[object]:
    """A wave's products are too small to share among threads, which would wait for each other."""
    limit: AbstractContextManager[object] = _controller().limit(limits=1, user_api="blas")
    return limit


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def integer_shares(scores: NDArray[np.int64]) -> Exact:
    """Scores [m,K], base-2 logarithms with `SCORE_BITS` places -> whole numbers [m,K] >= 1 in
    proportion to 2^score, each row's sum 2^24 - K: an integer softmax."""
    size = scores.shape[1]
    best = scores.argmax(1)
    row = np.arange(len(scores))
    below = scores[row, best][:, None] - scores
    last = _MODEL_BITS << SCORE_BITS | below & (1 << SCORE_BITS) - 1
    powers = _powers().take(np.minimum(below, last))
    free = (1 << _MODEL_BITS) - 2 * size
    shares: Exact = powers * free
    shares /= powers.sum(1, keepdims=True)
    np.floor(shares, out=shares)
    shares += 1
    shares[row, best] += free + size - shares.sum(1)
    return shares


@cache
def _powers() -> Exact:
    """By i in 0..6399, floor(2^(24 - i % 256 / 256)) halved i // 256 times: roots of whole numbers,
    eight times halved."""
    table = []
    for i in range(1 << SCORE_BITS):
        value = 1 << ((_MODEL_BITS << SCORE_BITS) - i)
        for _ in range(SCORE_BITS):
            value = math.isqrt(value)
        table.append(value)
    halved = np.array(table, np.int64) >> np.arange(_MODEL_BITS + 1)[:, None]
    return halved.ravel().astype(np.float64)
