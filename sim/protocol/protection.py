"""Settings of protection against loss: parity (FEC) and retransmission (ARQ)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from sim.protocol.checks import StreamConfigError, one_of, within

FEC_CODES = ("reed_solomon", "xor", "raptorq")
"""By their number in a parity packet's header."""

ARQ_ORDERS = ("first", "hardest")

MAX_BLOCK = 255
"""Packets of a block, parity included: a Cauchy code over GF(256) has 256 points."""

MAX_LISTED = 2040
"""Packets of a group whose blocks follow importance: a parity packet lists them in 255 bytes."""

MIN_FEEDBACK_S = 1e-3


@dataclass(frozen=True)
class FecConfig:
    """Erasure-coded blocks of packets.

    Media packets are protected in groups of ``data * depth`` in sending order, across frames.
    Packet i of a group belongs to block ``i % depth``; after the group's last media packet come
    ``parity`` packets of each block, in turn, so that a block's packets lie ``depth`` apart.

    Attributes:
        code: one of `FEC_CODES`.
        data: media packets in a block, 1..255.
        parity: parity packets in a block, 1..254.
        depth: blocks in a group, 1..255.
        unequal: the group's packets are dealt to its blocks by importance instead, the greatest
            first, and its ``parity * depth`` parity packets in proportion to that of the blocks.

    Raises:
        StreamConfigError: out of range, or the code cannot do that or is not installed.
    """

    code: str
    data: int
    parity: int
    depth: int = 1
    unequal: bool = False

    def __post_init__(self) -> None:
        one_of("fec.code", self.code, FEC_CODES)
        within("fec.data", self.data, 1, MAX_BLOCK)
        within("fec.parity", self.parity, 1, MAX_BLOCK - 1)
        within("fec.depth", self.depth, 1, 255)
        if self.data + self.parity > MAX_BLOCK:
            raise StreamConfigError(
                "fec.parity",
                f"{self.data} data + {self.parity} parity packets make a block of "
                f"{self.data + self.parity}; at most {MAX_BLOCK}",
            )
        if self.code == "xor" and self.parity > self.data:
            raise StreamConfigError(
                "fec.parity", f"xor has at most one parity packet for each of {self.data} packets"
            )
        if self.unequal and self.depth == 1:
            raise StreamConfigError(
                "fec.unequal", "needs a depth of at least 2: parity is dealt among the blocks"
            )
        if self.unequal and self.data * self.depth > MAX_LISTED:
            raise StreamConfigError(
                "fec.unequal",
                f"a group has {self.data * self.depth} packets; at most {MAX_LISTED} can be listed",
            )
        if self.code == "raptorq" and find_spec("raptorq") is None:
            raise StreamConfigError(
                "fec.code", "raptorq is not installed; pip install 'lossy-stream-sim[raptorq]'"
            )

    @property
    def group(self) -> int:
        """Media packets in a full group."""
        return self.data * self.depth


@dataclass(frozen=True)
class ArqConfig:
    """Negative acknowledgements over a return path, and what the sender does about them.

    Attributes:
        retries: how often one packet is asked for, 1..16.
        delay_s: one way of the return path, in seconds, at least 0.001.
        wait_s: how long the receiver waits beyond a packet's estimated arrival, in seconds.
        order: "first": every packet is asked for as soon as it is missed, and sent again in the
            order of the stream. "hardest": what is missing is asked for when all of the frame has
            been sent, and the packets that are hardest to conceal go first.
        budget: most retransmissions of a frame, as a share of its packets (rounded up), > 0.
        loss: of feedback packets, independent of each other, 0 <= loss < 1.

    Raises:
        StreamConfigError: out of range.
    """

    retries: int = 1
    delay_s: float = 0.05
    wait_s: float = 0.01
    order: str = "first"
    budget: float = 1.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        one_of("arq.order", self.order, ARQ_ORDERS)
        within("arq.retries", self.retries, 1, 16)
        within("arq.delay_s", self.delay_s, MIN_FEEDBACK_S, 3600)
        within("arq.wait_s", self.wait_s, 0, 3600)
        within("arq.loss", self.loss, 0, 1)
        if not 0 < self.budget <= 16:
            raise StreamConfigError("arq.budget", f"must be above 0, at most 16: {self.budget!r}")
