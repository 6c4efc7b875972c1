"""Descriptions, lint, presets and plain data of whole channels."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from channels import (
    LINK_PARAMETERS,
    PRESETS,
    AnyLoss,
    ChannelParameterError,
    DelayLoss,
    GilbertElliott,
    Link,
    LossTrace,
    NormalJitter,
    Scripted,
    UniformErasure,
    build,
    loss_mask,
    loss_model,
    loss_spec,
    read_channel,
)
from channels.describe import (
    describe,
    loss_raster,
    recorded_packets,
    run_histogram,
    sample_autocorrelation,
    sample_chunks,
    sample_to_file,
    student_t,
)
from channels.lint import Stream, lint
from channels.spec import to_yaml

BURSTY = GilbertElliott.from_loss(0.2, 5)


def test_the_keys_of_links_are_in_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "channels.md").read_text()
    for key in LINK_PARAMETERS:
        assert f"| `{key.name}` | {key.description} |\n" in text


def test_a_description_agrees_with_theory():
    description = describe(BURSTY, 300_000, seed=1)
    rows = {row.name: row for row in description.rows}
    assert rows["loss rate"].theory == pytest.approx(0.2)
    assert rows["mean burst (packets)"].theory == pytest.approx(5)
    assert all(row.inside for row in description.rows)
    assert description.netem == "loss gemodel 5% 20%"
    assert description.warnings == ()


@pytest.mark.parametrize("loss", [UniformErasure(0.2), BURSTY], ids=["independent", "bursty"])
def test_one_row_in_a_hundred_lies_outside_its_interval(loss):
    described = [describe(loss, 10_000, seed).rows[:7] for seed in range(200)]
    outside = np.mean([[not row.inside for row in rows] for rows in described], axis=0)
    assert 0.002 < outside.mean() < 0.025
    assert outside.max() < 0.04, "no single row is off"


@pytest.mark.parametrize(
    "loss",
    [
        LossTrace(bytes(BURSTY.sampler(np.random.default_rng(1)).mask(3000))),
        Scripted.of("0010", at_end="refuse"),
        AnyLoss((UniformErasure(0.1), LossTrace(bytes(200)))),
    ],
    ids=["trace", "script", "trace and another"],
)
def test_no_more_packets_are_described_than_were_recorded(loss):
    found = describe(loss, 50_000, seed=1)
    length = recorded_packets(loss)
    assert found.packets == length < 10_000
    assert any(f"only {length:,} packets are recorded" in line for line in found.warnings)
    if isinstance(loss, LossTrace):
        assert found.rows[0].sample == pytest.approx(loss.loss), "all of it, once"


def test_quantiles_of_students_t():
    z = NormalDist().inv_cdf(0.995)
    assert student_t(z, 30) == pytest.approx(2.7500, abs=1e-4)  # the tables of textbooks
    assert student_t(z, 99) == pytest.approx(2.6264, abs=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_describe_and_cite(name):
    preset = PRESETS[name]
    assert preset.source
    assert preset.basis
    loss, link = read_channel({"preset": name})
    channel = build(loss, link=link, seed=1)
    arrived = [channel.transmit(bytes(100), i * 0.2) for i in range(300)]
    assert any(arrived)
    if "type" in preset.channel.get("loss", {}):
        assert describe(loss, 10_000).rows[0].sample >= 0
    assert not [f for f in lint({"preset": name}) if f.level == "error"]


def test_samples_in_chunks_and_files(tmp_path):
    whole = loss_mask(BURSTY, 10_000, 3)
    assert np.array_equal(np.concatenate(list(sample_chunks(BURSTY, 10_000, 3, 999))), whole)
    sample_to_file(BURSTY, 10_000, 3, tmp_path / "mask.npy")
    written = np.load(tmp_path / "mask.npy")
    assert written.dtype == np.bool_
    assert np.array_equal(written, whole)
    sample_to_file(BURSTY, 0, 3, tmp_path / "none.npy")
    assert np.load(tmp_path / "none.npy").shape == (0,)


def test_data_of_pictures():
    mask = loss_mask(BURSTY, 200_000, 3)
    histogram = run_histogram(mask, BURSTY.chain(), 20)
    assert histogram.counts.sum() == pytest.approx(histogram.expected.sum())
    assert np.abs(histogram.counts - histogram.expected).max() < 5 * np.sqrt(histogram.expected[0])
    assert np.allclose(sample_autocorrelation(mask, 3), [0.75, 0.5625, 0.4219], atol=0.03)
    assert np.isnan(sample_autocorrelation(np.zeros(50, np.bool_), 3)).all()
    raster = loss_raster(mask[:95], 10)
    assert raster.shape == (10, 10)
    assert np.array_equal(raster.ravel()[:95], mask[:95])


@pytest.mark.parametrize(
    ("spec", "stream", "level", "says"),
    [
        ({"type": "uniform", "loss": 2}, None, "error", "probability"),
        (
            {"type": "gilbert", "loss": 0.2, "mean_burst": 1.05},
            None,
            "warning",
            "anti-bursty",
        ),
        ({"type": "gilbert", "loss": 0.2, "mean_burst": 5}, None, "note", "43,021 packets"),
        (
            {"type": "gilbert", "loss": 0.2, "mean_burst": 500},
            Stream(packets=100),
            "warning",
            "longer than the stream",
        ),
        (
            {"type": "gilbert", "loss": 0.2, "mean_burst": 5},
            Stream(packets=50),
            "warning",
            "deviation of 14 points",
        ),
        ({"type": "perfect"}, Stream(packet_bytes=1480), "warning", "at most 1472"),
        (
            {"link": {"delay_s": 0.1}},
            Stream(interval_s=0.01, interleaver_packets=64, deadline_s=0.5),
            "warning",
            "beyond the deadline",
        ),
        ({"link": {"delay_s": 0.6}}, Stream(deadline_s=0.5), "error", "every packet is late"),
        (
            {"link": {"rate_bps": 1e5, "queue_packets": 9}},
            Stream(packet_bytes=250, interval_s=0.01),
            "warning",
            "50% will be tail-dropped",
        ),
        (
            {"link": {"rate_bps": 1e5}},
            Stream(packet_bytes=250, interval_s=0.01),
            "warning",
            "grow without end",
        ),
        (
            {"link": {"rate_bps": 1e5, "queue_bytes": 100}},
            Stream(packet_bytes=250),
            "error",
            "nothing passes",
        ),
        ({"link": {"bit_error": 0.01}}, Stream(packet_bytes=250), "warning", "corrupted"),
    ],
)
def test_lint_finds(spec, stream, level, says):
    found = lint(spec, stream)
    assert any(f.level == level and says in f.message for f in found), found


def test_a_sound_channel_has_no_warnings():
    spec = {"type": "gilbert", "loss": 0.2, "mean_burst": 5}
    assert {f.level for f in lint(spec)} == {"note"}


def test_links_from_plain_data():
    spec = {
        "delay_s": 0.1,
        "rate_bps": 1e6,
        "queue_packets": 10,
        "jitter": {"type": "normal", "std_s": 0.01},
        "delay_loss": {"start_s": 0.1, "full_s": 0.2},
    }
    expected = Link(
        delay_s=0.1,
        rate_bps=1e6,
        queue_packets=10,
        jitter=NormalJitter(0.01),
        delay_loss=DelayLoss(0.1, 0.2),
    )
    assert read_channel({"link": spec})[1] == expected
    assert {p.name for p in LINK_PARAMETERS} >= set(spec)


@pytest.mark.parametrize(
    ("spec", "parameter", "says"),
    [
        ({}, "type", "a channel has loss and link"),
        ({"losses": {}}, "losses", "a channel has loss and link"),
        ({"preset": "moon"}, "preset", "choose one of burst20"),
        ({"preset": "wifi", "link": {}}, "preset", "stands alone"),
        ({"loss": 0.2}, "loss", "must be a mapping"),
        ({"loss": {"type": "uniform", "loss": 1.5}}, "loss.loss", "probability"),
        ({"link": {"dely_s": 1}}, "link.dely_s", "its parameters: delay_s"),
        (
            {"link": {"jitter": {"type": "odd"}}},
            "link.jitter.type",
            "normal, uniform, pareto, empirical",
        ),
        ({"link": {"jitter": {"type": "normal"}}}, "link.jitter.std_s", "is missing"),
        ({"link": {"capacity": 5}}, "link.capacity", "path of a trace"),
        ({"link": {"mtu_bytes": 5}}, "link.mtu_bytes", "goes with capacity"),
        (
            {"loss": {"type": "any", "of": [{"type": "perfect"}, {"type": "uniform"}]}},
            "loss.of[1].loss",
            "is missing",
        ),
        ({"type": "any", "of": []}, "of", "empty"),
        ({"type": "order_n", "loss_after": [0.1, 0.2, 0.3]}, "loss_after", "has 3 values"),
        ({"type": "order_n", "loss_after": [0.1, 1.2]}, "loss_after[1]", "probability"),
        ({"type": "order_n", "loss_after": [0.0, 1.0]}, "loss_after", "never meet"),
        ({"type": "four_state", "p13": 0.9, "p31": 0.5, "p14": 0.2}, "p14", "cannot exceed 1"),
        ({"type": "four_state", "p13": 0.1, "p31": 0.0}, "p31", "never end"),
        ({"type": "semi_markov", "loss": 0.9, "mean_burst": 2}, "mean_burst", "cannot give"),
        ({"type": "semi_markov", "loss": 0.1, "mean_burst": 9, "longest": 5}, "longest", "exceed"),
        ({"type": "semi_markov", "bursts": [], "gaps": [1]}, "lengths", "empty"),
        ({"type": "outages", "up": 5.5, "down": 1}, "up", "whole"),
        ({"type": "outages", "up": 5, "down": 1, "spread": 1}, "spread", "below 1"),
    ],
)
def test_bad_channels_are_refused_with_their_path(spec, parameter, says):
    with pytest.raises(ChannelParameterError) as caught:
        read_channel(spec)
    assert caught.value.parameter == parameter
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "perfect"},
        {"type": "uniform", "loss": 0.25},
        {"type": "gilbert", "p": 0.05, "r": 0.2, "loss_bad": 0.5},
        {"type": "gilbert_elliott", "p": 0.05, "r": 0.2, "loss_good": 0.01, "loss_bad": 0.5},
        {"type": "four_state", "p13": 0.04, "p31": 0.3, "p32": 0.6, "p23": 0.4, "p14": 0.01},
        {"type": "order_n", "loss_after": [0.05, 0.5, 0.2, 0.9]},
        {"type": "scripted", "mask": "0011", "at_end": "receive"},
        {"type": "any", "of": [{"type": "uniform", "loss": 0.1}, {"type": "perfect"}]},
    ],
)
def test_plain_data_round_trips_through_yaml(spec):
    from ruamel.yaml import YAML

    model = loss_model(spec)
    assert loss_spec(model) == spec
    assert YAML(typ="safe").load(to_yaml({"loss": spec}))["loss"] == spec
