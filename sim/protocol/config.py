"""What a stream is: the choices a user makes, checked once."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property

from codec.entropy import ENTROPY_MODES, fixed_bytes
from sim.protocol.interleaver import INTERLEAVERS, MAX_SLICES
from sim.protocol.packet import (
    CODEBOOK_SIZES,
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_SIDE,
    Layout,
)
from sim.protocol.sequence import SEQUENCES

MAX_FPS = 1e6
MAX_DELAY_S = 1e6


class StreamConfigError(ValueError):
    """A stream setting that cannot work. ``parameter`` names the field of `StreamConfig`."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter
        self.message = message


@dataclass(frozen=True)
class StreamKey:
    """Who may read a stream: packets of any other model or session fail their checksum.

    ``fingerprint``: 16 hexadecimal digits, of the model's weights and integer tables.
    ``stream_id``: 0..2**32-1, chosen per session.

    This guards against mistakes, not against forgery: a CRC is no authentication.
    """

    fingerprint: str
    stream_id: int = 0

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 16 or not set(self.fingerprint) <= set("0123456789abcdef"):
            raise StreamConfigError(
                "fingerprint", f"must be 16 lower-case hex digits, got {self.fingerprint!r}"
            )
        if not 0 <= self.stream_id < 1 << 32:
            raise StreamConfigError("stream_id", f"must be 0..2**32-1, got {self.stream_id}")

    @cached_property
    def seed(self) -> int:
        """The CRC-32 of fingerprint and stream id: start value of every packet's checksum."""
        return zlib.crc32(bytes.fromhex(self.fingerprint) + self.stream_id.to_bytes(4, "big"))


@dataclass(frozen=True)
class StreamConfig:
    """How frames become packets, and when.

    Attributes:
        codebook_size: K, a power of two from 2 to 2**15.
        entropy: how tokens become bytes, one of `codec.entropy.ENTROPY_MODES`.
        slices: packets per frame, 1..256; a frame of fewer tokens has one slice per token.
        interleaver: which tokens share a slice, one of `interleaver.INTERLEAVERS`.
        fps: frames captured per second, > 0; frame f is captured at f / fps.
        playout_delay_s: seconds from a frame's capture to its playout deadline, >= 0.
        mtu: largest datagram in bytes, packet header included.
        first_sequence: sequence number of the stream's first packet, 0..2**16-1.

    Raises:
        StreamConfigError: a field is out of range, or the stream would have more packets in
            flight before their deadline than sequence numbers can tell apart.
    """

    codebook_size: int = 1024
    entropy: str = "static"
    slices: int = 32
    interleaver: str = "low_discrepancy"
    fps: float = 2.0
    playout_delay_s: float = 1.0
    mtu: int = 1500
    first_sequence: int = 0

    def __post_init__(self) -> None:
        _one_of("codebook_size", self.codebook_size, CODEBOOK_SIZES)
        _one_of("entropy", self.entropy, ENTROPY_MODES)
        _one_of("interleaver", self.interleaver, INTERLEAVERS)
        _within("slices", self.slices, 1, MAX_SLICES)
        _within("mtu", self.mtu, HEADER_BYTES + 1, MAX_DATAGRAM_BYTES)
        _within("first_sequence", self.first_sequence, 0, SEQUENCES - 1)
        _within("fps", self.fps, 1 / MAX_FPS, MAX_FPS)
        _within("playout_delay_s", self.playout_delay_s, 0, MAX_DELAY_S)
        in_flight = (self.playout_delay_s * self.fps + 2) * self.slices
        if in_flight > SEQUENCES // 2:
            raise StreamConfigError(
                "playout_delay_s",
                f"{self.playout_delay_s} s at {self.fps} fps and {self.slices} slices keeps "
                f"{math.ceil(in_flight)} packets in play; sequence numbers tell "
                f"{SEQUENCES // 2} apart",
            )

    def layout(self, width: int, height: int) -> Layout:
        """How a frame of ``width`` x ``height`` pixels is cut.

        Raises:
            StreamConfigError: a side is not 1..16384, or a slice could outgrow the mtu.
        """
        _within("width", width, 1, MAX_SIDE)
        _within("height", height, 1, MAX_SIDE)
        layout = Layout.of_image(
            width,
            height,
            codebook_size=self.codebook_size,
            slices=self.slices,
            interleaver=self.interleaver,
            entropy=self.entropy,
        )
        room = self.mtu - HEADER_BYTES
        if fixed_bytes(-(-layout.tokens // layout.slice_count), self.codebook_size) > room:
            most = room * 8 // (self.codebook_size.bit_length() - 1)  # tokens in a packet
            need = -(-layout.tokens // most) if most else MAX_SLICES + 1
            cure = f"use at least {need} slices" if need <= MAX_SLICES else "raise the mtu"
            raise StreamConfigError(
                "slices",
                f"{layout.slice_count} slices of a {width}x{height} image at K="
                f"{self.codebook_size} do not fit an mtu of {self.mtu} bytes; {cure}",
            )
        return layout

    def capture_s(self, frame: int) -> float:
        """When frame number ``frame`` is captured, in seconds of media time."""
        return frame / self.fps

    def due_s(self, frame: int) -> float:
        """The frame's playout deadline: a packet that arrives later than this is late."""
        return frame / self.fps + self.playout_delay_s


def _one_of(parameter: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise StreamConfigError(
            parameter, f"must be one of {', '.join(map(str, choices))}; got {value!r}"
        )


def _within(parameter: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise StreamConfigError(parameter, f"must be from {low:g} to {high:g}, got {value!r}")
