"""What a person sees when a comparison is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sim.metrics import metric as metric_of
from sim.progress import screen
from sim.results.files import FIGURES, Outcome

_SHOWN = ("psnr_db", "ms_ssim", "ssimulacra2", "lpips", "dists")


def print_comparison(outcome: Outcome) -> None:
    """Winners per budget, burst length and loss rate; what could not take part; where it all is."""
    console = screen()
    summary = outcome.summary
    winners: Sequence[Mapping[str, Any]] = summary["winners"]
    metrics = [m for m in _SHOWN if any(row["metric"] == m for row in winners)]
    table = Table(
        title=f"{summary['name']}: winner (best of tokens or files, if that is sure)",
        title_justify="left",
    )
    for heading in ("bpp wire", "burst", "lost", *(metric_of(m).label for m in metrics)):
        table.add_column(heading)
    for budget, burst, loss in dict.fromkeys(
        (row["budget"], row["mean_burst"], row["loss"]) for row in winners
    ):
        here = {
            row["metric"]: row
            for row in winners
            if (row["budget"], row["mean_burst"], row["loss"]) == (budget, burst, loss)
        }
        cells = [
            f"{here[m]['winner']} ({here[m]['verdict']})" if m in here else "" for m in metrics
        ]
        table.add_row(f"{budget:g}", str(burst), f"{loss:.0%}", *cells)
    console.print(table)
    for row in _once(summary["cannot_reach"]):
        least = "" if row["least_bpp_wire"] is None else f" (least {row['least_bpp_wire']:.3f})"
        console.print(
            f"cannot reach {row['budget']:g} bpp: {row['strategy']}: {row['why']}{least}",
            soft_wrap=True,
        )
    for name, why in summary["skipped"].items():
        console.print(f"skipped {name}: {why}", soft_wrap=True)
    console.print(f"pictures: {outcome.folder / FIGURES}", soft_wrap=True)
    console.print(f"tables:   {outcome.folder}", soft_wrap=True)


def print_optimisation(folder: Path, summary: Mapping[str, Any]) -> None:
    """The verified candidates, best first, and where the winner is."""
    console = screen()
    metric = summary["metric"]
    about = metric_of(metric)
    table = Table(
        title=f"the best of {summary['candidates']} ways, streamed for real", title_justify="left"
    )
    for heading in (
        "K",
        "how",
        "bpp wire",
        "slices there",
        about.heading,
        "95% interval",
        "theory",
    ):
        table.add_column(heading)
    for row in summary["verified"]:
        table.add_row(
            str(row["level"]),
            row["strategy"],
            f"{row['bpp_wire']:.4f}",
            f"{row['source_there']:.1%}",
            about.text(row[metric], unit=False),
            _span(row[f"{metric}_low"], row[f"{metric}_high"]),
            about.text(row["expected_quality"], unit=False),
        )
    console.print(table)
    lead = summary["lead"]
    if lead["over"] is not None:
        between = _span(lead["lead_low"], lead["lead_high"])
        console.print(f"lead over the next: {lead['lead']:.3g} ({between or 'of few streams'})")
    if np.isnan(summary["verified"][0][f"{metric}_low"]):
        console.print("intervals take at least three streams: --set repeats=3")
    console.print(f"winner:   {folder / 'winner.yaml'}", soft_wrap=True)
    console.print(f"pictures: {folder / FIGURES}", soft_wrap=True)


def _span(low: float, high: float) -> str:
    """An interval; nothing where there is none."""
    return "" if np.isnan(low) else f"{low:.4g} to {high:.4g}"


def _once(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each strategy and budget the first."""
    found: dict[tuple[str, float], Mapping[str, Any]] = {}
    for row in rows:
        found.setdefault((row["strategy"], row["budget"]), row)
    return list(found.values())
