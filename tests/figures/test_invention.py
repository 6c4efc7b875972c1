"""What was made up is told from what was received."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sim.figures.pictures import shade

Cli = Callable[..., Any]


def test_only_lost_tokens_are_tinted_and_sure_ones_differ_from_unsure() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    lost = np.zeros((3, 4), bool)
    lost[1, 1] = lost[2, 3] = True
    value = np.zeros((3, 4))
    value[2, 3] = 1
    painted = shade(image, lost, value).astype(int)
    hole = lost.repeat(16, 0).repeat(16, 1)[:40, :56]
    coloured = np.ptp(painted, axis=2) > 0
    assert np.array_equal(coloured, hole)
    light, dark = painted[32:40, 48:56, 0], painted[16:32, 16:32, 0]
    assert light.mean() > dark.mean() + 50


def test_a_run_keeps_how_sure_it_was_and_shows_it(cli: Cli, photo: Path) -> None:
    Path("s.yaml").write_text(
        f"images: [{photo}]\ncodec: {{codebook: 64, model: random}}\n"
        "channel: {type: uniform, loss: 0.5}\n"
        "stream: {slices: 6}\ntransport: virtual\nconcealers: [none, inpaint]\nseed: 3\n"
        "decoding: {order: halton, steps: 3}\n"
    )
    result = cli("run", "s.yaml", "--out", "run")
    assert result.exit_code == 0, result.output
    panels = Path("run/panels/photo")
    received = np.load(panels / "probability.inpaint.npy") == 1
    error = np.load(panels / "pixel_error.inpaint.npy")
    assert received.shape == (3, 4)
    assert (error[received] == 0).all()
    assert np.isnan(error[~received]).all() and not received.all(), "it was not calibrated"
    assert Path("run/figures/invented-photo.png").is_file()
