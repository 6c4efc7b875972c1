"""The comparison with other codecs: budgets kept, tables and figures whole, mistakes told."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sim.baselines import Coded
from sim.jobs.store import Store
from sim.metrics import DEFAULT
from sim.studies.codec_bench.bd_rate import bd_rate
from sim.studies.codec_bench.points import measure_points
from sim.studies.codec_bench.summary import at_equal_bytes, summarize_bench
from sim.studies.codec_bench.work import OURS, BenchConfig, BenchLevel

Cli = Callable[..., Any]


def rows_of(folder: str, table: str = "equal") -> list[dict[str, str]]:
    """A table that a comparison wrote."""
    with Path(folder, f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def written(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


METRICS = "psnr_db,ms_ssim,lpips"
BENCH = ("codec", "bench", "--model", "random", "--levels", "8,2048@24", "--rates", "1.5,6")


@pytest.mark.parametrize("count", ["file", "payload"])
def test_every_codec_is_compared_at_our_bytes(cli: Cli, photo: Path, count: str) -> None:
    codecs = "jpeg,jpeg2000,webp-half"
    options = (
        "--images",
        photo,
        "--codecs",
        codecs,
        "--count",
        count,
        "--metrics",
        METRICS,
        "--no-figures",
        "--json",
    )
    done = cli(*BENCH, *options, "-o", "out")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert [level["level"] for level in summary["levels"]] == ["8", "2048@24"]
    points, rows = rows_of("out", "bench"), rows_of("out")
    assert len(rows) == 2 * 4
    size = f"{count}_bytes"
    for row in points:
        assert float(row["bpp"]) == pytest.approx(8 * int(row["file_bytes"]) / (40 * 56))
        assert float(row["lpips"]) > 0 and row["ms_ssim"] == ""
    for row in rows:
        same = [p for p in points if p["codec"] == row["codec"]]
        least = min(int(p[size]) for p in same)
        assert (row["fits"] == "1") == (least <= int(row["bytes"]))
    # what is there is not measured again, and gives the same tables
    tables = {name: Path("out", name).read_bytes() for name in ("bench.csv", "equal.csv")}
    measured = written(Path("out/points"))
    assert cli(*BENCH, *options, "-o", "out").exit_code == 0
    assert written(Path("out/points")) == measured
    assert tables == {name: Path("out", name).read_bytes() for name in tables}


def test_figures_come_from_the_tables_and_images_are_limited(cli: Cli, photo: Path) -> None:
    Path("in").mkdir()
    for name in ("x", "y"):
        Image.open(photo).save(f"in/{name}.png")
    options = (
        "--images",
        "in",
        "--metrics",
        METRICS,
        "--limit",
        1,
        "--codecs",
        "jpeg,jpeg-half",
        "--levels",
        "64",
    )
    assert cli(*BENCH, *options, "--prepare", "-o", "out").exit_code == 0
    assert [path.name for path in Path("out").iterdir()] == ["points"]
    done = cli(*BENCH, *options, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "Ours / the best other" in done.stdout and "BD-rate" in done.stdout
    assert {row["image"] for row in rows_of("out")} == {"x"}
    figures = sorted(path.name for path in Path("out/figures").iterdir())
    assert figures == [
        "overview.png",
        "overview.svg",
        "rate-quality.png",
        "rate-quality.svg",
        "sheet-64.png",
    ]
    drawn = {path.name: path.read_bytes() for path in Path("out/figures").iterdir()}
    for path in Path("out/figures").iterdir():
        path.unlink()
    assert cli("codec", "plot", "out").exit_code == 0
    assert {path.name: path.read_bytes() for path in Path("out/figures").iterdir()} == drawn


@pytest.mark.slow
def test_workers_change_nothing(cli: Cli, photo: Path) -> None:
    options = ("--images", photo, "--codecs", "jpeg,jpeg2000-half", "--metrics", METRICS)
    for out, workers in (("one", 1), ("two", 2)):
        done = cli(*BENCH, *options, "--workers", workers, "-o", out)
        assert done.exit_code == 0, done.output
    for name in ("bench.csv", "equal.csv", "summary.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


class Doubling:
    """A codec whose file has 2^setting bytes; counts what it is asked to do."""

    name, settings, identity = "doubling", 10, "doubling 1"

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, pixels: np.ndarray, setting: int) -> Coded:
        self.encoded.append(setting)
        return Coded(bytes(2**setting), 2**setting)

    def decode(self, file: bytes, height: int, width: int) -> np.ndarray:
        return np.full((height, width, 3), len(file) % 251, np.uint8)


def test_points_are_kept_and_only_missing_ones_are_made(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    store, metrics = Store(tmp_path), DEFAULT
    first = Doubling()
    points = measure_points(first, pixels, [5, 70], [], "file", metrics, store)
    assert [point.setting for point in points] == [2, 6]
    assert len(first.encoded) == len(set(first.encoded))
    again = Doubling()
    kept = measure_points(again, pixels, [5, 70], [], "file", metrics, store)
    assert [point.file for point in kept] == [point.file for point in points]
    assert again.encoded == []
    more = measure_points(again, pixels, [], [9], "file", metrics, store)
    assert again.encoded == [9] and [point.setting for point in more] == [9]
    other = Doubling()
    other.identity = "doubling 2"
    measure_points(other, pixels, [5], [], "file", metrics, store)
    assert other.encoded, "files of another version are made anew"
    for record in tmp_path.iterdir():
        record.write_text("{")
    assert len(measure_points(Doubling(), pixels, [5], [], "file", metrics, store)) == 1


def row(image: str, codec: str, size: int, value: float, setting: str | int = 0) -> dict[str, Any]:
    """A point at which every metric has one value."""
    sizes = {"file_bytes": size, "payload_bytes": size - 1, "bpp": size / 100}
    about = {"image": image, "codec": codec, "setting": setting, "bpp_payload": size / 100}
    return {**about, **sizes, **dict.fromkeys(DEFAULT, value)}


def test_between_points_metrics_are_linear_in_log_bytes() -> None:
    rows = [
        row("a", OURS, 200, 2.0, setting=8),
        *(row("a", "vvc", size, value) for size, value in ((100, 1.0), (400, 5.0))),
        row("a", "jpeg", 300, 9.0),
        row("a", "webp", 150, 4.0),
    ]
    found = {r["codec"]: r for r in at_equal_bytes(rows, "file", DEFAULT)}
    assert found["vvc"]["psnr_db"] == pytest.approx(3.0)
    assert (found["vvc"]["fits"], found["vvc"]["file_bytes"]) == (True, 100)
    assert (found["jpeg"]["fits"], found["jpeg"]["psnr_db"]) == (False, 9.0)
    assert (found["webp"]["fits"], found["webp"]["psnr_db"]) == (True, 4.0)


def test_only_those_that_fit_can_be_beaten() -> None:
    rows = [
        *(row(image, OURS, 200, 2.0, setting="8") for image in "abc"),
        row("a", "vvc", 200, 1.0),
        row("b", "vvc", 200, 3.0),
        row("c", "vvc", 300, 9.0),
        *(row(image, "jpeg", 900, 9.0) for image in "abc"),
        *(row(image, "webp", 200, 2.5) for image in "abc"),
    ]
    equal = at_equal_bytes(rows, "file", DEFAULT)
    config = BenchConfig((BenchLevel(8),), "static", ("vvc", "jpeg", "webp"), rates=(2.0,))
    summary = summarize_bench(rows, equal, config, {})
    level = summary["levels"][0]
    codecs = level["codecs"]
    assert codecs["vvc"]["fits"] == pytest.approx(2 / 3)
    assert codecs["vvc"]["beaten"]["psnr_db"] == 0.5
    assert codecs["vvc"]["beaten"]["lpips"] == 0.5
    assert codecs["vvc"]["fitting"]["psnr_db"] == {"ours": 2.0, "theirs": 2.0}
    assert codecs["jpeg"]["beaten"]["psnr_db"] is None
    assert codecs["jpeg"]["fitting"]["psnr_db"] is None
    assert level["best"]["psnr_db"] == "webp" and level["best"]["lpips"] == OURS
    assert summary["curves"]["vvc"][0]["psnr_db"] == pytest.approx(13 / 3)


def test_bd_rate_of_known_curves() -> None:
    """A published pair of curves (four points each, PSNR over kbit/s): the piecewise cubic is as
    near to the original method, one cubic through four points, as it should be."""
    rates = np.array([[686.76, 309.58, 157.11, 85.95], [893.34, 407.8, 204.93, 112.75]])
    psnr = np.array([[40.28, 37.18, 34.24, 31.42], [40.39, 37.21, 34.17, 31.24]])
    first, second = (list(zip(*curve, strict=True)) for curve in zip(rates, psnr, strict=True))
    low, high = psnr.min(1).max(), psnr.max(1).min()
    means = []
    for rate, quality in zip(rates, psnr, strict=True):
        integral = np.polyint(np.polyfit(quality, np.log(rate), 3))
        means.append((np.polyval(integral, high) - np.polyval(integral, low)) / (high - low))
    assert bd_rate(second, first) == pytest.approx(np.exp(means[1] - means[0]) - 1, abs=0.005)
    less = [(0.8 * rate, quality) for rate, quality in first]
    assert bd_rate(less, first) == pytest.approx(-0.2)
    assert bd_rate(first, less) == pytest.approx(0.25)


def test_bd_rate_where_curves_share_nothing() -> None:
    ours = [(1.0, 20.0), (2.0, 22.0), (3.0, 21.0)]  # the third is worse and larger: left out
    assert np.isnan(bd_rate(ours, [(1.0, 30.0), (2.0, 31.0)]))
    assert np.isnan(bd_rate(ours, [(1.0, 21.0)]))
    assert bd_rate(ours, ours[:2]) == pytest.approx(0)


def test_mistakes_are_told_in_one_line_and_leave_nothing(cli: Cli, photo: Path) -> None:
    for options, part in [
        (("--codecs", "gif"), "choose from jpeg"),
        (("--levels", "8,x"), "with commas between"),
        (("--levels", "9"), "this model has 8"),
        (("--count", "bits"), "choose from file, payload"),
        (("--metrics", "vmaf"), "choose from psnr_db"),
        (("--images", "nowhere"), "no such image"),
        (("--entropy", "zip"), "fixed, static, context"),
        (("--rates", "0,x"), "bits per pixel"),
    ]:
        done = cli(*BENCH, "--images", photo, "--codecs", "jpeg", *options, "-o", "out")
        assert done.exit_code == 2 and done.stdout == "", (options, done.output)
        assert part in done.stderr and len(done.stderr.strip().splitlines()) == 1
        assert not any(Path().iterdir())
