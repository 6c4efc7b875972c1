"""How loss models produce losses: three interchangeable views of one random stream.

A sampler walks along the packets 0, 1, 2, ... Its position moves by one with `lost()` and by n
with `mask(n)` and `runs(n)`; which packets are lost is a function of the seed alone, never of how
the packets were asked for. Two bases make that hold by construction:

* `MaskSampler` draws fixed-size blocks of per-packet fates and hands out pieces of them;
* `RunSampler` draws lost runs (the cost is per run, not per packet) and hands out the runs, or
  the masks they paint.

Memory is bounded by the answer plus one block, so a stream of 10^10 packets is walked in chunks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Runs = npt.NDArray[np.int64]

FIRST_BLOCK, BLOCK = 1 << 12, 1 << 16
"""Packets in the first and the largest block of a MaskSampler: blocks double in size, so that
starting is cheap. Multiples of 8. Part of the definition of a stream."""

_PAINT = 1 << 17  # packets that a RunSampler paints at once: a piece that stays in the cache


def runs_of_mask(mask: Mask) -> Runs:
    """Lost runs of a mask.

    Args:
        mask: bool[n], True = lost.

    Returns:
        int64[k, 2]: [start, end) of every maximal run of True, ascending.
    """
    if mask.size == 0:
        return np.empty((0, 2), np.int64)
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    first = [0] if mask[0] else []
    last = [mask.size] if mask[-1] else []
    return np.concatenate((first, edges, last)).astype(np.int64, copy=False).reshape(-1, 2)


def mask_of_runs(runs: Runs, n: int) -> Mask:
    """The inverse of `runs_of_mask`.

    Args:
        runs: int64[k, 2], ascending and disjoint [start, end) within [0, n]; runs may touch.
        n: number of packets.

    Returns:
        bool[n], True = lost.
    """
    edges = np.empty(runs.size + 2, np.int64)
    edges[0], edges[1:-1], edges[-1] = 0, runs.reshape(-1), n
    lengths = edges[1:] - edges[:-1]
    fates = np.zeros(lengths.size, np.bool_)
    fates[1::2] = True
    return np.repeat(fates, lengths)


def merge_runs(runs: Runs) -> Runs:
    """Join runs that touch (as the pieces of one run at the edges of chunks do).

    Args:
        runs: int64[k, 2], ascending and disjoint.

    Returns:
        int64[m, 2] with m <= k and a gap of at least one packet between runs.
    """
    if len(runs) < 2:
        return runs
    apart = runs[1:, 0] != runs[:-1, 1]
    starts = runs[np.concatenate(([True], apart)), 0]
    ends = runs[np.concatenate((apart, [True])), 1]
    return np.column_stack((starts, ends))


def bernoulli_mask(rng: np.random.Generator, p: float, n: int) -> Mask:
    """n independent events of probability p, at one random byte each.

    A uniform u = (b + v)/256 with b a byte and v uniform in [0, 1) lies below p iff b is below
    floor(256 p), or equal to it and v < 256 p - floor(256 p); v is drawn for those 1/256 only.

    Args:
        rng: consumed: n/8 raw 64-bit words, then one double per tie.
        p: probability in [0, 1].
        n: a multiple of 8.

    Returns:
        bool[n], True with probability p.
    """
    whole, rest = _byte_threshold(p)
    digits = rng.bit_generator.random_raw(n // 8).view(np.uint8)
    events = digits < whole
    ties = np.flatnonzero(digits == whole)
    events[ties] = rng.random(ties.size) < rest
    return events


def two_rate_mask(rng: np.random.Generator, raised: Mask, p: float, p_raised: float) -> Mask:
    """As `bernoulli_mask`, with probability `p_raised` where `raised` and `p` elsewhere.

    Args:
        rng: consumed likewise.
        raised: bool[n], n a multiple of 8.
        p: probability in [0, 1].
        p_raised: probability in [0, 1].

    Returns:
        bool[n].
    """
    (whole, rest), (whole_raised, rest_raised) = _byte_threshold(p), _byte_threshold(p_raised)
    state = raised.view(np.uint8)
    threshold = state * np.uint8((whole_raised - whole) % 256)  # sums wrap, as bytes do
    threshold += np.uint8(whole)
    digits = rng.bit_generator.random_raw(raised.size // 8).view(np.uint8)
    events = digits < threshold
    ties = np.flatnonzero(digits == threshold)
    events[ties] = rng.random(ties.size) < np.array([rest, rest_raised])[state[ties]]
    return events


def _byte_threshold(p: float) -> tuple[int, float]:
    """(b, v) with p = (b + v) / 256, b in 0 ... 255 and v in [0, 1]."""
    whole = min(int(p * 256.0), 255)
    return whole, p * 256.0 - whole


class MaskSampler(ABC):
    """A loss sampler whose fates are drawn per packet, a block of packets at a time."""

    def __init__(self) -> None:
        self._block: Mask = np.empty(0, np.bool_)
        self._used = 0
        self._size = FIRST_BLOCK

    @abstractmethod
    def _draw(self, n: int) -> Mask:
        """The fates of the next n packets, bool[n]; n is a multiple of 8."""

    def _refill(self) -> None:
        self._block, self._used = self._draw(self._size), 0
        self._size = min(2 * self._size, BLOCK)

    def lost(self) -> bool:
        """Whether the next packet is lost."""
        if self._used == self._block.size:
            self._refill()
        fate = bool(self._block[self._used])
        self._used += 1
        return fate

    def mask(self, n: int) -> Mask:
        """Fates of the next n packets: bool[n], True = lost."""
        out = np.empty(n, np.bool_)
        filled = 0
        while filled < n:
            if self._used == self._block.size:
                self._refill()
            take = min(n - filled, self._block.size - self._used)
            out[filled : filled + take] = self._block[self._used : self._used + take]
            filled += take
            self._used += take
        return out

    def runs(self, n: int) -> Runs:
        """Lost runs among the next n packets: int64[k, 2], [start, end) within [0, n]."""
        edges: list[npt.NDArray[np.int64]] = []
        last = False
        for start in range(0, n, BLOCK):
            mask = self.mask(min(BLOCK, n - start))
            if mask[0] != last:
                edges.append(np.array([start]))
            edges.append(np.flatnonzero(mask[1:] != mask[:-1]) + (start + 1))
            last = bool(mask[-1])
        edges.append(np.array([n] if last else [], np.int64))
        return np.concatenate(edges).reshape(-1, 2)


class RunSampler(ABC):
    """A loss sampler whose fates are drawn run by run."""

    def __init__(self) -> None:
        self._position = 0  # the next packet to hand out
        self._known = 0  # fates of the packets below are drawn
        self._pending: Runs = np.empty((0, 2), np.int64)  # drawn runs that end above _position
        self._run = (0, 0)  # the run that `lost` is at; stale when its end <= _position

    @abstractmethod
    def _extend(self) -> tuple[Runs, int]:
        """Draw further fates.

        Returns:
            (runs, covered): int64[k, 2] lost runs, counted from the end of what was drawn
            before, ascending and with a gap between any two runs (also across calls); and the
            number of packets covered, at least the last run's end.
        """

    def lost(self) -> bool:
        """Whether the next packet is lost."""
        position = self._position
        if position >= self._run[1]:
            self._find_run(position)
        self._position = position + 1
        return position >= self._run[0]

    def _find_run(self, position: int) -> None:
        """Point `_run` at the first run ending above `position`."""
        while True:
            index = int(self._pending[:, 1].searchsorted(position, side="right"))
            self._pending = self._pending[index:]
            if len(self._pending):
                self._run = (int(self._pending[0, 0]), int(self._pending[0, 1]))
                return
            if position < self._known:  # no run up to _known: a gap with an empty run at its end
                self._run = (self._known, self._known)
                return
            self._draw()

    def _draw(self) -> None:
        runs, covered = self._extend()
        self._pending = np.concatenate((self._pending, runs + self._known))
        self._known += covered

    def runs(self, n: int) -> Runs:
        """Lost runs among the next n packets: int64[k, 2], [start, end) within [0, n]."""
        if n == 0:
            return np.empty((0, 2), np.int64)
        start, stop = self._position, self._position + n
        parts = [self._pending]
        while self._known < stop:
            runs, covered = self._extend()
            runs += self._known
            parts.append(runs)
            self._known += covered
        drawn = np.concatenate(parts) if len(parts) > 1 else self._pending
        first = int(drawn[:, 1].searchsorted(start, side="right"))
        after = int(drawn[:, 0].searchsorted(stop, side="left"))
        taken = drawn[first:after] - start
        rest = max(first, after - 1) if len(taken) and taken[-1, 1] > n else after
        self._pending = drawn[rest:]
        self._position = stop
        if len(taken):
            taken[0, 0] = max(0, taken[0, 0])
            taken[-1, 1] = min(n, taken[-1, 1])
        return taken

    def mask(self, n: int) -> Mask:
        """Fates of the next n packets: bool[n], True = lost."""
        if n <= _PAINT:
            return mask_of_runs(self.runs(n), n)
        out = np.empty(n, np.bool_)
        for start in range(0, n, _PAINT):
            size = min(_PAINT, n - start)
            out[start : start + size] = mask_of_runs(self.runs(size), size)
        return out


class ConstantSampler:
    """Every packet has the same fate."""

    def __init__(self, fate: bool) -> None:
        self._fate = fate

    def lost(self) -> bool:
        """Whether the next packet is lost."""
        return self._fate

    def mask(self, n: int) -> Mask:
        """Fates of the next n packets: bool[n], True = lost."""
        return np.full(n, self._fate)

    def runs(self, n: int) -> Runs:
        """Lost runs among the next n packets: int64[0 or 1, 2]."""
        return np.array([[0, n]] if self._fate and n else [], np.int64).reshape(-1, 2)


class BernoulliSampler(MaskSampler):
    """Independent losses of probability p in [0, 1]."""

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        super().__init__()
        self._p = p
        self._rng = rng

    def _draw(self, n: int) -> Mask:
        return bernoulli_mask(self._rng, self._p, n)
