"""The work of a codec comparison: one image through one codec at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.device import Device
from codec.patches import PATCHES
from sim.baselines import Baseline, BaselineError, Coded, Counted, find_baselines
from sim.jobs.store import Files, Record, Store, digest, pixel_digest
from sim.media.images import LoadedImage
from sim.media.token_file import ImageCodec
from sim.metrics import DEFAULT
from sim.metrics.quality import check_metrics
from sim.studies.codec_bench.points import measure_points

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
    """Our codec behind the interface of the others; settings are those of `BenchLevel`."""

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
    """One image through one codec, with bytes of interest besides the configured rates.

    Attributes:
        key: of its record, which has its points.
    """

    key: str
    image: LoadedImage
    codec: str
    budgets: tuple[int, ...]


class Bench:
    """The codecs and the metrics of a comparison.

    Attributes:
        notes: what is left out, and why, by name.
    """

    def __init__(self, codec: ImageCodec, config: BenchConfig, folder: Path) -> None:
        """Raises UserError if a metric cannot be measured here."""
        check_metrics(config.metrics)
        self.config, self.folder = config, folder
        self.store = Store(folder / POINTS)
        self.baselines, self.notes = find_baselines(config.codecs)
        self.ours = OurCodec(codec, config)

    def task(self, image: LoadedImage, codec: str, budgets: tuple[int, ...] = ()) -> CodecTask:
        """A task; budgets in bytes."""
        wanted = self._settings(codec), self._rates(codec), budgets
        how = self.config.counted, self.config.metrics
        name = codec, self._codec(codec).identity, pixel_digest(image.pixels)
        return CodecTask(digest(*name, *wanted, *how), image, codec, budgets)

    def measure(self, task: CodecTask) -> tuple[Record, Files]:
        """The record of a task: its points, or how the codec failed."""
        pixels = task.image.pixels
        area = pixels.shape[0] * pixels.shape[1]
        budgets = [*(int(rate * area / 8) for rate in self._rates(task.codec)), *task.budgets]
        how = self._settings(task.codec), self.config.counted, self.config.metrics, self.store
        try:
            points = measure_points(self._codec(task.codec), pixels, budgets, *how)
        except BaselineError as error:
            return {"failed": str(error)}, {}
        return {"points": [point.record() for point in points]}, {}

    def decoded(self, name: str, file: bytes, image: LoadedImage) -> NDArray[np.uint8]:
        """The picture in one of a codec's files."""
        return self._codec(name).decode(file, image.height, image.width)

    def _codec(self, name: str) -> Baseline:
        return self.ours if name == OURS else self.baselines[name]

    def _settings(self, codec: str) -> list[int]:
        return [level.setting for level in self.config.levels] if codec == OURS else []

    def _rates(self, codec: str) -> tuple[float, ...]:
        return () if codec == OURS else self.config.rates


def bench_worker(
    model: str | None, device: Device, config: BenchConfig, folder: Path
) -> Callable[[CodecTask], tuple[Record, Files]]:
    """What measures tasks in another process. ``model``: as for `sim.media.frames.load_model`."""
    from sim.media.frames import load_model

    return Bench(ImageCodec(load_model(model, device)), config, folder).measure
