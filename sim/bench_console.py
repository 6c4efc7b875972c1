"""What a person sees when a codec comparison is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.bench import BENCH, BENCH_METRICS, OURS, better
from sim.results import FIGURES

_COLUMNS = {
    "psnr_db": ("PSNR dB", ".2f"),
    "ms_ssim": ("MS-SSIM", ".3f"),
    "ssimulacra2": ("SSIMULACRA2", ".1f"),
    "vgg_hed": ("VGG-HED, less is better", ".3f"),
}


def print_bench(summary: Mapping[str, Any], folder: Path) -> None:
    """One line per level: ours, and by each metric the best of the others that fit everywhere."""
    console = Console(highlight=False)
    table = Table(title="Ours / the best other at equal or fewer bytes", title_justify="left")
    for heading in ("K", "bytes", "bpp"):
        table.add_column(heading, justify="right")
    metrics = [
        metric
        for metric in BENCH_METRICS
        if any(_defined(level["codecs"][OURS][metric]) for level in summary["levels"])
    ]
    for metric in metrics:
        table.add_column(_COLUMNS[metric][0])
    for level in summary["levels"]:
        ours = level["codecs"][OURS]
        cells = [_cell(level["codecs"], metric) for metric in metrics]
        table.add_row(
            str(level["codebook"]), f"{ours['file_bytes']:.0f}", f"{ours['bpp']:.4f}", *cells
        )
    console.print(table)
    for name, why in summary["skipped"].items():
        console.print(f"skipped {name}: {why}", soft_wrap=True)
    console.print(f"pictures: {folder / FIGURES}", soft_wrap=True)
    console.print(f"table:    {folder / BENCH}", soft_wrap=True)


def _cell(codecs: Mapping[str, Any], metric: str) -> str:
    form = _COLUMNS[metric][1]
    ours = codecs[OURS][metric]
    best = ""
    for name, found in codecs.items():
        usable = name != OURS and found["fits"] == 1 and _defined(found[metric])
        if usable and (not best or better(found[metric], codecs[best][metric], metric)):
            best = name
    text = format(ours, form) if _defined(ours) else "-"
    return f"{text} / {codecs[best][metric]:{form}} {best}" if best else f"{text} / -"


def _defined(value: float | None) -> bool:
    return value is not None and value == value
