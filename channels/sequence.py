"""Losses from sequence numbers: which of the packets that were sent did not arrive.

Numbers wrap, repeat, come out of order and start anew (RFC 3550 appendix A.1, whose limits these
are). How wide the counter is follows from where it wraps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from channels.parameters import ChannelParameterError
from channels.samplers import Mask

Numbers = npt.NDArray[np.int64]

MAX_PACKETS = 1 << 30
MAX_NUMBER = (1 << 62) - 1
"""The largest sequence number."""
_MAX_DROPOUT, _MAX_MISORDER = 3000, 100  # RFC 3550: what goes beyond is another stream
_NEAR = 16  # a wrap skips at most so many numbers, or twice what is ever skipped elsewhere
_WIDTHS = (8, 12, 16, 24, 32)  # of counters in use: there it may skip a sixteenth of the range
_MANY = 20  # jumps of one stream; more need a long recording


class SequenceLosses(NamedTuple):
    """bool[n], True = lost, and what was noticed, a line each."""

    mask: Mask
    notes: tuple[str, ...] = ()


def losses_of_sequence(numbers: Numbers, bits: int | None = None) -> SequenceLosses:
    """Which packets are missing, where a counter may have any width and start anew.

    What was lost where it starts anew is unknown, and no packet is counted there.

    Args:
        numbers: int64[m] >= 0, in order of arrival.
        bits: width of the counter, if known; then all is one stream.

    Raises:
        ChannelParameterError: ("path") negative, too far apart, or of several streams at once.
    """
    if bits is not None or numbers.size < 2:
        return SequenceLosses(mask_of_sequence(numbers, bits))
    _check(numbers)
    size = _counter_size(numbers)
    steps = _steps(numbers, size)
    dropout, misorder = _MAX_DROPOUT, _MAX_MISORDER
    if size is not None:
        dropout, misorder = min(dropout, size // 2), min(misorder, size // 4)
    jumps = (steps > dropout) | (steps < -misorder)
    there_and_back = np.flatnonzero(
        jumps[:-1] & jumps[1:] & (np.abs(steps[:-1] + steps[1:]) <= dropout)
    )
    _refuse_mixture(there_and_back.size, 2, numbers.size)
    if there_and_back.size:
        found = losses_of_sequence(np.delete(numbers, there_and_back + 1))
        strays = f"{there_and_back.size} numbers far from all others are left out"
        return SequenceLosses(found.mask, (*found.notes, strays))
    starts = np.flatnonzero(jumps) + 1
    _refuse_mixture(starts.size, _MANY, numbers.size)
    _refuse_mixture(_returns(numbers, starts, dropout), 1, 0)
    parts = np.split(np.concatenate(([0], steps)), starts)
    notes = []
    if size is not None:
        notes.append(f"the counter wraps at {size:,} ({size.bit_length() - 1} bits)")
    if starts.size:
        notes.append(
            f"the numbers start anew {starts.size} times; what was lost there is not counted"
        )
    return SequenceLosses(np.concatenate([_mask(part[1:]) for part in parts]), tuple(notes))


def mask_of_sequence(numbers: Numbers, bits: int | None = None) -> Mask:
    """Which packets are missing from the sequence numbers of one stream that arrived.

    Numbers may wrap, repeat and come out of order by less than half their range; what is before
    the first or after the last packet that arrived is unknown and left out.

    Args:
        numbers: int64[m] >= 0, in order of arrival.
        bits: width of the field, 1 to 62; by default the least of 16, 32 and 62 that holds them.

    Returns:
        bool[n], True = lost: the packets from the lowest to the highest number.

    Raises:
        ChannelParameterError: ("path") negative, wider than the field, or too far apart; ("bits").
    """
    if numbers.size == 0:
        return np.empty(0, np.bool_)
    _check(numbers)
    width = bits or next((b for b in (16, 32) if numbers.max() < 1 << b), 62)
    if not 1 <= width <= 62:
        raise ChannelParameterError("bits", f"must be from 1 to 62, got {bits}")
    if int(numbers.max()) >> width:
        raise ChannelParameterError("bits", f"{numbers.max()} does not fit {width} bits")
    return _mask(_steps(numbers, 1 << width))


def _check(numbers: Numbers) -> None:
    if numbers.min() < 0:
        raise ChannelParameterError("path", "sequence numbers must not be negative")
    if numbers.max() > MAX_NUMBER:
        raise ChannelParameterError("path", "sequence numbers must be below 2^62")


def _steps(numbers: Numbers, size: int | None) -> Numbers:
    """From each number to the next, int64[m - 1]; the short way round a counter of that size."""
    steps = np.diff(numbers)
    return steps if size is None else (steps + size // 2) % size - size // 2


def _mask(steps: Numbers) -> Mask:
    """Losses of one stream, from the steps between its numbers, int64[m - 1]."""
    places = np.concatenate(([0], np.cumsum(steps)))
    places -= places.min()
    count = int(places.max()) + 1
    if count > MAX_PACKETS:
        raise ChannelParameterError("path", "sequence numbers span more than 2^30 packets")
    mask = np.ones(count, np.bool_)
    mask[places] = False
    return mask


def _counter_size(numbers: Numbers) -> int | None:
    """The power of two at which the counter wraps; None if it does not. Where it falls from near
    the top of its range to near 0, it has wrapped."""
    size = 1 << int(numbers.max()).bit_length()
    steps = np.diff(numbers)
    skipped = steps[steps < -(size // 2)] + size
    if not skipped.size:
        return None
    forward = steps[(steps > 0) & (steps <= min(_MAX_DROPOUT, size // 2))]
    near = max(_NEAR, 2 * int(forward.max(initial=1)))
    if size.bit_length() - 1 in _WIDTHS:
        near = max(near, min(_MAX_DROPOUT, size // 16))
    return size if float(np.median(skipped)) <= near else None


def _returns(numbers: Numbers, starts: npt.NDArray[np.intp], dropout: int) -> int:
    """How often the numbers go on where they were before they last jumped."""
    ends = numbers[starts - 1]
    ahead = numbers[starts][:, None] - ends[None, :]
    earlier = np.tril(np.ones(ahead.shape, np.bool_), -1)
    return int((earlier & (ahead > 0) & (ahead <= dropout)).any(axis=1).sum())


def _refuse_mixture(jumps: int, few: int, packets: int) -> None:
    if jumps > max(few, packets // 100):
        raise ChannelParameterError(
            "path",
            f"the numbers jump back and forth ({jumps} times): these are several streams; keep "
            "one, or give the width of the counter in bits if it is one",
        )
