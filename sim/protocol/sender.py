"""The sending side: frames in, paced datagrams out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.entropy import CoderFor
from codec.replenishment import KEPT
from sim.protocol.blocks import Protected, parity_packets
from sim.protocol.events import PacketSent
from sim.protocol.fec import erasure_code
from sim.protocol.feedback import parse_requests
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import FIELDS, PACK, MalformedPacket, headers, seal_all
from sim.protocol.packetizer import Packetizer
from sim.protocol.packing import join_parts
from sim.protocol.parity import pack_parity
from sim.protocol.plan import Group, Pack, walk
from sim.protocol.replenishment import SentTokens
from sim.protocol.sequence import SEQUENCES, unwrap

TokenImportance = NDArray[np.floating]

_Planned = tuple[int, tuple[int, int], int, str, bytes]
"""A packet without its time: sequence, first and last frame, number, kind, bytes."""


@dataclass(slots=True)
class _Kept:
    """A media packet that may be asked for."""

    sent: PacketSent
    data: bytes
    importance: float
    due_s: float
    pack: int
    retries: int


class Sender:
    """Packetizes frames and spreads each one's packets evenly over its frame interval.

    Packet i of n leaves ``i / n`` frame intervals after the frame was submitted; see `plan` for
    frames that share packets and for parity. Drive it so::

        sender.submit(index_map, width, height, now)       # whenever a frame is captured
        while (timer := sender.next_timer()) is not None:  # wait until then, and
            for datagram in sender.datagrams_to_send(timer): ...

    What the receiver asks for again leaves at once. Memory is bounded by what is waiting, and for
    retransmission by what was sent and is not due yet.

    ``counters``: "feedback" = "feedback_used" + "feedback_ignored" control datagrams;
    "refused" packets that were asked for again but are past deadline, retries or budget.
    """

    def __init__(self, start: StreamStart, coders: CoderFor) -> None:
        """Raises LookupError if there is no coder for the configured entropy mode and codebook."""
        config = start.config
        self._config = config
        self._packetizer = Packetizer(config, coders)
        self._key = start.key.seed
        self._code = erasure_code(config.fec.code) if config.fec is not None else None
        self._layouts = start.layouts
        self._memory = None if config.refresh is None else SentTokens(config.refresh)
        self._plan = walk(start)
        self._pack = next(self._plan, None)  # the next to be complete
        self._frame = 0
        self._slices: list[tuple[list[bytes], list[float]]] = []  # of the pack's frames so far
        self._group: list[Protected] = []  # of the open parity group
        self._waiting: deque[tuple[PacketSent, bytes]] = deque()
        self._again: deque[tuple[PacketSent, bytes]] = deque()
        self._kept: dict[int, _Kept] = {}  # by sequence number, unwrapped
        self._budgets: dict[int, int] = {}  # retransmissions left, by pack
        self._events: deque[PacketSent] = deque()
        self.counters = dict.fromkeys(
            ("feedback", "feedback_used", "feedback_ignored", "refused"), 0
        )

    def submit(
        self,
        index_map: NDArray[np.int64],
        width: int,
        height: int,
        now: float,
        token_importance: TokenImportance | None = None,
    ) -> None:
        """Take the next frame.

        Args:
            index_map, width, height: as for `Packetizer.split`, whose errors this raises.
            now: media time in seconds; never decreases.
            token_importance: float[h, w] >= 0, how much is lost with each token in spite of
                concealment; a slice's is the sum over the tokens that it brings. None: a slice's
                is its bytes.

        Raises:
            ValueError: there are more frames than were announced, or of another size.
        """
        plan = self._pack
        if plan is None:
            raise ValueError(f"frame {self._frame} was not announced")
        layout = self._layouts[self._frame]
        if (width, height) != (layout.width, layout.height):
            raise ValueError(f"frame {self._frame} was announced with another size")
        if self._memory is not None and index_map.shape == layout.grid:
            index_map = self._memory.without_kept(index_map, layout)
        _, payloads = self._packetizer.payloads(index_map, width, height)
        if token_importance is None:
            importances = [float(len(payload)) for payload in payloads]
        else:
            flat = np.where(index_map == KEPT, 0, token_importance).ravel()
            importances = [float(flat[cells].sum()) for cells in layout.positions]
        self._slices.append((payloads, importances))
        self._frame += 1
        if self._frame == plan.frames.stop:
            media = self._media(plan)
            self._slices.clear()
            self._schedule(plan, media, max(now, plan.start_s))
            self._pack = next(self._plan, None)

    def receive_feedback(self, data: bytes, now: float) -> None:
        """Take a control datagram; any bytes. What it asks for leaves at ``now``."""
        self.counters["feedback"] += 1
        arq = self._config.arq
        try:
            first, distances = parse_requests(data, self._key)
        except MalformedPacket:
            arq = None
        if arq is None:
            self.counters["feedback_ignored"] += 1
            return
        self.counters["feedback_used"] += 1
        self._forget(now)
        base = unwrap(first, next(reversed(self._kept), 0))
        found = [(number, self._kept.get(number)) for number in (base + d for d in distances)]
        wanted = [(n, kept) for n, kept in found if kept is not None and kept.sent.sent_s <= now]
        self.counters["refused"] += len(found) - len(wanted)
        if arq.order == "hardest":
            wanted.sort(key=lambda entry: (-entry[1].importance, entry[0]))
        for _, kept in wanted:
            if not kept.retries or not self._budgets[kept.pack]:
                self.counters["refused"] += 1
                continue
            kept.retries -= 1
            self._budgets[kept.pack] -= 1
            sent = kept.sent._replace(kind="retransmission", sent_s=now)
            self._again.append((sent, kept.data))

    def next_timer(self) -> float | None:
        """When the next packet wants to leave, in seconds; None if none is waiting."""
        times = [queue[0][0].sent_s for queue in (self._again, self._waiting) if queue]
        return min(times, default=None)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """The datagrams whose time has come, in order; a `PacketSent` event for each.

        What was asked for goes first.
        """
        datagrams = []
        for queue in (self._again, self._waiting):
            while queue and queue[0][0].sent_s <= now:
                sent, data = queue.popleft()
                self._events.append(sent)
                datagrams.append(data)
        return datagrams

    def next_event(self) -> PacketSent | None:
        """The oldest event not yet taken."""
        return self._events.popleft() if self._events else None

    def events(self) -> list[PacketSent]:
        """All events not yet taken."""
        events = list(self._events)
        self._events.clear()
        return events

    def _media(self, plan: Pack) -> list[tuple[bytes, float]]:
        """The pack's media datagrams, with their importances."""
        if self._config.packing == 1:
            [(payloads, importances)] = self._slices
            heads = headers(plan.layout, plan.first)
        else:
            heads = headers(plan.layout, plan.first, PACK)
            payloads, importances = [], []
            for number in range(plan.count):
                frames = [frame for frame in self._slices if number < len(frame[0])]
                payloads.append(join_parts([parts[number] for parts, _ in frames]))
                importances.append(sum(by_slice[number] for _, by_slice in frames))
        return list(zip(seal_all(heads, payloads, self._key), importances, strict=True))

    def _schedule(self, plan: Pack, media: list[tuple[bytes, float]], start_s: float) -> None:
        """Queue a pack's packets and the parity of the groups that end with it."""
        config = self._config
        frames = plan.frames[0], plan.frames[-1]
        packets: list[_Planned] = []
        for step in plan.steps:
            if isinstance(step, Group):
                packets += self._parity(step)
                continue
            data, importance = media[step - plan.first]
            packets.append((step % SEQUENCES, frames, step - plan.first, "media", data))
            if config.fec is not None:
                self._group.append(Protected(data[FIELDS.size :], importance))
        self._forget(start_s)
        departures = plan.departures(config.fec, config.passes)
        for (sequence, (frame, last), number, kind, data), after_s in zip(
            packets * config.passes, departures, strict=True
        ):
            sent = PacketSent(sequence, frame, number, len(data), start_s + after_s, kind, last)
            self._waiting.append((sent, data))
            if config.arq is not None and kind == "media":
                kept = _Kept(
                    sent,
                    data,
                    media[number][1],
                    config.due_s(last),
                    plan.number,
                    config.arq.retries,
                )
                self._kept.setdefault(plan.first + number, kept)  # the first pass
                self._budgets[plan.number] = math.ceil(config.arq.budget * plan.count)

    def _parity(self, group: Group) -> list[_Planned]:
        fec, code = self._config.fec, self._code
        if fec is None or code is None:
            raise RuntimeError("a group without parity")
        found: list[_Planned] = []
        frames = group.packs[0] * self._config.packing, group.last_frame
        for packet in parity_packets(fec, code, group, self._group):
            data = pack_parity(packet, self._key)
            found.append((group.first % SEQUENCES, frames, packet.number, "parity", data))
        self._group.clear()
        return found

    def _forget(self, now: float) -> None:
        """Drop what is past its deadline."""
        for number, kept in list(self._kept.items()):
            if kept.due_s >= now:
                break
            del self._kept[number]
            self._budgets.pop(kept.pack, None)
