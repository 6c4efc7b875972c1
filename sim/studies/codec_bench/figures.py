"""The figures of a codec comparison, drawn from its saved tables and pictures alone.

rate-quality   each metric against bits per pixel, a line per codec, means over images
overview       the same, small: one deep distance and PSNR, the better of each format's two sizes
sheet-*        one level: each pictured image as every format leaves it within our bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sim.baselines import FORMATS
from sim.figures.style import (
    BLUE,
    drawing_figures,
    legend_outside,
    look,
    new_figure,
    picture_panels,
    read_picture,
    save_figure,
)
from sim.metrics import METRICS
from sim.results.files import CODEC_BENCH, MANIFEST, PANELS, SUMMARY, number, read_json, read_table
from sim.scenario.labels import count_label
from sim.studies.codec_bench.work import EQUAL, OURS

_SHEET_COLUMNS = 5
_LARGER = "ours, larger patches"


def draw_bench(folder: Path) -> list[Path]:
    """Draw every figure of a comparison into its `figures/`; returns the PNG files.

    Raises:
        UserError: not such a folder, or a table in it is missing or unreadable.
    """
    with drawing_figures(folder, CODEC_BENCH):
        manifest, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
        rows, origin = read_table(folder / EQUAL), _origin(manifest)
        curves = [
            save_figure(_curves(summary, manifest), folder, "rate-quality", origin),
            save_figure(_overview(summary, manifest), folder, "overview", origin),
        ]
        sheets = [
            save_figure(_sheet(folder, rows, level), folder, f"sheet-{level}", origin, ("png",))
            for level in manifest["pictured_levels"]
        ]
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
    legend_outside(figure, all_axes[0], loc="outside lower center", ncols=9)
    figure.suptitle(
        f"Means over {count_label(summary['images'], 'image')}; upwards is better", fontsize=9
    )
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
        names += _better(
            [n for n in (form, f"{form}-half") if n in curves and n in middle], middle, deep
        )
    figure = new_figure(8, 3.6)
    all_axes = figure.subplots(1, 2)
    for axes, metric in zip(all_axes, (deep, "psnr_db"), strict=True):
        chosen = {name: curves[name] for name in names}
        _lines(axes, chosen, metric, manifest["counted"])
    legend_outside(figure, all_axes[0], loc="outside right center")
    figure.suptitle(
        f"Means over {count_label(summary['images'], 'image')}; upwards is better", fontsize=9
    )
    return figure


def _better(names: Sequence[str], found: Mapping[str, Mapping[str, Any]], metric: str) -> list[str]:
    """The best of these, if there are any: one that fits more often, then by a metric."""
    ranked = sorted(
        names, key=lambda name: (-found[name]["fits"], -METRICS[metric].sign * found[name][metric])
    )
    return ranked[:1]


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


def _look(name: str) -> dict[str, Any]:
    if name == OURS:
        return {"color": BLUE, "marker": "o", "linewidth": 2.5, "zorder": 5}
    if name == _LARGER:
        return {"color": BLUE, "marker": "o", "linestyle": ":", "markerfacecolor": "none"}
    colour, marker = look(name.removesuffix("-half"))
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
        place = folder / PANELS / image
        shown = [(f"{image}, original", read_picture(place / "original.png"))]
        for row in chosen[image]:
            above = "" if row["fits"] == "1" else ", its least"
            title = f"{row['codec']}, {row['file_bytes']} bytes{above}"
            shown.append((title, read_picture(place / level / f"{row['codec']}.png")))
        picture_panels(line, shown)
    figure.suptitle(f"{level} codewords: each at most as large as ours, where it can", fontsize=9)
    return figure


def _panels(rows: Sequence[Mapping[str, str]], image: str, level: str) -> list[Mapping[str, str]]:
    """Ours, then the better row of each format: one that fits, then by the best metric there is."""
    here = [row for row in rows if row["image"] == image and row["level"] == level]
    metric = next(m for m in ("lpips", "ssimulacra2", *METRICS) if here[0].get(m))
    rows_of = {
        row["codec"]: {**row, "fits": int(row["fits"]), metric: number(row[metric])} for row in here
    }
    names = [OURS]
    for form in FORMATS:
        names += _better([n for n in rows_of if n.removesuffix("-half") == form], rows_of, metric)
    by_codec = {row["codec"]: row for row in here}
    return [by_codec[name] for name in names]
