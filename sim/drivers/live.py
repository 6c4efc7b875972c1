"""Streams over ZeroMQ: a sender process and a receiver process, paced by the wall clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from channels.base import Channel
from codec.entropy import CoderFor
from sim.drivers.record import MediaFrame, StreamRecord
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady


class PeerError(RuntimeError):
    """A sender or receiver process failed. ``str(error)`` is one line."""


def run_live(
    make_frames: Callable[[], Iterable[MediaFrame]],
    config: StreamConfig,
    make_channel: Callable[[], Channel],
    key: StreamKey,
    make_coders: Callable[[], CoderFor],
    make_sink: Callable[[], Callable[[FrameReady], object]] | None = None,
    progress: Callable[[int, int], object] | None = None,
    *,
    pace: float = 1.0,
    stall_s: float = 300.0,
) -> StreamRecord:
    """As `run_virtual`, with the same result, between two processes over loopback TCP.

    Every ``make_*`` is called in the process that needs its result (frames and channel in the
    sender's, sink in the receiver's, coders in both), so it must be picklable: a function of a
    module, or a `functools.partial` of one.

    Args:
        pace: wall-clock seconds per second of media time: 1 = real time, 0 = as fast as
            possible. The result does not depend on it.
        stall_s: give up when neither process has been heard of for so many seconds.

    Raises:
        PeerError: a process failed, was killed or stalled; both are gone when it is raised.
    """
    raise NotImplementedError
