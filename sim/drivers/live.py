"""Streams between two processes, paced by the wall clock, with the results of `run_virtual`.

The channel runs in the sender's process, just before the socket, and judges packets by media
time. What it delivers travels with its arrival time, in the order of arrival, and between them
travel the playout deadlines ("all that arrives by then has been sent"); see `event_sequencer`. So
the receiver sees the very sequence of events that the virtual driver makes, however fast or slow
either process is: the wall clock decides when things happen, never what happens.

`live_sender` and `live_receiver` do the work, over any of the `links`. Here the parent process
watches both peers and takes them down together; here a stream is carried whole or not at all.
"""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import starmap
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from channels.base import Channel
from codec.entropy import CoderFor
from sim.drivers.clock import WallClock
from sim.drivers.endpoints import ReceiverEndpoint, SenderEndpoint
from sim.drivers.links import open_receiver, open_sender
from sim.drivers.live_receiver import LiveReceiver
from sim.drivers.live_sender import LiveSender
from sim.drivers.record import MediaFrame, PacketRecord, StreamRecord
from sim.jobs.executor import spawn_context
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady
from sim.protocol.ledger import Ledger

LOOPBACK = {"zeromq": "tcp://127.0.0.1:*", "udp": "udp://127.0.0.1:0"}
"""Where the receiver listens, by transport."""

_LOOK_UP_S = 0.5  # how often a waiting peer looks whether its parent lives
_GRACE_S = 2.0  # for a peer to go when told to


class PeerError(RuntimeError):
    """A sender or receiver process failed. ``str(error)`` is one line; its notes hold the rest."""


class _ParentGone(SystemExit):
    pass


def run_live(
    make_frames: Callable[[], Iterable[MediaFrame]],
    config: StreamConfig,
    make_channel: Callable[[], Channel],
    key: StreamKey,
    make_coders: Callable[[], CoderFor],
    on_frame: Callable[[FrameReady], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
    *,
    pace: float = 1.0,
    stall_s: float = 300.0,
    transport: str = "zeromq",
    make_feedback: Callable[[], Channel | None] | None = None,
) -> StreamRecord:
    """As `run_virtual`, with the same result, between two processes over loopback.

    Every ``make_*`` is called in the process that needs its result (frames and channel in the
    sender's, coders in both), so it must be picklable: a function of a module, or a
    `functools.partial` of one.

    Args:
        make_frames: the frames to stream.
        config: how to packetize and pace.
        make_channel: the channel at rest.
        key: of the stream.
        make_coders: (entropy mode id, K) -> slice coder.
        on_frame: called here with each frame at its playout deadline, in order.
        progress: called here, with (frames out, frames in all), after each frame.
        pace: wall-clock seconds per second of media time: 1 = real time, 0 = as fast as
            possible. The result does not depend on it.
        stall_s: give up when neither process has been heard of for so many seconds.
        transport: one of `LOOPBACK`.
        make_feedback: carries what the receiver sends back, in the sender's process; see
            `SenderEndpoint`.

    Raises:
        PeerError: a process failed, was killed or stalled; both are gone when it is raised.
        ValueError: pace is not a finite number >= 0.
    """
    if not 0 <= pace < math.inf:
        raise ValueError(f"pace must be a finite number >= 0, got {pace!r}")
    context = spawn_context()
    peers: list[_Peer] = []
    frames: list[FrameReady] = []
    total = 0
    results: dict[str, Any] = {}
    try:
        receiver = _start(context, "receiver", _receive, transport, key, make_coders)
        peers.append(receiver)
        parts = make_frames, config, make_channel, key, make_coders, make_feedback
        sender = _start(context, "sender", _send, *parts, pace)
        peers.append(sender)
        for peer, kind, content in _reports(peers, stall_s):
            match kind:
                case "address":
                    _tell(sender, content)
                case "frames":
                    total = content
                case "frame":
                    frames.append(content)
                    if on_frame is not None:
                        on_frame(content)
                    if progress is not None:
                        progress(len(frames), total)
                case "received":
                    results["receiver"] = content
                case "done" if peer is sender:
                    results["sender"] = content
                    _tell(receiver, "over")
    finally:
        _dismiss(peers)
    columns, ledger, heard = results["sender"]
    ledger.check(results["receiver"], heard)
    packets = list(starmap(PacketRecord, zip(*columns, strict=True)))
    return StreamRecord(packets, frames, results["receiver"], ledger)


# The parent's side.


@dataclass(frozen=True)
class _Peer:
    role: str
    process: SpawnProcess
    pipe: Connection


def _start(
    context: multiprocessing.context.SpawnContext,
    role: str,
    main: Callable[..., object],
    *arguments: object,
) -> _Peer:
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_peer, args=(main, theirs, arguments), name=f"stream-{role}", daemon=True
    )
    process.start()
    theirs.close()  # so that ours ends when the process does
    return _Peer(role, process, ours)


def _reports(peers: list[_Peer], stall_s: float) -> Iterator[tuple[_Peer, str, Any]]:
    """The peers' reports, (peer, kind, content), until both are done."""
    running = {peer.pipe: peer for peer in peers}
    while running:
        ready = multiprocessing.connection.wait(list(running), stall_s)
        if not ready:
            raise PeerError(f"no news of sender or receiver for {stall_s:g} s")
        for pipe in ready:
            peer = running[pipe]  # type: ignore[index]
            try:
                kind, content = peer.pipe.recv()
            except (EOFError, ConnectionError):
                peer.process.join(_GRACE_S)
                raise PeerError(f"{peer.role} process {_end_of(peer.process)}") from None
            if kind == "failed":
                message, trace = content
                error = PeerError(f"{peer.role} process: {message}")
                error.add_note(trace)
                raise error
            if kind == "done":
                del running[peer.pipe]
            yield peer, kind, content


def _tell(peer: _Peer, content: object) -> None:
    with suppress(ConnectionError):  # it is gone; `_reports` will say how
        peer.pipe.send(content)


def _end_of(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is None:
        return "hung up"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended unexpectedly with exit code {code}"


def _dismiss(peers: list[_Peer]) -> None:
    for peer in peers:
        peer.pipe.close()
        peer.process.terminate()
    for peer in peers:
        peer.process.join(_GRACE_S)
        if peer.process.is_alive():
            peer.process.kill()
            peer.process.join()
        peer.process.close()


# The peers' side.


def _peer(main: Callable[..., object], parent: Connection, arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    try:
        parent.send(("done", main(parent, *arguments)))
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        with suppress(ConnectionError):  # nobody is left to tell
            parent.send(("failed", (message, traceback.format_exc())))


def _receive(
    parent: Connection,
    transport: str,
    key: StreamKey,
    make_coders: Callable[[], CoderFor],
) -> None:
    """Receive one stream and report the receiver's counters."""
    with closing(open_receiver(LOOPBACK[transport])) as link:
        parent.send(("address", link.address))
        coders = make_coders()

        def release(frame: FrameReady) -> None:
            parent.send(("frame", frame))

        counters: list[dict[str, int]] = []

        def open_stream(start: bytes, about: dict[str, Any]) -> _Carried:
            end = ReceiverEndpoint(start, key, coders, release)
            counters.append(end.counters)
            return _Carried(end)

        receiver = LiveReceiver(
            link, open_stream, WallClock(), on_idle=_check_parent, whole=True, silence_s=math.inf
        )
        receiver.serve()
        parent.send(("received", counters[0]))
        while not parent.poll():  # the sender may ask again whether the end has arrived
            receiver.answer_for(_GRACE_S / 100)


class _Carried:
    """A stream straight into a receiver endpoint; see `sim.drivers.live_receiver.Incoming`."""

    def __init__(self, end: ReceiverEndpoint) -> None:
        self.end = end
        self.datagrams = end.datagrams
        self.watermark = end.watermark
        self.next_time = end.next_time
        self.replies = end.replies

    def note(self, when: float, data: bytes) -> None:
        """Ignored here."""

    def news(self) -> None:
        """None: the parent shows the progress."""

    def close(self, account: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The receiver's counters."""
        return self.end.counters


def _send(
    parent: Connection,
    make_frames: Callable[[], Iterable[MediaFrame]],
    config: StreamConfig,
    make_channel: Callable[[], Channel],
    key: StreamKey,
    make_coders: Callable[[], CoderFor],
    make_feedback: Callable[[], Channel | None] | None,
    pace: float,
) -> tuple[list[tuple[Any, ...]], Ledger, int]:
    """Send one stream and return the columns of the records (several times as fast to carry as
    the records), the ledger and how much feedback was heard."""
    frames = tuple(make_frames())
    parent.send(("frames", len(frames)))
    feedback = make_feedback() if make_feedback is not None else None
    sending = SenderEndpoint(frames, config, make_channel(), key, make_coders(), feedback=feedback)
    with closing(open_sender(_from_parent(parent))) as link:
        LiveSender(sending, link, WallClock(), pace=pace, on_idle=_check_parent).run()
    return list(zip(*sending.packets, strict=True)), sending.ledger, sending.heard


def _from_parent(parent: Connection) -> Any:
    while not parent.poll(_LOOK_UP_S):
        _check_parent()
    return parent.recv()


def _check_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise _ParentGone(1)
