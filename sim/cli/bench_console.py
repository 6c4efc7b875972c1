"""What a person sees when a codec comparison is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from sim.metrics.optional import LABELS, better
from sim.results.files import FIGURES
from sim.screen import screen
from sim.studies.codec_bench.work import EQUAL, OURS

_FORMS = {"psnr_db": ".2f", "ssimulacra2": ".1f", "vmaf": ".1f"}


def print_bench(summary: Mapping[str, Any], folder: Path) -> None:
    """One line per level: ours, and by each metric the best of the others that fit everywhere."""
    console = screen()
    table = Table(title="Ours / the best other at equal bytes", title_justify="left")
    for heading in ("K@patch", "bytes", "bpp"):
        table.add_column(heading, justify="right")
    metrics = [name for name in LABELS if name in summary["levels"][0]["codecs"][OURS]]
    for metric in metrics:
        table.add_column(LABELS[metric])
    for level in summary["levels"]:
        cells = [_cell(level["codecs"], metric) for metric in metrics]
        size = (f"{level['file_bytes']:.0f}", f"{level['bpp']:.4f}")
        table.add_row(level["level"], *size, *cells)
    console.print(table)
    if "vgg_hed" in metrics:
        console.print("VGG-HED distance, LPIPS, DISTS: less is better")
    for name, why in summary["skipped"].items():
        console.print(f"skipped {name}: {why}", soft_wrap=True)
    console.print(f"pictures: {folder / FIGURES}", soft_wrap=True)
    console.print(f"table:    {folder / EQUAL}", soft_wrap=True)


def _cell(codecs: Mapping[str, Any], metric: str) -> str:
    form = _FORMS.get(metric, ".3f")
    ours = codecs[OURS][metric]
    best = ""
    for name, found in codecs.items():
        usable = name != OURS and found["fits"] == 1 and found[metric] == found[metric]
        if usable and (not best or better(found[metric], codecs[best][metric], metric)):
            best = name
    text = format(ours, form) if ours == ours else "-"
    return f"{text} / {codecs[best][metric]:{form}} {best}" if best else f"{text} / -"
