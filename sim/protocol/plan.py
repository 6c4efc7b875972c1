"""The packets of a stream, and when they leave: the same for sender and receiver.

A pack is what leaves together: one frame, or as many as share packets. Its packets, and the
parity of the groups that end within it, are spread evenly over as many frame intervals, once for
each pass. The last pack of a stream may have fewer frames; it keeps the time of a full one.

A parity group ends when it is full, with the stream, or with the last pack that a group of full
frames would touch: parity never comes later because frames are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.protocol.handshake import StreamStart
from sim.protocol.packet import Layout
from sim.protocol.protection import FecConfig


@dataclass(frozen=True, slots=True)
class Group:
    """Media packets that are protected together.

    Attributes:
        first: sequence number of the first, unwrapped.
        count: how many.
        last_frame: the last frame that any of them serves.
        packs: numbers of the first and last pack that they belong to.
    """

    first: int
    count: int
    last_frame: int
    packs: tuple[int, int]

    def block_sizes(self, fec: FecConfig) -> list[int]:
        """Media packets of each block."""
        blocks = min(fec.depth, self.count)
        return [(self.count - block - 1) // fec.depth + 1 for block in range(blocks)]

    def parity(self, fec: FecConfig) -> int:
        """Parity packets of all blocks."""
        return sum(most_parity(fec, size, fec.parity) for size in self.block_sizes(fec))


def most_parity(fec: FecConfig, size: int, wanted: int) -> int:
    """As much of the wanted parity as a block of so many media packets can have."""
    return min(wanted, size if fec.code == "xor" else 255 - size)


@dataclass(frozen=True, slots=True)
class Pack:
    """Packets that leave together.

    Attributes:
        number: from 0.
        frames: their numbers.
        first: sequence number of its first packet, unwrapped.
        layout: of the frame with the most slices (the first such), which all its packets name.
        start_s: when it begins to leave, in seconds of media time.
        interval_s: how long it takes.
        steps: packets in sending order: a media packet's sequence number, or a group, which
            stands for all of its parity.
    """

    number: int
    frames: range
    first: int
    layout: Layout
    start_s: float
    interval_s: float
    steps: tuple[int | Group, ...]

    @property
    def count(self) -> int:
        """Media packets."""
        return self.layout.slice_count

    def departures(self, fec: FecConfig | None, passes: int) -> list[float]:
        """Seconds after ``start_s`` at which each of its packets leaves, those of all passes."""
        packets = passes * sum(
            step.parity(fec) if isinstance(step, Group) and fec is not None else 1
            for step in self.steps
        )
        step_s = self.interval_s / packets
        return [number * step_s for number in range(packets)]


def walk(start: StreamStart) -> Iterator[Pack]:
    """The packs of a stream, one after the other."""
    config, fec = start.config, start.config.fec
    last_pack = len(start.packs) - 1
    opened: tuple[int, int] | None = None  # sequence and pack of the open group's first packet
    for number, frames in enumerate(start.packs):
        layout = start.pack_layouts[number]
        first = start.first_sequences[number]
        steps: list[int | Group] = []
        for sequence in range(first, first + layout.slice_count):
            steps.append(sequence)
            if fec is None:
                continue
            opened = opened or (sequence, number)
            full = sequence + 1 - opened[0] == fec.group
            ends = sequence + 1 == first + layout.slice_count and (
                number == last_pack or number - opened[1] + 1 == config.group_packs
            )
            if full or ends:
                count = sequence + 1 - opened[0]
                steps.append(Group(opened[0], count, frames[-1], (opened[1], number)))
                opened = None
        yield Pack(
            number,
            frames,
            first,
            layout,
            start.pack_starts_s[number],
            config.packing / config.fps,
            tuple(steps),
        )
