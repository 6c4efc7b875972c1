"""A training run on one page: config, log, curve and last samples, small enough to commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from codec.files import replacing
from sim.errors import UserError, os_errors
from sim.figures.style import drawing

PANELS = 6
"""Curves of a report at most."""


def write_training_report(run: Path, out: Path) -> list[Path]:
    """Copy a run's config, log and, if it has samples, the last sheet to `out`, and draw curves of
    its training loss and first held-out measures as curve.png. Returns the files written.

    Raises:
        UserError: `run` is not a training run with a log, or `out` cannot be written.
    """
    try:
        text = (run / "log.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        series = _series(lines)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        lines = []
    if not lines or not (run / "config.json").is_file():
        raise UserError(f"{run}: not a training run; its folder needs config.json and log.jsonl")
    sources = {name: run / name for name in ("config.json", "log.jsonl")}
    sheets = sorted((run / "samples").glob("*.webp"))
    if sheets:
        sources["samples.webp"] = sheets[-1]
    with os_errors(out, "cannot write here"):
        out.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            if source.resolve() != (out / name).resolve():
                shutil.copyfile(source, out / name)
        with drawing():
            _draw(series, out / "curve.png", f"{run.name}: {int(lines[-1]['step'])} steps")
    return [out / name for name in (*sources, "curve.png")]


def _series(lines: list[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(hours, value) of everything logged, by kind ("train" or "held_out") and name."""
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "seconds", "kind"):
                point = (float(line["seconds"]) / 3600, float(value))
                series.setdefault((str(line["kind"]), name), []).append(point)
    return series


def _draw(series: dict[tuple[str, str], list[tuple[float, float]]], path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    held_out = [key for key in series if key[0] == "held_out"]
    chosen = [key for key in (("train", "loss"), *held_out) if key in series][:PANELS]
    figure = Figure(figsize=(9, 5), layout="constrained")
    for axes, key in zip(figure.subplots(2, PANELS // 2).flat, chosen, strict=False):
        hours, values = zip(*series[key], strict=True)
        axes.plot(hours, values, marker=".", color="#0072b2")
        axes.set_title(" ".join(key).replace("_", " "), fontsize=9)
        axes.set_xlabel("hours", fontsize=8)
    for axes in figure.axes[len(chosen) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
