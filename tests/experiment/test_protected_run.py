"""`sim run` with protection: the tables tell what it did and what it cost."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec.model import Model
from sim.drivers.record import MediaFrame
from sim.media.frames import with_token_importance

Cli = Callable[..., Any]

SCENARIO = """\
name: protected
images: [../photo.png, ../photo.png, ../photo.png, ../photo.png]
codec: {codebook: 256, entropy: fixed, model: random}
stream:
  slices: 6
  playout_delay_s: 4
  packing: 2
  fec: {data: 4, parity: 2, depth: 2, unequal: true}
  arq: {retries: 2, order: hardest}
channel: {type: gilbert_elliott, loss: 0.3, mean_burst: 3}
transport: virtual
concealers: [none]
seed: 3
"""


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("photo")
def test_protection_is_told_and_paid_for(cli: Cli) -> None:
    Path("protected.yaml").write_text(SCENARIO)
    result = cli("run", "protected.yaml", "--out", "run")
    assert result.exit_code == 0, result.output
    packets, images = table(Path("run/packets.csv")), table(Path("run/images.csv"))
    kinds = [packet["kind"] for packet in packets]
    assert kinds.count("media") == 2 * 6
    assert kinds.count("parity") == 4 + 4  # a full group of eight, then the four that are left
    rows = [row for row in images if row["concealer"] == "clean"]
    again = sum(int(row["retransmitted"]) for row in rows)
    assert again == kinds.count("retransmission") > 0
    recovered = sum(int(row["recovered"]) for row in rows)
    assert f"{again} packets sent again" in " ".join(result.stdout.split())
    assert (f"{recovered} slices restored by parity" in " ".join(result.stdout.split())) == (
        recovered > 0
    )
    pixels = 56 * 40
    wire = sum(float(row["bpp_wire"]) for row in rows) * pixels / 8
    sent = sum(int(packet["size_bytes"]) for packet in packets)
    requests = wire - sent
    assert 6 * 1 <= requests <= 8 * again, "each request takes 6 bytes or a few more"
    payload = sum(float(row["bpp"]) for row in rows) * pixels / 8
    media = sum(int(p["size_bytes"]) - 12 for p in packets if p["kind"] == "media")
    assert payload == pytest.approx(media)
    assert all(0.5 <= float(row["latency_s"]) <= 4 for row in rows)
    found = json.loads(Path("run/summary.json").read_text())["points"][0]["protection"]
    assert (found["recovered"], found["retransmitted"]) == (recovered, again)


def test_a_tokens_importance_is_the_models_own_surprise(random_model: Model) -> None:
    rng = np.random.default_rng(1)
    frame = MediaFrame("a", rng.integers(0, 256, (5, 7)), 112, 80)
    bits = with_token_importance(random_model, frame, 256).token_importance
    assert bits is not None and bits.shape == (5, 7)
    assert (bits >= 0).all() and np.isfinite(bits).all()
    known = np.ones((5, 7), np.bool_)
    known.ravel()[_part(5, 7, 2)] = False
    scores = random_model.logits(frame.index_map, known, 256).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    share = (odds / odds.sum(axis=1, keepdims=True))[
        np.arange((~known).sum()), frame.index_map[~known]
    ]
    np.testing.assert_allclose(bits[~known], -np.log2(share), rtol=1e-4)


def _part(height: int, width: int, number: int) -> Any:
    from sim.protocol.interleaver import slice_positions

    return slice_positions((height, width), 4, "low_discrepancy")[number]
