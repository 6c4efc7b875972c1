"""The figures of a run, drawn from its saved tables and pictures alone.

    losses     instead of quality, where nothing is repaired: packets and tokens lost
    quality    each metric: by concealer for one point, or against the swept value
    rate       each metric against bits on the wire, where a sweep changes them
    invented-* one image as repaired | how sure the transformer was | how far it may be off
    strip-*    one image: original | without loss | lost tokens | unrepaired | repaired
    time       of a video: each frame's quality in time, and the packets that it lost
    packets    every packet of the pictured stream in time: delivered, or lost in which way
    slides/*   quality and rate again, a figure a metric, 16:9 and in large letters

The same tables give the same bytes. A figure's file holds a hash of all that it is drawn from, so
one that stands already need not be drawn again, and without any to draw matplotlib is not loaded.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

from sim.figures.style import (
    MADE_OF,
    SLIDES,
    drawing,
    drawing_from,
    origin,
    save_figure,
    save_slide,
)
from sim.jobs.store import code_digest, digest, file_digest
from sim.results.files import FIGURES, PANELS, PROBABILITY, RUN
from sim.results.manifest import version_of
from sim.results.rows import ImageRow
from sim.results.run import Run, rates_vary
from sim.scenario.schema import CLEAN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A figure to be: ``data`` is plain data from which all that ``make`` draws follows."""

    name: str
    data: object
    make: Callable[[], Figure]
    formats: tuple[str, ...] = ("png", "svg")
    slide: bool = False

    @property
    def files(self) -> list[str]:
        """Below the folder of the figures; the first one holds the hash."""
        name = f"{SLIDES}/{self.name}" if self.slide else self.name
        return [f"{name}.{kind}" for kind in self.formats]

    def save(self, folder: Path, small_print: str, key: str) -> None:
        """Draw it and write its files."""
        about = folder, self.name, small_print
        if self.slide:
            save_slide(self.make(), *about, key)
        else:
            save_figure(self.make(), *about, self.formats, key)


def draw_figures(folder: Path, standing: Path | None = None) -> list[Path]:
    """Draw every figure of a run folder into its `figures/`; returns the PNG files.

    Args:
        folder: of the run.
        standing: figures of an earlier state of it, of which those are taken that would be the
            same.

    Raises:
        UserError: not a run folder, or a table in it is missing or unreadable.
    """
    with drawing_from(folder, RUN), contextlib.ExitStack() as stack:
        run = Run.load(folder)
        small_print = origin(f"scenario {run.name}", run.seed, run.manifest)
        style = small_print, code_digest(), version_of("matplotlib"), version_of("pillow")
        drawn = [*_tables(run), *_photographs(run), *_slides(run)]
        missing = []
        for figure in drawn:
            key = digest(figure.files, figure.data, style)
            if standing is None or not _take(figure, key, standing, folder / FIGURES):
                missing.append((figure, key))
        if missing:
            stack.enter_context(drawing())
        for figure, key in missing:
            figure.save(folder, small_print, key)
        return [folder / FIGURES / figure.files[0] for figure in drawn]


def _take(figure: _Drawing, key: str, standing: Path, into: Path) -> bool:
    """Take a figure that stands with this key; whether there is one."""
    try:
        with Image.open(standing / figure.files[0]) as picture:
            if picture.info.get(MADE_OF) != key:
                return False
        for name in figure.files:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(standing / name, into / name)
    except OSError:
        return False
    return True


# Without matplotlib until something is made.


def _tables(run: Run) -> Iterator[_Drawing]:
    metrics = [*run.metrics, "token_accuracy"]
    yield from _quality(run, metrics)
    if run.manifest["scenario"].get("video") is not None:
        frames = [
            {repair: asdict(row) for repair, row in rows.items()}
            for rows in run.pictured_images().values()
        ]
        data = [frames, run.metrics, run.manifest["scenario"]["stream"]["fps"]]
        yield _Drawing("time", data, partial(_time, run))
    rows = run.pictured_packets()
    interval = 1 / float(run.manifest["scenario"]["stream"]["fps"])
    data = [[asdict(row) for row in rows], interval]
    yield _Drawing("packets", data, lambda: _plots().packets_figure(rows, interval))


def _quality(run: Run, metrics: Sequence[str]) -> Iterator[_Drawing]:
    points, data = run.points, [run.summary, metrics]
    if not _repairs(run):
        yield _Drawing("losses", data, lambda: _plots().losses_figure(points))
    elif len(points) == 1:
        yield _Drawing("quality", data, lambda: _plots().dots_figure(points[0], metrics))
    else:
        yield _Drawing("quality", data, lambda: _plots().lines_figure(points, metrics))
        images = [metric for metric in metrics if metric != "token_accuracy"]
        if images and rates_vary(points):
            yield _Drawing("rate", data, lambda: _plots().rate_figure(points, images))


def _repairs(run: Run) -> bool:
    return any(set(point.concealers) != {CLEAN} for point in run.points)


def _slides(run: Run) -> Iterator[_Drawing]:
    metrics = [*run.metrics, "token_accuracy"]
    for metric in metrics if _repairs(run) else metrics[:1]:
        for figure in _quality(run, [metric]):
            name = figure.name if figure.name == "losses" else f"{figure.name}-{metric}"
            yield replace(figure, name=name, formats=("png",), slide=True)


def _photographs(run: Run) -> Iterator[_Drawing]:
    for name, rows in run.pictured_images().items():
        folder = run.folder / PANELS / name
        if not folder.is_dir():
            continue
        files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        data = {repair: asdict(row) for repair, row in rows.items()}, files
        strip = partial(_strip, run, name, rows)
        yield _Drawing(f"strip-{name}", data, strip, ("png",))
        if PROBABILITY in files and rows[CLEAN].tokens_lost:
            yield _Drawing(f"invented-{name}", data, partial(_invented, run, name), ("png",))


def _plots() -> ModuleType:
    from sim.figures import plots

    return plots


def _time(run: Run) -> Figure:
    from sim.figures.time import time_figure

    return time_figure(run)


def _strip(run: Run, name: str, rows: Mapping[str, ImageRow]) -> Figure:
    from sim.figures.pictures import strip_figure

    return strip_figure(name, rows, run.pictures(name))


def _invented(run: Run, name: str) -> Figure:
    from sim.figures.pictures import invention_figure

    return invention_figure(name, run.pictures(name), *run.certainty(name))
