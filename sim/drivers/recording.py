"""Recordings: a stream as the receiver saw it, which can be given to a receiver again, exactly.

A recording holds the terms and every item in order, so a replay makes the same images and the
same ledger, byte for byte, wherever and whenever. Big-endian::

    "TSR1"    then records:  kind u8  media time f64  length u32  CRC-32 u32  content

kinds: S the handshake, A what went with it (JSON), D T N items as in `wire`, E the sender's account
(JSON; the end), G the sender is gone (the end as well). The CRC is of the content, started from
the CRC of kind, time and length.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from codec.files import is_special, landing
from sim.drivers.live_receiver import Incoming, OpenStream
from sim.drivers.wire import DATAGRAM, MAX_TERMS_BYTES, NOTE, WATERMARK
from sim.errors import UserError, os_errors

_MAGIC = b"TSR1"
_HEAD = struct.Struct(">cdI")
_CRC = struct.Struct(">I")
_START, _ABOUT, _END, _GONE = b"S", b"A", b"E", b"G"
_ITEMS = {bytes([kind]): kind for kind in (DATAGRAM, WATERMARK, NOTE)}


class Recorder:
    """An `Incoming` that records everything and passes it on.

    The file appears under its name when the stream is over; until then, and if this process is
    killed, it is ``FILE.partial``, which can be replayed as far as it goes. A disk that will not
    take it ends the recording, never the stream: ``failed`` then says why.
    """

    def __init__(self, inner: Incoming, path: Path, start: bytes, about: Mapping[str, Any]) -> None:
        """Raises UserError if the file cannot be made."""
        self._inner = inner
        self.failed = ""
        with os_errors(path, "cannot record here"):
            self._path = landing(path)
            self._partial = self._path
            if not is_special(self._path):
                self._partial = self._path.with_name(f"{self._path.name}.partial")
            self._file: BinaryIO | None = self._partial.open("wb")
        self._write_raw(_MAGIC)
        self._write(_START, 0.0, start)
        self._write(_ABOUT, 0.0, json.dumps(about).encode())
        self.next_time, self.replies, self.news = inner.next_time, inner.replies, inner.news

    def datagrams(self, times_s: Sequence[float], data: Sequence[bytes]) -> None:
        """See `Incoming`."""
        for when, content in zip(times_s, data, strict=True):
            self._write(b"D", when, content)
        self._inner.datagrams(times_s, data)

    def watermark(self, when: float) -> None:
        """See `Incoming`."""
        self._write(b"T", when, b"")
        self._inner.watermark(when)

    def note(self, when: float, data: bytes) -> None:
        """See `Incoming`."""
        self._write(b"N", when, data)
        self._inner.note(when, data)

    def close(self, account: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """See `Incoming`; the file is whole before anything else happens."""
        if account is None:
            self._write(_GONE, 0.0, b"")
        else:
            self._write(_END, 0.0, json.dumps(account).encode())
        self._finish()
        return self._inner.close(account)

    def _write(self, kind: bytes, when: float, content: bytes) -> None:
        head = _HEAD.pack(kind, when, len(content))
        self._write_raw(head + _CRC.pack(zlib.crc32(content, zlib.crc32(head))) + content)

    def _write_raw(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._give_up(error)

    def _finish(self) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
            if self._partial != self._path:
                os.replace(self._partial, self._path)
            self._file = None
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failed = f"{self._path}: the recording broke off ({error.strerror})"
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None
        if self._partial != self._path:
            with suppress(OSError):
                self._partial.unlink()


def recorded_about(path: Path) -> dict[str, Any]:
    """The metadata of a recording, from the sender and the receiver.

    Raises:
        UserError: no recording, or damaged.
    """
    with os_errors(path, "cannot be read"), path.open("rb") as file:
        return _terms(path, _records(path, file))[1]


def replay(path: Path, open_stream: OpenStream) -> bool:
    """Give a recorded stream to a receiver again.

    Args:
        path: made by `Recorder`.
        open_stream: as for a live one.

    Returns:
        Whether the recording is whole; False: it breaks off in the middle of the stream.

    Raises:
        UserError: no recording, damaged, or ``open_stream`` refuses it.
    """
    with os_errors(path, "cannot be read"), path.open("rb") as file:
        return _replay(path, _records(path, file), open_stream)


def _replay(
    path: Path, records: Iterator[tuple[bytes, float, bytes]], open_stream: OpenStream
) -> bool:
    terms = _terms(path, records)
    try:
        stream = open_stream(*terms)
    except (ValueError, LookupError) as error:
        raise UserError(f"{path}: {error}") from None
    latest = 0.0
    for kind, when, content in records:
        if kind == _END:
            stream.close(json.loads(content))
            return True
        if kind == _GONE:
            stream.close(None)
            return True
        if not latest <= when < math.inf:
            raise UserError(f"{path}: damaged: media time went from {latest} to {when}")
        latest = when
        if kind == b"D":
            stream.datagrams((when,), (content,))
        elif kind == b"T":
            stream.watermark(when)
        else:
            stream.note(when, content)
    stream.close(None)
    return False


def _terms(
    path: Path, records: Iterator[tuple[bytes, float, bytes]]
) -> tuple[bytes, dict[str, Any]]:
    found = []
    for expected in (_START, _ABOUT):
        kind, _, content = next(records, (b"", 0.0, b""))
        if kind != expected:
            raise UserError(f"{path}: a recording without a stream's terms")
        found.append(content)
    return found[0], json.loads(found[1])


def _records(path: Path, file: BinaryIO) -> Iterator[tuple[bytes, float, bytes]]:
    """(kind, media time, content) of every whole record."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise UserError(f"{path}: not a recording of a stream")
    known = {*_ITEMS, _START, _ABOUT, _END, _GONE}
    while True:
        at = file.tell()
        head, crc = file.read(_HEAD.size), file.read(_CRC.size)
        if len(crc) < _CRC.size:
            return
        kind, when, length = _HEAD.unpack(head)
        if kind not in known or length > MAX_TERMS_BYTES:
            raise UserError(f"{path}: damaged at byte {at:,}: no record begins here")
        content = file.read(length)
        if len(content) < length:
            return
        if zlib.crc32(content, zlib.crc32(head)) != _CRC.unpack(crc)[0]:
            raise UserError(f"{path}: damaged at byte {at:,}: a checksum does not match")
        yield kind, when, content
