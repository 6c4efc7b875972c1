"""The receiver's side of parity: collects the packets of groups and restores what is lost.

Memory is bounded by the groups between capture and deadline: of each, at most its media packets
and as many parity packets as it has are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sim.protocol.fec import erasure_code
from sim.protocol.parity import ParityPacket, padded, unpadded
from sim.protocol.plan import Group
from sim.protocol.protection import FecConfig

Restored = tuple[int, bytes]
"""Sequence number, unwrapped, and what should be the packet's checksum and payload."""


class ParityMismatch(ValueError):
    """A parity packet that cannot be of the group that it names."""


@dataclass
class _OpenBlock:
    members: tuple[int, ...]
    parity: int
    symbols: dict[int, bytes] = field(default_factory=dict)  # by number


@dataclass
class _State:
    group: Group
    room: int  # for parity packets
    held: dict[int, bytes] = field(default_factory=dict)  # sealed, by place in the group
    blocks: dict[int, _OpenBlock] = field(default_factory=dict)
    block_of: dict[int, _OpenBlock] = field(default_factory=dict)  # by place


class Repair:
    """Groups in play."""

    def __init__(self, fec: FecConfig) -> None:
        self._fec = fec
        self._code = erasure_code(fec.code)
        self._groups: dict[int, _State] = {}  # by first sequence, ascending
        self._states: dict[int, _State] = {}  # the same, by every media packet
        self._loose: dict[int, bytes] = {}  # packets that have come before their group ended
        self._opened = -1  # the last packet of the last group

    def open(self, group: Group) -> None:
        """Parity of this group may come from now on; groups in order."""
        state = _State(group, group.parity(self._fec))
        self._groups[group.first] = state
        self._opened = group.first + group.count - 1
        for at in range(group.count):
            self._states[group.first + at] = state
            sealed = self._loose.pop(group.first + at, None)
            if sealed is not None:
                state.held[at] = sealed

    def close(self, released: int) -> None:
        """Frames up to this one have been released: drop the groups that serve no later one."""
        for first, state in list(self._groups.items()):
            if state.group.last_frame > released:
                break
            del self._groups[first]
            for sequence in range(first, first + state.group.count):
                del self._states[sequence]

    def group(self, first: int) -> Group | None:
        """The group in play that starts with this packet."""
        state = self._groups.get(first)
        return state.group if state else None

    def media(self, sequence: int, sealed: bytes) -> list[Restored]:
        """A media packet has arrived; what it helps to restore."""
        state = self._states.get(sequence)
        if state is None:
            if sequence > self._opened:
                self._loose[sequence] = sealed
            return []
        at = sequence - state.group.first
        if at in state.held:
            return []
        state.held[at] = sealed
        block = state.block_of.get(at)
        return self._restore(state, block) if block else []

    def parity(self, first: int, packet: ParityPacket) -> list[Restored] | None:
        """A parity packet of a group in play has arrived; what it helps to restore.

        Returns None if it has come before.

        Raises:
            ParityMismatch: it does not fit its group; nothing has changed.
        """
        state = self._groups[first]
        block = state.blocks.get(packet.block)
        if block is None:
            self._check(state, packet)
            block = _OpenBlock(packet.members, packet.parity)
        elif (block.members, block.parity) != (packet.members, packet.parity):
            raise ParityMismatch(f"block {packet.block} was described otherwise")
        if packet.number in block.symbols:
            return None
        length = len(packet.symbol)
        if any(len(symbol) != length for symbol in block.symbols.values()):
            raise ParityMismatch(f"block {packet.block} has symbols of another length")
        if not state.room:
            raise ParityMismatch(f"group {first} has no more parity")
        state.room -= 1
        block.symbols[packet.number] = packet.symbol
        state.blocks[packet.block] = block
        state.block_of.update((at, block) for at in packet.members)
        return self._restore(state, block)

    def wanted(self, missing: Iterable[int]) -> list[int]:
        """Of the missing media packets, those without which too much is missing.

        In a block for which parity has come, that much fewer are needed.
        """
        wanted: list[int] = []
        spare: dict[int, int] = {}
        for sequence in missing:
            state = self._states.get(sequence)
            block = state.block_of.get(sequence - state.group.first) if state else None
            if block is not None and self._fec.code != "xor":
                left = spare.setdefault(id(block), len(block.symbols))
                if left:
                    spare[id(block)] = left - 1
                    continue
            wanted.append(sequence)
        return wanted

    def _check(self, state: _State, packet: ParityPacket) -> None:
        fec, group = self._fec, state.group
        if packet.code != fec.code or packet.listed != fec.unequal:
            raise ParityMismatch(f"a {packet.code} packet in a stream protected by {fec.code}")
        if packet.members[-1] >= group.count or packet.block >= fec.depth:
            raise ParityMismatch(f"block {packet.block} reaches past its group")
        if not fec.unequal:
            members = tuple(range(packet.block, group.count, fec.depth))
            if packet.members != members:
                raise ParityMismatch(f"block {packet.block} does not have these packets")
        if any(at in state.block_of for at in packet.members):
            raise ParityMismatch(f"block {packet.block} overlaps another")
        if len(packet.symbol) % self._code.alignment:
            raise ParityMismatch(f"a symbol of {len(packet.symbol)} bytes")

    def _restore(self, state: _State, block: _OpenBlock) -> list[Restored]:
        if not block.symbols:
            return []
        k = len(block.members)
        length = len(next(iter(block.symbols.values())))
        symbols = {}
        for number, at in enumerate(block.members):
            sealed = state.held.get(at)
            if sealed is not None:
                if len(sealed) >= length:  # a forged parity packet: this block is beyond repair
                    return []
                symbols[number] = padded(sealed, length)
        if len(symbols) == k:
            return []
        symbols |= {k + number: symbol for number, symbol in block.symbols.items()}
        restored = []
        for number, symbol in self._code.decode(k, block.parity, symbols).items():
            sealed = unpadded(symbol)
            if sealed is not None:
                restored.append((state.group.first + block.members[number], sealed))
        return restored
