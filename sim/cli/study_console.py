"""What a person sees when a study or the paper check is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.progress import screen
from sim.results.files import FIGURES

_FORMS = {"seconds": ".2f", "bits_per_token": ".2f", "lost": ".1%"}
"""What studies tell besides metrics."""


def print_study(summary: Mapping[str, Any], folder: Path) -> None:
    """Every point of the study, and of its coded bits if it has them."""
    console = screen()
    parts = [("", summary["points"])]
    for key, title in (("bits", "coded bits"), ("overall", "over all losses and slices")):
        if key in summary:
            parts.append((title, summary[key]))
    for title, points in parts:
        table = Table(title=title or None, title_justify="left")
        told = {*METRICS, *_FORMS}
        keys = [key for key in points[0] if key not in told]
        metrics = [key for key in points[0] if key in told]
        for key in keys:
            table.add_column(key)
        for metric in metrics:
            table.add_column(metric_of(metric).heading, justify="right")
        before = None
        for point in points:
            if before is not None and point[keys[0]] != before:
                table.add_section()
            before = point[keys[0]]
            cells = [_cell(point[metric]["mean"], metric) for metric in metrics]
            table.add_row(*(str(point[key]) for key in keys), *cells)
        console.print(table)
    _where(console, folder)


def print_check(summary: Mapping[str, Any], folder: Path) -> None:
    """The verdict, and what it rests on."""
    console = screen()
    limits = summary["limits"]
    for level in summary["levels"]:
        count = level["images"]
        title = f"K={level['codebook']}, {count} image{'s' * (count > 1)}: {level['verdict']}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("lost (in fact), repair")
        table.add_column(METRICS["psnr_drop_db"].heading, justify="right")
        for metric in summary["distances"]:
            table.add_column(f"more {METRICS[metric].label}", justify="right")
        table.add_column("verdict")
        for condition, repairs in level["conditions"].items():
            for repair, found in repairs.items():
                table.add_row(
                    f"{condition} ({found['lost']:.0%}), {repair.replace('_', ' ')}",
                    _span(found["less_psnr_db"], 1, ".2f"),
                    *(_span(v, 100, ".1f") + "%" for v in found["more_distance"].values()),
                    found.get("verdict", ""),
                )
        console.print(table)
        for metric, beyond in level["beyond"].items():
            half = beyond["half_lost_minus_best_rival"]
            console.print(
                f"{METRICS[metric].label}: 50% of tokens lost, repaired, minus the best rival "
                f"({beyond['best_rival'].replace('_', ' ')}) at 20%: {_span(half, 1, '.3f')}; "
                f"bursts take {beyond['bursts_increase_over_packets_increase']:.2f} times what "
                "single packets take",
                soft_wrap=True,
            )
    console.print(
        f"Claim: with up to 20% lost, at most {limits['more_distance']:.0%} more LPIPS and "
        f"{limits['less_psnr_db']} dB less PSNR than without loss: {summary['claim']}.",
        soft_wrap=True,
    )
    _where(console, folder)


def _span(found: Mapping[str, Any], scale: float, form: str) -> str:
    if found["mean"] is None or found["mean"] != found["mean"]:
        return "-"
    mean, low, high = (scale * found[key] for key in ("mean", "low", "high"))
    return f"{mean:{form}} ({low:{form}}..{high:{form}})"


def _cell(value: float | None, name: str) -> str:
    if value is None or value != value:
        return ""
    return format(value, _FORMS[name]) if name in _FORMS else METRICS[name].text(value, unit=False)


def _where(console: Console, folder: Path) -> None:
    console.print(f"pictures: {folder / FIGURES}", soft_wrap=True)
    console.print(f"tables:   {folder}", soft_wrap=True)
