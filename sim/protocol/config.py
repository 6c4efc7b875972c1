"""The settings of a stream, checked once."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property

from codec.entropy import ENTROPY_MODES, fixed_bytes
from codec.patches import PATCHES, grid_of
from codec.replenishment import replenishment_bytes
from sim.protocol.checks import StreamConfigError, one_of, within
from sim.protocol.interleaver import INTERLEAVERS, MAX_SLICES
from sim.protocol.packet import (
    CODEBOOK_SIZES,
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    MAX_SIDE,
    Layout,
)
from sim.protocol.protection import ArqConfig, FecConfig
from sim.protocol.sequence import SEQUENCES

__all__ = ["StreamConfig", "StreamConfigError", "StreamKey"]

MAX_FPS = 1e6
MAX_DELAY_S = 1e6
MAX_PACKING = 64
MAX_REFRESH = 65_535

PART_LENGTH_BYTES = 2
"""Of each slice but the last in a shared packet."""

SYMBOL_BYTES = 4
"""What a parity packet needs beyond the longest payload that it protects."""

_RAPTORQ_ALIGNMENT = 8


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
        patch: pixels a token stands for in each direction, one of `codec.patches.PATCHES`.
        slices: packets per frame, 1..256; a frame of fewer tokens has one slice per token.
        interleaver: which tokens share a slice, one of `interleaver.INTERLEAVERS`.
        fps: frames captured per second, > 0; frame f is captured at f / fps.
        playout_delay_s: seconds from a frame's capture to its playout deadline, >= 0.
        mtu: largest datagram in bytes, packet header included.
        first_sequence: sequence number of the stream's first packet, 0..2**16-1.
        fec: parity packets; None for none.
        arq: retransmission; None for none.
        packing: frames whose slices share packets, 1..64: packet s of a pack carries slice s of
            each of its frames and leaves after the last of them was captured.
        passes: how often every packet is sent, 1..16.
        refresh: frames in which every token is sent once at least, 2..65535; between, only tokens
            that have changed are (`replenishment`). None: every frame has all of its tokens.

    Raises:
        StreamConfigError: a field is out of range, parity or retransmissions could never come
            before the deadline, or the stream would have more packets in flight before their
            deadline than sequence numbers can tell apart.
    """

    codebook_size: int = 1024
    entropy: str = "static"
    patch: int = PATCHES[0]
    slices: int = 32
    interleaver: str = "low_discrepancy"
    fps: float = 2.0
    playout_delay_s: float = 1.0
    mtu: int = 1500
    first_sequence: int = 0
    fec: FecConfig | None = None
    arq: ArqConfig | None = None
    packing: int = 1
    passes: int = 1
    refresh: int | None = None

    def __post_init__(self) -> None:
        one_of("codebook_size", self.codebook_size, CODEBOOK_SIZES)
        one_of("entropy", self.entropy, ENTROPY_MODES)
        one_of("patch", self.patch, PATCHES)
        one_of("interleaver", self.interleaver, INTERLEAVERS)
        within("slices", self.slices, 1, MAX_SLICES)
        within("mtu", self.mtu, HEADER_BYTES + 1, MAX_DATAGRAM_BYTES)
        within("first_sequence", self.first_sequence, 0, SEQUENCES - 1)
        within("fps", self.fps, 1 / MAX_FPS, MAX_FPS)
        within("playout_delay_s", self.playout_delay_s, 0, MAX_DELAY_S)
        within("packing", self.packing, 1, MAX_PACKING)
        within("passes", self.passes, 1, 16)
        if self.refresh is not None:
            within("refresh", self.refresh, 2, MAX_REFRESH)
        self._check_latency()
        in_flight = (self.playout_delay_s * self.fps / self.packing + 2) * self.slices
        if in_flight > SEQUENCES // 2:
            raise StreamConfigError(
                "playout_delay_s",
                f"{self.playout_delay_s} s at {self.fps} fps and {self.slices} slices keeps "
                f"{math.ceil(in_flight)} packets in play; sequence numbers tell "
                f"{SEQUENCES // 2} apart",
            )

    @property
    def carries_bytes(self) -> bool:
        """Whether tokens are bytes in order, as those of a file are (`sim.baselines`)."""
        return (self.codebook_size, self.entropy, self.interleaver) == (256, "fixed", "raster")

    @property
    def group_packs(self) -> int:
        """Packs that a parity group of full frames can touch, at most; 0 without parity."""
        if self.fec is None:
            return 0
        starts = range(0, self.slices * self.fec.group, self.fec.group)
        last = self.fec.group - 1
        return max((at % self.slices + last) // self.slices + 1 for at in starts)

    @property
    def needs_importance(self) -> bool:
        """Whether it matters which slices are harder to conceal than others."""
        unequal = self.fec is not None and self.fec.unequal
        return unequal or (self.arq is not None and self.arq.order == "hardest")

    @property
    def latency_s(self) -> float:
        """Seconds from a frame's capture until the last packet that serves it has left, at most.

        Its pack waits for the pack's last frame and spreads over as many frame intervals; a parity
        group is complete when the last pack that it touches is.
        """
        packs = max(1, self.group_packs)
        return (packs * self.packing + self.packing - 1) / self.fps

    def _check_latency(self) -> None:
        if (self.packing - 1) / self.fps > self.playout_delay_s:
            raise StreamConfigError(
                "packing",
                f"a pack of {self.packing} images leaves {(self.packing - 1) / self.fps:g} s after "
                f"its first was captured, past the playout delay of {self.playout_delay_s:g} s",
            )
        if self.fec is not None and self.latency_s > self.playout_delay_s:
            raise StreamConfigError(
                "fec.depth" if self.fec.depth > 1 else "fec.data",
                f"{self.fec.depth} x {self.fec.data} packets touch up to "
                f"{self.group_packs * self.packing} images; their parity comes "
                f"{self.latency_s:g} s after the first was captured, past the playout delay of "
                f"{self.playout_delay_s:g} s: protect fewer packets at once, or raise "
                "playout_delay_s or fps",
            )
        if self.arq is not None and self.arq.delay_s >= self.playout_delay_s:
            raise StreamConfigError(
                "arq.delay_s",
                f"of {self.arq.delay_s:g} s: no retransmission can come before the playout delay "
                f"of {self.playout_delay_s:g} s is over",
            )

    def layout(self, width: int, height: int) -> Layout:
        """How a frame of ``width`` x ``height`` pixels is cut; a frame of bytes into more slices
        where the mtu asks for them, since files differ in size.

        Raises:
            StreamConfigError: a side is not 1..8192, or a slice could outgrow the mtu.
        """
        within("width", width, 1, MAX_SIDE)
        within("height", height, 1, MAX_SIDE)
        room = (self.mtu - HEADER_BYTES - self._parity_bytes) // self.packing
        room -= PART_LENGTH_BYTES * (self.packing > 1)
        slices = self.slices
        if self.carries_bytes and room > 0:
            needed = -(-math.prod(grid_of(height, width, self.patch)) // room)
            slices = min(MAX_SLICES, max(slices, needed))
        layout = Layout.of_image(
            width,
            height,
            codebook_size=self.codebook_size,
            slices=slices,
            interleaver=self.interleaver,
            entropy=self.entropy,
            patch=self.patch,
            replenished=self.refresh is not None,
        )
        slice_bytes = replenishment_bytes if layout.replenished else fixed_bytes
        fitting = (
            count
            for count in range(layout.slice_count, MAX_SLICES + 1)
            if slice_bytes(-(-layout.tokens // count), self.codebook_size) <= room
        )
        need = next(fitting, None)
        if need != layout.slice_count:
            cure = "raise the mtu" if need is None else f"use at least {need} slices"
            raise StreamConfigError(
                "slices",
                f"{layout.slice_count} slices of a {width}x{height} image at K="
                f"{self.codebook_size} do not fit an mtu of {self.mtu} bytes; {cure}",
            )
        return layout

    @property
    def _parity_bytes(self) -> int:
        """How much longer than the longest packet that it protects a parity packet may be."""
        if self.fec is None:
            return 0
        listed = -(-self.fec.group // 8) if self.fec.unequal else 0
        aligned = _RAPTORQ_ALIGNMENT - 1 if self.fec.code == "raptorq" else 0
        return SYMBOL_BYTES + listed + aligned

    def capture_s(self, frame: int) -> float:
        """When frame number ``frame`` is captured, in seconds of media time."""
        return frame / self.fps

    def due_s(self, frame: int) -> float:
        """The frame's playout deadline: a packet that arrives later than this is late."""
        return frame / self.fps + self.playout_delay_s
