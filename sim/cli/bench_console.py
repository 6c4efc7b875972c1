"""What a person sees when a codec comparison is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.metrics import METRICS
from sim.progress import screen
from sim.results.files import FIGURES
from sim.studies.codec_bench.work import EQUAL, OURS


def print_bench(summary: Mapping[str, Any], folder: Path) -> None:
    """One line per level: ours, and by each metric the best of the others that fit everywhere."""
    console = screen()
    table = Table(title="Ours / the best other at equal bytes", title_justify="left")
    for heading in ("K@patch", "bytes", "bpp"):
        table.add_column(heading, justify="right")
    metrics = [name for name in METRICS if name in summary["levels"][0]["codecs"][OURS]]
    for metric in metrics:
        table.add_column(METRICS[metric].heading)
    for level in summary["levels"]:
        cells = [_cell(level["codecs"], metric) for metric in metrics]
        size = (f"{level['file_bytes']:.0f}", f"{level['bpp']:.4f}")
        table.add_row(level["level"], *size, *cells)
    console.print(table)
    less = ", ".join(METRICS[m].label for m in metrics if not METRICS[m].larger_is_better)
    if less:
        console.print(f"{less}: less is better")
    _print_bd_rates(console, summary["bd_rate"], metrics)
    for name, why in summary["skipped"].items():
        console.print(f"skipped {name}: {why}", soft_wrap=True)
    console.print(f"pictures: {folder / FIGURES}", soft_wrap=True)
    console.print(f"table:    {folder / EQUAL}", soft_wrap=True)


def _cell(codecs: Mapping[str, Any], metric: str) -> str:
    about = METRICS[metric]
    ours = codecs[OURS][metric]
    best = ""
    for name, found in codecs.items():
        usable = name != OURS and found["fits"] == 1 and found[metric] == found[metric]
        if usable and (not best or about.better(found[metric], codecs[best][metric])):
            best = name
    text = about.text(ours, unit=False) if ours == ours else "-"
    if not best:
        return f"{text} / -"
    return f"{text} / {about.text(codecs[best][metric], unit=False)} {best}"


def _print_bd_rates(
    console: Console, found: Mapping[str, Mapping[str, float]], metrics: Sequence[str]
) -> None:
    title = "BD-rate: our bytes at equal quality, against theirs; - where no quality is shared"
    table = Table(title=title, title_justify="left")
    table.add_column("against")
    for metric in metrics:
        table.add_column(METRICS[metric].label, justify="right")
    for name, rates in found.items():
        table.add_row(name, *("-" if v != v else f"{v:+.0%}" for v in rates.values()))
    console.print(table)
