"""The live sender: introduces itself, paces an `EventSequencer` by the wall clock and never runs
ahead.

It starts before or after its receiver, as it likes, and outlives it: when a receiver comes back
that does not know the session, it says hello again and goes on where it was. A receiver that does
not read stops it after ``window`` batches, so memory is bounded; silence makes it ask.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from sim.drivers.clock import Clock, Pacer, SteadyClock
from sim.drivers.endpoints import SenderEndpoint
from sim.drivers.event_sequencer import EventSequencer
from sim.drivers.links import SenderLink
from sim.drivers.wire import (
    MAX_ITEMS,
    NOTE,
    SYNC,
    Ack,
    Done,
    End,
    FromReceiver,
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
    pack_batch,
    pack_terms,
    parse_from_receiver,
)

ASK_S = 0.4  # after so much silence the sender asks
TICK_S = 0.1  # how often a waiting sender looks around
PATIENCE_S = 2.0  # for a receiver that is gone when the stream is told to stop

SENDER_ANOMALIES = (
    "malformed_message",
    "foreign_session",
    "receiver_restarted",
    "unacknowledged_batches",
    "clock_jumps",
    "stalls",
)
"""What can go wrong at the sender without ending the stream; see docs/faults.md."""


class StreamRefused(RuntimeError):
    """The receiver refuses this stream; ``str(error)`` says why."""


class Stopped(RuntimeError):
    """The stream was told to stop while nobody received it."""


class LiveSender:
    """Sends one stream.

    Attributes, for whoever watches from another thread:
        state: its activity, in words.
        media_s: how far the stream has come, in seconds of media time.
        anomalies: counts, by the names in `SENDER_ANOMALIES`.
        status: the receiver's latest news.
    """

    def __init__(
        self,
        sending: SenderEndpoint,
        link: SenderLink,
        clock: Clock,
        *,
        pace: float = 1.0,
        about: Mapping[str, Any] | None = None,
        notes: Callable[[], list[bytes]] | None = None,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            sending: what to send.
            link: to the receiver.
            clock: paces.
            pace: wall seconds per second of media time; 0 = as fast as possible.
            about: goes to the receiver with the terms.
            notes: what else to write down with the stream since last asked, for the record.
            on_idle: called several times a second while waiting; may raise to give up.
        """
        self._sending, self._link, self._clock = sending, link, SteadyClock(clock)
        self._sequencer = EventSequencer(sending)
        self._pacer = Pacer(self._clock, pace)
        self._about = dict(about or {})
        self._notes, self._on_idle = notes, on_idle
        self._session = secrets.randbits(64)
        self._receiver: int | None = None
        self._number = 0
        self._acked = 0
        self._answer: Ack | None = None  # to the last batch, when it is owed
        self._batch = Items()
        self._heard_s = self._asked_s = 0.0
        self._stopping = False
        self._done: dict[str, Any] | None = None
        self._flags = SYNC if self._sequencer.interactive else 0
        self.state = "starting"
        self.media_s = 0.0
        self.anomalies = dict.fromkeys(SENDER_ANOMALIES, 0)
        self.status: dict[str, Any] = {}

    @property
    def unanswered(self) -> int:
        """Batches under way."""
        return self._number - self._acked

    @property
    def in_flight(self) -> int:
        """Packets that the channel holds."""
        return self._sequencer.in_flight

    def stop(self) -> None:
        """Capture nothing more and finish soon; may be called from a signal handler."""
        self._stopping = True

    def run(self, account: Callable[[], Mapping[str, Any]] = dict) -> dict[str, Any]:
        """Send the whole stream.

        Args:
            account: made when all is sent, for the receiver.

        Returns:
            The receiver's answer to the end.

        Raises:
            StreamRefused: the receiver refuses it.
            Stopped: told to stop, and there is no receiver.
        """
        self._introduce()
        self._pacer.start(self._sequencer.next_time() or 0.0)
        stopped = False
        while (when := self._sequencer.next_time()) is not None:
            if self._stopping and not stopped:
                stopped = True
                self._sending.stop()
                self._pacer.pace = 0.0
                continue
            if (left_s := self._pacer.wait_s(when)) > 0:
                self.state = "streaming"
                self._flush()
                self._look_around(min(left_s, TICK_S))
                continue
            self._advance(when)
        self._flush()
        return self._finish(dict(account()))

    def _advance(self, when: float) -> None:
        """Process the events at ``when``, and keep what the receiver must see of them."""
        if self._flags:  # one item at a time, each answered
            until_s, most = when, 1
        elif self._notes is not None or self._pacer.pace:
            until_s, most = when, MAX_ITEMS
        else:
            until_s, most = math.inf, MAX_ITEMS
        items = self._sequencer.run(until_s, most, self._link.batch_bytes)
        self.media_s = items.times[-1] if items else when
        if self._notes is not None:
            for note in self._notes():
                self._add(Items.of([(NOTE, when, note)]))
        if items:
            self._add(items)
        if len(items) > 1:
            self._flush()
        if items and self._flags:
            self._ask_and_wait()

    def _add(self, items: Items) -> None:
        if len(self._batch) + len(items) > MAX_ITEMS:
            self._flush()
        if self._batch:
            self._batch.extend(items)
        else:
            self._batch = items
        if self._batch.size >= self._link.batch_bytes or len(self._batch) == MAX_ITEMS:
            self._flush()

    def _flush(self) -> None:
        if not self._batch:
            return
        message = pack_batch(self._session, self._number, self._flags, self._batch)
        self._batch = Items()
        while self.unanswered >= self._link.window or not self._link.send(message):
            if not self._take(0.0):
                self.state = "waiting for the receiver to read"
                self._look_around(TICK_S)
        self._number += 1
        self._asked_s = self._clock.now() if self._pacer.pace else self._asked_s

    def _ask_and_wait(self) -> None:
        """Send what there is and wait for the receiver's answer."""
        self._answer = None
        self._flush()
        number, receiver = self._number, self._receiver
        while self._answer is None or self._answer.number < number:
            if not self._look_around(TICK_S) and self._receiver != receiver:
                return  # it was lost with the receiver that should have answered
        self._sequencer.answered(self._answer.replies, self._answer.timer)

    def _look_around(self, timeout_s: float) -> bool:
        """Wait for the receiver at most so long; probe it if it is silent. True if it spoke."""
        self._on_idle()
        now = self._clock.now()
        if now - max(self._heard_s, self._asked_s) > ASK_S:
            self._asked_s = now
            self._link.send(pack(Probe(self._session, self._number)))
        if self._stopping and self.unanswered and now - self._heard_s > PATIENCE_S:
            raise Stopped("the receiver is gone")
        self.anomalies["clock_jumps"] = self._clock.jumps
        self.anomalies["stalls"] = self._pacer.stalls
        return self._take(timeout_s)

    def _take(self, timeout_s: float) -> bool:
        """Take one message from the receiver, if one comes in time."""
        message = self._receive(timeout_s)
        if message is None:
            return False
        match message:
            case Ack(_, number, receiver) if receiver == self._receiver:
                if number <= self._number:
                    self._acked = max(self._acked, number)
                    self._answer = message
            case Status(_, content):
                self.status = content
            case Done(_, content):
                self._done = content
            case Unknown() if self._receiver is not None:
                self.anomalies["receiver_restarted"] += 1
                self.anomalies["unacknowledged_batches"] += self.unanswered
                self._acked = self._number
                self._introduce()
            case _:
                pass  # an answer to a question asked twice
        return True

    def _receive(self, timeout_s: float) -> FromReceiver | None:
        data = self._link.receive(timeout_s)
        if data is None:
            return None
        try:
            message = parse_from_receiver(data)
        except MalformedMessage:
            self.anomalies["malformed_message"] += 1
            return None
        if message.session != self._session:
            self.anomalies["foreign_session"] += 1
            return None
        self._heard_s = self._clock.now()
        return message

    def _introduce(self) -> None:
        """Say hello until a receiver accepts the terms."""
        self._receiver = None
        parts = pack_terms(self._sending.start, self._about)
        part = 0
        asked_s = -ASK_S
        self.state = "waiting for a receiver"
        while self._receiver is None:
            self._on_idle()
            if self._stopping:
                raise Stopped("no receiver came")
            now = self._clock.now()
            if now - asked_s >= ASK_S:
                asked_s = now
                self._link.send(pack(Hello(self._session, part, len(parts), parts[part])))
            match self._receive(TICK_S):
                case Want(_, wanted) if wanted < len(parts):
                    part, asked_s = wanted, now - ASK_S
                case Ready(_, receiver):
                    self._receiver = receiver
                case Refused(_, True, reason):
                    raise StreamRefused(reason)
                case Refused(_, False, reason):
                    self.state = f"waiting: {reason}"
                case _:
                    pass

    def _finish(self, account: dict[str, Any]) -> dict[str, Any]:
        """Send the end until the receiver has acknowledged it."""
        asked_s = -ASK_S
        self.state = "ending"
        while self._done is None:
            now = self._clock.now()
            if now - asked_s >= ASK_S:
                asked_s = now
                self._link.send(pack(End(self._session, self._number, account)))
            self._on_idle()
            if self._stopping and now - self._heard_s > PATIENCE_S:
                raise Stopped("the receiver is gone")
            self._take(TICK_S)
        self.state = "done"
        return self._done
