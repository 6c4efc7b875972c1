"""The messages that carry a stream between sender and receiver, as bytes and back.

One link carries everything, in both directions. From the sender: the stream's terms (in parts, so
that no message is large), then the run as numbered batches of items, then its end. From the
receiver: what it wants next, how far it has come, and control datagrams for the sender. Every
message names its session, a number that the sender draws when it starts, so what an earlier sender
or a stranger says is told apart at once.

Big-endian; the first byte says which message it is::

    H  session u64  part u16  parts u16  bytes               terms, part by part
    M  session u64  number u64  flags u8  n u16              items:
         kinds u8[n]  times f64[n]  lengths u16[n]  contents
    P  session u64  number u64                               are you there? number is the next M's
    E  session u64  number u64  JSON                         the end; the account
    W  session u64  part u16                                 send this part
    R  session u64  receiver u64                             terms accepted: begin
    X  session u64  final u8  text                           terms refused, or not now
    U  session u64                                           I do not know you: say hello
    A  session u64  number u64  receiver u64  timer f64  n u16  times f64[n]  lengths u16[n]
         contents                                            arrived up to; replies
    S  session u64  JSON                                     what the receiver sees
    D  session u64  JSON                                     the end has arrived: counters
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

from sim.protocol.handshake import MAX_START_BYTES

MAX_MESSAGE_BYTES = 1 << 17
"""No message is longer."""
MAX_ITEMS = 256
"""Items in a batch."""
PART_BYTES = 16_384
MAX_TERMS_BYTES = MAX_START_BYTES + (1 << 22)
"""Terms and what goes with them."""
MAX_JSON_BYTES = 60_000

DATAGRAM, WATERMARK, NOTE = ord("D"), ord("T"), ord("N")
"""Kinds of items: a packet arrives; all that arrives by then has arrived; for the record only."""
SYNC = 1
"""Flag of a batch: answer at once."""


class MalformedMessage(ValueError):
    """Bytes that are not a message; ``str(error)`` says why."""


@dataclass(slots=True)
class Items:
    """Events for the receiver, in the order of media time, as columns.

    Attributes:
        kinds: `DATAGRAM`, `WATERMARK`, `NOTE`.
        times: seconds of media time.
        contents: their bytes.
        size: bytes in all contents.
    """

    kinds: bytearray = field(default_factory=bytearray)
    times: list[float] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    size: int = 0

    @classmethod
    def of(cls, items: Iterable[tuple[int, float, bytes]]) -> Items:
        """From (kind, time, content)s."""
        found = cls()
        for item in items:
            found.add(*item)
        return found

    def __len__(self) -> int:
        return len(self.kinds)

    def add(self, kind: int, when: float, content: bytes) -> None:
        """One more."""
        self.kinds.append(kind)
        self.times.append(when)
        self.contents.append(content)
        self.size += len(content)

    def extend(self, items: Items) -> None:
        """Several more."""
        self.kinds += items.kinds
        self.times += items.times
        self.contents += items.contents
        self.size += items.size


@dataclass(frozen=True, slots=True)
class Hello:
    """A part of the terms, 0 <= part < parts."""

    session: int
    part: int
    parts: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Items in the order of media time; batches are numbered from 0."""

    session: int
    number: int
    flags: int
    items: Items


@dataclass(frozen=True, slots=True)
class Probe:
    """``number``: of the next batch."""

    session: int
    number: int


@dataclass(frozen=True, slots=True)
class End:
    """``number``: how many batches there were."""

    session: int
    number: int
    account: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Want:
    """The part of the terms to send next."""

    session: int
    part: int


@dataclass(frozen=True, slots=True)
class Ready:
    """``receiver``: a number that the receiver drew when it accepted the terms."""

    session: int
    receiver: int


@dataclass(frozen=True, slots=True)
class Refused:
    """``reason``: one line; ``final``: asking again is no use."""

    session: int
    final: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The receiver has no such session (any more)."""

    session: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything before batch ``number`` has arrived or never will.

    ``timer``: the receiver's next timer, None if none; ``replies``: control datagrams with the
    media time each was sent.
    """

    session: int
    number: int
    receiver: int
    timer: float | None = None
    replies: tuple[tuple[float, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """News for the sender's view."""

    session: int
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The receiver acknowledges the end."""

    session: int
    content: dict[str, Any]


FromSender = Hello | Batch | Probe | End
FromReceiver = Want | Ready | Refused | Unknown | Ack | Status | Done

_HELLO = struct.Struct(">cQHH")
_BATCH = struct.Struct(">cQQBH")
_NUMBERED = struct.Struct(">cQQ")
_WANT = struct.Struct(">cQH")
_PLAIN = struct.Struct(">cQ")
_REFUSED = struct.Struct(">cQ?")
_ACK = struct.Struct(">cQQQdH")


@lru_cache(maxsize=2 * MAX_ITEMS)
def _columns(count: int) -> struct.Struct:
    return struct.Struct(f">{count}d{count}H")


def pack_batch(session: int, number: int, flags: int, items: Items) -> bytes:
    """A batch as a message.

    Args:
        session, number: 0..2**64-1.
        flags: 0 or `SYNC`.
        items: 1..`MAX_ITEMS`, contents of at most 65,535 bytes each.
    """
    times, contents = items.times, items.contents
    return b"".join(
        (
            _BATCH.pack(b"M", session, number, flags, len(items)),
            items.kinds,
            _columns(len(items)).pack(*times, *map(len, contents)),
            *contents,
        )
    )


def pack(message: FromSender | FromReceiver) -> bytes:
    """Any message as bytes; ``parse(pack(message)) == message``."""
    match message:
        case Batch(session, number, flags, items):
            return pack_batch(session, number, flags, items)
        case Ack(session, number, receiver, timer, replies):
            wire_timer = math.nan if timer is None else timer
            head = _ACK.pack(b"A", session, number, receiver, wire_timer, len(replies))
            times, contents = zip(*replies, strict=True) if replies else ((), ())
            columns = _columns(len(replies)).pack(*times, *map(len, contents))
            return b"".join((head, columns, *contents))
        case Hello(session, part, parts, content):
            return _HELLO.pack(b"H", session, part, parts) + content
        case Probe(session, number):
            return _NUMBERED.pack(b"P", session, number)
        case End(session, number, account):
            return _NUMBERED.pack(b"E", session, number) + _json(account)
        case Want(session, part):
            return _WANT.pack(b"W", session, part)
        case Ready(session, receiver):
            return _NUMBERED.pack(b"R", session, receiver)
        case Refused(session, final, reason):
            return _REFUSED.pack(b"X", session, final) + reason.encode()[:1000]
        case Unknown(session):
            return _PLAIN.pack(b"U", session)
        case Status(session, content):
            return _PLAIN.pack(b"S", session) + _json(content)
        case Done(session, content):
            return _PLAIN.pack(b"D", session) + _json(content)


def parse_from_sender(data: bytes) -> FromSender:
    """Read a sender's message.

    Raises:
        MalformedMessage: and nothing else, whatever the bytes.
    """
    try:
        match data[:1]:
            case b"M":
                return _parse_batch(data)
            case b"H":
                _, session, part, parts = _HELLO.unpack_from(data)
                content = data[_HELLO.size :]
                most = -(-MAX_TERMS_BYTES // PART_BYTES)
                if not part < parts <= most or len(content) > PART_BYTES:
                    raise MalformedMessage(f"part {part} of {parts}")
                return Hello(session, part, parts, content)
            case b"P":
                _, session, number = _NUMBERED.unpack(data)
                return Probe(session, number)
            case b"E":
                _, session, number = _NUMBERED.unpack_from(data)
                return End(session, number, _mapping(data[_NUMBERED.size :]))
    except struct.error as error:
        raise MalformedMessage(f"{data[:1]!r}: {error}") from None
    raise MalformedMessage(f"no message of a sender begins with {data[:1]!r}")


def parse_from_receiver(data: bytes) -> FromReceiver:
    """Read a receiver's message.

    Raises:
        MalformedMessage: and nothing else, whatever the bytes.
    """
    try:
        match data[:1]:
            case b"A":
                return _parse_ack(data)
            case b"W":
                _, session, part = _WANT.unpack(data)
                return Want(session, part)
            case b"R":
                _, session, receiver = _NUMBERED.unpack(data)
                return Ready(session, receiver)
            case b"X":
                _, session, final = _REFUSED.unpack_from(data)
                return Refused(session, final, data[_REFUSED.size :].decode(errors="replace"))
            case b"U":
                return Unknown(_PLAIN.unpack(data)[1])
            case b"S" | b"D" as kind:
                _, session = _PLAIN.unpack_from(data)
                content = _mapping(data[_PLAIN.size :])
                return Status(session, content) if kind == b"S" else Done(session, content)
    except struct.error as error:
        raise MalformedMessage(f"{data[:1]!r}: {error}") from None
    raise MalformedMessage(f"no message of a receiver begins with {data[:1]!r}")


def _parse_batch(data: bytes) -> Batch:
    _, session, number, flags, count = _BATCH.unpack_from(data)
    if not 0 < count <= MAX_ITEMS:
        raise MalformedMessage(f"a batch of {count}")
    at = _BATCH.size + count
    items = Items(bytearray(data[_BATCH.size : at]), *_items(data, at, count))
    return Batch(session, number, flags, items)


def _parse_ack(data: bytes) -> Ack:
    _, session, number, receiver, timer, count = _ACK.unpack_from(data)
    if count > MAX_ITEMS:
        raise MalformedMessage(f"{count} replies")
    replies = tuple(zip(*_items(data, _ACK.size, count)[:2], strict=True))
    return Ack(session, number, receiver, None if math.isnan(timer) else timer, replies)


def _items(data: bytes, at: int, count: int) -> tuple[list[float], list[bytes], int]:
    """The end of a message from ``at`` on: times, contents, bytes in all of them."""
    columns = _columns(count)
    cells = columns.unpack_from(data, at)
    at += columns.size
    lengths, size = cells[count:], len(data) - at
    if sum(lengths) != size:
        raise MalformedMessage(f"{size} bytes where {sum(lengths)} were announced")
    rest = BytesIO(data)
    rest.seek(at)
    return list(cells[:count]), list(map(rest.read, lengths)), size  # twice as fast as slices


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _mapping(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_JSON_BYTES:
        raise MalformedMessage(f"{len(data)} bytes of JSON")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedMessage("no JSON") from None
    if not isinstance(value, dict):
        raise MalformedMessage("no JSON object")
    return value


def pack_terms(start: bytes, about: Mapping[str, Any]) -> list[bytes]:
    """The handshake and what goes with it, cut into the parts of `Hello`."""
    whole = len(start).to_bytes(4, "big") + start + _json(about)
    if len(whole) > MAX_TERMS_BYTES:
        raise ValueError(f"terms of {len(whole)} bytes are too long")
    return [whole[at : at + PART_BYTES] for at in range(0, len(whole), PART_BYTES)]


def parse_terms(parts: Sequence[bytes]) -> tuple[bytes, dict[str, Any]]:
    """The inverse of `pack_terms`.

    Raises:
        MalformedMessage: and nothing else.
    """
    whole = b"".join(parts)
    length = int.from_bytes(whole[:4], "big")
    if len(whole) < 4 + length:
        raise MalformedMessage(f"terms of {len(whole)} bytes")
    try:
        about = json.loads(whole[4 + length :])
    except (ValueError, RecursionError):
        raise MalformedMessage("no JSON in the terms") from None
    if not isinstance(about, dict):
        raise MalformedMessage("no JSON object in the terms")
    return whole[4 : 4 + length], about
