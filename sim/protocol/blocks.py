"""The sender's side of parity: a group's media packets are dealt to blocks, and blocks coded."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from sim.protocol.fec import ErasureCode
from sim.protocol.parity import ParityPacket, padded
from sim.protocol.plan import Group, most_parity
from sim.protocol.protection import FecConfig


@dataclass(frozen=True, slots=True)
class Protected:
    """A media packet in its group.

    Attributes:
        sealed: its checksum and payload.
        importance: how much its loss would hurt, >= 0.
    """

    sealed: bytes
    importance: float


@dataclass(frozen=True, slots=True)
class _Block:
    members: tuple[int, ...]  # counted from the group's first packet, ascending
    parity: int


def parity_packets(
    fec: FecConfig, code: ErasureCode, group: Group, packets: Sequence[Protected]
) -> list[ParityPacket]:
    """The parity of a group, in sending order: one packet of each block in turn.

    Args:
        packets: of the group, in sending order.
    """
    blocks = _unequal(fec, group, packets) if fec.unequal else _equal(fec, group)
    coded = [_encode(code, packets, block) for block in blocks]
    return [
        ParityPacket(
            code=fec.code,
            sequence=group.first,
            number=number,
            block=index,
            parity=block.parity,
            depth=1 if fec.unequal else fec.depth,
            members=block.members,
            listed=fec.unequal,
            symbol=coded[index][number],
        )
        for number in range(max(block.parity for block in blocks))
        for index, block in enumerate(blocks)
        if number < block.parity
    ]


def _equal(fec: FecConfig, group: Group) -> list[_Block]:
    return [
        _Block(tuple(range(block, group.count, fec.depth)), most_parity(fec, size, fec.parity))
        for block, size in enumerate(group.block_sizes(fec))
    ]


def _unequal(fec: FecConfig, group: Group, packets: Sequence[Protected]) -> list[_Block]:
    """Hardest packets into the first block, and so on; parity in proportion to the importances."""
    hardest = sorted(range(group.count), key=lambda at: (-packets[at].importance, at))
    members, at = [], 0
    for size in group.block_sizes(fec):
        members.append(tuple(sorted(hardest[at : at + size])))
        at += size
    importances = [sum(packets[at].importance for at in block) for block in members]
    shares = _apportion(
        group.parity(fec), importances, [most_parity(fec, len(block), 255) for block in members]
    )
    return [_Block(block, share) for block, share in zip(members, shares, strict=True)]


def _apportion(seats: int, importances: Sequence[float], most: Sequence[int]) -> list[int]:
    """Whole shares of the seats, in proportion to the importances (Sainte-Lague's method: the next
    seat goes where importance / (2 seats + 1) is largest), none above its most."""
    if not any(importances):
        importances = [1.0] * len(importances)
    shares = [0] * len(importances)
    queue = [(-importance, at) for at, importance in enumerate(importances) if most[at]]
    heapq.heapify(queue)
    for _ in range(seats):
        _, at = heapq.heappop(queue)
        shares[at] += 1
        if shares[at] < most[at]:
            heapq.heappush(queue, (-importances[at] / (2 * shares[at] + 1), at))
    return shares


def _encode(code: ErasureCode, packets: Sequence[Protected], block: _Block) -> list[bytes]:
    if not block.parity:
        return []
    longest = max(len(packets[at].sealed) for at in block.members) + 1
    length = -(-longest // code.alignment) * code.alignment
    return code.encode([padded(packets[at].sealed, length) for at in block.members], block.parity)
