"""The parts of a comparison: what each depends on, and how it is done."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from channels import loss_mask, read_channel
from codec.device import CPU, Device
from codec.model import Model
from sim.drivers.record import StreamRecord
from sim.errors import UserError
from sim.jobs.claims import complete
from sim.jobs.executor import open_workers
from sim.jobs.store import Files, Record, Store, cache_folder, cache_key, networks_key, pixel_digest
from sim.media.frames import load_model
from sim.media.images import LoadedImage
from sim.metrics import TEMPORAL
from sim.metrics.quality import check_metrics, quality
from sim.metrics.temporal import temporal_quality
from sim.progress import ProgressCallback, no_progress
from sim.protocol.config import StreamConfigError
from sim.results.files import (
    COMPARISON,
    MANIFEST,
    PANELS,
    png,
    save_png,
    write_json,
    write_table,
)
from sim.results.manifest import revision, version_of
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import load_pictures
from sim.scenario.schema import Scenario
from sim.stream import check_model
from sim.studies.compare.clips import VideoSource, file_sources
from sim.studies.compare.config import TOKENS, LoadedComparison, LossCondition, Strategy
from sim.studies.compare.parity import fec_rows
from sim.studies.compare.sources import (
    BudgetTooSmall,
    FileSource,
    StreamSet,
    TokenSource,
)
from sim.studies.compare.summary import mean_rows, winner_rows
from sim.version import __version__

OUTCOMES, MEANS, WINNERS, FEC = "outcomes.csv", "means.csv", "winners.csv", "fec.csv"
_LIBRARIES = (
    "torch", "numpy", "scipy", "pillow", "pillow-heif", "imageio-ffmpeg", "av", "ssimulacra2",
)  # fmt: skip

MAX_PICTURED = 3
"""Images of which pictures are kept."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the work: one strategy at one budget through one channel."""

    number: int
    strategy: Strategy
    bpp_wire: float
    cell: LossCondition
    scenario: Scenario


class UnitTask(NamedTuple):
    """Compute a unit, by number; the key is that of its record."""

    number: int
    key: str


class Comparison:
    """The state of one comparison.

    Attributes:
        units: the work, in order; figures come from all of it together.
        notes: strategies that this machine cannot do, and why.
        digest: a hash of all that the results depend on.
    """

    def __init__(
        self,
        loaded: LoadedComparison,
        metrics: Sequence[str],
        progress: ProgressCallback,
        device: Device = CPU,
    ) -> None:
        """``metrics``: to measure, as for `sim.metrics.quality.quality`."""
        check_metrics(metrics)
        self.loaded, self.metrics, self._progress = loaded, [*metrics], progress
        self.device = device
        self.images = load_pictures(
            LoadedScenario(loaded.base, [({}, loaded.base)], loaded.images_base, loaded.model)
        )
        self._files, self.notes = file_sources(loaded, self.images)
        self.strategies = [s for s in loaded.strategies if s.name not in self.notes]
        self.model = self._load_model() if any(s.coder == TOKENS for s in self.strategies) else None
        self.pictured_cell = pictured(loaded.cells)
        self.pictured_repeat = typical_repeat(loaded, self.pictured_cell, len(self.images))
        count = min(MAX_PICTURED, len(self.images))
        step = len(self.images) // count if loaded.base.video else 1  # of a video, far apart
        self.pictured_images = self.images[: step * count : step]
        units = itertools.product(loaded.bpp_wire, loaded.cells, self.strategies)
        self.units = [
            Unit(number, strategy, budget, cell, self._scenario(strategy, cell))
            for number, (budget, cell, strategy) in enumerate(units)
        ]
        self._tokens = TokenSource(self.model, self.images) if self.model else None
        self._scores: dict[tuple[str, str], dict[str, float]] = {}
        self._done = [0] * len(self.units)  # images of each
        self._store = Store(cache_folder() / "compare")

    @property
    def tokens(self) -> TokenSource:
        """The images as tokens, where a strategy sends tokens."""
        assert self._tokens is not None
        return self._tokens

    @property
    def digest(self) -> str:
        """See the class."""
        keys = "".join(self._cache_key(unit) for unit in self.units)
        return hashlib.sha256(keys.encode()).hexdigest()[:12]

    def run(self, folder: Path, workers: int) -> dict[str, Any]:
        """Do what is not done yet, in so many processes, write everything into `folder`, return
        the summary."""
        from sim.studies.compare.figures import draw_comparison

        rows, unreached = self.outcomes(folder, workers)
        if not rows:
            raise UserError(f"{self.loaded.name}: bpp_wire: no strategy can do with so few bytes")
        for image in self.pictured_images:
            save_png(folder / PANELS / "original" / f"{image.name}.png", image.pixels)
        means = mean_rows(rows, self.metrics)
        winners = winner_rows(rows, self.metrics)
        total = len(self.units) * len(self.images)
        self._progress(total, total, "checking parity")
        write_table(folder / OUTCOMES, rows)
        write_table(folder / MEANS, means)
        write_table(folder / WINNERS, winners)
        write_table(folder / FEC, fec_rows(self.loaded))
        write_json(folder / MANIFEST, self._manifest(unreached))
        self._progress(total, total, "drawing")
        draw_comparison(folder)
        return {
            "name": self.loaded.name,
            "images": len(self.images),
            "repeats": self.loaded.base.repeats,
            "means": means,
            "winners": winners,
            "cannot_reach": unreached,
            "skipped": self.notes,
        }

    def outcomes(
        self, folder: Path, workers: int = 1
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of every outcome, and of the units whose budget is too small; does what is not done
        yet, and copies the pictures of the pictured cell into `folder`."""
        tasks = [UnitTask(n, self._cache_key(unit)) for n, unit in enumerate(self.units)]

        def done(task: UnitTask) -> None:
            self._step(self.units[task.number], len(self.images))

        make = partial(_unit_worker, self.loaded, self.metrics, self.device)
        try:
            with open_workers(self.measure, make, workers) as group:
                complete(self._store, tasks, group, done)
        except OSError as error:
            where = self._store.folder
            raise UserError(f"{where}: cannot keep results here ({error.strerror})") from None
        rows: list[dict[str, Any]] = []
        unreached: list[dict[str, Any]] = []
        for task, unit in zip(tasks, self.units, strict=True):
            result = self._store.get(task.key)
            rows += result["rows"]
            unreached += result["unreached"]
            if unit.cell is self.pictured_cell:
                place = folder / PANELS / f"{unit.bpp_wire:g}" / unit.strategy.name
                for picture in sorted(self._store.files(task.key).glob("*.png")):
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(picture, place)
        return rows, unreached

    def measure(self, task: UnitTask) -> tuple[Record, Files]:
        """The record of a unit, and its pictures.

        Raises:
            UserError: the images do not fit its stream.
        """
        unit = self.units[task.number]
        self._step(unit, 0)
        try:
            sent = self._send(unit)
        except StreamConfigError as error:
            raise UserError(f"strategy {unit.strategy.name}: stream.{error}") from None
        if isinstance(sent, BudgetTooSmall):
            why = {"least_bpp_wire": sent.least, "why": sent.why}
            return {"rows": [], "unreached": [{**_about(unit), **why}]}, {}
        rows: list[dict[str, Any]] = []
        pictures: dict[str, bytes] = {}
        video = self.loaded.base.video
        whole = {"video": video.file} if video else {}
        for repeat, record in enumerate(sent.records):
            images = self._stream_rows(unit, sent, record)
            for image, (row, pixels) in zip(self.images, images, strict=True):
                rows.append({**_about(unit), "repeat": repeat, **whole, "image": image.name, **row})
                shown = repeat == self.pictured_repeat and unit.cell is self.pictured_cell
                if shown and image in self.pictured_images:
                    pictures[f"{image.name}.png"] = png(pixels)
            self._step(unit, len(self.images) * (repeat + 1) // len(sent.records))
        return {"rows": rows, "unreached": []}, pictures

    def _stream_rows(
        self, unit: Unit, sent: StreamSet, record: StreamRecord
    ) -> list[tuple[dict[str, Any], NDArray[np.uint8]]]:
        """Of each image in one stream, what is told of it and what the viewer sees."""
        source, ledger, scenario = self._source(unit), record.ledger, unit.scenario
        about = {
            "packets_sent": ledger.sent,
            "packets_erased": ledger.erased,
            "packets_overflowed": ledger.overflowed,
            "packets_corrupted": sum(p.outcome == "corrupted" for p in record.packets),
            "packets_late": sum(p.outcome == "late" for p in record.packets),
            "bpp_wire": ledger.wire_bytes * 8 / self._pixels,
        }
        seen = list(source.viewed(scenario, sent, record, unit.strategy.damaged))
        found: list[dict[str, Any]] = [
            {
                "level": sent.level,
                "setting": sent.settings[number] if sent.settings else None,
                **about,
                "source_there": share,
                **self._score(image, pixels),
            }
            for number, (image, (pixels, share)) in enumerate(zip(self.images, seen, strict=True))
        ]
        temporal = [name for name in self.metrics if name in TEMPORAL]
        if temporal:
            assert not isinstance(source, FileSource)  # of a video
            in_time = temporal_quality(
                (image.pixels for image in self.images),
                source.lossless(scenario, sent),
                (pixels for pixels, _ in seen),
                (1 - share for _, share in seen),
                scenario.stream.fps,
            )
            for row, values in zip(found, in_time, strict=True):
                row |= {name: values[name] for name in temporal}
        return [(row, pixels) for row, (pixels, _) in zip(found, seen, strict=True)]

    def _source(self, unit: Unit) -> TokenSource | FileSource | VideoSource:
        return self.tokens if unit.strategy.coder == TOKENS else self._files[unit.strategy.name]

    def _send(self, unit: Unit) -> StreamSet | BudgetTooSmall:
        if unit.strategy.coder == TOKENS:
            fixed = unit.strategy.name in self.loaded.fixed_level
            return self.tokens.send(unit.scenario, unit.bpp_wire, fixed)
        return self._files[unit.strategy.name].send(unit.scenario, unit.bpp_wire)

    def _score(self, image: LoadedImage, pixels: NDArray[np.uint8]) -> dict[str, float]:
        """All metrics; pictures that come again, as intact files do, are not measured again."""
        key = (image.name, pixel_digest(pixels))
        if key not in self._scores:
            names = [name for name in self.metrics if name not in TEMPORAL]
            self._scores[key] = quality(image.pixels, pixels, names)
        return self._scores[key]

    @property
    def _pixels(self) -> int:
        return sum(image.width * image.height for image in self.images)

    def _scenario(self, strategy: Strategy, cell: LossCondition) -> Scenario:
        return self.loaded.scenarios[strategy.name].model_copy(update={"channel": cell.channel})

    def _load_model(self) -> Model:
        model = load_model(self.loaded.model, self.device)
        for strategy in self.strategies:
            if strategy.coder == TOKENS:
                check_model(model, self.loaded.scenarios[strategy.name])
        return model

    def _cache_key(self, unit: Unit) -> str:
        """A hash of all that a part depends on."""
        coder = unit.strategy.coder
        networks = networks_key(self.model.fingerprint, str(self.device)) if self.model else ""
        what = {
            "strategy": unit.strategy.model_dump(exclude={"name"}),
            "unit": [unit.bpp_wire, unit.scenario.model_dump(exclude={"name", "images"})],
            "fixed": unit.strategy.name in self.loaded.fixed_level,
            "images": [(i.name, pixel_digest(i.pixels)) for i in self.images],
            "pictured": self.pictured_repeat if unit.cell is self.pictured_cell else None,
            "coder": networks
            if coder == TOKENS
            else self._files[unit.strategy.name].coder.identity,
            "metrics": self.metrics,
        }
        return cache_key(what)

    def _manifest(self, unreached: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        loaded = self.loaded
        return {
            "kind": COMPARISON,
            "name": loaded.name,
            "base": loaded.base.model_dump(),
            "strategies": [s.model_dump() for s in loaded.strategies],
            "skipped": self.notes,
            "cannot_reach": list(unreached),
            "bpp_wire": list(loaded.bpp_wire),
            "losses": list(loaded.losses),
            "bursts": list(loaded.bursts),
            "pictured": {
                "loss": self.pictured_cell.loss,
                "mean_burst": self.pictured_cell.mean_burst,
                "repeat": self.pictured_repeat,
                "images": [image.name for image in self.pictured_images],
            },
            "metrics": self.metrics,
            "images": [
                {"name": i.name, "file": str(i.path), "width": i.width, "height": i.height}
                for i in self.images
            ],
            "seed": loaded.base.seed,
            "weights_fingerprint": self.model.fingerprint if self.model else None,
            "device": str(self.device),
            "version": __version__,
            "revision": revision(),
            "libraries": {name: version_of(name) for name in _LIBRARIES},
        }

    def _step(self, unit: Unit, images: int) -> None:
        """So many images of a unit are done."""
        self._done[unit.number] = images
        doing = f"{unit.strategy.name}, {unit.bpp_wire:g} bpp, {unit.cell.loss:.0%} lost"
        self._progress(sum(self._done), len(self.units) * len(self.images), doing)


def _unit_worker(
    loaded: LoadedComparison, metrics: Sequence[str], device: Device
) -> Callable[[UnitTask], tuple[Record, Files]]:
    return Comparison(loaded, metrics, no_progress, device).measure


def pictured(cells: Sequence[LossCondition]) -> LossCondition:
    """The cell of the pictures: nearest to 20% loss, of these the last burst length."""
    return min(reversed(cells), key=lambda cell: abs(cell.loss - 0.2))


def typical_repeat(loaded: LoadedComparison, cell: LossCondition, images: int) -> int:
    """The repeat whose losses, for the common number of slices, are nearest to the cell's rate
    among the pictured images, or in all of a video; the pictures of a lucky stream would tell
    nothing."""
    slices = loaded.base.stream.slices
    last = images if loaded.base.video else min(images, MAX_PICTURED)
    shown = slice(0, last * slices)
    loss, _ = read_channel(cell.channel)
    far = []
    for repeat in range(loaded.base.repeats):
        seed = np.random.SeedSequence(loaded.base.seed, spawn_key=(repeat,))
        far.append(abs(float(loss_mask(loss, images * slices, seed)[shown].mean()) - cell.loss))
    return far.index(min(far))


def _about(unit: Unit) -> dict[str, Any]:
    return {
        "strategy": unit.strategy.name,
        "coder": unit.strategy.coder,
        "budget": unit.bpp_wire,
        "loss": unit.cell.loss,
        "mean_burst": unit.cell.mean_burst,
    }
