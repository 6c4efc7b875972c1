"""Parity, retransmission, shared packets: sender and receiver joined by lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.protocol.config import StreamConfigError
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import HEADER_BYTES, PACK, PARITY, Packet, pack, parse
from sim.protocol.parity import ParityPacket, pack_parity, parse_parity
from sim.protocol.plan import Group, walk
from sim.protocol.protection import ArqConfig, FecConfig
from tests.protocol.protected_stream import (
    KEY,
    RS,
    SIZES,
    configured,
    everything,
    lossy,
    original,
    play,
)


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
