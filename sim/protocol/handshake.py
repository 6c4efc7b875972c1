"""The handshake: the stream's terms and timeline, sent once, reliably, before any packet.

Packets explain themselves; this is for what no packet can tell: when a frame was due of which
none arrived, and how large it was. It travels outside the loss model; its bytes are counted
apart.

Big-endian::

    "TSS1"  fingerprint[8]  stream id u32  fps f64  playout delay f64  first sequence u16
    mtu u16  slices-1 u8  patch u4  log2 K u4  interleaver u8  entropy u8  frames u32
    then per frame: width u16  height u16    then: CRC-32 of all before, u32

A stream with protection says "TSS2" and has, before the frames::

    packing u8  passes u8
    FEC: code u8 (255: none)  data u8  parity u8  depth u8  unequal u8
    ARQ: retries u8 (0: none)  order u8  delay f64  wait f64  budget f64  loss f64

One with replenishment says "TSS3" and has, behind these::

    frames of a refresh cycle u16
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from codec.entropy import ENTROPY_MODES
from codec.patches import PATCHES
from sim.protocol.config import StreamConfig, StreamConfigError, StreamKey
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.packet import Layout, MalformedPacket
from sim.protocol.protection import ARQ_ORDERS, FEC_CODES, ArqConfig, FecConfig

MAX_FRAMES = 1 << 20
MAX_START_BYTES = 4 * MAX_FRAMES + 128

_FIELDS = struct.Struct(">4s8sIddHHBBBBI")
_PROTECTION = struct.Struct(">BBBBBBBBBdddd")
_REFRESH = struct.Struct(">H")
_OPTION_BYTES = {
    b"TSS1": 0,
    b"TSS2": _PROTECTION.size,
    b"TSS3": _PROTECTION.size + _REFRESH.size,
}
_MAGICS = {size: magic for magic, size in _OPTION_BYTES.items()}
_NO_FEC = (255, 0, 0, 0, 0)
_NO_ARQ = (0, 0, 0.0, 0.0, 0.0, 0.0)
_CRC_BYTES = 4


class ForeignStream(ValueError):
    """The stream was made with another model, or for another session."""


@dataclass(frozen=True)
class StreamStart:
    """The terms of a stream.

    Attributes:
        config: as the sender uses it.
        key: whose stream it is.
        sizes: (width, height) in pixels of every frame, at most `MAX_FRAMES`.

    Raises:
        StreamConfigError: a frame does not fit the settings, or there are too many.
    """

    config: StreamConfig
    key: StreamKey
    sizes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if len(self.sizes) > MAX_FRAMES:
            raise StreamConfigError("frames", f"at most {MAX_FRAMES}, got {len(self.sizes)}")
        for width, height in dict.fromkeys(self.sizes):
            self.config.layout(width, height)

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """The layout of every frame."""
        known = {size: self.config.layout(*size) for size in dict.fromkeys(self.sizes)}
        return tuple(known[size] for size in self.sizes)

    @cached_property
    def packs(self) -> tuple[range, ...]:
        """The frames of every pack: what leaves together, one frame unless they share packets."""
        frames, size = len(self.sizes), self.config.packing
        return tuple(range(at, min(at + size, frames)) for at in range(0, frames, size))

    @cached_property
    def pack_layouts(self) -> tuple[Layout, ...]:
        """The layout that the packets of every pack name: of its frame with the most slices."""
        return tuple(
            max((self.layouts[frame] for frame in pack), key=lambda layout: layout.slice_count)
            for pack in self.packs
        )

    @cached_property
    def pack_starts_s(self) -> tuple[float, ...]:
        """When every pack begins to leave, in seconds of media time: when its last frame has been
        captured, or would have been if the stream went on."""
        last = self.config.packing - 1
        return tuple(self.config.capture_s(frames[0] + last) for frames in self.packs)

    @cached_property
    def first_sequences(self) -> tuple[int, ...]:
        """The sequence number of every pack's first packet, counted on past 2**16; then one more,
        which the stream's end would have."""
        numbers = [self.config.first_sequence]
        for layout in self.pack_layouts:
            numbers.append(numbers[-1] + layout.slice_count)
        return tuple(numbers)

    @cached_property
    def dues_s(self) -> tuple[float, ...]:
        """Every frame's playout deadline, in seconds of media time."""
        return tuple(map(self.config.due_s, range(len(self.sizes))))

    def pack(self) -> bytes:
        """The message; ``parse(start.pack()) == start``."""
        config = self.config
        options = _option_fields(config)
        head = _FIELDS.pack(
            _MAGICS[len(options)],
            bytes.fromhex(self.key.fingerprint),
            self.key.stream_id,
            config.fps,
            config.playout_delay_s,
            config.first_sequence,
            config.mtu,
            config.slices - 1,
            PATCHES.index(config.patch) << 4 | config.codebook_size.bit_length() - 1,
            INTERLEAVERS.index(config.interleaver),
            ENTROPY_MODES.index(config.entropy),
            len(self.sizes),
        )
        body = head + options + b"".join(struct.pack(">HH", *size) for size in self.sizes)
        return body + zlib.crc32(body).to_bytes(_CRC_BYTES, "big")

    @classmethod
    def parse(cls, data: bytes) -> StreamStart:
        """Read a message.

        Raises:
            MalformedPacket: and nothing else, whatever the bytes.
        """
        if len(data) < _FIELDS.size + _CRC_BYTES:
            raise MalformedPacket("truncated", len(data))
        fields = _FIELDS.unpack_from(data)
        magic, fingerprint, stream_id, fps, delay, first, mtu = fields[:7]
        last_slice, codebook, interleaver, entropy, frames = fields[7:]
        if magic not in _OPTION_BYTES:
            raise MalformedPacket("version", magic)
        head = _FIELDS.size + _OPTION_BYTES[magic]
        if frames > MAX_FRAMES or len(data) != head + 4 * frames + _CRC_BYTES:
            raise MalformedPacket("frames", frames)
        if zlib.crc32(data[:-_CRC_BYTES]) != int.from_bytes(data[-_CRC_BYTES:], "big"):
            raise MalformedPacket("checksum", data[-_CRC_BYTES:].hex())
        sizes = struct.iter_unpack(">HH", data[head:-_CRC_BYTES])
        try:
            config = StreamConfig(
                codebook_size=1 << (codebook & 15),
                patch=PATCHES[codebook >> 4],
                entropy=ENTROPY_MODES[entropy],
                slices=last_slice + 1,
                interleaver=INTERLEAVERS[interleaver],
                fps=fps,
                playout_delay_s=delay,
                mtu=mtu,
                first_sequence=first,
                **_options(data[_FIELDS.size : head]),
            )
            return cls(config, StreamKey(fingerprint.hex(), stream_id), tuple(sizes))
        except (IndexError, StreamConfigError) as error:
            raise MalformedPacket("terms", error) from None

    def check_key(self, key: StreamKey) -> None:
        """Raise ForeignStream unless the receiver's own key is the stream's."""
        if self.key.fingerprint != key.fingerprint:
            raise ForeignStream(
                f"the sender's model is {self.key.fingerprint}, the receiver's {key.fingerprint}: "
                "tokens of one mean nothing to the other"
            )
        if self.key.stream_id != key.stream_id:
            raise ForeignStream(
                f"expected stream {key.stream_id}, the sender offers {self.key.stream_id}"
            )


def _option_fields(config: StreamConfig) -> bytes:
    """Everything about protection and replenishment; b"" where nothing is set."""
    fec: tuple[int, ...] = _NO_FEC
    arq: tuple[float, ...] = _NO_ARQ
    if config.fec is not None:
        f = config.fec
        fec = (FEC_CODES.index(f.code), f.data, f.parity, f.depth, int(f.unequal))
    if config.arq is not None:
        a = config.arq
        order = ARQ_ORDERS.index(a.order)
        arq = (a.retries, order, a.delay_s, a.wait_s, a.budget, a.loss)
    refresh = b"" if config.refresh is None else _REFRESH.pack(config.refresh)
    if not refresh and (config.packing, config.passes, fec, arq) == (1, 1, _NO_FEC, _NO_ARQ):
        return b""
    return _PROTECTION.pack(config.packing, config.passes, *fec, *arq) + refresh


def _options(data: bytes) -> dict[str, Any]:
    """The inverse: fields of `StreamConfig`. Raises IndexError or StreamConfigError."""
    if not data:
        return {}
    packing, passes, code, k, m, depth, unequal, *rest = _PROTECTION.unpack_from(data)
    retries, order, delay_s, wait_s, budget, loss = rest
    if unequal > 1:
        raise IndexError(unequal)
    fec = None if code == _NO_FEC[0] else FecConfig(FEC_CODES[code], k, m, depth, bool(unequal))
    arq = None
    if retries:
        arq = ArqConfig(retries, delay_s, wait_s, ARQ_ORDERS[order], budget, loss)
    found = {"packing": packing, "passes": passes, "fec": fec, "arq": arq}
    if len(data) > _PROTECTION.size:
        (found["refresh"],) = _REFRESH.unpack_from(data, _PROTECTION.size)
    return found
