"""Scenarios from Python."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sim
from sim.results.files import read_table

SCENARIO: dict[str, Any] = {
    "name": "small",
    "codec": {"model": "random"},
    "stream": {"slices": 6, "fps": 10},
    "channel": {"type": "uniform", "loss": 0.3},
    "transport": "virtual",
    "concealers": ["none", "nearest"],
    "repeats": 2,
    "sweep": {"channel.loss": [0.2, 0.4]},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sim.RunResult:
    """A run of the scenario on two small images."""
    folder = tmp_path_factory.mktemp("api")
    for name in ("photo", "other"):
        Image.radial_gradient("L").resize((56, 40)).convert("RGB").save(folder / f"{name}.png")
    scenario = SCENARIO | {"images": [str(folder / "photo.png"), str(folder / "other.png")]}
    return sim.run(scenario, set={"codec.codebook": 64}, seed=5, out=folder / "run")


def test_importing_it_is_light() -> None:
    code = "import sys, sim; sys.exit(str({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stderr.strip() == "set()"


def test_a_result_tells_what_its_folder_holds(result: sim.RunResult) -> None:
    assert (result.name, result.seed) == ("small", 5)
    assert all(len(repr(shown)) < 500 for shown in (result, *result.points)), "for a prompt"
    assert [dict(point.values) for point in result.points] == SCENARIO_POINTS
    point = result.points[1]
    assert (point.repeats, point.images) == (2, 4)
    assert point.loss.low <= point.loss.packets <= point.loss.high
    assert point.loss.expected == pytest.approx(0.4)
    gain = point.gains["nearest - none"]["psnr_db"]
    means = [point.concealers[name]["psnr_db"].mean for name in ("nearest", "none")]
    assert gain.mean == pytest.approx(means[0] - means[1])
    assert math.isnan(point.concealers["none"]["ms_ssim"].mean)  # too small an image

    texts = read_table(result.folder / "images.csv")
    assert len(result.images) == len(texts) == 2 * 2 * 2 * 3
    for row, text in zip(result.images, texts, strict=True):
        assert (row.image, row.concealer) == (text["image"], text["concealer"])
        assert row.psnr_db == float(text["psnr_db"])
        assert row.values == {"channel.loss": text["channel.loss"]}
    assert sum(packet.fate == "erased" for packet in result.packets) == sum(
        row.packets_lost for row in result.images if row.concealer == "clean"
    )
    table = result.table("images")
    assert table["psnr_db"].dtype == np.float64 and table["cell"].dtype == np.int64
    assert np.array_equal(table["psnr_db"], [row.psnr_db for row in result.images])


SCENARIO_POINTS = [{"channel.loss": 0.2}, {"channel.loss": 0.4}]


def test_a_result_has_pictures(result: sim.RunResult) -> None:
    assert {"quality", "packets", "strip-photo"} <= set(result.figures)
    figure = result.figures["quality"]
    assert figure._repr_png_().startswith(b"\x89PNG") and figure.svg is not None
    assert "<td>nearest</td>" in result._repr_html_()
    pictures = result.pictures("photo")
    assert set(pictures) == {"original", "clean", "none", "nearest", "received"}
    assert pictures["none"].shape == (40, 56, 3) and pictures["received"].shape == (3, 4)
    with pytest.raises(sim.UserError, match="there are: other, photo"):
        result.pictures("nobody")


def test_a_result_says_how_many_repeats_it_takes(result: sim.RunResult) -> None:
    needed = result.repeats_needed(half_width=0.1)
    assert set(needed) == {(point, name) for point in (0, 1) for name in ("none", "nearest")}
    sd = result.points[1].precision["none"]["psnr_db"].sd
    count = needed[1, "none"]
    assert count is not None and count >= (1.95 * sd / 0.1) ** 2


def test_a_table_as_a_data_frame(result: sim.RunResult) -> None:
    pandas = pytest.importorskip("pandas")
    frame = result.table("images").to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(result.images)
    assert frame.groupby("concealer")["psnr_db"].mean()["none"] > 0


def test_a_table_needs_no_pandas(result: sim.RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(sim.UserError, match="pip install pandas"):
        result.table("images").to_pandas()


def test_images_may_be_arrays(tmp_path: Path) -> None:
    """The same tables as of files, but for the names."""
    grey = np.asarray(Image.radial_gradient("L").resize((56, 40)))
    colours = np.stack([grey, grey[::-1], grey[:, ::-1]], axis=2)
    names = ["image-1", "image-2"]
    for name, pixels in zip(names, (grey, colours), strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = {"images": [str(tmp_path / f"{name}.png") for name in names]}
    runs = [
        sim.run(SCENARIO | files, out=tmp_path / "files", figures=False),
        sim.run(SCENARIO, images=[grey, colours], out=tmp_path / "arrays", figures=False),
    ]
    assert [row.image for row in runs[1].images[:4:3]] == names
    for table in ("images.csv", "packets.csv"):
        assert len({(run.folder / table).read_bytes() for run in runs}) == 1
    for wrong in (colours / 255, colours[..., :2], colours[:8], []):
        with pytest.raises(sim.UserError, match=r"^image"):
            sim.run(SCENARIO, images=[wrong] if len(wrong) else [], out=tmp_path / "no")


def test_runs_can_be_loaded_again(result: sim.RunResult) -> None:
    assert sim.load(result.folder).summary == result.summary
    with pytest.raises(sim.UserError, match="holds no run"):
        sim.load("nowhere")
    with pytest.raises(sim.UserError, match=r"^scenario: sead: unknown key"):
        sim.run({"sead": 1})


def test_the_command_says_so_too(result: sim.RunResult, cli: Callable[..., Any]) -> None:
    answer = cli("repeats", result.folder, "--within", "0.5", "--json")
    assert answer.exit_code == 0, answer.output
    points = json.loads(answer.stdout)["points"]
    needed = result.repeats_needed(0.5)
    assert {(p["point"], p["repair"]): p["needed"] for p in points} == needed
    assert "repeats needed" in cli("repeats", result.folder).stdout
    wrong = cli("repeats", result.folder, "--metric", "beauty")
    assert wrong.exit_code == 2 and "choose one of psnr_db" in wrong.stderr
