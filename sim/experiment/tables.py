"""From the store to what people read: tables, summary, manifest, pictures, figures.

Cells are read one by one in their order and their rows written at once, so memory does not grow
with their number; what is kept is one entry of the summary for each point.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from sim.experiment.cell import evenly, record_rows
from sim.experiment.folder import CELLS, made_aside
from sim.experiment.packets import packet_lines
from sim.experiment.plan import Plan
from sim.experiment.summary import PointRows, summarize
from sim.jobs.store import Store
from sim.results.files import (
    FIGURES,
    IMAGES,
    MANIFEST,
    OUTPUTS,
    PACKETS,
    PANELS,
    SUMMARY,
    VIDEOS,
    write_json,
)
from sim.results.manifest import manifest
from sim.scenario.labels import Cell, value_label


def finish_run(
    run: Path,
    plan: Plan,
    store: Store,
    repeats: Sequence[int],
    save_images: bool,
    live: Mapping[str, Any] | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Make everything that is made of the cells, and put it into the run's folder.

    Args:
        run: its folder.
        plan: what it consists of.
        store: has every cell of it.
        repeats: of each point.
        save_images: also write every output at original size.
        live: how the stream went, if it ran elsewhere.
        figures: draw them too.

    Returns:
        The content of summary.json.
    """
    from sim.figures.run import draw_figures

    with made_aside(run) as aside:
        summary = _Tables(aside, plan, store, repeats).write()
        _copy_pictures(run, aside, plan, repeats, save_images)
        images = [asdict(image) for image in plan.images]
        what_ran = manifest(plan.scenario, images, plan.fingerprint, plan.device)
        what_ran["source"] = plan.loaded.source
        what_ran["pictured_cell"] = _pictured(plan, repeats).index
        if live is not None:
            what_ran["live"] = live
        write_json(aside / MANIFEST, what_ran)
        if figures:
            draw_figures(aside, run / FIGURES)
    return summary


class _Tables:
    """The tables of one run while they are written."""

    def __init__(self, folder: Path, plan: Plan, store: Store, repeats: Sequence[int]) -> None:
        self._folder, self._plan, self._store = folder, plan, store
        self._repeats = repeats
        self._swept = list(dict.fromkeys(key for v, _ in plan.loaded.points for key in v))
        self._counters: dict[str, int] = {}

    def write(self) -> dict[str, Any]:
        """Write images.csv, packets.csv and summary.json; returns the summary."""
        scenario = self._plan.scenario
        with (
            (self._folder / IMAGES).open("w", newline="", encoding="utf-8") as images,
            (self._folder / PACKETS).open("w", newline="", encoding="utf-8") as packets,
        ):
            points = self._points(images, packets)
        summary = {
            "scenario": scenario.name,
            "seed": scenario.seed,
            "transport": scenario.transport,
            "repeats": scenario.repeats,
            "until": None if scenario.until is None else scenario.until.model_dump(),
            "metrics": _defined(scenario.metrics, points),
            "receiver": self._counters,
            "points": points,
        }
        write_json(self._folder / SUMMARY, summary)
        return summary

    def _points(self, images: TextIO, packets: TextIO) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        metrics = self._plan.scenario.metrics
        rows, effective = PointRows(metrics), 0.0
        columns: list[str] = []
        table = csv.writer(images, lineterminator="\n")
        for cell in self._plan.cells(self._repeats):
            record = self._store.get(self._plan.cell_key(cell))
            if not columns:
                columns = record["columns"]
                table.writerow(["cell", "point", "repeat", *self._swept, *columns])
                packets.write(",".join(("cell", "repeat", *record["packet_columns"])) + "\n")
            swept = [value_label(cell.values[k]) if k in cell.values else "" for k in self._swept]
            for row in record_rows(record):
                values = [row.get(column, "") for column in columns]
                table.writerow([cell.index, cell.point, cell.repeat, *swept, *values])
                rows.add(row)
            packets.write(packet_lines(record, f"{cell.index},{cell.repeat},"))
            for name, count in record["counters"].items():
                self._counters[name] = self._counters.get(name, 0) + count
            effective += record["effective"]
            rows.repeats += 1
            if rows.repeats == self._repeats[cell.point]:
                channel = cell.scenario.channel
                about = {"point": cell.point, "values": dict(cell.values), "channel": channel}
                alone = cell.scenario.stream.receivers == 1  # or else no theory fits the losses
                found.append(about | summarize(rows, channel if alone else None, effective))
                rows, effective = PointRows(metrics), 0.0
        return found


def _defined(metrics: Sequence[str], points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that have values, where any has: some are not defined for small images."""
    found = [row for point in points for row in point["concealers"].values()]
    known = [m for m in metrics if not all(math.isnan(row[m]["mean"]) for row in found)]
    return known or list(metrics)


def point_rows(plan: Plan, store: Store, point: int, repeats: int) -> PointRows:
    """What the first repeats of one point found."""
    counts = [0] * len(plan.loaded.points)
    counts[point] = repeats
    rows = PointRows(plan.scenario.metrics)
    for cell in plan.cells(counts):
        for row in record_rows(store.get(plan.cell_key(cell))):
            rows.add(row)
        rows.repeats += 1
    return rows


def _pictured(plan: Plan, repeats: Sequence[int]) -> Cell:
    wanted = plan.pictured()
    return next(cell for cell in plan.cells(repeats) if (cell.point, cell.repeat) == wanted)


def _copy_pictures(
    run: Path, aside: Path, plan: Plan, repeats: Sequence[int], save_images: bool
) -> None:
    """Panels of the pictured cell, and outputs of every cell if wanted."""
    if not plan.scenario.concealers:
        return
    names = [image.name for image in plan.images]
    panels = Store(run / CELLS).files(plan.cell_key(_pictured(plan, repeats)))
    kept = [name for name in names if (panels / name).is_dir()]
    for number in evenly(min(plan.panels, len(kept)), len(kept)):
        shutil.copytree(panels / kept[number], aside / PANELS / kept[number], copy_function=_link)
    if plan.scenario.video is not None:
        shutil.copytree(panels / VIDEOS, aside / VIDEOS, copy_function=_link)
    if not save_images:
        return
    for cell in plan.cells(repeats):
        folder = aside / OUTPUTS
        if sum(repeats) > 1:
            folder /= f"cell-{cell.index:04d}"
        pictures = Store(run / CELLS).files(plan.cell_key(cell))
        for name in names:
            for path in (pictures / name).glob("*.png"):
                if path.stem not in ("original", "received"):
                    (folder / path.stem).mkdir(parents=True, exist_ok=True)
                    _link(str(path), str(folder / path.stem / f"{name}{path.suffix}"))


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
