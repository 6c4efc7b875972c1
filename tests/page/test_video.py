"""A video on the page: its frames are those of `sim run`, and a camera's can be tried again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sim.errors import UserError
from sim.media.images import LoadedImage
from sim.page.controls import changed
from sim.page.engine import Engine, Snapshot
from sim.page.photos import CameraFrames, as_streamed, open_photos
from sim.page.server import serve
from sim.page.stages import STAGES
from sim.page.text import alt_text, sentence, stage_title
from sim.scenario.loader import LoadedScenario, load_scenario
from sim.scenario.schema import Scenario
from tests.media.films import film

Cli = Callable[..., Any]
REMEMBERING = ("previous", "previous_or_average", "inpaint_memory")
SCENARIO = """\
name: clip
video: {file: ../clip.mkv}
codec: {codebook: 64, model: random}
stream: {slices: 4, fps: 10, playout_delay_s: 0.3}
channel: {type: uniform, loss: 0.4}
transport: virtual
concealers: [none, inpaint, previous, previous_or_average, inpaint_memory]
metrics: [psnr_db]
repeats: 2
"""
GIVEN = Scenario(
    name="camera",
    video={"camera": 0},
    codec={"codebook": 64},
    stream={"slices": 4, "fps": 10.0, "playout_delay_s": 0.3},
    channel={"type": "uniform", "loss": 0.4},
)


@pytest.fixture
def clip(cli: Cli, tmp_path: Path) -> Path:
    """A scenario of a clip of eight frames, in the working directory."""
    film(tmp_path / "clip.mkv", range(8), "ffv1", "yuv444p", blue=lambda number: 25 * number)
    Path("clip.yaml").write_text(SCENARIO)
    return Path("clip.yaml")


@pytest.mark.parametrize(
    "sets",
    [(), ("stream.refresh=3", "codec.hysteresis=0.5", "stream.fec={data: 3, parity: 1}")],
    ids=["plain", "refresh"],
)
def test_frames_are_those_of_sim_run(
    cli: Cli, clip: Path, random_model: Any, sets: tuple[str, ...]
) -> None:
    """Of any repair, in any order, with other settings and repairs tried in between."""
    options = [word for given in sets for word in ("--set", given)]
    ran = cli("run", clip, "--out", "run", "--no-figures", "--save-images", *options)
    assert ran.exit_code == 0, ran.output
    loaded = as_streamed(load_scenario(clip, sets), 384)
    given = loaded.scenario
    engine = Engine(open_photos(loaded, 384)(random_model))
    with Path("run/images.csv").open() as table:
        rows = {
            (8 * int(row["repeat"]) + int(row["frame"]), row["concealer"]): row
            for row in csv.DictReader(table)
        }
    struck = 0
    for number in (3, 7, 2, 2, 4, 5, 9, 13, 15, 0, 6):
        engine.frame(number, changed(given, {"loss": 0.1}), "inpaint_memory")
        engine.frame(max(0, number - 2), given, "previous")
        for name in (*REMEMBERING, "inpaint", "inpaint_memory"):
            snapshot = engine.frame(number, given, name)
            repeat, at = divmod(number, 8)
            path = Path(f"run/images/cell-{repeat:04}/{name}/clip-{at:05}.png")
            np.testing.assert_array_equal(snapshot.repaired, np.asarray(Image.open(path)))
            row, clean = rows[number, name], rows[number, "clean"]
            assert snapshot.psnr_db[0] == pytest.approx(float(clean["psnr_db"]), abs=1e-3)
            if not snapshot.received.all():
                accuracy = float(row["token_accuracy"])
                assert snapshot.token_accuracy == pytest.approx(accuracy, abs=1e-3)
        struck += not snapshot.received.all()
    assert struck > 3


def test_what_a_repair_remembers_is_seen(clip: Path, random_model: Any) -> None:
    """A frame of which nothing arrived is shown as the one before, after a change, too."""
    mask = "0000 0000 1111 0000 0000 0000 0000 0000"
    loaded = load_scenario(clip, [f"channel={{type: scripted, mask: '{mask}'}}"])
    engine = Engine(open_photos(as_streamed(loaded, 384), 384)(random_model))
    before, lost = (engine.frame(number, loaded.scenario, "none") for number in (1, 2))
    assert not lost.received.any()
    shown = engine.frame(2, loaded.scenario, "previous")
    np.testing.assert_array_equal(shown.repaired, before.repaired)
    assert (shown.unrepaired != shown.repaired).any()


def test_a_clip_is_one_stream_and_no_longer_than_the_page_shows(
    clip: Path, random_model: Any
) -> None:
    def streamed(*overrides: str) -> LoadedScenario:
        return as_streamed(load_scenario(clip, overrides), 48)

    photos = open_photos(streamed(), 48)(random_model)
    assert photos.segment_frames == len(photos.images) == 8
    assert photos.size(0) == (48, 36)
    assert streamed().source["overrides"] == ["video.size=48", "video.frames=60"]
    short = streamed("video.frames=5", "video.size=32")
    assert short.source["overrides"] == ["video.frames=5", "video.size=32"]
    assert open_photos(short, 48)(random_model).segment_frames == 5


def test_words_are_of_a_frame(clip: Path, random_model: Any) -> None:
    loaded = as_streamed(load_scenario(clip), 384)
    snapshot = Engine(open_photos(loaded, 384)(random_model)).frame(1, loaded.scenario, "previous")
    for stage in STAGES:
        words = f"{stage_title(loaded.scenario, stage)} {alt_text(snapshot, stage)}"
        assert "photo" not in words and "transformer" not in words
        assert sentence(snapshot, stage) in words


class FakeCamera:
    """Pictures that are never the same, as many as there are names."""

    def __init__(self, count: int) -> None:
        self.names = [f"camera-{number:05}" for number in range(count)]
        self.sizes = [(64, 48)] * count
        self.digests: list[str] = []
        self.taken = 0

    def pictures(self) -> Iterator[LoadedImage]:
        """Every picture."""
        for name in self.names:
            self.taken += 1
            pixels = np.random.default_rng(self.taken).integers(0, 256, (48, 64, 3), np.uint8)
            yield LoadedImage(name, Path(name), pixels)


def test_a_camera_takes_what_is_needed_and_settings_compare_on_one_frame(random_model: Any) -> None:
    source = FakeCamera(1000)
    engine = Engine(CameraFrames(source, random_model, 8))
    assert source.taken == 0
    seen: dict[int, Snapshot] = {}
    for number in range(20):
        seen[number] = engine.frame(number, GIVEN, "inpaint_memory")
        other = engine.frame(number, changed(GIVEN, {"loss": 0.0}), "previous")
        assert other.photo is seen[number].photo and other.received.all()
        assert source.taken <= number + 1 + 3  # as far as the deadline
    assert [seen[number].photo.name for number in range(20)] == source.names[:20]
    for number in (19, 15):  # of this stream and the one before
        again = engine.frame(number, GIVEN, "inpaint_memory")
        assert again.packets == seen[number].packets
        np.testing.assert_array_equal(again.repaired, seen[number].repaired)


def test_a_camera_that_ends_is_told_and_can_be_asked_again(random_model: Any) -> None:
    engine = Engine(CameraFrames(FakeCamera(6), random_model, 8))
    shown = engine.frame(2, GIVEN, "previous")
    for _ in range(2):
        with pytest.raises(UserError, match="the camera gives no more pictures"):
            engine.frame(4, GIVEN, "previous")
    np.testing.assert_array_equal(engine.frame(2, GIVEN, "previous").repaired, shown.repaired)


def test_memory_is_bounded_by_the_streams_of_a_camera(random_model: Any) -> None:
    photos = CameraFrames(FakeCamera(1000), random_model, 4)
    for number in range(40):
        photos.coded(number, GIVEN.codec)
    with pytest.raises(KeyError):
        photos.image(31)
    assert photos.image(32).name == "camera-00032"


def test_where_no_camera_is_the_page_says_so(clip: Path) -> None:
    pytest.importorskip("nicegui", reason="needs the extra page")
    with pytest.raises(UserError, match=r"^camera 99: none found here$"):
        serve(load_scenario(clip, ["video={camera: 99}"]), clip)
