"""Recorded channels: read and replay traces of losses and of capacity."""

from __future__ import annotations

import csv
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from channels.erasure import ScriptSampler
from channels.parameters import ChannelParameterError, choice, whole
from channels.samplers import Mask

_FATES = ("lost", "loss")
_SEQUENCES = ("sequence", "seq", "sequence_number")
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class LossTrace:
    """Replays recorded losses in a circle.

    Attributes:
        fates: one byte per packet, 0 = received, 1 = lost; at least one.
        start: "random" begins at a random packet (so every seed sees another part, and packet 0
            is lost at the trace's loss rate), "first" at its beginning.
    """

    fates: bytes
    start: str = "random"

    def __post_init__(self) -> None:
        choice("start", self.start, ("random", "first"))
        if not self.fates or self.fates.translate(None, b"\0\1"):
            raise ChannelParameterError("path", "needs at least one fate, each 0 or 1")

    @classmethod
    def read(cls, path: str, start: str = "random") -> LossTrace:
        """From a file that `read_loss_trace` understands."""
        return cls(read_loss_trace(path).tobytes(), start)

    @property
    def loss(self) -> float:
        """Loss rate of the trace."""
        return self.fates.count(1) / len(self.fates)

    def chain(self) -> None:
        """A trace is no chain; `channels.fit` finds one that is like it."""
        return None

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        return [] if 0.0 < self.loss < 1.0 else [f"the trace has a loss rate of {self.loss:.0f}"]

    def sampler(self, rng: np.random.Generator) -> ScriptSampler:
        """See `LossModel.sampler`."""
        first = int(rng.integers(len(self.fates))) if self.start == "random" else 0
        return ScriptSampler(np.frombuffer(self.fates, np.bool_), "repeat", first)


def read_loss_trace(path: str | Path) -> Mask:
    """Read which packets were lost.

    Understood are: ``.npy`` with bools or 0/1 (a mask, 1 = lost) or other whole numbers (sequence
    numbers that arrived); text with only the characters 0 and 1; and CSV with a column ``lost``
    (0/1) or ``sequence`` / ``seq`` (numbers that arrived, as a packet capture lists them: see
    `mask_of_sequence`). CSV with a single nameless column is a mask if it holds only 0 and 1.

    Returns:
        bool[n], True = lost, n >= 1.

    Raises:
        ChannelParameterError: ("path") unreadable, empty, or not understood.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ChannelParameterError("path", f"{file} is larger than 1 GiB; cut it")
        values = _read_npy(file) if file.suffix == ".npy" else _read_text(file)
    except OSError as error:
        raise ChannelParameterError("path", f"cannot read {file}: {error.strerror}") from None
    if values.size == 0:
        raise ChannelParameterError("path", f"{file} holds no packets")
    return values


def _read_npy(file: Path) -> Mask:
    try:
        values = np.load(file, allow_pickle=False)
    except (ValueError, EOFError):
        raise ChannelParameterError("path", f"{file} is not a valid .npy array") from None
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "biu":
        raise ChannelParameterError("path", f"{file} must hold one row of bools or whole numbers")
    if values.dtype.kind == "b":
        return np.asarray(values, np.bool_)
    return _mask_or_sequence(values.astype(np.int64))


def _mask_or_sequence(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Mask:
    if np.all((values == 0) | (values == 1)):
        return values.astype(np.bool_)
    return mask_of_sequence(values)


def _read_text(file: Path) -> Mask:
    try:
        text = file.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise ChannelParameterError(
            "path", f"{file} is neither .npy nor text; save the mask with numpy.save"
        ) from None
    digits = "".join(text.split())
    if digits and not digits.strip("01"):
        return np.array(np.frombuffer(digits.encode(), np.uint8) == ord("1"))
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows:
        return np.empty(0, np.bool_)
    header = [cell.strip().lower() for cell in rows[0]]
    for names, read in ((_FATES, None), (_SEQUENCES, mask_of_sequence)):
        for name in names:
            if name in header:
                values = _column(file, rows[1:], header.index(name), first_line=2)
                if read is None and not np.all((values == 0) | (values == 1)):
                    raise ChannelParameterError(
                        "path", f"{file}: column {name!r} must hold only 0 and 1"
                    )
                return values.astype(np.bool_) if read is None else read(values)
    if len(header) == 1:
        return _mask_or_sequence(_column(file, rows, 0, first_line=1))
    raise ChannelParameterError(
        "path", f"{file} needs a column named lost or sequence; its columns: {', '.join(header)}"
    )


def _column(
    file: Path, rows: list[list[str]], index: int, first_line: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    words = {"true": 1, "false": 0}
    values = []
    for line, row in enumerate(rows, start=first_line):
        cell = row[index].strip().lower() if index < len(row) else ""
        try:
            values.append(words[cell] if cell in words else int(cell))
        except ValueError:
            raise ChannelParameterError(
                "path", f"{file}: row {line}: {cell!r} is not a whole number"
            ) from None
    return np.array(values, np.int64)


def mask_of_sequence(
    numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]], bits: int | None = None
) -> Mask:
    """Which packets are missing from the sequence numbers that arrived.

    Numbers may wrap (RFC 3550 appendix A.1), repeat and come out of order by less than half their
    range; what is before the first or after the last packet that arrived is unknown and left out.

    Args:
        numbers: int64[m] >= 0, in order of arrival.
        bits: width of the field; by default the least of 16, 32 and 62 that holds them.

    Returns:
        bool[n], True = lost: the packets from the lowest to the highest number.
    """
    if numbers.size == 0:
        return np.empty(0, np.bool_)
    if numbers.min() < 0:
        raise ChannelParameterError("path", "sequence numbers must not be negative")
    width = bits or next((b for b in (16, 32) if numbers.max() < 1 << b), 62)
    half = 1 << (width - 1)
    steps = (np.diff(numbers) + half) % (1 << width) - half
    unwrapped = np.concatenate(([0], np.cumsum(steps)))
    unwrapped -= unwrapped.min()
    count = int(unwrapped.max()) + 1
    if count > _MAX_BYTES:
        raise ChannelParameterError("path", "sequence numbers span more than 2^30 packets")
    mask = np.ones(count, np.bool_)
    mask[unwrapped] = False
    return mask


@dataclass(frozen=True, slots=True)
class CapacityTrace:
    """When a link can deliver: mahimahi's packet-delivery schedule (mm-link(1)).

    Attributes:
        opportunities_ms: ascending whole milliseconds > 0 at the last; at each, ``mtu_bytes`` may
            leave (a time may repeat). The schedule starts over at its last time.
        mtu_bytes: bytes per opportunity; several small packets share one, a large packet takes
            several, and what is not used at its instant is wasted.
    """

    opportunities_ms: tuple[int, ...]
    mtu_bytes: int = 1500

    def __post_init__(self) -> None:
        whole("mtu_bytes", self.mtu_bytes, 1)
        times = self.opportunities_ms
        if not times or times[-1] <= 0:
            raise ChannelParameterError("capacity", "needs at least one time above 0 ms")
        if times[0] < 0 or any(b < a for a, b in pairwise(times)):
            raise ChannelParameterError("capacity", "times must be >= 0 ms and never decrease")

    @classmethod
    def read(cls, path: str | Path, mtu_bytes: int = 1500) -> CapacityTrace:
        """From a mahimahi trace file: one whole millisecond per line.

        Raises:
            ChannelParameterError: ("capacity") unreadable or malformed, with the line.
        """
        try:
            lines = Path(path).read_text("ascii").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise ChannelParameterError("capacity", f"cannot read {path}: {reason}") from None
        times = []
        for line, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                times.append(int(text))
            except ValueError:
                raise ChannelParameterError(
                    "capacity", f"{path}:{line}: {text.strip()!r} is not a whole millisecond"
                ) from None
        return cls(tuple(times), mtu_bytes)

    @property
    def rate_bps(self) -> float:
        """Mean capacity in bits per second."""
        bits = len(self.opportunities_ms) * self.mtu_bytes * 8
        return bits / (self.opportunities_ms[-1] / 1000.0)


class CapacitySchedule:
    """Walks along a `CapacityTrace`, serving packets in order."""

    def __init__(self, trace: CapacityTrace) -> None:
        self._times = trace.opportunities_ms
        self._period_ms = trace.opportunities_ms[-1]
        self._mtu = trace.mtu_bytes
        self._index = -1  # opportunity in use, counted through all repetitions
        self._left = 0  # bytes left in it
        self._time_s = -1.0  # when it is

    def _time_of(self, index: int) -> float:
        lap, place = divmod(index, len(self._times))
        return (lap * self._period_ms + self._times[place]) / 1000.0

    def serve(self, size: int, start_s: float) -> float:
        """When the last byte of a packet leaves that is ready at `start_s` >= 0 seconds."""
        if self._time_s < start_s:  # what is left of the current opportunity is wasted
            before_ms = start_s * 1000.0 - 0.5  # rounding never skips an opportunity at start_s
            lap = max(0, int(before_ms // self._period_ms))
            into_ms = before_ms - lap * self._period_ms
            index = lap * len(self._times) + bisect_left(self._times, into_ms)
            while self._time_of(index) < start_s:
                index += 1
            self._use(max(index, self._index + 1))
        while True:
            taken = min(size, self._left)
            self._left -= taken
            size -= taken
            if size == 0 and (taken or self._left):
                return self._time_s
            self._use(self._index + 1)

    def _use(self, index: int) -> None:
        self._index, self._left, self._time_s = index, self._mtu, self._time_of(index)
