"""The page's stream is the virtual driver's, whatever was set before."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from sim.drivers.record import StreamRecord
from sim.media.frames import encode_images, with_token_importance
from sim.page.controls import changed
from sim.page.engine import Engine, Snapshot
from sim.page.history import RESTORED, fates
from sim.page.photos import CodedPhotos
from sim.page.stages import FATE_MARKS, picture
from sim.page.text import sentence
from sim.scenario.schema import Scenario
from sim.stream import CoderTables, StreamSetup, stream_frames
from tests.reachable import reachable

SEGMENT_FRAMES = 8


def scenario(**changes: Any) -> Scenario:
    burst = {"type": "gilbert_elliott", "loss": 0.3, "mean_burst": 4}
    link = {"delay_s": 0.02, "jitter": {"type": "pareto", "mean_s": 0.1}}
    return Scenario(
        **{
            "name": "page",
            "codec": {"codebook": 64},
            "stream": {"slices": 6, "fps": 4.0, "playout_delay_s": 0.6},
            "channel": {"loss": burst, "link": link},
            "seed": 3,
            **changes,
        }
    )


@pytest.fixture
def photos(photos: CodedPhotos) -> CodedPhotos:
    """The same, with short segments."""
    return CodedPhotos(photos.images, photos.model, SEGMENT_FRAMES)


def driven(photos: CodedPhotos, given: Scenario, segment: int) -> StreamRecord:
    """One segment by the virtual driver, as `sim run` streams a repeat."""
    setup = StreamSetup.of(given, CoderTables.of(photos.model), segment)
    numbers = range(segment * SEGMENT_FRAMES, (segment + 1) * SEGMENT_FRAMES)
    codec = given.codec
    images = map(photos.image, numbers)
    frames = list(encode_images(photos.model, images, *codec.tokenizer_key))
    if setup.config.needs_importance:
        frames = [with_token_importance(photos.model, frame, codec.codebook) for frame in frames]
    return stream_frames(setup, frames)


def assert_same(snapshot: Snapshot, record: StreamRecord, number: int) -> None:
    want = record.frames[number % SEGMENT_FRAMES]
    np.testing.assert_array_equal(snapshot.ready.grid.indices, want.grid.indices)
    assert replace(snapshot.ready, grid=want.grid) == want
    assert list(snapshot.packets) == [
        p for p in record.packets if p.frame <= number % SEGMENT_FRAMES <= p.last_frame
    ]


def test_frames_are_those_of_the_virtual_driver_segment_by_segment(photos: CodedPhotos) -> None:
    engine, given = Engine(photos), scenario()
    records = [driven(photos, given, segment) for segment in (0, 1)]
    assert any(p.late for p in records[0].packets) and records[0].ledger.erased
    for number in range(2 * SEGMENT_FRAMES):
        assert_same(engine.frame(number, given, "none"), records[number // SEGMENT_FRAMES], number)


def test_words_and_picture_tell_every_fate_by_itself(photos: CodedPhotos) -> None:
    words = {
        "erased": ("was erased", "were erased"),
        "overflowed": ("overflowed a queue",) * 2,
        "corrupted": ("was corrupted", "were corrupted"),
        "late": ("came too late",) * 2,
    }
    link = {"rate_bps": 1200, "queue_packets": 5, "bit_error": 2e-3}
    engine = Engine(photos)
    given = scenario(channel={"loss": {"type": "uniform", "loss": 0.2}, "link": link})
    told = set()
    for number in range(SEGMENT_FRAMES):
        snapshot = engine.frame(number, given, "none")
        ways = Counter(packet.outcome for packet in snapshot.packets)
        for how, (one, more) in words.items():
            text = f"{ways[how]} {one if ways[how] == 1 else more}"
            assert (text in sentence(snapshot, "lost")) == (ways[how] > 0)
        told |= {how for how in words if ways[how]}
        assert Counter(fates(snapshot)) == ways
        drawn = Image.open(BytesIO(picture(snapshot, "lost")[0])).convert("RGB")
        colours = {colour for _, colour in drawn.getcolors(drawn.width * drawn.height) or ()}
        for how, (colour, _) in FATE_MARKS.items():
            assert (ImageColor.getrgb(colour) in colours) == (ways[how] > 0)
    assert told == set(words)


def test_a_changed_setting_acts_on_the_very_next_frame(photos: CodedPhotos) -> None:
    engine, given = Engine(photos), scenario()
    for number in range(3):
        engine.frame(number, given, "none")
    for moved in (
        {"loss": 0.6},
        {"slices": 9},
        {"codebook": 8},
        {"patch": 24},
        {"deadline_s": 0.05},
    ):
        other = changed(given, moved)
        snapshot = engine.frame(3, other, "none")
        assert snapshot.scenario == other
        assert len(snapshot.packets) == other.stream.slices
        assert_same(snapshot, driven(photos, other, 0), 3)
    everything = engine.frame(4, changed(given, {"loss": 0.0, "delay_s": 0.0}), "none")
    assert everything.received.all()
    assert np.isnan(everything.token_accuracy)  # nothing was lost


def test_how_one_came_to_a_frame_does_not_matter(photos: CodedPhotos) -> None:
    """Backwards, by jumps, after other settings: the same frame."""
    given, other = scenario(), scenario(seed=9)
    straight, jumping = Engine(photos), Engine(photos)
    want = [straight.frame(number, given, "neighbour_average") for number in range(6)]
    for number in (5, 2, 2, 4, 0):
        jumping.frame(number + 1, other, "none")
        got = jumping.frame(number, given, "neighbour_average")
        np.testing.assert_array_equal(got.ready.grid.indices, want[number].ready.grid.indices)
        np.testing.assert_array_equal(got.repaired, want[number].repaired)


def test_interleavers_are_compared_under_the_same_losses(photos: CodedPhotos) -> None:
    engine, given = Engine(photos), scenario()
    fates = []
    for interleaver in ("raster", "low_discrepancy"):
        snapshot = engine.frame(5, changed(given, {"interleaver": interleaver}), "none")
        fates.append([packet.fate for packet in snapshot.packets])
    assert fates[0] == fates[1]
    assert "erased" in fates[0]


def test_repairs_keep_what_arrived_and_none_leaves_holes(photos: CodedPhotos) -> None:
    engine, given = Engine(photos), scenario()
    snapshot = next(
        s
        for n in range(SEGMENT_FRAMES)
        if not (s := engine.frame(n, given, "inpaint")).received.all()
    )
    received = snapshot.received
    sent = snapshot.coded.frame.index_map
    np.testing.assert_array_equal(snapshot.indices[received], sent[received])
    assert (snapshot.probability[~received] <= 1).all()
    assert snapshot.psnr_db[0] == snapshot.coded.psnr_db
    again = engine.frame(snapshot.number, given, "none")
    np.testing.assert_array_equal(again.repaired, snapshot.unrepaired)


def test_slices_and_packets_tell_the_same_story(photos: CodedPhotos) -> None:
    engine, given = Engine(photos), scenario()
    for number in range(4):
        snapshot = engine.frame(number, given, "none")
        usable = {p.slice for p in snapshot.packets if p.fate == "delivered" and not p.late}
        np.testing.assert_array_equal(snapshot.received, np.isin(snapshot.slice_of, list(usable)))


def test_parity_acts_and_every_packet_is_counted_once(photos: CodedPhotos) -> None:
    engine, given = Engine(photos), changed(scenario(), {"slices": 16, "parity": 6})
    record, counted, restored = driven(photos, given, 0), [], 0
    for number in range(SEGMENT_FRAMES):
        snapshot = engine.frame(number, given, "none")
        assert_same(snapshot, record, number)
        counted += snapshot.sent
        restored += fates(snapshot).count(RESTORED)
    assert counted == record.packets[: len(counted)]
    assert len(counted) >= SEGMENT_FRAMES * given.stream.slices
    assert {packet.kind for packet in counted} == {"media", "parity"}
    assert restored > 0


@pytest.mark.parametrize(
    "protection",
    [
        {"fec": {"data": 3, "parity": 1, "depth": 4, "unequal": True}},
        {"arq": {"order": "hardest", "budget": 0.2}},
    ],
    ids=str,
)
def test_tokens_are_weighed_where_protection_asks(
    photos: CodedPhotos, protection: dict[str, Any]
) -> None:
    stream = {"slices": 12, "fps": 4.0, "playout_delay_s": 0.6, **protection}
    given = scenario(stream=stream)
    record, engine = driven(photos, given, 0), Engine(photos)
    for number in range(SEGMENT_FRAMES):
        assert_same(engine.frame(number, given, "none"), record, number)


def test_memory_is_bounded_by_the_segment(photos: CodedPhotos) -> None:
    """After many segments an engine holds no more than after one."""
    engine, given = Engine(photos), scenario()
    for number in range(SEGMENT_FRAMES):
        engine.frame(number, given, "none")
    first = len(reachable(engine))
    for number in range(SEGMENT_FRAMES, 5 * SEGMENT_FRAMES):
        engine.frame(number, given, "none")
    assert len(reachable(engine)) <= 1.1 * first
