"""`sim compare` of a video: equal bytes, honest quality, frozen frames, intervals over streams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.baselines.clip import ClipCodec, clip_codec
from sim.metrics.quality import psnr_db
from sim.progress import no_progress
from sim.results.files import read_table, write_table
from sim.studies.compare.comparison import Comparison
from sim.studies.compare.config import load_comparison
from sim.studies.compare.parity import fec_rows
from sim.studies.compare.summary import mean_rows

Cli = Callable[..., Any]

BUDGET = 0.8
COMPARISON = f"""\
# Question: ?
video: {{file: samples/book, size: 96, frames: 8}}
codec: {{model: random, codebook: 256, entropy: fixed}}
stream: {{slices: 4, fps: 5, playout_delay_s: 0.5}}
channel: {{link: {{delay_s: 0.02}}}}
metrics: [psnr_db, frozen]
bpp_wire: [{BUDGET}]
loss: [0, 0.3, 1]
repeats: 3
seed: 2
strategies:
  - {{name: tokens, concealer: previous, codec: {{codebook: 256}}}}
  - {{name: keys, coder: x264, stream: {{slices: 1}}}}
  - {{name: frozen, coder: x264, damaged: freeze, stream: {{slices: 1}}}}
  - {{name: slices, coder: x264-refresh, stream: {{fec: {{data: 4, parity: 2}}}}}}
  - {{name: again, coder: x264-refresh, stream: {{arq: {{retries: 2, delay_s: 0.02}}}}}}
"""
RIVALS = ("keys", "frozen", "slices", "again")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept beyond a test, nor written beside the project."""
    monkeypatch.setenv("LOSSY_STREAM_SIM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def x264() -> ClipCodec:
    """The codec, or a skipped test."""
    found = clip_codec("x264", 5.0)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def comparison(text: str = COMPARISON) -> Path:
    """A comparison file in the working directory."""
    path = Path("test.yaml")
    path.write_text(text)
    return path


def outcomes(name: str, *overrides: str) -> list[dict[str, Any]]:
    """What a comparison finds, without figures."""
    loaded = load_comparison(comparison(), overrides)
    found, unreached = Comparison(loaded, loaded.base.metrics, no_progress).outcomes(Path(name))
    assert not unreached
    return found


def test_equal_bytes_honest_quality_and_frozen_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = x264()
    rows = outcomes("one")

    def of(strategy: str, loss: float) -> list[dict[str, Any]]:
        return [row for row in rows if (row["strategy"], row["loss"]) == (strategy, loss)]

    assert len(rows) == 5 * 3 * 3 * 8 and {row["video"] for row in rows} == {"samples/book"}
    for row in mean_rows(rows, ["psnr_db"]):
        assert row["bpp_wire"] <= BUDGET
        if row["strategy"] in RIVALS:
            assert row["bpp_wire"] > 0.93 * BUDGET, row["strategy"]

    loaded = load_comparison(comparison())
    originals = [image.pixels for image in Comparison(loaded, ["psnr_db"], no_progress).images]
    (setting,) = {row["setting"] for row in of("keys", 0)}
    file = codec.encode(np.stack(originals), setting).file
    shown = codec.decode([frame.parts[0] for frame in codec.frames(file)], *originals[0].shape[:2])
    for row, original, pixels in zip(of("keys", 0), originals, shown, strict=False):
        assert pixels is not None
        assert row["psnr_db"] == psnr_db(original, pixels), "no loss: the codec's own quality"

    for name in ("tokens", *RIVALS):
        assert {row["frozen"] for row in of(name, 0)} == {0.0}
        gone = [row["frozen"] for row in of(name, 1)]
        assert gone[:8] == [0.0, *[1.0] * 7], "all lost: the first picture stands still"
        assert 0 < np.mean([row["source_there"] for row in of(name, 0.3)]) < 1
    for kept, decoded in zip(of("frozen", 0.3), of("keys", 0.3), strict=True):
        assert kept["frozen"] >= decoded["frozen"]
    protected, bare = (np.mean([r["source_there"] for r in of(n, 0.3)]) for n in ("again", "keys"))
    assert protected > bare

    monkeypatch.setenv("LOSSY_STREAM_SIM_CACHE", str(Path("other").absolute()))
    write_table(Path("one.csv"), [row for row in rows if row["loss"] == 0.3])
    write_table(Path("two.csv"), outcomes("two", "loss=[0.3]"))
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()


def test_the_command_draws_and_tells(cli: Cli) -> None:
    x264()
    text = COMPARISON.split("  - {name: frozen")[0]
    done = cli("compare", comparison(text), "-o", "out", "--set", "loss=[0.3]")
    assert done.exit_code == 0 and "frozen frames" in done.output
    assert {row["strategy"] for row in read_table(Path("out/means.csv"))} == {"tokens", "keys"}
    drawn = {path.name for path in Path("out/figures").glob("*.png")}
    assert {"quality-0.8.png", "winners-0.8.png"} < drawn
    assert len([name for name in drawn if name.startswith("strip-")]) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("coder: x264,", "coder: jpeg,"), "strategies[1].coder: must be one of tokens, x264, x26"),
        (("damaged: freeze", "damaged: grey"), "strategies[2].damaged: images turn grey, and vid"),
        (("codec: {model", "images: [a.png]\ncodec: {model"), "images: a comparison has images or"),
        (("video: {file: samples/book, size: 96, frames: 8}", "images: samples"), "looks at the"),
        (("samples/book", "samples/cook"), "samples/cook"),
        (
            ("slices: 1}}", "slices: 1, refresh: 4}}"),
            "strategies[1].stream.refresh: a file's bytes",
        ),
    ],
)
def test_mistakes_are_told_by_line(cli: Cli, change: tuple[str, str], expected: str) -> None:
    assert change[0] in COMPARISON
    done = cli("compare", comparison(COMPARISON.replace(*change, 1)), "-o", "out")
    assert done.exit_code == 2 and done.stdout == "", done.output
    assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["test.yaml"]


def test_what_changes_is_said_of_tokens_alone() -> None:
    """A file's bytes are all sent, in comparisons as in the streams that parity is measured by."""
    loaded = load_comparison(comparison(), ["stream.refresh=4"])
    sent = {name: scenario.stream.refresh for name, scenario in loaded.scenarios.items()}
    assert sent == {"tokens": 4, **dict.fromkeys(RIVALS)}
    strategies = "strategies=[{name: tokens, stream: {fec: {data: 4, parity: 1}}}]"
    losses = "loss=[0.5]"
    some = fec_rows(load_comparison(comparison(), [strategies, losses, "stream.refresh=4"]))
    every = fec_rows(load_comparison(comparison(), [strategies, losses]))
    write_table(Path("some.csv"), some)
    write_table(Path("every.csv"), every)
    assert Path("some.csv").read_bytes() == Path("every.csv").read_bytes()


def test_pictures_are_kept_of_the_stream_that_is_named() -> None:
    """Which stream is pictured follows from the common slices, which a strategy may not have."""
    strategies = "strategies=[{name: tokens, stream: {slices: 4}}]"
    digests: dict[int, set[str]] = {}
    for slices in (1, 2, 3, 5):
        loaded = load_comparison(
            comparison(), [strategies, "loss=[0.3]", "repeats=9", f"stream.slices={slices}"]
        )
        found = Comparison(loaded, ["psnr_db"], no_progress)
        digests.setdefault(found.pictured_repeat, set()).add(found.digest)
    assert len(digests) > 1
    assert all(len(own) == 1 for own in digests.values())
    assert len(set.union(*digests.values())) == len(digests)


def test_intervals_are_of_streams_whose_frames_are_no_sample() -> None:
    """So many frames of a stream tell no more than their mean."""
    about: dict[str, Any] = {"strategy": "keys", "coder": "x264", "level": None, "bpp_wire": 0.8}
    about |= {"budget": 0.8, "loss": 0.3, "mean_burst": 5, "source_there": 1, "packets_sent": 9}
    about |= {f"packets_{how}": 1 for how in ("erased", "overflowed", "corrupted", "late")}
    streams = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    for frames in (1, 40):
        spread = np.linspace(-30, 30, frames) if frames > 1 else np.zeros(1)
        rows = [
            {**about, "video": "v", "repeat": r, "image": str(n), "psnr_db": value + more}
            for r, value in enumerate(streams)
            for n, more in enumerate(spread)
        ]
        (row,) = mean_rows(rows, ["psnr_db"])
        error = streams.std() / np.sqrt(len(streams))
        assert row["psnr_db"] == pytest.approx(2.5)
        assert row["psnr_db_high"] - row["psnr_db_low"] == pytest.approx(3.92 * error, rel=0.15)
