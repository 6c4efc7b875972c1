"""Parity, retransmission, shared packets: sender and receiver joined by lists."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from codec.coders import CoderBook
from sim.protocol.config import StreamConfig, StreamConfigError, StreamKey
from sim.protocol.events import REJECTIONS, FrameReady, PacketSent
from sim.protocol.feedback import pack_requests
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import HEADER_BYTES, PACK, PARITY, Packet, pack, parse
from sim.protocol.parity import ParityPacket, pack_parity, parse_parity
from sim.protocol.plan import Group, walk
from sim.protocol.protection import ArqConfig, FecConfig
from sim.protocol.receiver import Receiver
from sim.protocol.sender import Sender

KEY = StreamKey("0123456789abcdef", 3)
BOOK = CoderBook({64: np.repeat([2560, 512], [16, 48])})
SIZES = ((64, 48), (33, 80), (16, 16), (100, 50), (64, 48), (100, 20), (128, 64))
RS = FecConfig("reed_solomon", 6, 3, 2)
Maps = list[NDArray[np.int64]]


def make_maps(sizes: Iterable[tuple[int, int]], seed: int = 0) -> Maps:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 64, (-(-height // 16), -(-width // 16))) for width, height in sizes]


def configured(**changes: Any) -> StreamConfig:
    basic = {"codebook_size": 64, "slices": 9, "fps": 10, "playout_delay_s": 1.5}
    return StreamConfig(**{**basic, "first_sequence": 65500, **changes})


@dataclass
class Run:
    """What became of a stream."""

    sent: list[PacketSent] = field(default_factory=list)
    datagrams: list[bytes] = field(default_factory=list)
    frames: list[FrameReady] = field(default_factory=list)
    requests: list[tuple[float, bytes]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    refused: int = 0


Fate = Callable[[PacketSent], bool]


def play(
    config: StreamConfig,
    arrives: Fate,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    *,
    delay_s: float = 0.0,
    importance: Maps | None = None,
    extra: Iterable[tuple[float, bytes]] = (),
    feedback_arrives: Callable[[int], bool] = lambda number: True,
) -> Run:
    """Run a stream event by event, in the order of the driver law."""
    run = Run()
    start = StreamStart(config, KEY, sizes)
    assert StreamStart.parse(start.pack()) == start
    sender = Sender(start, BOOK)
    receiver = Receiver(start, KEY, BOOK)
    maps = make_maps(sizes)
    captured, entered = 0, 0
    events: list[tuple[float, int, int, bytes]] = []  # when, feedback before arrival, order
    for when, data in extra:
        heapq.heappush(events, (when, 2, (entered := entered + 1), data))
    while True:
        capture_s = config.capture_s(captured) if captured < len(sizes) else None
        times = [t for t in (capture_s, sender.next_timer()) if t is not None]
        ring_s = receiver.next_timer()
        nexts = [(min(times), 1)] if times else []
        nexts += [events[0][:2]] if events else []
        nexts += [(ring_s, 3)] if ring_s is not None else []
        if not nexts:
            break
        now, moment = min(nexts)
        if moment == 0:
            sender.receive_feedback(heapq.heappop(events)[3], now)
        elif moment == 1:
            if capture_s is not None and capture_s <= now:
                hard = None if importance is None else importance[captured]
                sender.submit(maps[captured], *sizes[captured], now, hard)
                captured += 1
            for data in sender.datagrams_to_send(now):
                sent = sender.next_event()
                assert sent is not None
                run.sent.append(sent)
                run.datagrams.append(data)
                if arrives(sent):
                    heapq.heappush(events, (now + delay_s, 2, (entered := entered + 1), data))
        elif moment == 2:
            receiver.receive_datagram(heapq.heappop(events)[3], now)
        else:
            receiver.handle_timer(now)
        for data in receiver.feedback_to_send():
            run.requests.append((now, data))
            assert config.arq is not None
            if feedback_arrives(len(run.requests) - 1):
                back_s = now + config.arq.delay_s
                heapq.heappush(events, (back_s, 0, (entered := entered + 1), data))
    while (event := receiver.next_event()) is not None:
        if isinstance(event, FrameReady):
            run.frames.append(event)
    run.counters, run.refused = receiver.counters, sender.counters["refused"]
    assert [frame.frame for frame in run.frames] == list(range(len(sizes)))
    for frame, index_map in zip(run.frames, maps, strict=True):  # lost or right, never wrong
        expected = np.where(frame.grid.received, index_map, -1)
        np.testing.assert_array_equal(frame.grid.indices, expected)
        assert frame.complete == frame.grid.received.all()
    rejected = sum(receiver.counters[reason] for reason in REJECTIONS)
    assert receiver.counters["received"] == receiver.counters["accepted"] + rejected
    assert not receiver._frames and not receiver._expected, "memory is given back"
    if receiver._repair is not None:
        assert not receiver._repair._groups and not receiver._repair._states
        assert not receiver._repair._loose
    if receiver._requests is not None:
        assert not receiver._requests._awaited
    return run


def everything(sent: PacketSent) -> bool:
    return True


def original(sent: PacketSent) -> bool:
    return sent.kind == "media"


def lossy(loss: float, seed: int) -> Fate:
    rng = np.random.default_rng(seed)
    return lambda sent: bool(rng.random() >= loss)


@st.composite
def protections(draw: st.DrawFn) -> dict[str, Any]:
    fec = None
    if draw(st.booleans()):
        data = draw(st.integers(1, 12))
        parity = draw(st.integers(1, 5))
        depth = draw(st.integers(1, 4))
        code = draw(st.sampled_from(["reed_solomon", "xor"]))
        parity = min(parity, data) if code == "xor" else parity
        fec = FecConfig(code, data, parity, depth, depth > 1 and draw(st.booleans()))
    arq = None
    if draw(st.booleans()):
        order = draw(st.sampled_from(["first", "hardest"]))
        arq = ArqConfig(draw(st.integers(1, 3)), 0.03, 0.01, order, draw(st.floats(0.1, 2)))
    return {"fec": fec, "arq": arq, "packing": draw(st.integers(1, 3)), "passes": draw(PASSES)}


PASSES = st.sampled_from([1, 1, 1, 2])


@settings(max_examples=25)
@given(protections(), st.floats(0, 1), st.integers(0, 2**32), st.sampled_from([0.0, 0.07]))
def test_any_protection_under_any_loss(
    chosen: dict[str, Any], loss: float, seed: int, delay_s: float
) -> None:
    config = configured(playout_delay_s=3.0, **chosen)
    rng = np.random.default_rng(seed)
    back = rng.random(10_000) < 0.7
    run = play(config, lossy(loss, seed), delay_s=delay_s, feedback_arrives=lambda n: bool(back[n]))
    media = [sent for sent in run.sent if sent.kind == "media"]
    packs = [range(at, min(at + config.packing, 7)) for at in range(0, 7, config.packing)]
    counts = [config.layout(*size).slice_count for size in SIZES]
    assert len(media) == config.passes * sum(max(counts[f] for f in pack) for pack in packs)
    assert [sent.sent_s for sent in run.sent] == sorted(sent.sent_s for sent in run.sent)
    if config.arq is None:
        assert not run.requests
    else:
        again = [sent for sent in run.sent if sent.kind == "retransmission"]
        for pack_frames in packs:
            count = max(counts[frame] for frame in pack_frames)
            mine = [sent for sent in again if sent.frame == pack_frames[0]]
            assert len(mine) <= np.ceil(config.arq.budget * count)
            for slice_ in range(count):
                tries = sum(sent.slice == slice_ for sent in mine)
                assert tries <= config.arq.retries


@settings(max_examples=12)
@given(protections(), st.integers(0, 2**32))
def test_without_loss_nothing_is_asked_for_and_all_arrives(
    chosen: dict[str, Any], seed: int
) -> None:
    run = play(configured(playout_delay_s=3.0, **chosen), everything, delay_s=0.05)
    assert all(frame.complete for frame in run.frames)
    assert not run.requests
    assert not run.counters["recovered"]
    assert not any(frame.recovered for frame in run.frames)


@pytest.mark.parametrize("packing", [1, 2])
@pytest.mark.parametrize("fec", [RS, FecConfig("reed_solomon", 4, 2, 3), FecConfig("xor", 5, 1, 4)])
def test_packets_of_a_block_lie_depth_apart_and_its_parity_restores_so_many(
    fec: FecConfig, packing: int
) -> None:
    """What theory calls a block: data + parity packets, ``depth`` apart on the wire; it fails
    when, and only when, more than ``parity`` of them are lost."""
    config = configured(fec=fec, packing=packing, playout_delay_s=2.0)
    sizes = ((128, 96),) * 24
    clean = play(config, everything, sizes)
    n, width = fec.data + fec.parity, fec.depth * (fec.data + fec.parity)
    groups = len(clean.sent) // width
    assert groups >= 3
    kinds = [sent.kind for sent in clean.sent[:width]]
    assert kinds == ["media"] * fec.group + ["parity"] * (fec.parity * fec.depth)
    for sent, data in zip(clean.sent, clean.datagrams, strict=True):
        assert data[0] >> 4 & 3 == (PARITY if sent.kind == "parity" else PACK * (packing > 1))
    rng = np.random.default_rng(3)
    lost = rng.random(len(clean.sent)) < fec.parity / n
    order = iter(range(len(clean.sent)))
    run = play(config, lambda sent: not lost[next(order)], sizes)
    mask = lost[: groups * width].reshape(groups, n, fec.depth)
    failed = mask.sum(axis=1) > fec.parity
    assert failed.any() and not failed.all()
    slices = config.slices
    for group, block in np.ndindex(groups, fec.depth):
        for member in range(fec.data):
            number = group * fec.group + member * fec.depth + block
            pack_number, slice_ = divmod(number, slices)
            gone = mask[group, member, block] and failed[group, block]
            for frame in range(pack_number * packing, (pack_number + 1) * packing):
                ready = run.frames[frame]
                cells = config.layout(*sizes[frame]).positions[slice_]
                assert ready.grid.received.ravel()[cells].all() == (not gone)
    restored = (mask[:, : fec.data] & ~failed[:, None]).sum()
    assert run.counters["recovered"] >= restored
    assert sum(frame.recovered for frame in run.frames) == packing * run.counters["recovered"]


def test_parity_says_what_it_protects_and_costs_what_the_longest_packet_needs() -> None:
    """The first group: 12 packets, those of one image and three of the next."""
    config = configured(fec=RS, playout_delay_s=2.0)
    sizes = ((128, 96),) * 8
    first, second = list(walk(StreamStart(config, KEY, sizes)))[:2]
    assert not [step for step in first.steps if isinstance(step, Group)]
    assert next(step for step in second.steps if isinstance(step, Group)).packs == (0, 1)
    run = play(config, everything, sizes)
    both = list(zip(run.sent, run.datagrams, strict=True))
    media = [data for sent, data in both if original(sent)]
    parity = [data for sent, data in both if not original(sent)]
    for number, data in enumerate(parity[:6]):
        packet = parse_parity(data, KEY.seed)
        assert (packet.number, packet.block) == divmod(number, 2)
        assert packet.sequence == parse(media[0], KEY.seed).sequence == config.first_sequence
        assert packet.members == tuple(range(packet.block, 12, 2))
        assert len(data) == max(len(media[member]) for member in packet.members) + 4


def test_frames_come_at_their_deadlines_whatever_parity_spans() -> None:
    """A block over three images: the first is released on time, repaired if parity was there."""
    config = configured(fec=FecConfig("reed_solomon", 27, 6), playout_delay_s=0.4)
    sizes = ((128, 96),) * 6
    dropped = {(1, 0), (1, 5), (2, 3)}
    run = play(config, lambda s: s.kind == "parity" or (s.frame, s.slice) not in dropped, sizes)
    assert [frame.due_s for frame in run.frames] == [config.due_s(f) for f in range(6)]
    assert all(frame.complete for frame in run.frames)
    assert [frame.recovered for frame in run.frames] == [0, 2, 1, 0, 0, 0]
    assert run.frames[1].last_arrival_s is not None
    assert 0.2 < run.frames[1].last_arrival_s < run.frames[1].due_s
    with pytest.raises(StreamConfigError, match=r"fec.data: .*4 images.* past the playout delay"):
        configured(fec=FecConfig("reed_solomon", 28, 6), playout_delay_s=0.3)


def test_harder_packets_get_more_of_the_same_parity() -> None:
    sizes = ((128, 96),) * 8
    easy = [np.full((6, 8), 0.1) for _ in sizes]
    for hard in (1, 4):
        easy[hard][:] = 10.0
    shared = {"playout_delay_s": 2.0, "slices": 6}
    equal = configured(fec=FecConfig("reed_solomon", 6, 2, 4), **shared)
    unequal = configured(fec=FecConfig("reed_solomon", 6, 2, 4, True), **shared)
    plain = play(equal, everything, sizes, importance=easy)
    dealt = play(unequal, everything, sizes, importance=easy)
    count = [sum(s.kind == "parity" for s in run.sent) for run in (plain, dealt)]
    assert count[0] == count[1] == 16
    most = {}
    for sent, data in zip(dealt.sent, dealt.datagrams, strict=True):
        if sent.kind == "parity":
            packet = parse_parity(data, KEY.seed)
            for member in packet.members:
                frame = (packet.sequence - equal.first_sequence) % 65536 // 6 + member // 6
                most.setdefault(frame, set()).add(packet.parity)
    assert all(min(most[hard]) >= 6 for hard in (1, 4))
    assert all(most.get(frame, set()) <= {1} for frame in range(8) if frame not in (1, 4))
    # Frames 0 and 1 are lost but for their parity: three packets of every equal block.
    for config, saved in ((equal, []), (unequal, [1])):
        run = play(config, lambda s: s.kind == "parity" or s.frame > 1, sizes, importance=easy)
        assert [frame for frame in (0, 1) if run.frames[frame].complete] == saved


def test_several_images_share_packets() -> None:
    config = configured(packing=3)
    run = play(config, lambda s: s.slice != 2, sizes=((128, 96),) * 6)
    assert len(run.sent) == 2 * 9
    assert run.sent[0].sent_s == config.capture_s(2)
    assert {(s.frame, s.last_frame) for s in run.sent} == {(0, 2), (3, 5)}
    single = play(configured(), everything, sizes=((128, 96),) * 6)
    saved = sum(map(len, single.datagrams)) - sum(map(len, run.datagrams))
    assert saved == (54 - 18) * HEADER_BYTES - 18 * 2  # two lengths in each
    layout = config.layout(128, 96)
    for frame in run.frames:
        lost = np.flatnonzero(~frame.grid.received.ravel())
        np.testing.assert_array_equal(np.sort(lost), np.sort(layout.positions[2]))


def test_what_is_missing_is_asked_for_while_an_answer_can_come() -> None:
    arq = ArqConfig(retries=3, delay_s=0.03, wait_s=0.01, budget=9)
    again: dict[int, int] = {}

    def third_time(sent: PacketSent) -> bool:
        again[sent.sequence] = again.get(sent.sequence, 0) + 1
        return sent.slice % 4 > 0 or again[sent.sequence] == 3

    run = play(configured(arq=arq), third_time, delay_s=0.02)
    assert all(frame.complete for frame in run.frames)
    assert run.counters["requested"] == sum(s.kind == "retransmission" for s in run.sent)
    assert set(again.values()) == {1, 3}
    first = next(s.sent_s for s in run.sent if s.kind == "retransmission")
    # The second packet tells the delay: one interval, the delay, its deviation, patience, return.
    assert first <= 2 * 0.1 / 9 + 3 * 0.02 + 0.01 + 0.03 + 1e-9

    hopeless = play(configured(arq=arq, playout_delay_s=0.04), third_time, delay_s=0.02)
    assert not hopeless.requests


def test_lost_requests_are_repeated() -> None:
    arq = ArqConfig(retries=4, delay_s=0.03, budget=9)
    run = play(
        configured(arq=arq),
        lambda s: s.kind == "retransmission" or s.slice != 1,
        feedback_arrives=lambda number: number % 2 > 0,
    )
    assert all(frame.complete for frame in run.frames)
    assert len(run.requests) > sum(s.kind == "retransmission" for s in run.sent) > 0


def test_with_parity_only_what_parity_cannot_restore_is_asked_for() -> None:
    fec, arq = FecConfig("reed_solomon", 9, 2), ArqConfig(delay_s=0.03)
    sizes = ((128, 96),) * 4
    two = play(configured(fec=fec, arq=arq), lambda s: not original(s) or s.slice > 1, sizes)
    assert not two.requests and all(frame.complete for frame in two.frames)
    four = play(configured(fec=fec, arq=arq), lambda s: not original(s) or s.slice > 3, sizes)
    assert all(frame.complete for frame in four.frames)
    assert sum(s.kind == "retransmission" for s in four.sent) == 2 * 4
    assert four.counters["recovered"] == 2 * 4


@pytest.mark.parametrize("order", ["first", "hardest"])
def test_groups_that_end_within_an_image_are_asked_for_too(order: str) -> None:
    """Groups of 7, images of 9: hardly any group ends with an image."""
    config = configured(
        fec=FecConfig("reed_solomon", 7, 1), arq=ArqConfig(delay_s=0.03, order=order)
    )
    lost = {0, 1, 4, 5}
    run = play(config, lambda s: not original(s) or s.slice not in lost, ((128, 96),) * 6)
    assert all(frame.complete for frame in run.frames)
    again = [s for s in run.sent if s.kind == "retransmission"]
    assert 0 < len(again) < 6 * len(lost)
    latest = {s.sent_s - config.capture_s(s.frame) for s in again}
    assert max(latest) < 0.3, "one image further at most"


def test_the_hardest_of_what_is_missing_is_sent_again_first() -> None:
    arq = ArqConfig(delay_s=0.03, order="hardest", budget=0.3)
    config = configured(arq=arq)
    sizes = ((128, 96),) * 3
    importance = [np.zeros((6, 8)) for _ in sizes]
    positions = config.layout(128, 96).positions
    for slice_ in range(9):
        for grid in importance:
            grid.ravel()[positions[slice_]] = slice_
    run = play(config, lambda s: not original(s) or s.slice % 2 == 0, sizes, importance=importance)
    again = [(s.frame, s.slice) for s in run.sent if s.kind == "retransmission"]
    assert again == [(frame, slice_) for frame in range(3) for slice_ in (7, 5, 3)]
    assert run.refused == 3  # slice 1 of each: over budget


@settings(max_examples=12)
@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(0, 2**32))
def test_hostile_parity_never_changes_a_token(noise: list[bytes], seed: int) -> None:
    """Noise, damaged parity, and forged parity with good checksums: `play` checks every token."""
    rng = np.random.default_rng(seed)
    config = configured(fec=RS)
    clean = play(config, everything)
    forged = []
    for sent, data in zip(clean.sent, clean.datagrams, strict=True):
        if sent.kind == "parity":
            packet = parse_parity(data, KEY.seed)
            wrong = rng.bytes(int(rng.integers(4, 60)))
            changes = {"symbol": wrong, "number": int(rng.integers(packet.parity))}
            forged.append(pack_parity(_changed(packet, **changes), KEY.seed))
            changes = {"depth": int(rng.integers(1, 9)), "block": int(rng.integers(9))}
            members = range(
                changes["block"], changes["block"] + 6 * changes["depth"], changes["depth"]
            )
            forged.append(
                pack_parity(_changed(packet, **changes, members=tuple(members)), KEY.seed)
            )
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] ^= 1 + rng.integers(255)
            forged.append(bytes(damaged))
    hostile = [(float(rng.uniform(0, 2)), data) for data in [*noise, *forged]]
    play(config, lossy(0.3, seed), extra=hostile)


def _changed(packet: ParityPacket, **changes: Any) -> ParityPacket:
    values = {name: getattr(packet, name) for name in ParityPacket.__slots__}
    return ParityPacket(**{**values, **changes})


def test_packets_later_than_their_whole_group_leave_nothing_behind() -> None:
    run = play(configured(fec=RS), lossy(0.3, 1), delay_s=2.0)
    assert run.counters["late"] == run.counters["received"] > 0


@settings(max_examples=12)
@given(st.lists(st.binary(max_size=300), max_size=10))
def test_hostile_feedback_cannot_make_the_sender_send_more_than_allowed(
    noise: list[bytes],
) -> None:
    config = configured(arq=ArqConfig(retries=2, budget=0.5))
    start = StreamStart(config, KEY, SIZES)
    sender = Sender(start, BOOK)
    for frame, index_map in enumerate(make_maps(SIZES[:2])):
        sender.submit(index_map, *SIZES[frame], 0.1 * frame)
    count = len(sender.datagrams_to_send(0.5))
    everything_ever = pack_requests(range(65500, 65500 + 2000), KEY.seed)
    for data in [*noise, *everything_ever * 20]:
        sender.receive_feedback(data, 0.5)
    assert len(sender.datagrams_to_send(0.5)) <= 2 * np.ceil(0.5 * count / 2) + 2
    assert sender.counters["feedback"] == len(noise) + 20
    sender.receive_feedback(everything_ever[0], 5.0)  # past every deadline
    assert sender.next_timer() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fec": ("reed_solomon", 250, 6)}, r"fec.parity: 250 data \+ 6 parity .* at most 255"),
        ({"fec": ("reed_solomon", 0, 6)}, "fec.data: must be from 1 to 255, got 0"),
        ({"fec": ("turbo", 4, 2)}, "fec.code: must be one of reed_solomon, xor, raptorq"),
        ({"fec": ("xor", 4, 5)}, "fec.parity: xor has at most one parity packet for each of 4"),
        ({"fec": ("reed_solomon", 4, 2, 1, True)}, "fec.unequal: needs a depth of at least 2"),
        ({"fec": ("reed_solomon", 9, 2, 40)}, "fec.depth: .*parity comes 4 s after the first"),
        ({"arq": (1, 1.5)}, "arq.delay_s: of 1.5 s: no retransmission can come before"),
        ({"arq": (0,)}, "arq.retries: must be from 1 to 16"),
        ({"arq": (1, 0.1, 0.0, "last")}, "arq.order: must be one of first, hardest"),
        ({"packing": 17}, "packing: a pack of 17 images leaves 1.6 s after its first"),
        ({"passes": 0}, "passes: must be from 1 to 16"),
    ],
)
def test_settings_that_cannot_work_are_told_by_name(changes: dict[str, Any], message: str) -> None:
    makers = {"fec": FecConfig, "arq": ArqConfig}
    with pytest.raises(StreamConfigError, match=message):
        configured(**{k: makers[k](*v) if k in makers else v for k, v in changes.items()})


def test_a_parity_packet_fits_the_mtu_or_the_settings_are_refused() -> None:
    fits = configured(mtu=64, slices=32, entropy="fixed", fec=FecConfig("reed_solomon", 8, 2))
    assert max(map(len, play(fits, everything, ((512, 512),) * 2).datagrams)) <= 64
    with pytest.raises(StreamConfigError, match="do not fit an mtu"):
        configured(mtu=36, slices=32, entropy="fixed", fec=RS).layout(512, 512)
    configured(mtu=36, slices=32, entropy="fixed").layout(512, 512)


def test_datagrams_of_another_kind_than_the_streams_are_refused() -> None:
    layout = configured().layout(*SIZES[0])
    shared = pack(Packet(65500, 0, layout, b"\0", PACK), KEY.seed)
    parity = play(configured(fec=RS), everything)
    stray = next(d for s, d in zip(parity.sent, parity.datagrams, strict=True) if not original(s))
    run = play(configured(), everything, extra=[(0.1, shared), (0.1, stray)])
    assert run.counters["unsupported_kind"] == 2
