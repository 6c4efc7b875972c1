"""Means, intervals and gains of a point."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sim.experiment.summary import PointRows, certainty, summarize

BURSTS = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}


def point(*repeats: list[dict[str, Any]]) -> PointRows:
    """The rows of a point, by repeat."""
    rows = PointRows()
    for repeat in repeats:
        for row in repeat:
            rows.add(row)
        rows.repeats += 1
    return rows


def row(concealer: str, psnr: float, **changes: Any) -> dict[str, Any]:
    """A row of the images table."""
    usual = {
        "concealer": concealer,
        "psnr_db": psnr,
        "ssim": 0.5,
        "ms_ssim": math.nan,
        "ssimulacra2": -10.0,
        "lpips": 0.4,
        "token_accuracy": "",  # as text has it
        "tokens": 100,
        "tokens_lost": 20,
        "packets_sent": 32,
        "packets_lost": 6,
        "erased": 6,
        "overflowed": 0,
        "corrupted": 0,
        "late": 0,
        "bpp": 0.03,
        "bpp_wire": 0.05,
        "recovered": 1,
        "retransmitted": 2,
        "latency_s": math.nan,
    }
    return usual | changes


def test_gains_are_paired() -> None:
    """Images differ by 10 dB, repairs by exactly 1: the gain is certain, the means are not."""
    rows = [
        row(name, 20 + 10 * frame + gain)
        for frame in range(4)
        for name, gain in (("clean", 3), ("none", 0), ("inpaint", 1))
    ]
    found = summarize(point(rows), BURSTS, 100.0)
    gain = found["gains"]["inpaint - none"]["psnr_db"]
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((1, 1, 1))
    spread = found["concealers"]["inpaint"]["psnr_db"]
    assert spread["high"] - spread["low"] > 5
    assert set(found["gains"]) == {"inpaint - none", "inpaint - clean", "none - clean"}
    assert math.isnan(found["concealers"]["none"]["ms_ssim"]["mean"])
    assert found["precision"]["none"]["psnr_db"]["repeats"] == 1


def test_loss_beside_its_theory() -> None:
    rows = [row("clean", 20) for _ in range(4)]
    loss = summarize(point(rows), BURSTS, 100.0)["loss"]
    assert loss["packets"] == pytest.approx(6 / 32)
    assert loss["tokens"] == pytest.approx(0.2)
    assert loss["expected"] == pytest.approx(0.2)
    assert loss["one_stream_low"] < 0.1 and loss["one_stream_high"] > 0.3  # 128 packets tell little
    assert 128 / 7.5 < loss["effective_packets"] < 128 / 6.5  # N (1 - m)/(1 + m), m = .75
    assert loss["low"] < 0.1 and loss["high"] > 0.3


def test_the_interval_is_that_of_the_loss_process_alone() -> None:
    """Late packets come on top: they change neither what was erased nor its interval."""
    in_time, late = (
        summarize(
            point([row("clean", 20, packets_lost=6 + n, late=n) for _ in range(4)]), BURSTS, 0.0
        )
        for n in (0, 20)
    )
    for key in ("erased", "low", "high", "effective_packets", "expected"):
        assert late["loss"][key] == in_time["loss"][key], key
    assert late["loss"]["late"] == pytest.approx(20 / 32)
    assert late["loss"]["packets"] == pytest.approx(26 / 32)


def test_images_are_counted_and_latencies_told_by_percentiles() -> None:
    lost, late = (0, 100, 0, 20), (0.1, math.nan, 0.2, 0.6)
    rows = [row("clean", 20, tokens_lost=n, latency_s=s) for n, s in zip(lost, late, strict=True)]
    found = summarize(point(rows), BURSTS, 100.0)
    assert (found["images"], found["images_complete"], found["images_lost"]) == (4, 2, 1)
    protection = found["protection"]
    assert protection["latency_s"] == pytest.approx(0.3)
    percentiles = [protection[f"latency_p{percent}_s"] for percent in (50, 95, 99)]
    assert percentiles[0] == pytest.approx(0.2) and percentiles == sorted(percentiles)


def test_a_study_of_the_channel_alone() -> None:
    found = summarize(point([row("clean", 20)], [row("clean", 20, tokens_lost=0)]), BURSTS, 0.0)
    assert found["gains"] == found["precision"] == {}
    assert found["loss"]["tokens"] == pytest.approx(0.1)
    assert found["loss"]["tokens_precision"]["sd"] == pytest.approx(0.2 / math.sqrt(2))


def test_certainty_is_that_of_every_repair() -> None:
    repeats = [[row("clean", 30), row("none", 20 + n), row("inpaint", 25)] for n in (0, 2)]
    found = certainty(point(*repeats), "psnr_db")
    assert [part.sd for part in found] == pytest.approx([math.sqrt(2), 0])
    assert [part.sd for part in certainty(point(*repeats), "loss")] == [0]
