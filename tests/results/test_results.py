"""The run folder: whole or not there, the same for the same scenario, redrawn from its tables."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sim.drivers.record import MediaFrame, PacketRecord
from sim.errors import UserError
from sim.experiment.folder import CELLS, made_aside, open_run
from sim.experiment.packets import packet_lines, packet_table
from sim.results.files import COMPARISON, MANIFEST, cell_text, new_folder, read_table, write_table

Cli = Callable[..., Any]

SCENARIO = """\
name: small
images: [../photo.png, ../photo.png]
codec: {codebook: 64, model: random}
stream: {slices: 6, fps: 10}
channel: {type: scripted, mask: "010100 000010"}
transport: virtual
concealers: [none, nearest, inpaint]
seed: 3
"""
TABLES = ("images.csv", "packets.csv", "summary.json", "manifest.json")


def finished_run(path: Path) -> None:
    """What the content of a run folder must at least be."""
    (path / MANIFEST).write_text('{"kind": "run"}')


def test_a_run_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "results" / "run"
    with new_folder(target) as folder:
        finished_run(folder)
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_failed_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "results" / "run") as folder:
        finished_run(folder)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_replaced_only_by_a_finished_one(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with new_folder(target) as folder:
        finished_run(folder)
        (folder / "old").touch()
    with pytest.raises(RuntimeError), new_folder(target):
        raise RuntimeError
    assert (target / "old").exists()
    with new_folder(target) as folder:
        finished_run(folder)
    assert [path.name for path in target.iterdir()] == [MANIFEST]
    assert list(tmp_path.iterdir()) == [target]


def test_what_others_put_into_a_folder_outlives_a_rerun(tmp_path: Path) -> None:
    def fill(folder: Path, name: str) -> None:
        finished_run(folder)
        (folder / "figures").mkdir()
        (folder / "figures" / name).touch()

    with new_folder(tmp_path / "study") as folder:
        fill(folder, "first.png")
    (tmp_path / "study" / "figures" / "mine.svg").write_text("mine")
    with new_folder(tmp_path / "study") as folder:
        fill(folder, "second.png")
    for number in range(2):
        with made_aside(tmp_path / "study") as aside:
            fill(aside, f"third-{number}.png")
    names = {path.name for path in (tmp_path / "study" / "figures").iterdir()}
    assert names == {"third-1.png", "mine.svg"}
    assert (tmp_path / "study" / "figures" / "mine.svg").read_text() == "mine"


def test_results_go_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    with new_folder(tmp_path / "run") as folder:
        finished_run(folder)
    assert (tmp_path / "run").is_symlink() and (tmp_path / "disk" / MANIFEST).is_file()


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        finished_run(folder)
    assert (tmp_path / MANIFEST).exists()
    (tmp_path / MANIFEST).rename(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match="holds no run"), new_folder(tmp_path):
        pass


def test_results_of_another_kind_are_not_replaced(tmp_path: Path) -> None:
    """Nor is anything else that happens to have a manifest."""
    for about in ({"kind": "comparison"}, {"name": "a web page's"}, []):
        (tmp_path / MANIFEST).write_text(json.dumps(about))
        with pytest.raises(UserError, match="holds no run"), new_folder(tmp_path):
            pass
        with pytest.raises(UserError, match="holds no run"), open_run(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]
    (tmp_path / MANIFEST).write_text(json.dumps({"kind": "comparison"}))
    with new_folder(tmp_path, COMPARISON) as folder:
        (folder / MANIFEST).write_text(json.dumps({"kind": "comparison", "new": True}))
    assert "new" in (tmp_path / MANIFEST).read_text()


def test_processes_that_share_a_run_finish_it_one_after_another(tmp_path: Path) -> None:
    together = Barrier(4)

    def finish(number: int) -> None:
        together.wait()
        with made_aside(tmp_path) as aside:
            (aside / MANIFEST).write_text(json.dumps({"kind": "run", "number": number}))
            (aside / "images.csv").write_text(str(number))
            time.sleep(0.01)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(finish, range(4)))
    number = json.loads((tmp_path / MANIFEST).read_text())["number"]
    assert (tmp_path / "images.csv").read_text() == str(number)
    assert {path.name for path in tmp_path.iterdir()} - {CELLS} == {"images.csv", MANIFEST}


def test_tables_survive_a_round_trip(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", [{"a": 1 / 3, "b": None, "c": "x,\n", "d": float("nan")}])
    assert read_table(tmp_path / "t.csv") == [{"a": "0.333333333", "b": "", "c": "x,\n", "d": ""}]


@pytest.fixture
def run(cli: Cli, photo: Path) -> Callable[..., dict[str, Any]]:
    """Runs the small scenario with further arguments; answers its JSON summary."""
    Path("small.yaml").write_text(SCENARIO)

    def run(*arguments: object) -> dict[str, Any]:
        result = cli("run", "small.yaml", "--json", *arguments)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    return run


Run = Callable[..., dict[str, Any]]


def test_content_of_a_run(run: Run, photo: Path) -> None:
    summary = run("--save-images")
    folder = Path(summary["run"])
    assert folder.parent == Path("results/small")

    images = read_table(folder / "images.csv")
    assert [(row["image"], row["concealer"]) for row in images] == [
        (image, repair)
        for image in ("photo", "photo-2")
        for repair in ("clean", "none", "nearest", "inpaint")
    ]
    assert {row["packets_lost"] for row in images[:4]} == {"2"}
    assert {row["packets_lost"] for row in images[4:]} == {"1"}
    for row in images:
        pixels = 56 * 40
        assert int(row["tokens"]) == 3 * 4
        assert float(row["bpp_wire"]) - float(row["bpp"]) == pytest.approx(6 * 12 * 8 / pixels)

    packets = read_table(folder / "packets.csv")
    assert [row["fate"] == "erased" for row in packets] == [c == "1" for c in "010100000010"]
    assert summary["points"][0]["loss"]["packets"] == pytest.approx(3 / 12)

    for repair in ("clean", "none", "nearest", "inpaint"):
        saved = Image.open(folder / "images" / repair / "photo-2.png")
        assert (saved.size, saved.mode) == ((56, 40), "RGB")
    original = np.array(Image.open(folder / "panels" / "photo" / "original.png"))
    assert np.array_equal(original, np.array(Image.open(photo)))

    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["scenario"]["seed"] == 3
    assert len(manifest["weights_fingerprint"]) == 16
    assert {"version", "revision", "libraries", "hardware"} <= set(manifest)
    assert json.loads((folder / "summary.json").read_text())["points"] == summary["points"]


def test_same_scenario_same_bytes(run: Run) -> None:
    run("--out", "first", "--no-figures")
    run("--out", "second", "--no-figures")
    for name in TABLES:
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes(), name
    # A scripted channel: the losses stay, the record differs.
    run("--out", "third", "--no-figures", "--seed", 4)
    assert Path("first", "summary.json").read_bytes() != Path("third", "summary.json").read_bytes()


def figures(folder: str) -> dict[str, bytes]:
    """The files of a run's figures, by their paths."""
    at = Path(folder, "figures")
    return {str(f.relative_to(at)): f.read_bytes() for f in at.rglob("*") if f.is_file()}


def test_figures_come_from_the_tables(run: Run, cli: Cli) -> None:
    summary = run("--out", "run")
    drawn = figures("run")
    slides = {name for name in drawn if name.startswith("slides/")}
    metrics = [*summary["metrics"], "token_accuracy"]
    assert slides == {f"slides/quality-{metric}.png" for metric in metrics}
    assert set(drawn) - slides == {
        "packets.png",
        "packets.svg",
        "quality.png",
        "quality.svg",
        "invented-photo.png",
        "invented-photo-2.png",
        "strip-photo.png",
        "strip-photo-2.png",
    }
    small_print = "scenario small · seed 3 · lossy-stream-sim"
    assert small_print in drawn["quality.svg"].decode()
    assert small_print in drawn["packets.svg"].decode()
    shutil.rmtree("run/figures")
    Path("run").rename("moved")
    result = cli("plot", "moved", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["figures"]) == 6 + len(slides)
    assert figures("moved") == drawn


SWEPT = '{"channel.loss": [0.0, 0.4], "stream.slices": [4, 6]}'


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (["concealers=[nearest, inpaint]"], {"quality", "rate", "packets"}),
        (["concealers=[]"], {"losses", "packets"}),
    ],
    ids=["repairs", "losses"],
)
def test_figures_of_sweeps_come_from_the_tables(
    run: Run, cli: Cli, settings: list[str], names: set[str]
) -> None:
    """The tables, summary, manifest and panels alone: no cells."""
    texts = [*settings, f"sweep={SWEPT}", "repeats=2", "channel={type: uniform, loss: 0}"]
    run("--out", "run", *(word for text in texts for word in ("--set", text)))
    drawn = figures("run")
    assert {name[:-4] for name in drawn if name.endswith(".svg")} == names
    for name in ("figures", "cells"):
        shutil.rmtree(Path("run", name))
    Path("run").rename("moved")
    assert cli("plot", "moved").exit_code == 0
    assert figures("moved") == drawn


def test_sweeps_are_grids_with_paired_repeats(run: Run) -> None:
    summary = run(
        "--out",
        "run",
        "--set",
        "sweep={channel: [{type: uniform}, {type: gilbert_elliott, mean_burst: 2}], "
        "channel.loss: [0.0, 0.3], stream.interleaver: [raster, random]}",
        "--set",
        "repeats=2",
        "--set",
        "concealers=[nearest]",
    )
    assert len(summary["points"]) == 8
    with Path("run/images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 2 * 2 * 2  # points, repeats, images, rows per image
    lost: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["concealer"] == "nearest":
            key = (row["channel"], row["channel.loss"], row["repeat"])
            lost.setdefault(key, []).append(row["packets_lost"])
    for (_, loss, _), counts in lost.items():
        assert counts[:2] == counts[2:], "the interleaver must not change which packets are lost"
        assert loss != "0.0" or set(counts) == {"0"}
    assert Path("run/figures/quality.png").exists()


def test_packets_are_kept_as_the_csv_module_writes_them() -> None:
    names = ["plain", 'a "b", c', "two\nlines", " #1"]
    frames = [MediaFrame(name, np.zeros((1, 1), np.int64), 16, 16) for name in names]
    packets = [
        PacketRecord(65_535, n, 2, 76, n / 3, "delivered", n / 7, True, 2, "media", n)
        for n in range(4)
    ]
    packets.append(PacketRecord(0, 1, 0, 9, 1e-12, "erased", None, False, 0, "parity", 3))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for packet in packets:
        name = names[packet.frame].replace("\n", " ")
        table.writerow(["7", name, *map(cell_text, packet)])
    assert packet_lines(packet_table(packets, frames), "7,") == text.getvalue()
