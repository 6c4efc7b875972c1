"""What parity leaves unrepaired: exact theory, and streams through the very protocol beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from channels import read_channel
from channels.theory import residual_losses
from sim.baselines.byte_frames import BYTE_STREAM, byte_frame
from sim.jobs.store import cached
from sim.scenario.schema import FecSection, Scenario, with_values
from sim.studies.compare.config import INDEPENDENT, Burst, LoadedComparison, loss_section
from sim.studies.compare.sources import stream

_STREAMS = 8
_PACKETS = 400  # media packets in each of them, about
_CURVE = 41


def fec_rows(loaded: LoadedComparison) -> list[dict[str, Any]]:
    """Rows of fec.csv: for every parity of a strategy and every burst length, media packets that
    stay lost, by theory on a fine grid of loss rates and simulated at the comparison's own.

    Parity that theory has no closed form for (unequal, XOR, together with retransmission, several
    passes or receivers) is left out.
    """
    rows: list[dict[str, Any]] = []
    for name, scenario in distinct(loaded):
        fec = scenario.stream.fec
        assert fec is not None
        for burst in loaded.bursts:
            about = {
                "strategy": name,
                "data": fec.data,
                "parity": fec.parity,
                "depth": fec.depth,
                "mean_burst": burst,
            }
            grid = np.linspace(0, max(loaded.losses), _CURVE)
            for loss in grid:
                expected = theory(fec, loss, burst)
                rows.append({**about, "kind": "theory", "loss": float(loss), "residual": expected})
                rows[-1] |= {"low": math.nan, "high": math.nan}
            for loss in loaded.losses:
                channel = {"loss": loss_section(loss, burst)}
                mean, half = simulated(scenario.model_copy(update={"channel": channel}))
                span = {"low": max(0.0, mean - half), "high": mean + half}
                rows.append({**about, "kind": "simulated", "loss": loss, "residual": mean, **span})
    return rows


def distinct(loaded: LoadedComparison) -> list[tuple[str, Scenario]]:
    """Each parity that theory covers once, with the name of the first strategy that has it."""
    found: dict[tuple[int, int, int], tuple[str, Scenario]] = {}
    for strategy in loaded.strategies:
        scenario = loaded.scenarios[strategy.name]
        stream = scenario.stream
        fec = stream.fec
        if fec is None or fec.parity == 0 or fec.unequal or fec.code != "reed_solomon":
            continue
        if stream.arq is None and stream.packing == stream.passes == stream.receivers == 1:
            found.setdefault((fec.data, fec.parity, fec.depth), (strategy.name, scenario))
    return list(found.values())


def theory(fec: FecSection, loss: float, burst: Burst) -> float:
    """Share of media packets that stay lost; NaN where no such channel exists."""
    if loss == 0:
        return 0.0
    if burst != INDEPENDENT and float(burst) < max(1.0, loss / (1 - loss)):
        return math.nan
    chain = read_channel(loss_section(float(loss), burst))[0].chain()
    if chain is None:
        return math.nan
    law = residual_losses(chain, fec.data, fec.parity, fec.depth)
    return float(law @ np.arange(fec.data + 1)) / fec.data


def simulated(scenario: Scenario) -> tuple[float, float]:
    """The same from streams of small files: mean, and half of its 95% interval from how the
    streams differ (they are independent; packets of one are not)."""
    changed = with_values(scenario.model_dump(), BYTE_STREAM)
    scenario = Scenario.model_validate({**changed, "repeats": _STREAMS})
    fec, slices = scenario.stream.fec, scenario.stream.slices
    assert fec is not None
    whole = math.lcm(fec.data * fec.depth, slices)  # media packets that fill blocks and frames
    count = -(-_PACKETS // whole) * whole // slices
    frames = [byte_frame("file", bytes(slices))] * count

    def lost() -> list[float]:
        records = stream(scenario, frames, None)
        return [float(np.mean([~f.grid.received for f in record.frames])) for record in records]

    about = {"scenario": scenario.model_dump(exclude={"name", "images"}), "frames": len(frames)}
    shares = cached("fec", about, lost)
    half = 2.36 * float(np.std(shares, ddof=1)) / math.sqrt(len(shares))  # Student, 7 degrees
    return float(np.mean(shares)), half
