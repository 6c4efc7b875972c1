"""The work of a codec comparison: one image through one codec at a time, in one process or many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.device import Device
from codec.patches import PATCHES
from sim.baselines import BaselineError, Coded, Counted, find_baselines
from sim.jobs.processes import spawn_context
from sim.media.images import LoadedImage
from sim.media.token_file import ImageCodec
from sim.metrics import DEFAULT
from sim.metrics.quality import check_metrics
from sim.studies.codec_bench.points import RatePoint, measure_points

OURS = "ours"
POINTS = "points"
EQUAL = "equal.csv"


class BenchLevel(NamedTuple):
    """What our codec is set to: a codebook size, and how many pixels a token stands for."""

    codebook: int
    patch: int = PATCHES[0]

    def __str__(self) -> str:
        """ "1024", or "1024@24" where a token stands for more than the usual pixels."""
        return f"{self.codebook}@{self.patch}" if self.patch != PATCHES[0] else str(self.codebook)

    @property
    def setting(self) -> int:
        """As a number that grows with the size of files, within a patch."""
        return self.patch << 16 | self.codebook

    @classmethod
    def of(cls, setting: int) -> BenchLevel:
        """The inverse of `setting`."""
        return cls(setting & 0xFFFF, setting >> 16)


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to compare.

    Attributes:
        levels: of our codec.
        entropy: entropy mode of our files.
        search: of our files, as for `Model.encode`.
        codecs: names from `sim.baselines.BASELINES`.
        counted: "file": all bytes that a user stores, ours included, are compared; "payload": the
            coded picture alone, on both sides.
        metrics: to measure, as for `sim.metrics.quality.quality`.
        rates: bits per pixel at which the others are measured, ascending.
        workers: processes.
    """

    levels: tuple[BenchLevel, ...]
    entropy: str
    codecs: tuple[str, ...]
    search: int = 0
    counted: Counted = "file"
    metrics: tuple[str, ...] = DEFAULT
    rates: tuple[float, ...] = (0.0085, 0.013, 0.02, 0.03, 0.045)
    workers: int = 1


class OurCodec:
    """Our codec behind the interface of the others; settings are those of `Level`."""

    name = OURS

    def __init__(self, codec: ImageCodec, config: BenchConfig) -> None:
        self.codec, self.config = codec, config
        self.settings = BenchLevel(codec.model.codebook_sizes[-1], PATCHES[-1]).setting + 1
        self.identity = f"{codec.model.fingerprint} {config.entropy} {config.search}"

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """See `Baseline.encode`."""
        (codebook, patch), how = BenchLevel.of(setting), self.config
        made = self.codec.encode(pixels, codebook, how.entropy, patch=patch, search=how.search)
        return Coded(made.file, made.payload_bytes)

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        return self.codec.decode(file).image


@dataclass(frozen=True)
class CodecTask:
    """One image through one codec, with bytes of interest besides the configured rates."""

    image: LoadedImage
    codec: str
    budgets: tuple[int, ...] = ()


class Bench:
    """The codecs and the metrics of a comparison.

    Attributes:
        notes: what is left out, and why, by name.
    """

    def __init__(self, codec: ImageCodec, config: BenchConfig, folder: Path) -> None:
        """Raises UserError if a metric cannot be measured here."""
        check_metrics(config.metrics)
        self.config, self.folder = config, folder
        self.baselines, self.notes = find_baselines(config.codecs)
        self.ours = OurCodec(codec, config)

    def points(self, task: CodecTask) -> list[RatePoint]:
        """The points of one task; raises BaselineError if the codec fails."""
        ours = task.codec == OURS
        pixels = task.image.pixels
        rates = () if ours else self.config.rates
        budgets = [int(rate * pixels.shape[0] * pixels.shape[1] / 8) for rate in rates]
        return measure_points(
            self.ours if ours else self.baselines[task.codec],
            pixels,
            [*budgets, *task.budgets],
            [level.setting for level in self.config.levels] if ours else (),
            self.config.counted,
            self.config.metrics,
            self.folder / POINTS / task.image.name / f"{task.codec}.json",
        )

    def decoded(self, name: str, file: bytes, image: LoadedImage) -> NDArray[np.uint8]:
        """The picture in one of a codec's files."""
        codec = self.ours if name == OURS else self.baselines[name]
        return codec.decode(file, image.height, image.width)

    def all_points(
        self, tasks: Sequence[CodecTask], model: str | None
    ) -> Iterator[tuple[CodecTask, list[RatePoint] | BaselineError]]:
        """The points of many tasks as they come, or how their codec failed. ``model``: as for
        `sim.media.frames.load_model`, for other processes."""
        if self.config.workers == 1:
            for task in tasks:
                yield task, _points(self, task)
            return
        with ProcessPoolExecutor(
            self.config.workers,
            spawn_context(),
            _start_worker,
            (model, self.ours.codec.model.device, self.config, self.folder),
        ) as pool:
            waiting = {pool.submit(_work, task): task for task in tasks}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _points(bench: Bench, task: CodecTask) -> list[RatePoint] | BaselineError:
    try:
        return bench.points(task)
    except BaselineError as error:
        return error


_worker: list[Any] = []  # the comparison of this process, if it is a worker


def _start_worker(model: str | None, device: Device, config: BenchConfig, folder: Path) -> None:
    import torch

    from sim.media.frames import load_model

    torch.set_num_threads(1)
    _worker[:] = [Bench(ImageCodec(load_model(model, device)), config, folder)]


def _work(task: CodecTask) -> list[RatePoint] | BaselineError:
    return _points(_worker[0], task)
