"""What is put on the screen at once, and the charts in it."""

from __future__ import annotations

import re

from sim.page.charts import gap_chart
from sim.page.engine import Engine
from sim.page.history import HistoryPoint
from sim.page.photos import CodedPhotos
from sim.page.playback import Playback
from sim.page.stages import STAGES
from sim.page.text import alt_text, sentence
from sim.page.view import view
from sim.scenario.schema import Scenario
from tests.page.test_playback import GIVEN, number, play, until


def points(*psnr_db: tuple[float, float, float], changes: dict[int, str]) -> list[HistoryPoint]:
    return [HistoryPoint(n, three, (), changes.get(n, "")) for n, three in enumerate(psnr_db)]


def test_pictures_and_words_are_of_one_frame_and_stage(photos: CodedPhotos) -> None:
    playback = Playback(Engine(photos), GIVEN, "none", shortest_s=0.0)
    assert view(playback)["pictures"] == {} and set(view(playback)["texts"]) == {"state"}

    async def script() -> None:
        await until(lambda: number(playback) >= 1)
        for at, stage in enumerate(STAGES):
            playback.look_at(at)
            shown, seen = playback.shown, view(playback)
            assert shown is not None
            marks = {url.split("/")[2] for url, _ in seen["pictures"].values()}
            assert marks == {str(shown.mark)}
            assert seen["pictures"]["look"] == seen["pictures"][stage]
            assert seen["pictures"]["look"][1] == alt_text(shown.snapshot, stage)
            words = re.sub("<[^>]*>", "", seen["texts"]["sentence"])
            assert words == sentence(shown.snapshot, stage)
            assert f"image {shown.snapshot.number + 1} · " in seen["texts"]["state"]
            assert stage in seen["texts"]["title"] and seen["texts"]["gaps"] == shown.gaps

    play(playback, script)


def test_a_name_is_text_and_never_markup(photos: CodedPhotos) -> None:
    from dataclasses import replace

    images = [replace(image, name="<b>&") for image in photos.images]
    given = Scenario(name="page", codec={"codebook": 64}, stream={"slices": 6, "fps": 100.0})
    playback = Playback(Engine(CodedPhotos(images, photos.model)), given, "none", shortest_s=0.0)

    async def script() -> None:
        await until(lambda: playback.shown)
        assert view(playback)["texts"]["state"].endswith("&lt;b&gt;&amp;")

    play(playback, script)


def test_the_chart_does_not_depend_on_how_hard_the_photographs_are() -> None:
    """Photographs that come in turn have other ceilings; the same loss is a level line."""
    psnr_db = [(20.0, 18.0, 15.0), (30.0, 28.0, 25.0), (float("inf"), float("inf"), float("inf"))]
    drawn = gap_chart(points(*psnr_db[:2] * 5, changes={}))
    for name in ("clean", "repaired", "unrepaired"):
        (line,) = re.findall(f'polyline class="{name}" points="([^"]*)"', drawn)
        assert len({place.split(",")[1] for place in line.split()}) == 1
    assert "repaired -2.0" in drawn and "unrepaired -5.0" in drawn and "no loss 30.0" in drawn
    assert "nan" not in gap_chart(points(*psnr_db, changes={}))


def test_each_change_is_told_in_a_line_of_its_own() -> None:
    changes = {n: f"packets lost: {n}%" for n in range(3, 40)}
    changes |= {5: "deadline: 1 s", 44: "repair: <none>", 47: "burst: 2", 48: "burst: 3"}
    drawn = gap_chart(points(*[(20.0, 18.0, 15.0)] * 60, changes=changes))
    flags = re.findall(r'<p class="(\w+)" style="--x:([\d.]+)%">([^<]*)</p>', drawn)
    assert [text for _, _, text in flags] == [
        "packets lost: 39%",
        "repair: &lt;none&gt;",
        "burst: 3",
    ]
    for side, x, _ in flags:  # the half that has more room
        assert (side == "after") == (float(x) < 50)
    assert drawn.count('<line class="change"') == len(changes)
