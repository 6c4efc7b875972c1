"""A training run on one page: config, log, curve and last samples, small enough to commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from codec.files import replacing
from sim.errors import UserError

PANELS = 6


def write_training_report(run: Path, out: Path) -> list[Path]:
    """Copy a run's config, log and last sample sheet to `out` and draw its curve as curve.png.

    Raises:
        UserError: `run` is not a training run with at least one evaluation.
    """
    try:
        text = (run / "log.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        sheet = max((run / "samples").glob("*.webp"))
    except (OSError, ValueError):
        raise UserError(f"{run}: not a training run with a log and samples") from None
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "log.jsonl"):
        shutil.copyfile(run / name, out / name)
    shutil.copyfile(sheet, out / "samples.webp")
    _draw(lines, out / "curve.png", run.name)
    return [out / name for name in ("config.json", "log.jsonl", "samples.webp", "curve.png")]


def _draw(lines: list[dict[str, float | str]], path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "seconds", "kind"):
                point = (float(line["seconds"]) / 3600, float(value))
                series.setdefault((str(line["kind"]), name), []).append(point)
    held_out = [key for key in series if key[0] == "held_out"]
    chosen = [("train", "loss"), *held_out][:PANELS]
    figure = Figure(figsize=(9, 5), layout="constrained")
    for axis, key in zip(figure.subplots(2, PANELS // 2).flat, chosen, strict=False):
        hours, values = zip(*series[key], strict=True)
        axis.plot(hours, values, marker=".", color="#0072b2")
        axis.set_title(" ".join(key).replace("_", " "), fontsize=9)
        axis.grid(alpha=0.3)
        axis.set_xlabel("hours", fontsize=8)
    figure.suptitle(f"{title}: {int(float(lines[-1]['step']))} steps", fontsize=10)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
