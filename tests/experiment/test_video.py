"""`sim run` of a video: frames in order, what they leave, and that nothing else decides it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.errors import UserError
from sim.scenario.lint import lint_scenario
from sim.scenario.loader import load_scenario
from sim.studies.optimise.runner import optimise
from tests.media.films import film

Cli = Callable[..., Any]

SCENARIO = """\
name: clip
video: {file: ../clip.mkv}
codec: {codebook: 64, model: random}
stream: {slices: 4, fps: 10, playout_delay_s: 0.5}
channel: {type: scripted, mask: "0000 0100 1111 1111 0010 0000 1100 0001"}
transport: virtual
concealers: [none, previous, previous_or_average]
metrics: [psnr_db, flicker, frozen, recovery_s]
pace: 0
"""


@pytest.fixture
def clip(cli: Cli, tmp_path: Path) -> Cli:
    """`clip("--set", ..., out="run")` runs the scenario of a clip that grows bluer; the folder."""
    film(tmp_path / "clip.mkv", range(8), blue=lambda number: 25 * number)
    Path("clip.yaml").write_text(SCENARIO)

    def run(*options: str, out: str = "run") -> Path:
        result = cli("run", "clip.yaml", "--out", out, "--no-figures", *options)
        assert result.exit_code == 0, result.output
        return Path(out)

    return run


def rows(folder: Path, concealer: str) -> list[dict[str, str]]:
    with (folder / "images.csv").open() as table:
        return [row for row in csv.DictReader(table) if row["concealer"] == concealer]


def frames_of(path: Path) -> list[Any]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 10
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_what_a_video_leaves(clip: Cli, cli: Cli) -> None:
    folder = clip()
    for name, width in (("side-by-side", 3 * 64), ("none", 64), ("previous_or_average", 64)):
        frames = frames_of(folder / "videos" / f"{name}.mp4")
        assert [frame.shape for frame in frames] == [(48, width, 3)] * 8
    assert rows(folder, "clean")[3]["frozen"] == "0"
    frozen = [row["frozen"] for row in rows(folder, "previous")]
    assert frozen[2:4] == ["1", "1"] and frozen[5] == "0"
    recovered = [row["recovery_s"] != "" for row in rows(folder, "previous")]
    assert recovered == [frame in (3, 6) for frame in range(8)]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"] == ["psnr_db", "flicker", "frozen", "recovery_s"]
    assert len(list((folder / "panels").iterdir())) == 6
    drawn = cli("plot", folder)
    assert drawn.exit_code == 0, drawn.output
    assert (folder / "figures" / "time.png").is_file()
    assert cli("report", folder, "-o", "r.html").exit_code == 0
    assert "Frame by frame" in Path("r.html").read_text()


def test_metrics_of_a_whole_stream_alone_are_drawn_too(clip: Cli, cli: Cli) -> None:
    folder = clip("--set", "metrics=[frozen]")
    drawn = cli("plot", folder)
    assert drawn.exit_code == 0, drawn.output
    assert (folder / "figures" / "time.png").is_file()


def test_a_still_clip_without_loss_at_first_is_as_without_loss(clip: Cli, tmp_path: Path) -> None:
    film(tmp_path / "clip.mkv", range(8), "ffv1", "yuv444p", blue=lambda number: 90)
    folder = clip()
    lossless = [row["psnr_db"] for row in rows(folder, "clean")]
    assert [row["psnr_db"] for row in rows(folder, "previous")] == lossless
    assert [row["psnr_db"] for row in rows(folder, "previous_or_average")] == lossless
    assert [row["psnr_db"] for row in rows(folder, "none")] != lossless


def test_nothing_of_later_frames_is_seen(clip: Cli) -> None:
    whole, part = clip(), clip("--set", "video.frames=5", out="part")
    seen = ("psnr_db", "flicker", "frozen", "tokens_lost", "token_accuracy")
    for name in ("previous", "previous_or_average"):
        assert len(rows(part, name)) == 5
        for row, again in zip(rows(whole, name), rows(part, name), strict=False):
            assert [row[key] for key in seen] == [again[key] for key in seen]


def test_a_part_of_a_clip_has_its_own_beginning(clip: Cli) -> None:
    folder = clip("--set", "video.first=3")
    assert [row["image"] for row in rows(folder, "none")] == [f"clip-{n:05}" for n in range(3, 8)]
    assert rows(folder, "previous")[0]["flicker"] == ""


def test_tokens_that_do_not_change_are_not_sent_again(clip: Cli) -> None:
    whole = rows(clip("--set", "channel=perfect"), "none")
    folder = clip("--set", "channel=perfect", "--set", "stream.refresh=3", out="refreshed")
    found = rows(folder, "none")
    assert [row["psnr_db"] for row in found] == [row["psnr_db"] for row in whole]
    assert [row["tokens_lost"] for row in found] == ["0"] * 8
    assert found[0]["tokens_kept"] == "0" and all(int(row["tokens_kept"]) for row in found[1:])
    assert {row["tokens_kept"] for row in whole} == {"0"}
    assert sum(float(row["bpp"]) for row in found) < sum(float(row["bpp"]) for row in whole)


def test_what_was_lost_is_seen_until_it_is_refreshed(clip: Cli, tmp_path: Path) -> None:
    """The clip changes once, in frame 3, which is lost; frame 4 and the next keep what was before,
    and a cycle of four frames later all is there again."""
    film(tmp_path / "clip.mkv", range(8), "ffv1", "yuv444p", blue=lambda number: 180 * (number > 2))
    mask = "0000 0000 0000 1111 0000 0000 0000 0000"
    refreshed = (
        "--set",
        f"channel={{type: scripted, mask: '{mask}'}}",
        "--set",
        "stream.refresh=4",
    )
    folder = clip(*refreshed)
    clean, found = (rows(folder, name) for name in ("clean", "previous"))
    assert [int(row["tokens_lost"]) > 0 for row in found] == [n == 3 for n in range(8)]
    worse = [float(a["psnr_db"]) < float(b["psnr_db"]) for a, b in zip(found, clean, strict=True)]
    assert worse == [n in (3, 4, 5, 6) for n in range(8)]


def test_tokens_that_are_nearly_as_good_stay(clip: Cli, tmp_path: Path) -> None:
    """What stays is measured as it is shown."""
    film(
        tmp_path / "clip.mkv", range(8), "ffv1", "yuv444p", blue=lambda number: 99 + number % 2 * 20
    )
    sets = ("--set", "channel=perfect", "--set", "stream.refresh=7", "--codebook", "2048")
    plain = rows(clip(*sets), "none")
    found = rows(clip(*sets, "--set", "codec.hysteresis=1", out="steady"), "none")
    assert [row["tokens_lost"] for row in found] == ["0"] * 8
    kept, kept_plain = (sum(int(row["tokens_kept"]) for row in part) for part in (found, plain))
    assert kept > kept_plain
    assert [row["psnr_db"] for row in found] != [row["psnr_db"] for row in plain]
    assert found[0]["psnr_db"] == plain[0]["psnr_db"]


@pytest.mark.slow
def test_who_does_it_changes_nothing(clip: Cli) -> None:
    """Neither the number of workers nor the driver; pictures are kept of every frame."""
    concealers = "concealers=[none, previous_or_average, inpaint_memory]"
    random = ("--set", "channel={type: uniform, loss: 0.3}", "--set", "repeats=3")
    random += ("--set", "stream.refresh=3", "--set", "codec.hysteresis=0.5")
    kept = (*random, "--save-images", "--set", concealers)
    alone = clip(*kept, "--workers", "1", out="alone")
    for others in (("--workers", "2"), ("--set", "transport=zeromq")):
        again = clip(*kept, *others, out="again-" + others[-1][-1])
        files = ["images.csv", "packets.csv"]
        files += [str(p.relative_to(alone)) for p in alone.glob("images/**/*.png")]
        files += [str(p.relative_to(alone)) for p in alone.glob("videos/*.mp4")]
        assert len(files) == 2 + 3 * 8 * 4 + 4
        for name in files:
            assert (alone / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("video={}", "--set video: give either file or camera"),
        ("video={file: a, camera: 0}", "--set video: give either file or camera"),
        ("video={fil: a}", "--set video: video.fil: unknown key; did you mean file?"),
        ("video=null", "concealers: previous looks at the frame before: it needs a section video"),
        ("video.file=nothing.mp4", "nothing.mp4: no such video"),
        ("stream.refresh=1", "stream.refresh: input should be greater than or equal to 2"),
        ("codec.hysteresis=2", "codec.hysteresis: input should be less than or equal to 1"),
        ("video.first=8", "clip.mkv: no frame 8; at 10 a second, there are 8"),
        ("video={camera: 0}", "video.camera: what a camera sees is not there a second time"),
        ("images=[samples]", "images: a scenario has images or a video, not both"),
        ("sweep={stream.fps: [5, 10]}", "stream.fps: a video's frames are taken at it, once"),
    ],
)
def test_mistakes_are_told_in_one_line(clip: Cli, cli: Cli, change: str, expected: str) -> None:
    result = cli("run", "clip.yaml", "--out", "run", "--set", change)
    assert result.exit_code == 2 and expected in result.stderr, result.output
    assert len(result.stderr.splitlines()) == 1 and not Path("run").exists()


def test_temporal_metrics_need_a_video(clip: Cli, cli: Cli) -> None:
    options = ("--set", "video=null", "--set", "concealers=[none]")
    result = cli("run", "clip.yaml", "--out", "run", *options)
    assert result.exit_code == 2 and "metrics: flicker looks at the frame before" in result.stderr


@pytest.mark.usefixtures("clip")
def test_optimise_takes_images_alone_and_says_so() -> None:
    with pytest.raises(UserError, match="sim optimise takes images alone"):
        optimise(load_scenario(Path("clip.yaml")), 0.05)


def test_a_video_that_is_set_takes_the_place_of_images(tmp_path: Path) -> None:
    (tmp_path / "stills.yaml").write_text("images: [samples]\n")
    loaded = load_scenario(tmp_path / "stills.yaml", ["video={file: v.mp4}"])
    assert loaded.scenario.video is not None and "images" not in loaded.raw
    with pytest.raises(UserError, match="images or a video, not both"):
        load_scenario(tmp_path / "stills.yaml", ["video={file: v.mp4}", "images=[samples]"])


@pytest.mark.usefixtures("clip")
def test_a_video_is_linted_by_its_size() -> None:
    loaded = load_scenario(Path("clip.yaml"), ["channel={link: {rate_bps: 2000}}"])
    assert "rate_bps" in {finding.where for finding in lint_scenario(loaded)}
