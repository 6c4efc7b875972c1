"""Playing, pausing, stepping, changing: what is shown, in which order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sim.media.images import LoadedImage
from sim.page.engine import Engine
from sim.page.history import KEPT, FrameHistory
from sim.page.photos import CodedPhotos
from sim.page.playback import Playback
from sim.page.stages import STAGES, cell_side, picture
from sim.page.text import alt_text, sentence
from sim.scenario.schema import Scenario

GIVEN = Scenario(
    name="page",
    codec={"codebook": 64},
    stream={"slices": 6, "fps": 1000.0, "playout_delay_s": 0.001},
    channel={"type": "uniform", "loss": 0.4},
)


@pytest.fixture
def playback(photos: CodedPhotos) -> Playback:
    return Playback(Engine(photos), GIVEN, "neighbour_average", shortest_s=0.0)


def play(playback: Playback, script: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a script beside the playback, with one watcher."""

    async def both() -> None:
        running = asyncio.create_task(playback.run())
        playback.watch(lambda: None)
        try:
            await asyncio.wait_for(script(), 60)
        finally:
            running.cancel()
            playback.close()

    asyncio.run(both())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def number(playback: Playback) -> int:
    return -1 if playback.shown is None else playback.shown.snapshot.number


def test_it_plays_pauses_and_steps_through_the_stages(playback: Playback) -> None:
    async def script() -> None:
        await until(lambda: number(playback) >= 3)
        playback.step()
        await asyncio.sleep(0.2)
        standing = number(playback)
        assert playback.paused and playback.stepping and STAGES[playback.stage] == "photograph"
        seen = [STAGES[playback.stage]]
        for _ in STAGES[1:]:
            playback.step()
            seen.append(STAGES[playback.stage])
        assert seen == list(STAGES) and number(playback) == standing
        playback.step_back()
        assert STAGES[playback.stage] == "filled"
        playback.step()
        playback.step()
        await until(lambda: number(playback) == standing + 1)
        assert playback.stage == 0 and playback.paused
        playback.pause_or_play()
        assert STAGES[playback.stage] == "repaired"
        await until(lambda: number(playback) > standing + 2)

    play(playback, script)


def test_a_change_while_paused_shows_the_same_frame_anew(playback: Playback) -> None:
    async def script() -> None:
        await until(lambda: number(playback) >= 1)
        playback.pause_or_play()
        await asyncio.sleep(0.2)
        before = playback.shown
        assert before is not None
        playback.change({"loss": 0.0}, "loss 0%")
        assert playback.pending == ["loss"]
        await until(lambda: playback.shown is not before)
        assert playback.pending == []
        after = playback.shown
        assert after is not None and after.snapshot.number == before.snapshot.number
        assert after.snapshot.received.all() and after.mark != before.mark
        assert "loss 0%" in after.gaps
        playback.conceal_by("none", "none")
        assert playback.pending == ["repair"]
        await until(lambda: playback.shown is not after)
        assert playback.shown is not None and playback.shown.snapshot.concealer == "none"

    play(playback, script)


def test_what_cannot_be_streamed_is_told_and_undone(playback: Playback) -> None:
    """So many packets are in play before that deadline that numbers could not tell them apart."""

    async def script() -> None:
        await until(lambda: number(playback) >= 0)
        playback.change({"deadline_s": 100.0}, "deadline")
        assert "playout" in playback.trouble or "packets in play" in playback.trouble
        assert playback.settings.positions["deadline_s"] == 0.001
        playback.change({"loss": 0.1}, "loss")
        assert playback.trouble == ""

    play(playback, script)


def test_a_control_back_where_it_began_is_as_the_scenario_had_it(photos: CodedPhotos) -> None:
    stream = {"slices": 6, "fps": 10.0, "fec": {"data": 4, "parity": 2, "depth": 2}}
    given = Scenario(name="page", stream=stream, channel={"preset": "wifi"})
    playback = Playback(Engine(photos), given, "none")
    for key, value in {"loss": 0.5, "rate_bps": math.inf, "parity": 0, "retries": 2}.items():
        began = playback.base.positions[key]
        playback.change({key: value}, key)
        assert playback.settings.scenario != given
        playback.change({key: began}, key)
        assert playback.settings == playback.base
    playback.close()


def test_photographs_of_ones_own(photos: CodedPhotos) -> None:
    """The same image of the stream shows one of them; those that cannot be streamed are told."""
    own = LoadedImage("own", Path("own.png"), photos.images[0].pixels[::-1].copy())
    large = LoadedImage("large", Path("large.png"), np.tile(own.pixels, (6, 6, 1)))
    stream = GIVEN.stream.model_copy(update={"mtu": 64})
    given = GIVEN.model_copy(update={"stream": stream})
    playback = Playback(Engine(photos), given, "none", shortest_s=0.0)

    async def script() -> None:
        await until(lambda: number(playback) >= 1)
        playback.pause_or_play()
        await asyncio.sleep(0.2)
        before = playback.shown
        playback.stream_photos([own])
        assert playback.pending == ["photos"]
        await until(lambda: playback.shown is not before)
        after = playback.shown
        assert after is not None and before is not None and playback.pending == []
        assert after.snapshot.photo is own and after.snapshot.number == before.snapshot.number
        playback.stream_photos([large])
        await until(lambda: playback.trouble)
        assert playback.shown is after and playback.settings == after.settings
        playback.pause_or_play()
        await until(lambda: number(playback) > before.snapshot.number)
        assert playback.shown is not None and playback.shown.snapshot.photo is own

    play(playback, script)


def test_nothing_runs_while_nobody_watches(playback: Playback) -> None:
    async def script() -> None:
        running = asyncio.create_task(playback.run())
        await asyncio.sleep(0.05)
        assert playback.shown is None

        def watcher() -> None:
            seen.append(number(playback))

        seen: list[int] = []
        playback.watch(watcher)
        await until(lambda: number(playback) >= 1)
        playback.leave(watcher)
        await asyncio.sleep(0.1)
        left = number(playback)
        await asyncio.sleep(0.1)
        assert number(playback) == left
        running.cancel()
        playback.close()

    asyncio.run(script())


def test_every_stage_has_a_picture_and_words(photos: CodedPhotos) -> None:
    engine = Engine(photos)
    for concealer in ("inpaint", "neighbour_average"):
        snapshot = engine.frame(1, GIVEN, concealer)
        rows, columns = snapshot.received.shape
        for stage in STAGES:
            content, kind = picture(snapshot, stage)
            image = Image.open(BytesIO(content))
            assert f"image/{(image.format or '').lower()}" == kind
            grid = image.size == tuple(n * cell_side((rows, columns)) for n in (columns, rows))
            assert grid == (stage in ("index map", "packets", "lost", "filled"))
            assert sentence(snapshot, stage) in alt_text(snapshot, stage)
        content, _ = picture(snapshot, "photograph")
        np.testing.assert_array_equal(
            np.array(Image.open(BytesIO(content)).convert("RGB")), snapshot.photo.pixels
        )


def test_history_is_bounded_and_counts_what_was_lost(photos: CodedPhotos) -> None:
    engine, history = Engine(photos), FrameHistory()
    lost = sent = 0
    for n in range(KEPT + 10):
        snapshot = engine.frame(n, GIVEN, "none")
        history.add(snapshot)
        sent += len(snapshot.packets)
        lost += sum(packet.fate == "erased" for packet in snapshot.packets)
    assert len(history.points) == KEPT
    monitor = history.monitor
    assert monitor is not None and monitor.expected is not None and monitor.likely is not None
    assert (monitor.sent, monitor.lost["erased"]) == (sent, lost)
    assert monitor.likely[0] <= 0.4 <= monitor.likely[1]
    assert monitor.expected.loss == pytest.approx(0.4)
