"""Our ladder against other codecs: each is measured at some rates, and compared at our bytes.

points/         every file made, and its metrics (kept)
bench.csv       one row per image, codec and point
equal.csv       one row per image, level and codec: metrics at exactly our bytes
manifest.json   what was compared, with which weights, settings and versions
summary.json    means over images, who wins, how often each codec was beaten, BD-rates
panels/         pictures of a few images at three levels
figures/        drawn from all of the above
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sim.errors import UserError, os_errors
from sim.jobs.claims import complete
from sim.jobs.executor import open_workers
from sim.jobs.store import Record
from sim.media.images import LoadedImage
from sim.media.token_file import ImageCodec
from sim.progress import ProgressCallback, no_progress
from sim.results.files import (
    CODEC_BENCH,
    MANIFEST,
    PANELS,
    SUMMARY,
    save_png,
    write_json,
    write_table,
)
from sim.results.manifest import revision, version_of
from sim.studies.codec_bench.points import RatePoint
from sim.studies.codec_bench.summary import at_equal_bytes, summarize_bench
from sim.studies.codec_bench.work import (
    EQUAL,
    OURS,
    POINTS,
    Bench,
    BenchConfig,
    BenchLevel,
    CodecTask,
    bench_worker,
)
from sim.version import __version__

BENCH = "bench.csv"
MAX_PICTURED = 4
"""Images of which pictures are kept."""

_LIBRARIES = ("torch", "numpy", "constriction", "pillow", "pillow-heif", "imageio-ffmpeg")


def run_bench(
    codec: ImageCodec,
    images: Sequence[LoadedImage],
    config: BenchConfig,
    out: Path,
    progress: ProgressCallback = no_progress,
    model: str | None = None,
    prepare: bool = False,
    figures: bool = True,
) -> dict[str, Any]:
    """Compare, and write the folder `out`, figures included; returns the summary.

    What `out` already holds of the same images, codecs and weights is not made again.

    Args:
        codec: ours.
        images: to code.
        config: what to compare.
        out: the folder.
        progress: told how far it is.
        model: the name `codec` was loaded by, for other processes.
        prepare: measure the other codecs only, whose points depend on no weights; {} is returned.
        figures: draw them too.

    Raises:
        UserError: the folder cannot be written, a level or coder that the model lacks, or a
            metric that cannot be measured here.
    """
    for level in config.levels:
        codec.check(level.codebook, config.entropy, level.patch, config.search)
    bench = Bench(codec, config, out)
    _open(out)
    return _BenchRun(bench, images, model, progress).run(prepare, figures)


def _open(out: Path) -> None:
    """Make the folder of a new comparison, or find the one of an earlier."""
    with os_errors(out, "cannot write results here"):
        if out.exists() and not out.is_dir():
            raise UserError(f"{out}: is a file; results need a folder")
        if out.exists() and any(out.iterdir()) and not (out / POINTS).is_dir():
            raise UserError(f"{out}: is not empty and holds no comparison; choose another folder")
        (out / POINTS).mkdir(parents=True, exist_ok=True)


class _BenchRun:
    """The state of one comparison while it fills its folder."""

    def __init__(
        self,
        bench: Bench,
        images: Sequence[LoadedImage],
        model: str | None,
        progress: ProgressCallback,
    ) -> None:
        self.bench, self.config, self.folder = bench, bench.config, bench.folder
        self.images, self.model = images, model
        self.pictured = pictured_levels(self.config.levels)
        self.points: dict[tuple[str, str], list[RatePoint]] = {}
        self._progress, self._done = progress, 0
        self._total = len(images) * (1 + len(bench.baselines))

    def run(self, prepare: bool, figures: bool) -> dict[str, Any]:
        """Measure, tabulate, draw."""
        if not prepare:
            self._measure([self.bench.task(image, OURS) for image in self.images])
        others = []
        for number, image in enumerate(self.images):
            budgets: tuple[int, ...] = ()
            if number < MAX_PICTURED and not prepare:
                ours = self._ours(image)
                budgets = tuple(ours[level].size(self.config.counted) for level in self.pictured)
            others += [self.bench.task(image, name, budgets) for name in self.bench.baselines]
        self._measure(others)
        if prepare:
            return {}
        rows = [row for image in self.images for row in self._rows(image)]
        equal = at_equal_bytes(rows, self.config.counted, self.config.metrics)
        summary = summarize_bench(rows, equal, self.config, self.bench.notes)
        write_table(self.folder / BENCH, rows)
        write_table(self.folder / EQUAL, equal)
        write_json(self.folder / SUMMARY, summary)
        self._pictures()
        write_json(self.folder / MANIFEST, self._manifest())
        from sim.studies.codec_bench.figures import draw_bench

        if figures:
            draw_bench(self.folder)
        return summary

    def _measure(self, tasks: Sequence[CodecTask]) -> None:
        if tasks:
            self._progress(self._done, self._total, f"{tasks[0].image.name} {tasks[0].codec}")
        tried = set[str]()

        def done(task: CodecTask) -> None:
            tried.add(task.key)
            self._done += 1
            self._progress(self._done, self._total, f"{task.image.name} {task.codec}")

        def is_done(task: CodecTask, record: Record) -> bool:
            return "points" in record or task.key in tried

        bench, device = self.bench, self.bench.ours.codec.model.device
        make = partial(bench_worker, self.model, device, self.config, self.folder)
        with open_workers(bench.measure, make, self.config.workers) as group:
            complete(bench.store, tasks, group, done, is_done)
        for task in tasks:
            record = bench.store.get(task.key)
            if "points" in record:
                points = map(RatePoint.read, record["points"])
                self.points[task.image.name, task.codec] = [*points]
            else:
                bench.notes[task.codec] = f"failed on {task.image.name}: {record['failed']}"

    def _ours(self, image: LoadedImage) -> dict[BenchLevel, RatePoint]:
        """Our points of an image."""
        return {BenchLevel.of(point.setting): point for point in self.points[image.name, OURS]}

    def _rows(self, image: LoadedImage) -> list[dict[str, Any]]:
        pixels = image.width * image.height
        return [
            {
                "image": image.name,
                "codec": name,
                "setting": str(BenchLevel.of(point.setting)) if name == OURS else point.setting,
                "file_bytes": len(point.file),
                "payload_bytes": point.payload_bytes,
                "bpp": 8 * len(point.file) / pixels,
                "bpp_payload": 8 * point.payload_bytes / pixels,
                **{metric: point.metrics[metric] for metric in self.config.metrics},
            }
            for name in (OURS, *self.bench.baselines)
            for point in self.points.get((image.name, name), ())
        ]

    def _pictures(self) -> None:
        for image in self.images[:MAX_PICTURED]:
            place = self.folder / PANELS / image.name
            save_png(place / "original.png", image.pixels)
            ours = self._ours(image)
            for level in self.pictured:
                budget = ours[level].size(self.config.counted)
                for name in (OURS, *self.bench.baselines):
                    points = self.points.get((image.name, name))
                    if points:
                        point = ours[level] if name == OURS else self._within(points, budget)
                        pixels = self.bench.decoded(name, point.file, image)
                        save_png(place / str(level) / f"{name}.png", pixels)

    def _within(self, points: Sequence[RatePoint], budget: int) -> RatePoint:
        """The largest within a number of bytes, or else the smallest."""
        counted = self.config.counted
        fitting = [point for point in points if point.size(counted) <= budget]
        pick = max if fitting else min
        return pick(fitting or points, key=lambda point: point.size(counted))

    def _manifest(self) -> dict[str, Any]:
        return {
            "kind": CODEC_BENCH,
            "images": [
                {"name": i.name, "file": str(i.path), "width": i.width, "height": i.height}
                for i in self.images
            ],
            "levels": [str(level) for level in self.config.levels],
            "pictured_levels": [str(level) for level in self.pictured],
            "entropy": self.config.entropy,
            "search": self.config.search,
            "codecs": [*self.bench.baselines],
            "rates": self.config.rates,
            "skipped": self.bench.notes,
            "counted": self.config.counted,
            "metrics": self.config.metrics,
            "weights_fingerprint": self.bench.ours.codec.model.fingerprint,
            "device": str(self.bench.ours.codec.model.device),
            "version": __version__,
            "revision": revision(),
            "python": platform.python_version(),
            "libraries": {name: version_of(name) for name in _LIBRARIES},
        }


def pictured_levels(levels: Sequence[BenchLevel]) -> tuple[BenchLevel, ...]:
    """The first, the middle and the last."""
    return tuple(dict.fromkeys((levels[0], levels[len(levels) // 2], levels[-1])))
