"""What a channel took, for studies that repair nothing: packets and tokens lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from sim.figures.panels import Curves, floats
from sim.figures.style import DELIVERED, ERASED
from sim.results.files import SummaryPoint


def loss_panel(axes: Axes, members: Sequence[SummaryPoint], found: Curves | None) -> None:
    """Shares lost, each with its 95% interval, and what theory expects of the packets.

    Args:
        axes: to draw on.
        members: points of one curve family.
        found: what it is drawn over; None for a single point.
    """
    positions = [0.0] if found is None else found.positions(members)
    order = np.argsort(positions, kind="stable")
    at = np.array(positions)[order]
    losses = [members[i]["loss"] for i in order]
    packets = floats([loss["packets"] for loss in losses])
    low, high = (floats([loss[end] for loss in losses]) for end in ("low", "high"))
    tokens = floats([loss["tokens"] for loss in losses])
    half = floats([loss["tokens_precision"]["half_width"] for loss in losses])
    line = "-" if found is not None and found.ticks is None else "none"
    expected = floats([loss.get("expected") for loss in losses])
    axes.plot(at, expected, "k_" if line == "none" else "k--", linewidth=1, label="theory, packets")
    for values, below, above, colour, marker, label in (
        (packets, packets - low, high - packets, ERASED, "o", "packets lost"),
        (tokens, half, half, DELIVERED, "s", "tokens lost"),
    ):
        errors = np.nan_to_num(np.array([below, above]))
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 9 if values is packets else 4,  # where they agree, both are seen
            "linestyle": line,
        }
        axes.errorbar(at, values, errors.clip(0), capsize=3, label=label, **style)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(bottom=0)
    if found is None:
        axes.set_xticks([])
        axes.set_xlim(-1, 1)
    elif found.ticks is not None:
        axes.set_xticks(range(len(found.ticks)), found.ticks, rotation=20, ha="right")
