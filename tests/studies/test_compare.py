"""Comparisons: budgets kept, losses paired, parts reused, winners honest, mistakes told."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from channels import build, read_channel
from channels.theory import block_failure, residual_losses
from sim.metrics.quality import measurable
from sim.progress import no_progress
from sim.results.files import read_table, write_table
from sim.studies.compare.comparison import Comparison
from sim.studies.compare.config import load_comparison
from sim.studies.compare.figures import draw_comparison
from sim.studies.compare.sources import largest
from sim.studies.compare.summary import mean_rows, winner_rows
from sim.studies.optimise.figures import draw_optimisation

Cli = Callable[..., Any]
Redrawn = Callable[[Path, Callable[[Path], object]], bool]

COMPARISON = """\
# Question: ?
images: [../photo.png]
codec: {model: random}
stream: {slices: 4, fps: 2, playout_delay_s: 1.0}
channel: {link: {delay_s: 0.02}}
bpp_wire: [2.0]
loss: [0, 0.3]
mean_burst: [independent, 3]
repeats: 3
strategies:
  - {name: tokens}
  - {name: tokens grey, concealer: none, codec: {codebook: 8}}
  - {name: jpeg, coder: jpeg-half}
  - {name: jpeg, grey, coder: jpeg-half, damaged: grey, stream: {slices: 2}}
  - {name: huge, coder: jpeg2000, stream: {slices: 200}}
""".replace("name: jpeg, grey,", 'name: "jpeg, grey",')


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is kept beyond a test."""
    monkeypatch.setenv("LOSSY_STREAM_SIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def comparison(text: str = COMPARISON) -> Path:
    """A comparison file in the working directory."""
    path = Path("test.yaml")
    path.write_text(text)
    return path


@pytest.mark.usefixtures("photo")
def test_bytes_are_kept_losses_paired_and_parts_reused(
    cli: Cli, own_cache: Path, redrawn: Redrawn
) -> None:
    done = cli("compare", comparison(), "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    rows = read_table(Path("out/outcomes.csv"))
    cells = [("0.0", "independent"), ("0.3", "independent"), ("0.3", "3.0")]
    assert len(rows) == len(cells) * 4 * 3
    assert {row["strategy"] for row in rows} == {"tokens", "tokens grey", "jpeg", "jpeg, grey"}
    assert {row["strategy"] for row in summary["cannot_reach"]} == {"huge"}
    fates: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        assert float(row["bpp_wire"]) <= 2.0
        if row["strategy"] != "jpeg, grey":  # it sends fewer packets
            key = (row["loss"], row["mean_burst"], row["repeat"])
            fates.setdefault(key, set()).add(row["packets_erased"])
    assert all(len(erased) == 1 for erased in fates.values())
    assert len({next(iter(e)) for key, e in fates.items() if key[0] == "0.3"}) > 1
    drawn = sorted(path.name for path in Path("out/figures").glob("*.png"))
    assert drawn == ["differences-2.png", "quality-2.png", "strip-2-photo.png", "winners-2.png"]
    for slide in Path("out/figures/slides").iterdir():
        with Image.open(slide) as picture:
            assert picture.size == (1600, 900)
    assert redrawn(Path("out"), draw_comparison)
    # Finished parts are not computed again.
    kept = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.json")}
    loaded = load_comparison(comparison())
    outcomes, _ = Comparison(loaded, measurable(), no_progress).outcomes(Path("again"), workers=1)
    assert kept == {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.json")}
    write_table(Path("again.csv"), outcomes)
    assert Path("again.csv").read_bytes() == Path("out/outcomes.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("photo")
def test_processes_change_nothing_but_the_time(cli: Cli, own_cache: Path) -> None:
    text = COMPARISON.replace("repeats: 3", "repeats: 1").replace("[independent, 3]", "[3]")
    for workers in (1, 2):
        done = cli("compare", comparison(text), "-o", str(workers), "--workers", workers)
        assert done.exit_code == 0, done.output
        shutil.rmtree(own_cache)
    for name in ("outcomes.csv", "means.csv", "winners.csv", "figures/quality-2.png"):
        assert Path("1", name).read_bytes() == Path("2", name).read_bytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("loss: [0, 0.3]", "lost: [0]"), "test.yaml:7: lost: unknown key; did you mean loss?"),
        (("0.3]", "1.3]"), "test.yaml:7: loss[1]: is a probability"),
        (("0.3]", "0.3, 0.3]"), "test.yaml:7: loss: names one value twice"),
        (("[independent, 3]", "[often]"), "mean_burst[0]: must be a number of packets or indep"),
        (("[independent, 3]", "[0.5]"), "test.yaml:8: mean_burst[0]: must be at least 1"),
        (("bpp_wire: [2.0]", "bpp_wire: [0]"), "test.yaml:6: bpp_wire: must lie above 0"),
        (("slices: 4", "slices: 0"), "test.yaml:4: stream.slices: input should be greater"),
        (("slices: 2}", "slice: 2}"), "strategies[3].stream.slice: unknown key; did you mean sli"),
        (("slices: 200", "slices: 900"), "test.yaml:15: strategies[4].stream.slices: input should"),
        (("name: huge", "name: a/b"), "test.yaml:15: strategies[4].name: must have 1 to 60"),
        (("{codebook: 8}", "{codebook: 9}"), "strategies[1].codec.codebook: must be one of 8, 16"),
        (("coder: jpeg2000", "coder: gif"), "test.yaml:15: strategies[4].coder: must be one of to"),
        (("coder: jpeg-half}", "coder: jpeg, concealer: none}"), "concealer: says nothing to jpeg"),
        (("name: huge", "name: tokens"), "test.yaml:15: strategies[4].name: names a strategy twi"),
        (("{link: {delay_s: 0.02}}", "{type: uniform, loss: .1}"), "test.yaml:5: channel: give on"),
        (("repeats: 3", "repeats: 0"), "test.yaml:9: repeats: input should be greater"),
        (("../photo.png", "none.png"), "none.png: no such image"),
    ],
)
@pytest.mark.usefixtures("photo")
def test_mistakes_are_told_by_line(cli: Cli, change: tuple[str, str], expected: str) -> None:
    assert change[0] in COMPARISON
    done = cli("compare", comparison(COMPARISON.replace(*change, 1)), "-o", "out")
    assert done.exit_code == 2 and done.stdout == "", done.output
    assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["test.yaml"]


def test_each_kind_of_file_names_its_command(cli: Cli) -> None:
    path = comparison()
    assert "run it by: sim compare" in cli("run", path).stderr
    path.write_text("seed: 1\n")
    assert "test.yaml:1: bpp_wire: is missing" in cli("compare", path).stderr


def test_the_largest_source_that_fits() -> None:
    for slope, offset in itertools.product((0.3, 1.0, 7.0), (0.0, 2.0, 50.0)):
        cost = lambda x, a=slope, b=offset: a * round(x * 40) / 40 + b  # noqa: E731
        found = largest(cost, 10.0, 100.0)
        if offset > 10:
            assert found == 0
            continue
        assert cost(found) <= 10 < cost(found * 1.005 + 0.05) or found == 100.0


def rows_of(**values: Any) -> list[dict[str, Any]]:
    """Outcomes: for each strategy float[repeats][images] of both metrics."""
    found = []
    for name, table in values.items():
        for repeat, image in np.ndindex(np.shape(table)):
            found.append(
                {
                    "strategy": name,
                    "coder": "tokens" if name.startswith("t") else "vvc",
                    "budget": 0.05,
                    "loss": 0.2,
                    "mean_burst": 5,
                    "repeat": repeat,
                    "image": str(image),
                    "level": None,
                    "packets_sent": 10,
                    "packets_erased": 2,
                    "packets_overflowed": 0,
                    "packets_corrupted": 0,
                    "packets_late": 0,
                    "bpp_wire": 0.05,
                    "source_there": 0.8,
                    "ssim": table[repeat][image],
                    "lpips": -table[repeat][image],
                }
            )
    return found


def test_winners_and_intervals() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0, 5, (4, 6))  # images and streams differ far more than strategies do
    rows = rows_of(t1=base + 1, t2=base - 1, v1=base + rng.normal(0, 0.01, (4, 6)), v2=base - 9)
    for metric, row in zip(("ssim", "lpips"), winner_rows(rows, ["ssim", "lpips"]), strict=True):
        assert (row["metric"], row["winner"], row["over"]) == (metric, "t1", "v1")
        assert (row["tokens_best"], row["files_best"]) == ("t1", "v1")
        assert 0.9 < row["lead_low"] <= row["lead"] <= row["lead_high"] < 1.1
        assert row["verdict"] == "tokens" and row["tokens_better"] == 1
    means = {row["strategy"]: row for row in mean_rows(rows, ["ssim"])}
    assert means["t1"]["ssim"] == pytest.approx(base.mean() + 1)
    assert means["t1"]["ssim_low"] < base.mean() + 1 < means["t1"]["ssim_high"]
    holes = np.where(np.eye(4, 6) > 0, np.nan, base)
    (row,) = winner_rows(rows_of(t1=base + 1, v1=holes), ["ssim"])
    assert row["tokens_better"] == 1, "of the pairs that are defined"
    nothing = np.full_like(base, np.nan)
    assert not winner_rows(rows_of(t1=base, v1=nothing), ["ssim"]), "one has nothing to compare"
    (equal,) = winner_rows(rows_of(t1=base, v1=base + rng.normal(0, 9, (4, 6))), ["ssim"])
    assert equal["verdict"] == "open" and equal["lead_low"] < 0


def test_the_shortlist_is_of_the_best_whichever_way_is_up() -> None:
    from sim.studies.optimise.search import Candidate, Prediction, shortlist

    found = [
        Prediction(Candidate(8, 0, 1, 0), 64, 0.03, 0.1, quality) for quality in (0.5, 0.3, 0.4)
    ]
    assert [p.quality for p in shortlist(found, 2)] == [0.5, 0.4]
    assert [p.quality for p in shortlist(found, 2, sign=-1)] == [0.3, 0.4]
    equal = [Prediction(Candidate(8, 0, 1, 0), 64, bpp, 0.0, 0.5) for bpp in (0.04, 0.03, 0.05)]
    assert [p.bpp_wire for p in shortlist(equal, 2)] == [0.03, 0.04], "of equals the smaller"


def test_two_streams_decide_nothing() -> None:
    rows = rows_of(t1=np.ones((2, 5)), v1=np.zeros((2, 5)))
    (row,) = winner_rows(rows, ["ssim"])
    assert row["winner"] == "t1" and row["verdict"] == "open" and np.isnan(row["lead_low"])


def test_intervals_know_that_images_of_a_stream_share_its_bursts() -> None:
    """Streams that differ while their images do not: the interval is that of so many streams."""
    streams = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    rows = rows_of(t=np.repeat(streams[:, None], 50, axis=1))
    (row,) = mean_rows(rows, ["ssim"])
    standard_error = streams.std() / np.sqrt(len(streams))
    assert row["ssim_high"] - row["ssim_low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def brute_force(chain: Any, data: int, parity: int, depth: int) -> list[float]:
    """Every path of the hidden chain and every pattern of losses."""
    from channels.theory import interleaved, stationary

    spread, start = interleaved(chain, depth), stationary(chain)
    law = [0.0] * (data + 1)
    size, n = len(start), data + parity
    for path in itertools.product(range(size), repeat=n):
        weight = float(start[path[0]])
        for a, b in itertools.pairwise(path):
            weight *= float(spread.transition[a, b])
        for fates in itertools.product((0, 1), repeat=n):
            here = weight
            for state, lost in zip(path, fates, strict=True):
                here *= float(chain.loss[state]) if lost else 1 - float(chain.loss[state])
            law[sum(fates[:data]) if sum(fates) > parity else 0] += here
    return law


@pytest.mark.parametrize(("data", "parity", "depth"), [(3, 0, 1), (3, 2, 1), (2, 3, 2), (1, 1, 5)])
def test_residual_losses_are_exact(data: int, parity: int, depth: int) -> None:
    spec = {"type": "gilbert_elliott", "p": 0.2, "r": 0.4, "loss_good": 0.1, "loss_bad": 0.8}
    chain = read_channel(spec)[0].chain()
    assert chain is not None
    law = residual_losses(chain, data, parity, depth)
    assert law == pytest.approx(brute_force(chain, data, parity, depth))
    assert law[1:].sum() <= block_failure(chain, data + parity, parity, depth) + 1e-12


def test_the_typical_repeat_is_one_of_the_streams() -> None:
    """Its losses are those that the channel of that repeat really makes."""
    from sim.studies.compare.comparison import typical_repeat
    from sim.studies.compare.config import LossCondition, load_comparison

    path = Path(__file__).parents[2] / "scenarios" / "equal-bytes.yaml"
    loaded = load_comparison(path, ["repeats=5"])
    spec = {"loss": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}}
    cell, slices = LossCondition(0.2, 5.0, spec), loaded.base.stream.slices
    shares = []
    for repeat in range(5):
        seed = np.random.SeedSequence(loaded.base.seed, spawn_key=(repeat,))
        channel = build(read_channel(spec)[0], seed=seed)
        lost = [channel.transmit(b"", float(i)) == () for i in range(3 * slices)]
        shares.append(sum(lost) / len(lost))
    best = typical_repeat(loaded, cell, 8)
    assert abs(shares[best] - 0.2) == min(abs(share - 0.2) for share in shares)


SCENARIO = """\
images: [../photo.png]
codec: {model: random}
stream: {slices: 4, fps: 2, playout_delay_s: 1.0}
channel: {loss: {type: gilbert_elliott, loss: 0.2, mean_burst: 3}, link: {delay_s: 0.02}}
concealers: [none, neighbour_average]
repeats: 2
"""


@pytest.mark.usefixtures("photo")
def test_the_optimum_runs_and_keeps_its_budget(cli: Cli, redrawn: Redrawn) -> None:
    path = comparison(SCENARIO)
    options = ("--slices", "3,6", "--metric", "psnr_db", "--deadline", 1.5, "--verify", 1)
    options += ("--repeats", 3)
    done = cli("optimise", path, "--bpp-wire", 0.6, *options, "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    rows = read_table(Path("out/candidates.csv"))
    assert {row["kind"] for row in rows} == {"unprotected", "parity", "ARQ", "parity + ARQ"}
    assert {row["kind"] for row in found["verified"]} == {row["kind"] for row in rows}
    for row in found["verified"]:
        assert row["bpp_wire"] <= 0.6
        assert row["psnr_db_low"] <= row["psnr_db"] <= row["psnr_db_high"], "as is drawn"
        assert row["expected_bpp_wire"] == pytest.approx(row["bpp_wire"], rel=0.6)
    best = max(row["psnr_db"] for row in found["verified"])
    assert found["winner"]["psnr_db"] == pytest.approx(best, abs=0.01), "a tie as it is printed"
    assert found["channel"]["loss"]["mean_burst"] == 3
    assert Path("out/figures/optimise.png").is_file()
    assert redrawn(Path("out"), draw_optimisation)
    ran = cli("run", "out/winner.yaml", "--json", "--out", "ran")
    assert ran.exit_code == 0, ran.output
    (point,) = json.loads(ran.stdout)["points"]
    assert point["bpp_wire"] == pytest.approx(found["winner"]["bpp_wire"])
    quality = point["concealers"]["neighbour_average"]["psnr_db"]["mean"]
    assert quality == pytest.approx(found["winner"]["psnr_db"])


@pytest.mark.usefixtures("photo")
def test_without_losses_the_fewest_bytes_win(cli: Cli) -> None:
    """All give the same picture: no lead is invented, and there are enough streams to say so."""
    options = ("--slices", "3,6", "--metric", "psnr_db")
    options += ("--set", "channel={type: uniform, loss: 0.0}")
    done = cli("optimise", comparison(SCENARIO), "--bpp-wire", 9, *options, "-o", "out", "--json")
    found = json.loads(done.stdout)
    assert found["repeats"] >= 8
    equals = [r for r in found["verified"] if r["psnr_db"] == found["winner"]["psnr_db"]]
    assert len(equals) > 1
    assert found["winner"]["bpp_wire"] == min(row["bpp_wire"] for row in equals)
    assert not found["lead"]["lead_low"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--bpp-wire", 0), "--bpp-wire 0.0: must be above 0"),
        (("--bpp-wire", 0.001), "--bpp-wire 0.001: even the smallest codebook in few slices"),
        (("--bpp-wire", 1, "--metric", "vmaf"), "--metric vmaf: choose one of psnr_db"),
        (("--bpp-wire", 1, "--deadline", -1), "--deadline -1.0: must be above 0"),
        (("--bpp-wire", 1, "--set", "sweep={channel.loss.loss: [0.1]}"), "has a sweep"),
        (("--bpp-wire", 1, "--set", 'channel={type: scripted, mask: "01"}'), "no law of this"),
    ],
)
@pytest.mark.usefixtures("photo")
def test_what_cannot_be_optimised(cli: Cli, options: tuple[object, ...], expected: str) -> None:
    done = cli("optimise", comparison(SCENARIO), *options, "-o", "out")
    assert done.exit_code == 2 and done.stdout == "", done.output
    assert expected in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["test.yaml"]


def test_retransmission_thins_the_exact_law() -> None:
    """kept = 1 is parity alone; kept = 0 repairs all; between, the mean without parity is known."""
    from sim.studies.optimise.search import Candidate, lost_again, residual_law

    chain = read_channel({"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5})[0].chain()
    assert chain is not None
    candidate = Candidate(8, 3, 2, 1)
    assert residual_law(chain, candidate, 1.0) == pytest.approx(residual_losses(chain, 8, 3, 2))
    assert residual_law(chain, candidate, 0.0) == pytest.approx([1.0] + [0.0] * 8)
    bare = residual_law(chain, Candidate(8, 0, 1, 2), 0.3)
    assert bare.sum() == pytest.approx(1)
    assert bare @ np.arange(9) == pytest.approx(8 * 0.2 * 0.3)
    assert lost_again(chain, 1) == pytest.approx(1 - 1 / 5)
    assert lost_again(chain, 500) == pytest.approx(0.2)


@pytest.mark.usefixtures("photo")
def test_where_all_send_tokens_there_is_a_winner_and_no_verdict(cli: Cli) -> None:
    text = COMPARISON[: COMPARISON.index("  - {name: jpeg,")].replace("repeats: 3", "repeats: 1")
    done = cli("compare", comparison(text), "-o", "out", "--set", "loss=[0]")
    assert done.exit_code == 0, done.output
    assert "tokens" in done.stdout and "()" not in done.stdout and "3.0" not in done.stdout
