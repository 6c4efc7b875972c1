"""The figures of a run, drawn from its saved tables and pictures alone.

    losses     instead of quality, where nothing is repaired: packets and tokens lost
    quality    each metric: by concealer for one point, or against the swept value
    rate       each metric against bits on the wire, where a sweep changes them
    invented-* one image as repaired | how sure the transformer was | how far it may be off
    strip-*    one image: original | without loss | lost tokens | unrepaired | repaired
    packets    every packet of the pictured stream in time: delivered, or lost in which way

The same tables give the same bytes. A figure's file holds a hash of all that it is drawn from, so
one that stands already need not be drawn again, and without any to draw matplotlib is not loaded.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

from sim.figures.style import MADE_OF, drawing, drawing_from, origin, save_figure
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
        drawn = [*_tables(run), *_photographs(run)]
        (folder / FIGURES).mkdir(exist_ok=True)
        missing = []
        for figure in drawn:
            key = digest(figure.name, figure.data, style)
            if standing is None or not _take(figure, key, standing, folder / FIGURES):
                missing.append((figure, key))
        if missing:
            stack.enter_context(drawing())
        for figure, key in missing:
            save_figure(figure.make(), folder, figure.name, small_print, figure.formats, key)
        return [folder / FIGURES / f"{figure.name}.png" for figure in drawn]


def _take(figure: _Drawing, key: str, standing: Path, into: Path) -> bool:
    """Take a figure that stands with this key; whether there is one."""
    names = [f"{figure.name}.{kind}" for kind in figure.formats]
    try:
        with Image.open(standing / names[0]) as picture:
            if picture.info.get(MADE_OF) != key:
                return False
        for name in names:
            shutil.copyfile(standing / name, into / name)
    except OSError:
        return False
    return True


# Without matplotlib until something is made.


def _tables(run: Run) -> Iterator[_Drawing]:
    points, metrics = run.points, [*run.metrics, "token_accuracy"]
    if all(set(point.concealers) == {CLEAN} for point in points):
        yield _Drawing("losses", run.summary, lambda: _plots().losses_figure(points))
    elif len(points) == 1:
        yield _Drawing("quality", run.summary, lambda: _plots().dots_figure(points[0], metrics))
    else:
        yield _Drawing("quality", run.summary, lambda: _plots().lines_figure(points, metrics))
        if rates_vary(points):
            yield _Drawing("rate", run.summary, lambda: _plots().rate_figure(points, run.metrics))
    rows = run.pictured_packets()
    interval = 1 / float(run.manifest["scenario"]["stream"]["fps"])
    data = [[asdict(row) for row in rows], interval]
    yield _Drawing("packets", data, lambda: _plots().packets_figure(rows, interval))


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


def _strip(run: Run, name: str, rows: Mapping[str, ImageRow]) -> Figure:
    from sim.figures.pictures import strip_figure

    return strip_figure(name, rows, run.pictures(name))


def _invented(run: Run, name: str) -> Figure:
    from sim.figures.pictures import invention_figure

    return invention_figure(name, run.pictures(name), *run.certainty(name))
