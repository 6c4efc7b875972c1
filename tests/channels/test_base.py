"""Channels: fates of packets, clocks, seeds, and parameters that are refused."""

import math

import numpy as np
import pytest

import channels
from channels import (
    ChannelParameterError,
    ConstantDelay,
    Delivery,
    GilbertElliott,
    LossyChannel,
    OrderN,
    Perfect,
    Scripted,
    UniformErasure,
    build,
    loss_mask,
)
from channels.base import STREAMS, Streams
from channels.registry import LOSS_TYPES, loss_model, parse_inline

BURSTY = GilbertElliott.from_loss(0.2, 5)


def test_perfect_delivers_unchanged():
    channel = Perfect(0.25)
    assert channel.transmit(b"x", 1.0) == (Delivery(1.25, None),)


def test_lost_or_delivered_after_the_delay():
    channel = build(Scripted.of("010"), link=ConstantDelay(0.5), seed=0)
    assert [channel.transmit(b"x", t) for t in (0.0, 1.0, 1.0)] == [
        (Delivery(0.5),),
        (),
        (Delivery(1.5),),
    ]


@pytest.mark.parametrize("bad", [0.5, math.nan, math.inf, -1.0])
def test_time_never_runs_backwards(bad):
    channel = build(Scripted.of("01"), seed=0)
    channel.transmit(b"x", 1.0)
    with pytest.raises(ValueError, match="never decrease"):
        channel.transmit(b"x", bad)
    assert channel.transmit(b"x", 1.0) == ()  # the refused call used up no fate


@pytest.mark.parametrize("model", [UniformErasure(0.3), BURSTY, GilbertElliott(0.1, 0.3, 0.1, 0.8)])
def test_transmit_loses_the_packets_of_the_mask(model):
    channel = build(model, seed=42)
    fates = [not channel.transmit(b"data", float(t)) for t in range(2000)]
    assert fates == loss_mask(model, 2000, 42).tolist()


def test_seeds_decide():
    assert np.array_equal(loss_mask(BURSTY, 5000, 1), loss_mask(BURSTY, 5000, 1))
    assert not np.array_equal(loss_mask(BURSTY, 5000, 1), loss_mask(BURSTY, 5000, 2))


def test_streams_are_the_spawned_children_in_order():
    root = np.random.SeedSequence(5, spawn_key=(3,))
    streams = Streams(root)
    drawn = [streams[name].random() for name in STREAMS]
    children = np.random.SeedSequence(5, spawn_key=(3,)).spawn(len(STREAMS))
    assert drawn == [np.random.Generator(np.random.PCG64(c)).random() for c in children]
    assert root.n_children_spawned == 0
    assert STREAMS[:5] == ("loss", "jitter", "reorder", "duplicate", "corrupt")


def test_the_stream_of_a_seed_is_pinned():
    """Changing this changes every result ever published with a seed."""
    text = "".join("01"[int(b)] for b in loss_mask(BURSTY, 60, 2024))
    assert text == PINNED


PINNED = "000000000000000000000000000000000000000111000000000000000000"


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1"])
def test_seeds_that_are_none(seed):
    with pytest.raises(ChannelParameterError, match="seed"):
        build(BURSTY, seed=seed)


@pytest.mark.parametrize(
    ("spec", "parameter", "says"),
    [
        ({}, "type", "is missing; choose one of perfect, uniform"),
        ({"type": "gilbrt"}, "type", "'gilbrt' is unknown; choose one of perfect"),
        ({"type": "uniform"}, "loss", "is missing; uniform needs loss"),
        ({"type": "uniform", "loss": 1.5}, "loss", r"\[0, 1\], got 1.5 \(did you mean 0.015\?\)"),
        ({"type": "uniform", "loss": "20%"}, "loss", "must be a number, got '20%'"),
        ({"type": "uniform", "loss": True}, "loss", "must be a number"),
        ({"type": "uniform", "loss": math.nan}, "loss", "must be finite"),
        ({"type": "uniform", "los": 0.1}, "los", "is not a parameter of uniform; .* loss"),
        ({"type": "gilbert_elliott"}, "loss", r"needs loss \+ mean_burst, or p \+ r"),
        ({"type": "gilbert_elliott", "loss": 0.2}, "mean_burst", "is missing"),
        ({"type": "gilbert_elliott", "p": 0.2}, "r", "is missing"),
        ({"type": "gilbert_elliott", "p": 0.2, "r": 0.1, "loss": 0.2}, "loss", "does not go with"),
        (
            {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5, "loss_bad": 0.9},
            "loss_bad",
            r"does not go with loss \+ mean_burst",
        ),
        ({"type": "gilbert_elliott", "p": 0, "r": 0}, "r", "chain never moves"),
        ({"type": "gilbert_elliott", "loss": 0.9, "mean_burst": 5}, "mean_burst", "= 9; use"),
        ({"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 0.5}, "mean_burst", "at least 1"),
        ({"type": "gilbert_elliott", "loss": 1, "mean_burst": 5}, "loss", "no bursts"),
        ({"type": "scripted", "mask": ""}, "mask", "is empty"),
        ({"type": "scripted", "mask": "0120"}, "mask", "only 0 .* got '2' at 2"),
        ({"type": "scripted", "mask": 3}, "mask", "must be a list"),
        ({"type": "scripted", "mask": "01", "at_end": "stop"}, "at_end", "repeat, receive, refuse"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(spec, parameter, says):
    with pytest.raises(ChannelParameterError, match=says) as caught:
        loss_model(spec)
    assert caught.value.parameter == parameter
    assert "\n" not in str(caught.value)


def test_edges_of_feasibility():
    assert GilbertElliott.from_loss(0.0, 5) == GilbertElliott(0.0, 0.2)
    assert loss_mask(GilbertElliott.from_loss(0.0, 5), 1000, 0).sum() == 0
    assert GilbertElliott.from_loss(0.75, 3).p == 1.0
    assert GilbertElliott.from_loss(0.2, 1).p == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (GilbertElliott.from_loss(0.2, 1.1), "anti-bursty"),
        (GilbertElliott(0.1, 0.3, 0.5, 0.1), "swapped"),
        (GilbertElliott(0.1, 0.3, 0.5, 0.5), "uniform erasure"),
        (GilbertElliott(0.1, 0.0), "every packet is lost"),
        (UniformErasure(1.0), "no packet"),
        (Scripted.of("11"), "every packet"),
    ],
)
def test_misleading_parameters_warn(model, says):
    assert any(says in line for line in model.warnings())


def test_sound_parameters_do_not_warn():
    assert BURSTY.warnings() == []
    assert GilbertElliott.from_loss(0.2, 1.25).warnings() == []  # exactly independent


@pytest.mark.parametrize(
    "mask", ["01 10", [0, 1, 1, 0], [False, True, True, False], np.array([0, 1, 1, 0], np.uint8)]
)
def test_scripts_in_every_spelling(mask):
    assert Scripted.of(mask).script == b"\0\1\1\0"


def test_ends_of_scripts():
    def fates(at_end):
        return Scripted.of("011", at_end).sampler(np.random.default_rng(0))

    assert fates("repeat").mask(8).tolist() == [0, 1, 1, 0, 1, 1, 0, 1]
    assert fates("receive").mask(5).tolist() == [0, 1, 1, 0, 0]
    refusing = fates("refuse")
    assert refusing.mask(3).tolist() == [0, 1, 1]
    with pytest.raises(IndexError, match="script of 3 fates has ended"):
        refusing.lost()


def test_inline_specs():
    assert parse_inline("perfect") == {"type": "perfect"}
    assert parse_inline("gilbert_elliott:loss=0.2, mean_burst=5") == {
        "type": "gilbert_elliott",
        "loss": 0.2,
        "mean_burst": 5,
    }
    assert parse_inline("scripted:mask=0011") == {"type": "scripted", "mask": "0011"}
    assert parse_inline("semi_markov:bursts=[1, 2],gaps=[30]") == {
        "type": "semi_markov",
        "bursts": [1, 2],
        "gaps": [30],
    }
    assert loss_model(parse_inline("order_n:loss_after=[.05,.5]")) == OrderN((0.05, 0.5))
    assert loss_model(parse_inline("uniform:loss=1e-3")) == UniformErasure(0.001)
    for bad in ("uniform:loss", "uniform:=3", "uniform:loss=.1,loss=.2"):
        with pytest.raises(ChannelParameterError):
            parse_inline(bad)


def test_every_type_documents_every_parameter_of_its_forms():
    for kind in LOSS_TYPES.values():
        named = {p.name for p in kind.parameters}
        assert named == {n for f in kind.forms for n in (*f.required, *f.optional)}
        assert kind.summary
        assert all(p.description and "\n" not in p.description for p in kind.parameters)


def test_public_names_exist():
    assert all(hasattr(channels, name) for name in channels.__all__)
    assert LossyChannel(BURSTY.sampler(np.random.default_rng(1)), Perfect()).transmit(b"", 0.0) in (
        (),
        (Delivery(0.0),),
    )
