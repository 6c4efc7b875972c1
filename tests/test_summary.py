"""Means, intervals and gains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sim.summary import RESAMPLES, estimate, summarize


def picks(count: int) -> Any:
    """Row numbers of bootstrap resamples."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def test_interval_of_a_known_distribution() -> None:
    values = np.random.default_rng(3).normal(10, 2, 400)
    found = estimate(values, picks(400))
    assert found["mean"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)  # the normal approximation it must be close to
    assert found["low"] == pytest.approx(found["mean"] - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(found["mean"] + half, abs=0.1 * half)


def test_undefined_values_are_left_out() -> None:
    values = np.array([1.0, math.nan, 3.0, math.inf])
    found = estimate(values, picks(4))
    assert (found["mean"], found["n"]) == (2.0, 2)
    assert 1 <= found["low"] <= found["high"] <= 3
    alone = estimate(np.array([5.0]), picks(1))
    assert alone["mean"] == 5 and math.isnan(alone["low"])
    assert math.isnan(estimate(np.array([math.nan]), picks(1))["mean"])


def row(concealer: str, frame: int, psnr: float, **changes: Any) -> dict[str, Any]:
    """A row of the images table."""
    usual = {
        "point": 0,
        "repeat": 0,
        "frame": frame,
        "concealer": concealer,
        "psnr_db": psnr,
        "ssim": 0.5,
        "ms_ssim": math.nan,
        "ssimulacra2": -10.0,
        "token_accuracy": math.nan,
        "tokens": 100,
        "tokens_lost": 20,
        "packets_sent": 32,
        "packets_lost": 6,
        "bpp": 0.03,
        "bpp_wire": 0.05,
    }
    return usual | changes


def test_gains_are_paired() -> None:
    """Images differ by 10 dB, repairs by exactly 1: the gain is certain, the means are not."""
    rows = [
        row(name, frame, 20 + 10 * frame + gain)
        for frame in range(4)
        for name, gain in (("clean", 3), ("none", 0), ("inpaint", 1))
    ]
    channel = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}
    (point,) = summarize(rows, {0: channel})["points"]
    gain = point["gains"]["inpaint - none"]["psnr_db"]
    assert (gain["mean"], gain["low"], gain["high"]) == pytest.approx((1, 1, 1))
    spread = point["concealers"]["inpaint"]["psnr_db"]
    assert spread["high"] - spread["low"] > 5
    assert set(point["gains"]) == {"inpaint - none", "inpaint - clean", "none - clean"}
    assert math.isnan(point["concealers"]["none"]["ms_ssim"]["mean"])

    loss = point["loss"]
    assert loss["packets"] == pytest.approx(6 / 32)
    assert loss["tokens"] == pytest.approx(0.2)
    assert loss["expected"] == pytest.approx(0.2)
    assert loss["one_stream_low"] < 0.1 and loss["one_stream_high"] > 0.3  # 128 packets tell little
