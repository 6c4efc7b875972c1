"""The live receiver: takes sessions one after another and gives each what its sender sends.

What a message says is believed only if it names the running session; everything else is counted
by name and changes nothing. A sender that falls silent is given up, and the next may begin.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sim.drivers.address import Peer
from sim.drivers.clock import Clock, SteadyClock
from sim.drivers.links import ReceiverLink
from sim.drivers.wire import (
    DATAGRAM,
    MAX_ITEMS,
    NOTE,
    SYNC,
    WATERMARK,
    Ack,
    Batch,
    Done,
    End,
    FromReceiver,
    FromSender,
    Hello,
    Items,
    MalformedMessage,
    Probe,
    Ready,
    Refused,
    Status,
    Unknown,
    Want,
    pack,
    parse_from_sender,
    parse_terms,
)

TICK_S = 0.1
SILENCE_S = 5.0
_ACK_AFTER_S = 0.005
_RUNS = re.compile(rb"(.)\1*", re.DOTALL)  # of items of one kind

RECEIVER_ANOMALIES = (
    "malformed_message",
    "foreign_session",
    "sender_refused",
    "lost_batches",
    "stale_batches",
    "joined_late",
    "time_reversed",
    "unknown_item",
    "sender_gone",
)
"""What can go wrong at the receiver without ending it; see docs/faults.md."""


class Incoming(Protocol):
    """Takes one session's items, in the order of media time."""

    def datagrams(self, times_s: Sequence[float], data: Sequence[bytes]) -> None:
        """Take packets that arrive, each at its media time."""
        ...

    def watermark(self, when: float) -> None:
        """Note that all that arrives by ``when`` has arrived."""
        ...

    def note(self, when: float, data: bytes) -> None:
        """Take sidecar metadata, which is never part of what is decoded."""
        ...

    def next_time(self) -> float | None:
        """The next timer, in seconds of media time."""
        ...

    def replies(self) -> list[tuple[float, bytes]]:
        """Control datagrams for the sender since last asked, with the time each was sent."""
        ...

    def news(self) -> Mapping[str, Any] | None:
        """News for the sender's view since the last call; None if there is none."""
        ...

    def close(self, account: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """End the session; ``account`` is the sender's, None if it is gone. Returns the answer."""
        ...


OpenStream = Callable[[bytes, dict[str, Any]], Incoming]
"""(handshake, what goes with it) -> where the stream goes; ValueError or LookupError refuses."""


class BrokenStream(RuntimeError):
    """A stream that must be carried whole was not."""


@dataclass
class _Session:
    number: int
    peer: Peer
    receiver: int
    parts: list[bytes] = field(default_factory=list)
    stream: Incoming | None = None
    next: int | None = None  # batch
    owed: int = 0  # batches not acknowledged
    latest_s: float = 0.0
    heard_s: float = 0.0
    replies: tuple[tuple[float, bytes], ...] = ()  # to the latest batch


class LiveReceiver:
    """Receives streams, one at a time.

    ``anomalies``: counts, by the names in `RECEIVER_ANOMALIES` and the link's own.
    ``state``: its activity, in words.
    """

    def __init__(
        self,
        link: ReceiverLink,
        open_stream: OpenStream,
        clock: Clock,
        *,
        on_idle: Callable[[], object] = lambda: None,
        whole: bool = False,
        silence_s: float = SILENCE_S,
    ) -> None:
        """
        Args:
            link: bound.
            open_stream: called when a sender has told its terms.
            clock: measures silence.
            on_idle: called several times a second while waiting; may raise to give up.
            whole: a gap or a refusal is an error instead of a count.
            silence_s: a sender silent for longer is gone.
        """
        self._link, self._open_stream = link, open_stream
        self._clock = SteadyClock(clock)
        self._on_idle, self._whole, self._silence_s = on_idle, whole, silence_s
        self._session: _Session | None = None
        self._finished: dict[int, bytes] = {}  # the last session's answer, for who asks again
        self._stopping = False
        self._anomalies = dict.fromkeys(RECEIVER_ANOMALIES, 0)
        self.state = "waiting for a sender"

    @property
    def anomalies(self) -> dict[str, int]:
        """Counts, by name."""
        return {**self._anomalies, **self._link.anomalies}

    def stop(self) -> None:
        """End after the message at hand; may be called from a signal handler."""
        self._stopping = True

    def serve(self) -> bool:
        """Receive until one session is over; whether it came to its end.

        False: its sender is gone, or `stop` was called (before or during a session). A session
        that had begun has been closed either way.

        Raises:
            ValueError, LookupError: the terms were refused (only if ``whole``).
            BrokenStream: batches are missing or make no sense (only if ``whole``).
        """
        self.state = "waiting for a sender"
        while True:
            if self._stopping:
                self._abandon()
                return False
            owed = self._session is not None and self._session.owed > 0
            got = self._link.receive(_ACK_AFTER_S if owed else TICK_S)
            if got is None:
                if self._idle(owed):
                    return False
            elif self._handle(*got):
                return True

    def answer_for(self, seconds: float) -> None:
        """Go on answering whoever asks whether the end arrived."""
        until_s = self._clock.now() + seconds
        while self._clock.now() < until_s:
            if (got := self._link.receive(TICK_S)) is not None:
                self._handle(*got)
            self._on_idle()

    def _idle(self, owed: bool) -> bool:
        """Nothing has come; whether the session is to be given up."""
        session = self._session
        if session is not None and owed:
            self._acknowledge(session)
            return False
        self._on_idle()
        if session is None or self._clock.now() - session.heard_s <= self._silence_s:
            return False
        if session.stream is None:  # it never began
            self._session = None
            return False
        self._anomalies["sender_gone"] += 1
        self._abandon()
        return True

    def _abandon(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.stream is not None:
            session.stream.close(None)

    def _handle(self, peer: Peer, data: bytes) -> bool:
        """Take one message; whether it ended the session."""
        try:
            message = parse_from_sender(data)
        except MalformedMessage:
            self._anomalies["malformed_message"] += 1
            return False
        session = self._session
        if session is None or message.session != session.number:
            self._stranger(peer, message)
            return False
        session.peer = peer  # a new connection of the same sender
        ended = False
        match message:
            case Hello():
                self._hello(session, message)
            case Batch() if session.stream is not None:
                self._batch(session, session.stream, message)
            case Probe(_, number) if session.stream is not None:
                self._catch_up(session, number)
                self._acknowledge(session)
            case End(number=number, account=account) if session.stream is not None:
                self._catch_up(session, number)
                self._end(session, session.stream, account)
                ended = True
            case _:
                self._anomalies["malformed_message"] += 1  # media before the terms
        session.heard_s = self._clock.now()
        return ended

    def _stranger(self, peer: Peer, message: FromSender) -> None:
        """A message of no session, or of another than the running one."""
        if message.session in self._finished:
            if isinstance(message, End | Probe):
                self._link.send(peer, self._finished[message.session])
        elif not isinstance(message, Hello):
            self._anomalies["foreign_session"] += 1
            self._say(peer, Unknown(message.session))
        elif self._session is not None:
            self._anomalies["foreign_session"] += 1
            self._say(peer, Refused(message.session, False, "the receiver has another stream"))
        elif message.part:
            self._say(peer, Want(message.session, 0))
        else:
            self._session = _Session(message.session, peer, secrets.randbits(64))
            self._session.heard_s = self._clock.now()
            self._hello(self._session, message)

    def _hello(self, session: _Session, message: Hello) -> None:
        if session.stream is not None:
            self._say(session.peer, Ready(session.number, session.receiver))
            return
        if message.part == len(session.parts):
            session.parts.append(message.content)
        if len(session.parts) < message.parts:
            self._say(session.peer, Want(session.number, len(session.parts)))
            return
        try:
            session.stream = self._open_stream(*parse_terms(session.parts))
        except (ValueError, LookupError) as error:
            self._anomalies["sender_refused"] += 1
            self._say(session.peer, Refused(session.number, True, " ".join(str(error).split())))
            self._session = None
            if self._whole:
                raise
            return
        session.parts = []
        self.state = "receiving"
        self._say(session.peer, Ready(session.number, session.receiver))

    def _batch(self, session: _Session, stream: Incoming, batch: Batch) -> None:
        if session.next is not None and batch.number < session.next:
            self._anomaly("stale_batches")
            return
        self._catch_up(session, batch.number)
        session.next = batch.number + 1
        self._pass_on(session, stream, batch.items)
        session.replies = tuple(stream.replies()[:MAX_ITEMS]) if batch.flags & SYNC else ()
        session.owed += 1
        if batch.flags & SYNC or session.owed >= self._link.ack_every:
            self._acknowledge(session)
            if (news := stream.news()) is not None:
                self._say(session.peer, Status(session.number, dict(news)))

    def _pass_on(self, session: _Session, stream: Incoming, items: Items) -> None:
        if not _in_order(session.latest_s, items.times):
            items = self._without_reversed(session.latest_s, items)
        for run in _RUNS.finditer(items.kinds):
            start, stop = run.span()
            kind = items.kinds[start]
            times_s, contents = items.times[start:stop], items.contents[start:stop]
            session.latest_s = times_s[-1]
            if kind == DATAGRAM:
                stream.datagrams(times_s, contents)
            elif kind == WATERMARK:
                for when in times_s:
                    stream.watermark(when)
            elif kind == NOTE:
                for when, content in zip(times_s, contents, strict=True):
                    stream.note(when, content)
            else:
                self._anomaly("unknown_item", stop - start)

    def _without_reversed(self, latest_s: float, items: Items) -> Items:
        """The items without those whose time runs back, or is none."""
        found = Items()
        for item in zip(items.kinds, items.times, items.contents, strict=True):
            if latest_s <= item[1] < math.inf:
                latest_s = item[1]
                found.add(*item)
            else:
                self._anomaly("time_reversed")
        return found

    def _catch_up(self, session: _Session, number: int) -> None:
        """The sender's next batch is ``number``: everything before has arrived or never will."""
        if session.next is None:
            if number:
                self._anomaly("joined_late")
            session.next = number
        elif number > session.next:
            self._anomaly("lost_batches", number - session.next)
            session.next, session.replies = number, ()

    def _acknowledge(self, session: _Session) -> None:
        session.owed = 0
        timer = None if session.stream is None else session.stream.next_time()
        number = session.next or 0
        self._say(
            session.peer, Ack(session.number, number, session.receiver, timer, session.replies)
        )

    def _end(self, session: _Session, stream: Incoming, account: Mapping[str, Any]) -> None:
        self._session = None
        answer = pack(Done(session.number, dict(stream.close(account))))
        self._finished = {session.number: answer}
        self._link.send(session.peer, answer)

    def _anomaly(self, name: str, count: int = 1) -> None:
        if self._whole:
            raise BrokenStream(f"the stream was not carried whole: {name.replace('_', ' ')}")
        self._anomalies[name] += count

    def _say(self, peer: Peer, message: FromReceiver) -> None:
        self._link.send(peer, pack(message))  # if it is lost, the sender asks again


def _in_order(latest_s: float, times_s: list[float]) -> bool:
    """Whether media time goes on from ``latest_s``; never says so if a time is not finite."""
    # Sorting would not show a nan, but their sum does.
    return latest_s <= times_s[0] and sum(times_s) < math.inf and sorted(times_s) == times_s
