"""Recorded channels: read and replay traces of losses and of capacity."""

from __future__ import annotations

import csv
import math
import os
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from channels.capture import is_capture, rtp_streams
from channels.erasure import ScriptSampler
from channels.logs import is_ping, ping_runs, rtp_of_csv
from channels.parameters import ChannelParameterError, choice, whole
from channels.sequence import MAX_NUMBER, Numbers, SequenceLosses, losses_of_sequence
from channels.streams import chosen_stream

_FATES = ("lost", "loss")
_SEQUENCES = ("sequence", "seq", "sequence_number")
_MAX_BYTES = 1 << 30
_MAX_MS = 10**12


@dataclass(frozen=True, slots=True)
class LossTrace:
    """Replays recorded losses in a circle.

    Attributes:
        fates: one byte per packet, 0 = received, 1 = lost; at least one.
        start: "random" begins at a random packet (so every seed sees another part, and packet 0
            is lost at the trace's loss rate), "first" at its beginning.
        notes: what was noticed when it was read.
    """

    fates: bytes
    start: str = "random"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choice("start", self.start, ("random", "first"))
        if not self.fates or self.fates.translate(None, b"\0\1"):
            raise ChannelParameterError("path", "needs at least one fate, each 0 or 1")

    @classmethod
    def read(
        cls, path: str, start: str = "random", bits: int | None = None, stream: str | None = None
    ) -> LossTrace:
        """From a file that `read_loss_trace` understands."""
        if bits is not None:
            whole("bits", bits, 1)
        found = read_loss_trace(path, bits, stream)
        return cls(found.mask.tobytes(), start, found.notes)

    @property
    def loss(self) -> float:
        """Loss rate of the trace."""
        return self.fates.count(1) / len(self.fates)

    def chain(self) -> None:
        """A trace is no chain; `channels.fit` finds one that is like it."""
        return None

    def warnings(self) -> list[str]:
        """See `LossModel.warnings`."""
        notes = list(self.notes)
        if not 0.0 < self.loss < 1.0:
            notes.append(f"the trace has a loss rate of {self.loss:.0f}")
        return notes

    def sampler(self, rng: np.random.Generator) -> ScriptSampler:
        """See `LossModel.sampler`."""
        first = int(rng.integers(len(self.fates))) if self.start == "random" else 0
        return ScriptSampler(np.frombuffer(self.fates, np.bool_), "repeat", first)


def read_loss_trace(
    path: str | Path, bits: int | None = None, stream: str | None = None
) -> SequenceLosses:
    """Read which packets were lost.

    Understood are: captures with RTP (see `channels.capture`); logs of `ping` and Wireshark's CSV
    (see `channels.logs`); ``.npy`` with bools or 0/1 (a mask, 1 = lost) or other whole numbers
    (sequence numbers that arrived); text with only the characters 0 and 1; and CSV, with commas,
    semicolons or tabs, with a column ``lost`` (0/1) or ``sequence`` / ``seq`` (numbers that
    arrived: see `losses_of_sequence`; what stands before a dot in a name does not matter). CSV with
    a single nameless column is a mask if it holds only 0 and 1. Lines that begin with # are
    comments.

    Args:
        path: the file; ~ is the user's home.
        bits: width of the counter of sequence numbers, if it is not to be found out.
        stream: part of the name of the stream to read, where a capture or log holds several.

    Returns:
        bool[n], True = lost, n >= 1, and notes on the numbers.

    Raises:
        ChannelParameterError: ("path") unreadable, empty, or not understood; ("bits");
            ("stream") none or several of that name, or the file has no names of streams.
    """
    file = Path(os.path.expanduser(path))
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ChannelParameterError("path", f"{file} is larger than 1 GiB; cut it")
        held = _read_npy(file) if file.suffix.lower() == ".npy" else _read_bytes(file, stream)
        if stream is not None and held.stream is None:
            raise ChannelParameterError("stream", f"{file} has no names of streams; leave it out")
        values, named = held.values, (f"stream: {held.stream}",) if held.stream else ()
        found = SequenceLosses(values == 1) if held.is_mask else losses_of_sequence(values, bits)
        found = SequenceLosses(found.mask, (*named, *found.notes))
    except ChannelParameterError as error:
        bare = error.parameter in ("path", "stream") and str(file) not in error.problem
        problem = f"{file}: {error.problem}" if bare else error.problem
        raise ChannelParameterError(error.parameter, problem) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ChannelParameterError("path", f"cannot read {file}: {reason}") from None
    if found.mask.size == 0:
        raise ChannelParameterError("path", f"{file} holds no packets")
    return found


class _Held(NamedTuple):
    """What a file holds: a mask of 0 and 1, or numbers that arrived; which of its streams."""

    values: Numbers
    is_mask: bool
    stream: str | None = None


def _rtp(streams: Mapping[str, list[int]], wanted: str | None) -> _Held:
    name, numbers = chosen_stream(streams, wanted)
    return _Held(np.array(numbers, np.int64), False, name)


def _read_npy(file: Path) -> _Held:
    try:  # a header may promise more than the file holds: memory is taken for what is there
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception:  # the parsers of headers and archives raise whatever damage leads them to
        raise ChannelParameterError("path", f"{file} is not a valid .npy array") from None
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "biu":
        raise ChannelParameterError("path", f"{file} must hold one row of bools or whole numbers")
    if values.size and values.max() > MAX_NUMBER:
        raise ChannelParameterError("path", "sequence numbers must be below 2^62")
    return _mask_or_sequence(np.array(values, np.int64))


def _mask_or_sequence(values: Numbers) -> _Held:
    return _Held(values, bool(np.all((values == 0) | (values == 1))))


def _read_bytes(file: Path, stream: str | None) -> _Held:
    data = file.read_bytes()
    if is_capture(data):
        return _rtp(rtp_streams(data), stream)
    if data[:2] == b"\x1f\x8b":
        raise ChannelParameterError("path", f"{file} is compressed; unpack it with gunzip")
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise ChannelParameterError(
            "path", f"{file} is neither a capture, .npy nor text; save the mask with numpy.save"
        ) from None
    if text.lstrip()[:1] == "{":
        raise ChannelParameterError(
            "path", f"{file} is JSON, as iperf3 writes it: sim channel fit finds its loss rate"
        )
    if is_ping(text):
        name, lost = chosen_stream(ping_runs(text), stream)
        return _Held(lost.astype(np.int64), True, name)
    return _read_text(file, text, stream)


def _read_text(file: Path, text: str, stream: str | None) -> _Held:
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    texts = [line for _, line in lines]
    digits = "".join("".join(texts).split())
    if len(texts) == 1:
        digits = digits.replace(",", "").replace(";", "")
    if not digits.strip("01"):
        return _Held(np.frombuffer(digits.encode(), np.uint8).astype(np.int64) - ord("0"), True)
    delimiter = max(",;\t", key=texts[0].count)
    try:
        rows = [next(csv.reader([line], delimiter=delimiter)) for line in texts]
    except csv.Error as error:
        raise ChannelParameterError("path", f"{file} is not CSV ({error})") from None
    numbers = [number for number, _ in lines]
    header = [cell.strip().lower().rpartition(".")[2] for cell in rows[0]]
    for names in (_FATES, _SEQUENCES):
        for name in set(names).intersection(header):
            values = _column(file, rows[1:], header.index(name), numbers[1:])
            if names is _SEQUENCES:
                return _Held(values, False)
            if not np.all((values == 0) | (values == 1)):
                raise ChannelParameterError(
                    "path", f"{file}: column {name!r} must hold only 0 and 1"
                )
            return _Held(values, True)
    streams = rtp_of_csv(header, rows[1:]) if "info" in header else {}
    if streams:
        return _rtp(streams, stream)
    if len(header) == 1:
        return _mask_or_sequence(_column(file, rows, 0, numbers))
    columns = ", ".join(header)[:100]
    raise ChannelParameterError(
        "path",
        f"{file} needs a column named lost or sequence (or Info with RTP); its columns: {columns}",
    )


def _column(file: Path, rows: list[list[str]], index: int, lines: list[int]) -> Numbers:
    """A column of whole numbers, which may be written as floats are: int64[n]."""
    words = {"true": 1.0, "false": 0.0}
    values = []
    for line, row in zip(lines, rows, strict=True):
        cell = row[index].strip().lower() if index < len(row) else ""
        try:
            digits = cell.lstrip("0")[:40] or "0"  # int() refuses thousands of them
            value = int(digits) if cell.isdecimal() else words.get(cell, math.nan)
            value = float(cell) if value != value else value
        except ValueError:
            value = math.nan
        if value != value or value in (math.inf, -math.inf) or value % 1:
            raise ChannelParameterError(
                "path", f"{file}:{line}: {cell[:40]!r} is not a whole number"
            )
        if value > MAX_NUMBER:
            raise ChannelParameterError(
                "path", f"{file}:{line}: {cell[:40]} is too large for a sequence number"
            )
        values.append(int(value))
    return np.array(values, np.int64)


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
            lines = Path(os.path.expanduser(path)).read_text("ascii").split("\n")
        except (OSError, ValueError) as error:  # ValueError: no text, or no path
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
                    "capacity", f"{path}:{line}: {text.strip()[:40]!r} is not a whole millisecond"
                ) from None
            if times[-1] > _MAX_MS:
                raise ChannelParameterError("capacity", f"{path}:{line}: is beyond 10^12 ms")
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
