"""The figures of a codec comparison, drawn from its saved tables and pictures alone.

rate-quality   each metric against bits per pixel, a line per codec, means over images
sheet-*        one level: each pictured image as every format leaves it at equal bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from sim.baselines import FORMATS
from sim.bench import BENCH, BENCH_METRICS, OURS, better
from sim.errors import UserError
from sim.results import (
    FIGURES,
    MANIFEST,
    PANELS,
    SUMMARY,
    is_run_folder,
    number,
    read_json,
    read_table,
)

_LABELS = {
    "psnr_db": "PSNR (dB)",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA2",
    "vgg_hed": "VGG-HED distance (less is better)",
}
_STYLES = {
    "jpeg": ("#999999", "v"),
    "webp": ("#56B4E9", "^"),
    "jpeg2000": ("#F0E442", "<"),
    "avif": ("#009E73", "D"),
    "heic": ("#CC79A7", "s"),
    "vvc": ("#D55E00", "P"),
    "av1": ("#004D40", "X"),
    "x265": ("#882255", ">"),
}
_SHEET_COLUMNS = 5
_OURS_COLOUR = "#0072B2"
_SETTINGS: dict[Any, object] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "svg.hashsalt": "lossy-stream-sim",
}


def draw_bench(folder: Path) -> list[Path]:
    """Draw every figure of a comparison into its `figures/`; returns the PNG files.

    Raises:
        UserError: not such a folder, or a table in it is missing or unreadable.
    """
    if not is_run_folder(folder):
        raise UserError(f"{folder}: is not the folder of a comparison (no {MANIFEST} in it)")
    manifest, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    try:
        rows = read_table(folder / BENCH)
        (folder / FIGURES).mkdir(exist_ok=True)
        with matplotlib.rc_context(_SETTINGS):
            curves = _save(folder, "rate-quality", _curves(summary, manifest))
            sheets = [
                _save(folder, f"sheet-{level}", _sheet(folder, rows, level), ("png",))
                for level in manifest["pictured_levels"]
            ]
    except OSError as error:
        raise UserError(f"{folder}: cannot draw ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: its tables are not those of a comparison ({error!r})") from None
    return [curves, *sheets]


def _save(folder: Path, name: str, figure: Figure, formats: Sequence[str] = ("png", "svg")) -> Path:
    figure.draw_without_rendering()  # settles the layout once for all formats
    figure.set_layout_engine("none")
    paths = [folder / FIGURES / f"{name}.{kind}" for kind in formats]
    for path in paths:
        nothing = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=160, metadata=nothing)
    return paths[0]


def _curves(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Figure:
    levels = summary["levels"]
    names = list(dict.fromkeys(name for level in levels for name in level["codecs"]))
    metrics = [
        metric
        for metric in BENCH_METRICS
        if any(level["codecs"][OURS][metric] is not None for level in levels)
    ]
    rate = "bpp" if manifest["counted"] == "file" else "bpp_payload"
    figure = Figure(figsize=(4.2 * len(metrics), 4.8), layout="constrained")
    all_axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(all_axes, metrics, strict=True):
        for name in names:
            found = [level["codecs"][name] for level in levels if name in level["codecs"]]
            points = sorted({(f[rate], f[metric]) for f in found if f[metric] is not None})
            if points:
                axes.plot(*zip(*points, strict=True), label=name, **_look(name))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bits per pixel" + ("" if rate == "bpp" else ", coded picture alone"))
        axes.set_title(_LABELS[metric], loc="left")
        if metric == "vgg_hed":
            axes.invert_yaxis()
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=9, frameon=False)
    images = summary["images"]
    figure.suptitle(
        f"Means over {images} image{'s' * (images > 1)}, each codec at most as large as ours; "
        "upwards is better",
        fontsize=9,
    )
    return figure


def _look(name: str) -> dict[str, Any]:
    if name == OURS:
        return {"color": _OURS_COLOUR, "marker": "o", "linewidth": 2.5, "zorder": 5}
    colour, marker = _STYLES[name.removesuffix("-half")]
    half = name.endswith("-half")
    line = {"linestyle": "--" if half else "-", "markerfacecolor": "none" if half else colour}
    return {"color": colour, "marker": marker, "linewidth": 1, "markersize": 4, **line}


def _sheet(folder: Path, rows: Sequence[Mapping[str, str]], level: int) -> Figure:
    """Some rows per image: the original, ours, and each format at the better of its two sizes."""
    images = [
        name
        for name in dict.fromkeys(row["image"] for row in rows)
        if (folder / PANELS / name).is_dir()
    ]
    chosen = {image: _panels(rows, image, level) for image in images}
    panels = 1 + max(len(found) for found in chosen.values())
    columns = min(panels, _SHEET_COLUMNS)
    lines = -(-panels // columns)
    size = (2.9 * columns, 2.2 * lines * len(images))
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(lines * len(images), columns, squeeze=False)
    for line, image in zip(all_axes.reshape(len(images), -1), images, strict=True):
        for axes in line:
            axes.axis("off")
        place = folder / PANELS / image
        line[0].imshow(_picture(place / "original.png"))
        line[0].set_title(f"{image}, original", fontsize=8)
        for axes, row in zip(line[1:], chosen[image], strict=False):
            axes.imshow(_picture(place / str(level) / f"{row['codec']}.png"))
            above = "" if row["fits"] == "1" else ", its least"
            axes.set_title(f"{row['codec']}, {row['file_bytes']} bytes{above}", fontsize=8)
    figure.suptitle(f"K = {level}: each at most as large as ours where it can", fontsize=9)
    return figure


def _panels(rows: Sequence[Mapping[str, str]], image: str, level: int) -> list[Mapping[str, str]]:
    """Ours, then the better row of each format: one that fits, then by the best metric there is."""
    here = [row for row in rows if row["image"] == image and row["codebook"] == str(level)]
    metric = "ssimulacra2" if np.isnan(number(here[0]["vgg_hed"])) else "vgg_hed"
    panels = [row for row in here if row["codec"] == OURS]
    for form in FORMATS:
        both = [row for row in here if row["codec"].removesuffix("-half") == form]
        fitting = [row for row in both if row["fits"] == "1"] or both
        best = fitting[:1]
        for row in fitting[1:]:
            if better(number(row[metric]), number(best[0][metric]), metric):
                best = [row]
        panels += best
    return panels


def _picture(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
