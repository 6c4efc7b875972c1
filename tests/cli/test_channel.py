"""`sim channel`: theory beside samples, masks, fits, remarks and pictures on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from channels import GilbertElliott, loss_mask, loss_model, read_channel

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]

BURSTY = "gilbert_elliott:loss=0.2,mean_burst=5"
MODEL = GilbertElliott.from_loss(0.2, 5)


@pytest.fixture
def channel(cli: Cli) -> Cli:
    """`channel("sample", ...)` is `sim channel sample ...`."""
    return lambda *arguments: cli("channel", *arguments)


def answer(result: Any) -> Any:
    """The JSON on standard output, which holds nothing else."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def write_mask(name: str, packets: int = 20_000) -> np.ndarray[Any, Any]:
    """A bursty mask in the working directory."""
    mask = loss_mask(MODEL, packets, 5)
    np.save(name, mask)
    return mask


def test_sample_writes_the_mask_of_the_seed(channel: Cli) -> None:
    found = answer(channel("sample", BURSTY, "-n", 50_000, "--seed", 7, "-o", "m.npy", "--json"))
    mask = np.load("m.npy")
    assert mask.dtype == np.bool_ and mask.shape == (50_000,)
    assert np.array_equal(mask, loss_mask(MODEL, 50_000, 7))
    assert (found["mask"], found["losses"]) == ("m.npy", mask.sum())
    assert found["loss_rate"] == pytest.approx(mask.mean())
    first = Path("m.npy").read_bytes()
    channel("sample", BURSTY, "-n", 50_000, "--seed", 7, "-o", "m.npy")
    assert Path("m.npy").read_bytes() == first
    assert os.listdir() == ["m.npy"]
    channel("sample", BURSTY, "-n", 50_000, "--seed", 8, "-o", "m.npy")
    assert Path("m.npy").read_bytes() != first


def test_sample_of_no_packets(channel: Cli) -> None:
    assert answer(channel("sample", BURSTY, "-n", 0, "-o", "m.npy", "--json"))["loss_rate"] is None
    assert np.load("m.npy").shape == (0,)


def test_channels_by_any_name_are_the_same(channel: Cli) -> None:
    Path("c.yaml").write_text("type: gilbert_elliott\nloss: 0.2\nmean_burst: 5\n")
    Path("whole.yaml").write_text("loss: {type: gilbert, loss: 0.2, mean_burst: 5}\n")
    Path("scenario.yaml").write_text("channel: {type: gilbert, loss: 0.2, mean_burst: 5}\n")
    masks = []
    for name in (BURSTY, "burst20", "loss gemodel 5% 20%", "c.yaml", "whole.yaml", "scenario.yaml"):
        answer(channel("sample", name, "-n", 5000, "--seed", 2, "-o", "m.npy", "--json"))
        masks.append(np.load("m.npy"))
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_traces_in_a_file_start_at_its_folder(channel: Cli) -> None:
    Path("deep").mkdir()
    mask = write_mask("deep/m.npy", 500)
    Path("deep/c.yaml").write_text("type: trace\npath: m.npy\nstart: first\n")
    answer(channel("sample", "deep/c.yaml", "-n", 500, "-o", "again.npy", "--json"))
    assert np.array_equal(np.load("again.npy"), mask)


def test_describe_shows_theory_and_the_netem_command(channel: Cli) -> None:
    result = channel("describe", BURSTY, "-n", 100_000)
    assert result.exit_code == 0, result.output
    assert "loss rate" in result.stdout and "mean burst (packets)" in result.stdout
    assert "tc qdisc add dev DEV root netem loss gemodel 5% 20%\n" in result.stdout
    found = answer(channel("describe", BURSTY, "-n", 100_000, "--json"))
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["loss rate"]["theory"] == pytest.approx(0.2)
    assert rows["loss rate"]["low"] < rows["loss rate"]["sample"] < rows["loss rate"]["high"]
    assert any("good state" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("uniform:loss=0.15", "tc qdisc add dev DEV root netem loss random 15%"),
        ("delayed.yaml", "tc qdisc add dev DEV root netem delay 20ms loss random 5%"),
        ("perfect", None),
        ("wifi", None),
        ("congested", None),
    ],
)
def test_netem_commands(channel: Cli, name: str, command: str | None) -> None:
    Path("delayed.yaml").write_text("loss: {type: uniform, loss: 0.05}\nlink: {delay_s: 0.02}\n")
    found = answer(channel("describe", name, "-n", 10_000, "--json"))
    assert found["netem"] == command
    assert ("preset" in found) == (name in ("wifi", "congested"))
    if name == "congested":
        assert any("losses by the link" in note for note in found["notes"])


def test_describe_names_the_source_of_a_preset(channel: Cli) -> None:
    text = channel("describe", "geostationary", "-n", 10_000).stdout
    assert "RFC 2488" in text and "delay_s: 0.279" in text


@pytest.mark.parametrize("kind", ["npy", "csv", "sequence"])
def test_fit_writes_a_channel(channel: Cli, kind: str) -> None:
    mask = write_mask("trace.npy")
    trace = "trace.npy" if kind == "npy" else "trace.csv"
    if kind == "csv":
        Path(trace).write_text(
            "time,lost\n" + "".join(f"{i},{int(x)}\n" for i, x in enumerate(mask))
        )
    if kind == "sequence":
        arrived = np.flatnonzero(~mask) % 65536
        Path(trace).write_text("seq\n" + "".join(f"{number}\n" for number in arrived))
    models = ["--models", "uniform,gilbert,order_2"]
    found = answer(channel("fit", trace, *models, "-o", "fitted.yaml", "--json"))
    assert found["best"] == "gilbert"
    assert {m["name"] for m in found["models"]} == {"uniform", "gilbert", "order_2"}
    for estimate, truth in zip(found["models"][0]["estimates"], (0.05, 0.2), strict=True):
        margin = 0.5 * (estimate["high"] - estimate["low"])
        assert estimate["low"] - margin < truth < estimate["high"] + margin
    best = read_channel(found["models"][0]["channel"])[0]
    answer(channel("sample", "fitted.yaml", "-n", 1000, "-o", "m.npy", "--json"))
    assert np.array_equal(np.load("m.npy"), loss_mask(best, 1000, 1))


def test_what_fit_prints_is_ready_yaml(channel: Cli) -> None:
    from ruamel.yaml import YAML

    write_mask("m.npy", 5000)
    text = channel("fit", "m.npy", "--models", "uniform,gilbert").stdout
    assert "by BIC" in text
    assert loss_model(YAML(typ="safe").load(text)["loss"])


def test_lint_remarks(channel: Cli) -> None:
    found = answer(channel("lint", BURSTY, "--json"))["findings"]
    assert any("+-1 point (95%) takes 43,021 packets" in f["message"] for f in found)
    text = channel("lint", "gilbert:loss=0.2,mean_burst=1.05", "--packet-bytes", 1490).stdout
    assert "anti-bursty" in text and "exceed the MTU of 1500" in text
    assert (
        "longer than the stream" in channel("lint", "gilbert:loss=.2,mean_burst=99", "-n", 9).stdout
    )
    assert "measured to lose 3.0%" in channel("lint", "loss random 20% 50%").stdout


def test_lint_knows_the_stream_of_a_scenario(channel: Cli) -> None:
    Path("s.yaml").write_text(
        "stream: {slices: 32, fps: 2, playout_delay_s: 0.3}\nchannel: {type: perfect}\n"
    )
    assert "beyond the deadline of 0.3 s" in channel("lint", "s.yaml").stdout
    assert "nothing to remark" in channel("lint", "s.yaml", "--deadline", 1).stdout


def test_lint_fails_on_what_cannot_run(channel: Cli) -> None:
    result = channel("lint", "uniform:loss=20", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0]["level"] == "error"


@pytest.mark.parametrize("name", [BURSTY, "perfect"])
def test_plot(channel: Cli, name: str) -> None:
    found = answer(channel("plot", name, "-n", 10_000, "-o", "c.png", "--json"))
    assert found["figure"] == "c.png"
    with Image.open("c.png") as image:
        assert image.size == (1760, 576)
    assert os.listdir() == ["c.png"]


def test_the_same_plot_is_the_same_bytes(channel: Cli) -> None:
    for name in ("a.svg", "b.svg"):
        answer(channel("plot", "burst20", "-n", 10_000, "-o", name, "--json"))
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    assert "seed 1" in Path("a.svg").read_text()


@pytest.mark.parametrize(
    "name",
    ["outages:up=100,down=10", "uniform:loss=0.2", "loss gemodel 5%", "order_n:loss_after=[.1,.4]"],
)
def test_a_description_fits_a_terminal_and_its_rounding_errors_do_not_show(
    channel: Cli, name: str
) -> None:
    text = channel("describe", name, "-n", 100_000, "--seed", 3).stdout
    assert "OUTSIDE" not in text and "e-1" not in text
    table = [line for line in text.splitlines() if line[:1] in "│┃"]
    assert len(table) == 9  # a heading and eight rows, none of them broken
    assert max(map(len, table)) <= 80


def test_missing_theory_is_explained(channel: Cli) -> None:
    assert "note: no theory" in channel("describe", "scripted:mask=0011", "-n", 10_000).stdout
    assert "note: no theory" not in channel("describe", "burst20", "-n", 10_000).stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["describe", "moon"], "moon: is no channel: give a preset (burst20, wifi"),
        (["describe", "uniform:loss=2"], "uniform:loss=2: loss: is a probability"),
        (["describe", "uniform:los=.2"], "los: is not a parameter of uniform"),
        (["describe", "uniform:0.2"], "is not name=value"),
        (["describe", "nowhere.yaml"], "nowhere.yaml: no such channel file"),
        (["describe", "."], "is a folder"),
        (["describe", "bad.yaml"], "bad.yaml:3: loss.mean_burst: must be at least 1"),
        (["describe", "torn.yaml"], "torn.yaml:"),
        (["describe", "scenario.yaml"], "scenario.yaml:2: channel.loss: is a probability"),
        (["describe", "loss random 20% 50%"], "netem's loss correlation does not do"),
        (["sample", "uniform:loss=.2", "-n", "9", "-o", "mask.txt"], "a mask is a .npy file"),
        (["sample", "uniform:loss=.2", "-n", "9", "-o", "no/m.npy"], "cannot be written (No such"),
        (["sample", "uniform:loss=.2", "-n", "9", "-o", "folder.npy"], "is a folder"),
        (["sample", "uniform:loss=.2", "-n", str(10**18), "-o", "m.npy"], "as many bytes"),
        (["sample", "scripted:mask=01,at_end=refuse", "-n", "9", "-o", "m.npy"], "scripted:mask="),
        (["sample", "uniform:loss=2", "-n", "9", "-o", "m.npy"], "is a probability"),
        (["fit", "nowhere.npy"], "cannot read nowhere.npy"),
        (["fit", "bad.yaml"], "is not a whole number"),
        (["fit", "short.txt"], "short.txt: has 4 packets with 2 lost; a fit needs 100 or more"),
        (["fit", "long.txt", "--models", "best", "-o", "f.yaml"], "--models: 'best' is unknown"),
        (["lint", "moon"], "is no channel"),
        (["lint", "perfect", "--deadline", "inf"], "must be finite"),
        (["plot", "uniform:loss=.2", "-o", "c.jpg"], "a figure is one of .png, .svg, .pdf"),
        (["plot", "uniform:loss=.2", "-o", "no/c.png", "-n", "10000"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(channel: Cli, arguments: list[str], expected: str) -> None:
    Path("bad.yaml").write_text("loss:\n  type: gilbert\n  mean_burst: 0.5\n  loss: 0.2\n")
    Path("torn.yaml").write_text("loss: {type: gilbert\n")
    Path("scenario.yaml").write_text("seed: 1\nchannel: {type: uniform, loss: 20}\n")
    Path("short.txt").write_text("0101")
    Path("long.txt").write_text("0011" * 100)
    Path("folder.npy").mkdir()
    before = sorted(Path().iterdir())
    result = channel(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and expected in lines[0]
    assert sorted(Path().iterdir()) == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_large_sample_takes_little_memory(tmp_path: Path) -> None:
    """2^28 packets, 256 MiB of mask, in a process that may not have as much for itself."""
    code = (
        "import re, sys; from pathlib import Path; from sim.cli.main import app\n"
        f"try: app(['channel', 'sample', '{BURSTY}', '-n', str(2**28), '-o', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        # Not ru_maxrss: that is inherited from the process that started this one.
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())\n"
        "sys.exit(int(peak[1]) > 192 * 1024)"
    )
    path = tmp_path / "m.npy"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, timeout=250)
    assert path.stat().st_size == 2**28 + 128
