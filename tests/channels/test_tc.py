"""Whole channels as lines of tc netem, and back."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from channels import PRESETS, GilbertElliott, Link, PerfectLoss, UniformErasure, read_channel
from channels.jitter import NormalJitter, ParetoJitter, UniformJitter
from channels.lint import lint_netem
from channels.parameters import ChannelParameterError
from channels.spec import spec_of_text
from channels.tc import COPY_LOST, JITTER_ORDER, LIMIT_WAY, RATE_HEADERS, from_tc, to_tc
from sim.cli.main import app
from sim.errors import UserError
from sim.scenario.loader import load_mapping, load_scenario

ADD = "tc qdisc add dev DEV root netem "
LINES = {
    "delay 50ms": (PerfectLoss(), Link(delay_s=0.05)),
    "loss gemodel 5% 20%": (GilbertElliott(0.05, 0.2), Link()),
    "delay 50ms loss gemodel 5% 20% rate 1Mbit limit 100": (
        GilbertElliott(0.05, 0.2),
        Link(delay_s=0.05, rate_bps=1e6, queue_packets=100),
    ),
    "rate 5470bit limit 4294967295": (PerfectLoss(), Link(rate_bps=5470)),
    "delay 100ms 10ms loss random 1%": (
        UniformErasure(0.01),
        Link(delay_s=0.1, jitter=UniformJitter(0.01)),
    ),
    "delay 100ms 10ms distribution normal": (
        PerfectLoss(),
        Link(delay_s=0.1, jitter=NormalJitter(0.01)),
    ),
    "delay 10ms reorder 25%": (PerfectLoss(), Link(reorder=0.75, reorder_s=0.01)),
    "delay 1.5ms duplicate 2%": (PerfectLoss(), Link(delay_s=0.0015, duplicate=0.02)),
}


@pytest.mark.parametrize(("line", "channel"), LINES.items())
def test_lines_and_channels(line, channel):
    loss, link = from_tc(ADD + line)
    assert (loss, link) == channel == from_tc(line)
    command = to_tc(loss, link).command
    assert command == ADD + line
    assert read_channel(spec_of_text(command)) == channel


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("sudo tc qdisc replace dev eth0 root handle 1: netem delay 50000", "delay 50ms"),
        ("netem delay 0.05sec loss 1", "delay 50ms loss random 1%"),
        ("delay 50msecs 0ms 0%", "delay 50ms"),
        ("rate 125kbps limit 1000", "rate 1Mbit limit 1000"),
        ("rate 1mbit", "rate 1Mbit limit 1000"),
        ("rate 1000kibit", "rate 1024Kbit limit 1000"),
        ("delay 10ms reorder 25% 0% gap 1", "delay 10ms reorder 25%"),
        (
            "qdisc netem 8001: dev eth0 root refcnt 2 limit 1000 delay 100ms  10ms "
            "loss gemodel p 5% r 20% 1-h 100% 1-k 0%",
            "delay 100ms 10ms loss gemodel 5% 20%",
        ),
    ],
)
def test_other_ways_to_write_it(written, means):
    assert to_tc(*from_tc(written)).command == ADD + means


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("tc qdisc add dev eth0 root tbf rate 1mbit", "only netem's lines"),
        ("tc qdisc add dev eth0 root netem", "no options"),
        ("netem weather 5%", "'weather' is no option of netem; understood are limit, delay"),
        ("delay 5parsec", "'5parsec' is no time; write 50ms"),
        ("delay 50ms delay 60ms", "delay is given twice"),
        ("delay 50ms 10ms 25%", "leave their correlation out"),
        ("delay 50ms 10ms distribution pareto", "choose uniform or normal"),
        ("loss 5% 25%", "measured to lose"),
        ("duplicate 5% 10%", "only independent"),
        ("delay 5ms reorder 25% gap 5", "percentage and a correlation"),
        ("reorder 25%", "constant delay and no rate"),
        ("delay 5ms corrupt 1%", "use bit_error"),
        ("delay 5ms slot 1ms", "slot is not understood"),
        ("delay 5ms limit 50", "limit 50 needs a rate"),
        ("rate 1mbit limit 0", "whole number of packets"),
        ("rate 1mbit limit " + "9" * 5000, "whole number of packets"),
        ("rate 0bit", "is no rate"),
        ("rate 5mbpt", "is no rate"),
        ("rate 1mbit 20 100", "overheads and cells"),
        ("delay -5ms", "is no quantity"),
        ("delay \u0663ms", "is no quantity"),
    ],
)
def test_what_no_channel_here_does_is_refused(line, says):
    with pytest.raises(ChannelParameterError, match=says) as caught:
        from_tc(line)
    assert caught.value.parameter == "netem"


def test_links_without_a_line():
    for link in (
        Link(bit_error=1e-6),
        Link(rate_bps=1e6, queue_bytes=5000),
        Link(delay_s=0.1, jitter=ParetoJitter(0.01)),
        Link(delay_s=0.1, reorder=0.1, reorder_s=0.01),
        Link(),
    ):
        assert to_tc(PerfectLoss(), link) is None
    assert to_tc(read_channel(PRESETS["satellite"].channel)[0], Link(delay_s=0.1)) is None


def test_what_differs_is_told():
    def notes(line):
        return to_tc(*from_tc(line)).notes

    assert notes("delay 5ms loss 1%") == ()
    assert notes("delay 5ms 1ms") == (JITTER_ORDER,)
    assert notes("rate 1mbit") == (RATE_HEADERS,)
    assert notes("rate 1mbit delay 5ms") == (RATE_HEADERS, LIMIT_WAY)
    assert notes("duplicate 1% loss 1%") == (COPY_LOST,)
    assert RATE_HEADERS in [finding.message for finding in lint_netem("rate 1mbit")]


@pytest.mark.parametrize("line", LINES)
def test_tc_itself_reads_our_lines(line):
    """tc reads all words before it asks the kernel, which here has no such device."""
    if shutil.which("tc") is None:
        pytest.skip("no tc here")
    words = to_tc(*from_tc(line)).command.replace("DEV", "nowhere0").split()
    said = subprocess.run(words, capture_output=True, text=True).stderr
    assert 'Cannot find device "nowhere0"' in said or "Operation not permitted" in said


def test_a_scenario_may_have_a_line(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("channel: tc qdisc add dev eth0 root netem delay 50ms loss gemodel 5% 20%\n")
    wanted = {"type": "gilbert", "p": 0.05, "r": 0.2, "loss_bad": 1.0}
    scenario = load_scenario(path).scenario
    assert scenario.channel == {"loss": wanted, "link": {"delay_s": 0.05}}
    assert load_scenario(path, ["channel=loss gemodel 5% 20%"]).scenario.channel == wanted
    assert load_mapping({"channel": "wifi"}).scenario.channel == {"preset": "wifi"}
    path.write_text("seed: 1\nchannel: tc qdisc add dev eth0 root netem delay 5ms corrupt 1%\n")
    with pytest.raises(UserError, match=r"a.yaml:2: channel: corrupt is not understood"):
        load_scenario(path)


def test_describe_prints_the_line_of_a_link(tmp_path):
    line = ADD + "delay 50ms loss random 1% rate 1Mbit limit 100"
    path: Path = tmp_path / "c.yaml"
    path.write_text(
        "loss: {type: uniform, loss: 0.01}\n"
        "link: {delay_s: 0.05, rate_bps: 1000000, queue_packets: 100}\n"
    )
    for channel in (str(path), line):
        result = CliRunner().invoke(app, ["channel", "describe", channel, "-n", "10000"])
        assert f"netem: {line}\n" in result.stdout
        assert f"note: {RATE_HEADERS}\n" in result.stdout
