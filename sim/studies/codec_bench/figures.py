"""The figures of a codec comparison, drawn from its saved tables and pictures alone.

rate-quality   each metric against bits per pixel, a line per codec, means over images
overview       the same, small: one deep distance and PSNR, the better of each format's two sizes
sheet-*        one level: each pictured image as every format leaves it within our bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from sim.baselines import FORMATS
from sim.errors import UserError
from sim.figures.style import drawing, new_figure, save_figure
from sim.metrics import METRICS
from sim.results.files import (
    CODEC_BENCH,
    FIGURES,
    MANIFEST,
    PANELS,
    SUMMARY,
    check_kind,
    number,
    read_json,
    read_table,
)
from sim.studies.codec_bench.work import EQUAL, OURS

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
_LARGER = "ours, larger patches"


def draw_bench(folder: Path) -> list[Path]:
    """Draw every figure of a comparison into its `figures/`; returns the PNG files.

    Raises:
        UserError: not such a folder, or a table in it is missing or unreadable.
    """
    check_kind(folder, CODEC_BENCH)
    manifest, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    try:
        rows = read_table(folder / EQUAL)
        origin = _origin(manifest)
        (folder / FIGURES).mkdir(exist_ok=True)
        with drawing():
            curves = [
                save_figure(_curves(summary, manifest), folder, "rate-quality", origin),
                save_figure(_overview(summary, manifest), folder, "overview", origin),
            ]
            sheets = [
                save_figure(_sheet(folder, rows, level), folder, f"sheet-{level}", origin, ("png",))
                for level in manifest["pictured_levels"]
            ]
    except OSError as error:
        raise UserError(f"{folder}: cannot draw ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: its tables are not those of a comparison ({error!r})") from None
    return [*curves, *sheets]


def _origin(manifest: Mapping[str, Any]) -> str:
    ours = f"ours: {manifest['entropy']} coding"
    search = f", searched in {manifest['search']} steps" if manifest["search"] else ""
    return f"{ours}{search} · weights {manifest['weights_fingerprint']}"


def _lines_of(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Points by codec; ours with larger patches are a line of their own."""
    curves = dict(summary["curves"])
    ours = list(zip(manifest["levels"], curves.pop(OURS), strict=True))
    lines = {
        OURS: [point for level, point in ours if "@" not in level],
        _LARGER: [point for level, point in ours if "@" in level],
    }
    return {name: points for name, points in lines.items() if points} | curves


def _curves(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Figure:
    curves = _lines_of(summary, manifest)
    ours = summary["curves"][OURS]
    metrics = [m for m in METRICS if any(point.get(m) is not None for point in ours)]
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = new_figure(4.2 * columns, 3.7 * rows + 1)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes[len(metrics) :]:
        axes.axis("off")
    for axes, metric in zip(all_axes, metrics, strict=False):
        _lines(axes, curves, metric, manifest["counted"])
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=9, frameon=False)
    figure.suptitle(f"Means over {_images(summary)}; upwards is better", fontsize=9)
    return figure


def _overview(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Figure:
    """Two metrics; of each format the size, full or half, that is better at the middle level."""
    ours = summary["curves"][OURS]
    deep = next(m for m in ("lpips", "ssimulacra2", *METRICS) if m in ours[0])
    levels = summary["levels"]
    middle = levels[len(levels) // 2]["codecs"]
    curves = _lines_of(summary, manifest)
    names = [name for name in (OURS, _LARGER) if name in curves]
    for form in FORMATS:
        both = [n for n in (form, f"{form}-half") if n in summary["curves"] and n in middle]
        both.sort(key=lambda n: -middle[n]["fits"])
        best = both[:1]
        for name in both[1:]:
            fits = middle[name]["fits"] == middle[best[0]]["fits"]
            if fits and METRICS[deep].better(middle[name][deep], middle[best[0]][deep]):
                best = [name]
        names += best
    figure = new_figure(8, 3.6)
    all_axes = figure.subplots(1, 2)
    for axes, metric in zip(all_axes, (deep, "psnr_db"), strict=True):
        chosen = {name: curves[name] for name in names}
        _lines(axes, chosen, metric, manifest["counted"])
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(f"Means over {_images(summary)}; upwards is better", fontsize=9)
    return figure


def _lines(axes: Any, curves: Mapping[str, Any], metric: str, counted: str) -> None:
    rate = "bpp" if counted == "file" else "bpp_payload"
    for name, found in curves.items():
        points = sorted((p[rate], p[metric]) for p in found if p[metric] is not None)
        if points:
            axes.plot(*zip(*points, strict=True), label=name, **_look(name))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bits per pixel" + ("" if rate == "bpp" else ", coded picture alone"))
    axes.set_title(METRICS[metric].axis, loc="left")
    if not METRICS[metric].larger_is_better:
        axes.invert_yaxis()


def _images(summary: Mapping[str, Any]) -> str:
    count = summary["images"]
    return f"{count} image{'s' * (count > 1)}"


def _look(name: str) -> dict[str, Any]:
    if name == OURS:
        return {"color": _OURS_COLOUR, "marker": "o", "linewidth": 2.5, "zorder": 5}
    if name == _LARGER:
        return {"color": _OURS_COLOUR, "marker": "o", "linestyle": ":", "markerfacecolor": "none"}
    colour, marker = _STYLES[name.removesuffix("-half")]
    half = name.endswith("-half")
    line = {"linestyle": "--" if half else "-", "markerfacecolor": "none" if half else colour}
    return {"color": colour, "marker": marker, "linewidth": 1, "markersize": 4, **line}


def _sheet(folder: Path, rows: Sequence[Mapping[str, str]], level: str) -> Figure:
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
    figure = new_figure(2.9 * columns, 2.2 * lines * len(images))
    all_axes = figure.subplots(lines * len(images), columns, squeeze=False)
    for line, image in zip(all_axes.reshape(len(images), -1), images, strict=True):
        for axes in line:
            axes.axis("off")
        place = folder / PANELS / image
        line[0].imshow(_picture(place / "original.png"))
        line[0].set_title(f"{image}, original", fontsize=8)
        for axes, row in zip(line[1:], chosen[image], strict=False):
            axes.imshow(_picture(place / level / f"{row['codec']}.png"))
            above = "" if row["fits"] == "1" else ", its least"
            axes.set_title(f"{row['codec']}, {row['file_bytes']} bytes{above}", fontsize=8)
    figure.suptitle(f"{level} codewords: each at most as large as ours, where it can", fontsize=9)
    return figure


def _panels(rows: Sequence[Mapping[str, str]], image: str, level: str) -> list[Mapping[str, str]]:
    """Ours, then the better row of each format: one that fits, then by the best metric there is."""
    here = [row for row in rows if row["image"] == image and row["level"] == level]
    metric = next(m for m in ("lpips", "ssimulacra2", *METRICS) if here[0].get(m))
    panels = [row for row in here if row["codec"] == OURS]
    for form in FORMATS:
        both = [row for row in here if row["codec"].removesuffix("-half") == form]
        fitting = [row for row in both if row["fits"] == "1"] or both
        best = fitting[:1]
        for row in fitting[1:]:
            if METRICS[metric].better(number(row[metric]), number(best[0][metric])):
                best = [row]
        panels += best
    return panels


def _picture(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
