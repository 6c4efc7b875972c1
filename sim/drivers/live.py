"""Streams over ZeroMQ: a sender process and a receiver process, paced by the wall clock.

The channel runs in the sender's process, just before the socket, and judges packets by media
time. What it delivers travels with its arrival time, in the order of arrival, and between them
travel the playout deadlines ("all that arrives by then has been sent"). So the receiver sees the
very sequence of events that the virtual driver makes, however fast or slow either process is:
the wall clock decides when things happen, never what happens.

Sockets: PUSH/PULL for media, REQ/REP for the handshake before it, both on loopback TCP. They
block at their marks and drop nothing, and the last message says how many there were; all loss is
the channel's. The parent process watches both peers and takes them down together. The sender
keeps its sockets open until the parent has heard from the receiver: ZeroMQ may lose the last
message of a process that ends, whatever its linger period.
"""

from __future__ import annotations

import heapq
import math
import multiprocessing
import multiprocessing.connection
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import zmq

from channels.base import Channel
from codec.entropy import CoderFor
from sim.drivers.ends import ReceivingEnd, SendingEnd
from sim.drivers.record import MediaFrame, PacketRecord, StreamRecord
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady
from sim.protocol.handshake import MAX_START_BYTES
from sim.protocol.ledger import Ledger
from sim.protocol.packet import MAX_DATAGRAM_BYTES

_LOOPBACK = "tcp://127.0.0.1:*"
_HIGH_WATER = 1000  # messages a socket holds before it blocks
_LOOK_UP_S = 0.5  # how often a waiting peer looks whether its parent lives
_GRACE_S = 2.0  # for a peer to go when told to

_ENVELOPE = struct.Struct(">cd")  # what, and when in media time
_DATAGRAM, _DEADLINE, _END = b"D", b"T", b"E"
_COUNT = struct.Struct(">Q")
_READY = b"ready"

_T = TypeVar("_T")
_Sink = Callable[[FrameReady], object]


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
    make_sink: Callable[[], _Sink] | None = None,
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
        make_frames: the frames to stream.
        config: how to packetize and pace.
        make_channel: the channel at rest.
        key: of the stream.
        make_coders: (entropy mode id, K) -> slice coder.
        make_sink: makes what is called with each frame at its playout deadline, in order.
        progress: called here, with (frames out, frames in all), after each frame.
        pace: wall-clock seconds per second of media time: 1 = real time, 0 = as fast as
            possible. The result does not depend on it.
        stall_s: give up when neither process has been heard of for so many seconds.

    Raises:
        PeerError: a process failed, was killed or stalled; both are gone when it is raised.
        ValueError: pace is not a finite number >= 0.
    """
    if not 0 <= pace < math.inf:
        raise ValueError(f"pace must be a finite number >= 0, got {pace!r}")
    context = multiprocessing.get_context("spawn")
    peers: list[_Peer] = []
    frames: list[FrameReady] = []
    total = 0
    results: dict[str, Any] = {}
    try:
        receiver = _start(context, "receiver", _receive, key, make_coders, make_sink)
        peers.append(receiver)
        sender = _start(
            context, "sender", _send, make_frames, config, make_channel, key, make_coders, pace
        )
        peers.append(sender)
        for peer, kind, content in _reports(peers, stall_s):
            match kind:
                case "endpoints":
                    _tell(sender, content)
                case "frames":
                    total = content
                case "frame":
                    frames.append(content)
                    if progress is not None:
                        progress(len(frames), total)
                case "done":
                    results[peer.role] = content
                    if peer is receiver:
                        _tell(sender, "received")
    finally:
        _dismiss(peers)
    packets, ledger = results["sender"]
    ledger.check(results["receiver"])
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
    """What the peers report, (peer, kind, content), until both are done."""
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
    key: StreamKey,
    make_coders: Callable[[], CoderFor],
    make_sink: Callable[[], _Sink] | None,
) -> dict[str, int]:
    """Receive one stream and return the receiver's counters."""
    with (
        zmq.Context() as context,
        _socket(context, zmq.PULL) as media,
        _socket(context, zmq.REP) as control,
    ):
        media.bind(_LOOPBACK)
        control.bind(_LOOPBACK)
        parent.send(("endpoints", (media.last_endpoint, control.last_endpoint)))
        coders = make_coders()
        sink = make_sink() if make_sink is not None else None

        def release(frame: FrameReady) -> None:
            if sink is not None:
                sink(frame)
            parent.send(("frame", frame))

        start = _patiently(control.recv)
        try:
            end = ReceivingEnd(start, key, coders, release)
        except (ValueError, LookupError) as error:
            control.send(str(error).encode())
            raise
        control.send(_READY)
        _carry(media, end)
        return end.counters


def _carry(media: zmq.Socket[bytes], end: ReceivingEnd) -> None:
    """Pass on messages until the last.

    Raises RuntimeError if messages are missing or not the sender's.
    """
    carried, latest = 0, 0.0
    while True:
        envelope, *content = _patiently(media.recv_multipart)
        if len(envelope) != _ENVELOPE.size or len(content) != 1:
            raise RuntimeError("a stranger sends to this stream's socket")
        what, when = _ENVELOPE.unpack(envelope)
        if not latest <= when < math.inf:
            raise RuntimeError(f"media time went from {latest} to {when}")
        latest = when
        if what == _DATAGRAM:
            end.datagram(when, content[0])
        elif what == _DEADLINE:
            end.deadline(when)
        elif content[0] == _COUNT.pack(carried):
            return
        else:
            raise RuntimeError(f"{carried} messages were carried, not all that were sent")
        carried += 1


def _send(
    parent: Connection,
    make_frames: Callable[[], Iterable[MediaFrame]],
    config: StreamConfig,
    make_channel: Callable[[], Channel],
    key: StreamKey,
    make_coders: Callable[[], CoderFor],
    pace: float,
) -> tuple[list[PacketRecord], Ledger]:
    """Send one stream and return the records and the ledger."""
    frames = tuple(make_frames())
    parent.send(("frames", len(frames)))
    sending = SendingEnd(frames, config, make_channel(), key, make_coders())
    media_endpoint, control_endpoint = _from_parent(parent)
    with (
        zmq.Context() as context,
        _socket(context, zmq.PUSH) as media,
        _socket(context, zmq.REQ) as control,
    ):
        media.connect(media_endpoint)
        control.connect(control_endpoint)
        _patiently(control.send, sending.start)
        answer = _patiently(control.recv)
        if answer != _READY:
            raise RuntimeError(f"the receiver refused the stream: {answer.decode()}")
        began_s = time.monotonic()
        messages = 0
        now = 0.0
        for now, what, content in _messages(sending, config, len(frames)):
            _wait_until(began_s + pace * now)
            _patiently(media.send_multipart, [_ENVELOPE.pack(what, now), content])
            messages += 1
        _patiently(media.send_multipart, [_ENVELOPE.pack(_END, now), _COUNT.pack(messages)])
        _from_parent(parent)  # the receiver is done
    return sending.packets, sending.ledger


def _messages(
    sending: SendingEnd, config: StreamConfig, frames: int
) -> Iterator[tuple[float, bytes, bytes]]:
    """The run as messages (media time, what, content), in the order the receiver must see.

    At equal times packets leave first, then what arrives is passed on, then deadlines.
    """
    in_flight: list[tuple[float, int, bytes]] = []
    entered = 0
    released = 0
    while True:
        send_s = sending.next_time()
        send_s = math.inf if send_s is None else send_s
        arrival_s = in_flight[0][0] if in_flight else math.inf
        due_s = config.due_s(released) if released < frames else math.inf
        earliest = min(send_s, arrival_s, due_s)
        if earliest == math.inf:
            return
        now = earliest
        if send_s == now:
            for arrival, data in sending.advance(now):
                heapq.heappush(in_flight, (arrival, entered, data))
                entered += 1
        elif arrival_s == now:
            yield now, _DATAGRAM, heapq.heappop(in_flight)[2]
        else:
            released += 1
            yield now, _DEADLINE, b""


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.sndhwm = socket.rcvhwm = _HIGH_WATER
    socket.maxmsgsize = max(MAX_START_BYTES, MAX_DATAGRAM_BYTES)
    socket.linger = 0  # when a run ends well nothing is under way; when it does not, nothing waits
    socket.immediate = True
    socket.sndtimeo = socket.rcvtimeo = round(1000 * _LOOK_UP_S)
    return socket


def _patiently(act: Callable[..., _T], *arguments: object) -> _T:
    """Try until the socket lets it happen, or the parent is gone."""
    while True:
        try:
            return act(*arguments)
        except zmq.Again:
            _check_parent()


def _wait_until(wall_s: float) -> None:
    while (left_s := wall_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _LOOK_UP_S))
        _check_parent()


def _from_parent(parent: Connection) -> Any:
    while not parent.poll(_LOOK_UP_S):
        _check_parent()
    return parent.recv()


def _check_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise _ParentGone(1)
