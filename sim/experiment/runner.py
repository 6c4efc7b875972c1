"""A scenario, run: images -> tokens -> streams -> repaired images -> tables -> run folder.

A run is a plan (`plan`) of pieces, done by whoever is there (`sim.jobs.executor`) and kept in a
store (`sim.jobs.store`) that survives them; tables and figures are made of the store (`tables`).
What is in the store already is not done again, so running again goes on, and several processes
given the same folder share the work (`sim.jobs.claims`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.fingerprint import random_fingerprint, stored_fingerprint
from sim.drivers.record import StreamRecord
from sim.errors import UserError, user_errors
from sim.experiment.cell import (
    CellTask,
    CellWorker,
    ReferenceTask,
    Result,
    Task,
    WorkerContext,
    cell_result,
)
from sim.experiment.folder import CELLS, open_run
from sim.experiment.measured import LosslessReference, MeasuredFrame, read_reference
from sim.experiment.plan import ImageAbout, Plan, cost_s, worthwhile
from sim.experiment.summary import certainty
from sim.experiment.tables import finish_run, point_rows
from sim.jobs.claims import complete
from sim.jobs.executor import Workers, alone, open_workers, usable_cores
from sim.jobs.store import Record, Store
from sim.media.images import LoadedImage
from sim.metrics.quality import check_metrics
from sim.progress import ProgressCallback, no_progress
from sim.protocol.config import StreamConfigError
from sim.results.files import RESULTS, Outcome
from sim.results.manifest import run_id
from sim.scenario.labels import Cell, values_label
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import load_pictures
from sim.scenario.schema import TokenizerKey
from sim.statistics import MIN_REPEATS, repeats_to_go
from sim.stream import check_model

if TYPE_CHECKING:  # torch is only loaded where networks run
    from codec.device import Device
    from codec.model import Model

CHUNK_S = 0.5
"""Seconds of work that are handed to another process at once; of an interrupted one, so much is
lost."""

TaskWorkers = Workers[Task, Result]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a scenario; none of it changes the results, but for the device their last digits.

    Attributes:
        out: the run folder; None: results/<scenario>/<run id> in the working directory.
        save_images: also write every output at original size.
        fresh: do everything again, whatever is there.
        workers: processes; None: as many as are worth it, on this machine's cores. One alone
            restores and measures images side by side on all of them, unless it is asked for.
        dask: the address of a Dask scheduler, or "local" to start one here; None: none.
        device: where the networks run, in every process; None: the CPU. Results of different
            devices are kept apart.
        figures: draw them at the end; otherwise `sim plot` can.
        images: those to send, if they are not read from the scenario's files.
    """

    out: Path | None = None
    save_images: bool = False
    fresh: bool = False
    workers: int | None = None
    dask: str | None = None
    device: Device | None = None
    figures: bool = True
    images: Sequence[LoadedImage] | None = None


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream that ran elsewhere: its pictures, what became of them, and how it went.

    Attributes:
        pictures: every image.
        record: of the stream.
        references: of every image, as `sim.experiment.measured.measured_reference` makes them.
        measured: every frame.
        fingerprint: of the weights.
        device: where the networks ran.
        about: how it went, for the manifest.
    """

    pictures: Sequence[LoadedImage]
    record: StreamRecord
    references: Sequence[Record]
    measured: Sequence[MeasuredFrame]
    fingerprint: str
    device: str
    about: dict[str, Any]


def run_experiment(
    loaded: LoadedScenario,
    options: RunOptions | None = None,
    progress: ProgressCallback = no_progress,
) -> Outcome:
    """Run a scenario and write its run folder, figures included.

    Args:
        loaded: the checked scenario.
        options: where, and who works; None: all of it as usual.
        progress: told how far it is.

    Raises:
        UserError: images or weights that cannot be used, an output folder that cannot be written,
            a stream that does not fit its settings or whose processes failed. Cells that were
            finished by then are kept for the next time; without any, nothing is left.
    """
    scenario, options = loaded.scenario, options or RunOptions()
    if options.dask is not None and scenario.transport != "virtual":
        raise UserError("--dask: workers start no processes of their own; --set transport=virtual")
    check_metrics(scenario.metrics)
    images = options.images or load_pictures(loaded)
    networks = _Networks(loaded, images, options.device)
    about = [ImageAbout.of(image) for image in images]
    plan = Plan(loaded, about, networks.fingerprint, str(options.device or "cpu"))
    target = options.out or RESULTS / scenario.name / run_id(scenario, plan.networks)
    if options.fresh or not (target / CELLS).is_dir():
        _ = networks.model  # what cannot work is refused before anything is written
    with open_run(target, options.fresh) as folder:
        run = Runner(plan, images, networks, folder, options, progress)
        counts = run.compute()
        progress(1, 1, "drawing")
        summary = finish_run(
            folder, plan, run.store, counts, options.save_images, figures=options.figures
        )
    return Outcome(target, summary, run.cells, run.cells - run.computed)


def write_recorded(
    loaded: LoadedScenario, given: RecordedStream, out: Path, save_images: bool
) -> Outcome:
    """Write the run folder of a stream that ran elsewhere; `loaded` has one point and one repeat.

    Raises:
        UserError: as `run_experiment`.
    """
    images = given.pictures
    about = [ImageAbout.of(image) for image in images]
    plan = Plan(loaded, about, given.fingerprint, given.device)
    (cell,) = plan.cells([1])
    references = tuple(map(read_reference, given.references))
    pictures = len(images) if save_images else plan.panels
    task = CellTask(plan.cell_key(cell), cell, references, pictures)
    with open_run(out, fresh=True) as folder:
        store = Store(folder / CELLS)
        for number, reference in enumerate(given.references):
            store.put(plan.reference_key(number, *_decoded_as(cell)), reference)
        store.put(task.key, *cell_result(task, images, given.record, given.measured))
        summary = finish_run(folder, plan, store, [1], save_images, given.about)
    return Outcome(out, summary)


class _Networks:
    """The networks of a run, loaded when something is to be computed: a finished run needs none."""

    def __init__(
        self, loaded: LoadedScenario, images: Sequence[LoadedImage], device: Device | None = None
    ) -> None:
        self._loaded, self._device = loaded, device
        self._sizes = {(image.width, image.height) for image in images}

    @property
    def fingerprint(self) -> str:
        """Of the weights."""
        name = self._loaded.model
        if name == "random":
            return random_fingerprint()
        return stored_fingerprint(None if name is None else Path(name)) or self.model.fingerprint

    @cached_property
    def model(self) -> Model:
        """The model, when it can do what every point asks for."""
        from codec.device import CPU
        from sim.media.frames import load_model

        model = load_model(self._loaded.model, self._device or CPU)
        for _, scenario in self._loaded.points:
            check_model(model, scenario)
            config = scenario.stream_config()
            with user_errors(f"{scenario.name}: stream.", StreamConfigError):
                for width, height in self._sizes:
                    config.layout(width, height)
        return model


def first_counts(plan: Plan) -> list[int]:
    """Repeats of each point at first."""
    count, until = plan.scenario.repeats, plan.scenario.until
    if until is not None:
        count = min(until.max_repeats, max(count, MIN_REPEATS))
    return [count] * len(plan.loaded.points)


def next_count(plan: Plan, store: Store, point: int, count: int) -> int:
    """Repeats that a point should have now that so many are done; the same when it is certain."""
    until = plan.scenario.until
    if until is None:
        return count
    found = certainty(point_rows(plan, store, point, count), until.metric)
    return repeats_to_go(found, count, until.ci, until.max_repeats)


class Runner:
    """The computing part of one run.

    Attributes:
        store: of its folder.
        cells: that it consists of, so far.
        computed: of these, by this run.
    """

    def __init__(
        self,
        plan: Plan,
        images: Sequence[LoadedImage],
        networks: _Networks,
        folder: Path,
        options: RunOptions,
        progress: ProgressCallback,
    ) -> None:
        self._plan, self._images, self._networks = plan, images, networks
        self._pictured = plan.pictured()
        self._options, self._progress = options, progress
        self.store = Store(folder / CELLS)
        self._steps: dict[str, int] = {}
        self._done = self._total = 0
        self.cells = self.computed = 0
        self._opened = contextlib.ExitStack()
        self._workers: TaskWorkers | None = None  # others than this process
        self._pixels = [image.width * image.height for image in images]
        self._references: dict[tuple[TokenizerKey, bool], tuple[LosslessReference, ...]] = {}

    @cached_property
    def _context(self) -> WorkerContext:
        name, metrics = self._plan.loaded.model, self._plan.scenario.metrics
        return WorkerContext.of(self._images, name, self._networks.model, metrics)

    @property
    def _cores(self) -> int:
        """Of this process; a GPU takes images one by one."""
        given = self._options.workers == 1 or self._options.device is not None
        return 1 if given else usable_cores()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """For images side by side in this process."""
        pool = ThreadPoolExecutor(self._cores)
        self._opened.callback(pool.shutdown, cancel_futures=True)
        return pool

    @cached_property
    def _worker(self) -> CellWorker:
        return CellWorker(self._context, self._networks.model, self._step, self._threads)

    def compute(self) -> list[int]:
        """Do all that is missing; returns the repeats of each point."""
        counts = first_counts(self._plan)
        open_points = set(range(len(counts)))
        with self._opened:
            while open_points:
                self._compute([c for c in self._plan.cells(counts) if c.point in open_points])
                more = {n: next_count(self._plan, self.store, n, counts[n]) for n in open_points}
                open_points = {n for n in open_points if more[n] > counts[n]}
                for n in open_points:
                    counts[n] = more[n]
        self.cells = sum(counts)
        return counts

    def _compute(self, cells: Sequence[Cell]) -> None:
        missing = [
            cell for cell in cells if not self._has(self._plan.cell_key(cell), self._pictures(cell))
        ]
        if missing:
            self._tokenize(missing)
            tasks = [self._task(cell) for cell in missing]
            workers = self._workers_for(missing)
            self.computed += self._work(tasks, workers)

    def _task(self, cell: Cell) -> CellTask:
        references = self._references[_decoded_as(cell)]
        return CellTask(self._plan.cell_key(cell), cell, references, self._pictures(cell))

    def _has(self, key: str, pictures: int) -> bool:
        """Whether a piece is there, with the pictures of so many images."""
        record = self.store.find(key)
        return record is not None and bool(record.get("pictures", 0) >= pictures)

    def _pictures(self, cell: Cell) -> int:
        """Of how many images pictures are to be kept."""
        shown = (cell.point, cell.repeat) == self._pictured
        if not cell.scenario.concealers:
            return 0
        if self._options.save_images:
            return len(self._images)
        return self._plan.panels if shown else 0

    def _tokenize(self, cells: Sequence[Cell]) -> None:
        """Have the lossless reference of every image for every tokenizer key of the cells."""
        numbers = range(len(self._images))
        wanted = {
            how: [self._plan.reference_key(n, *how) for n in numbers]
            for how in sorted({_decoded_as(cell) for cell in cells})
        }
        tasks = [
            ReferenceTask(key, n, *how)
            for how, keys in wanted.items()
            for n, key in enumerate(keys)
            if not self._has(key, 0)
        ]
        if tasks:
            if worthwhile(tasks, self._pixels) == 1:
                self._work(tasks, alone(self._worker.run, self._threads, self._cores))
            else:
                self._work(tasks, self._workers_for([*tasks, *cells]))
        for how, keys in wanted.items():
            self._references[how] = tuple(read_reference(self.store.get(key)) for key in keys)

    def _work(self, tasks: Sequence[Task], workers: TaskWorkers) -> int:
        """Have all tasks done; returns how many were done here."""
        self._steps = {task.key: 0 for task in tasks}
        self._done, self._total = 0, sum(task.steps for task in tasks)
        self._progress(0, self._total, _doing(tasks[0]))

        def done(task: Task) -> None:
            self._step(task, task.steps - self._steps[task.key])

        def is_done(task: Task, record: Record) -> bool:
            return bool(record.get("pictures", 0) >= task.pictures)

        return complete(self.store, tasks, workers, done, is_done)

    def _step(self, task: Task, steps: int) -> None:
        self._steps[task.key] += steps
        self._done += steps
        self._progress(self._done, self._total, _doing(task))

    def _workers_for(self, pieces: Sequence[Cell | ReferenceTask]) -> TaskWorkers:
        """Who does these. Others, once called, do the rest too."""
        options = self._options
        if self._workers is None:
            count = options.workers or worthwhile(pieces, self._pixels)
            if options.dask is None and count == 1:
                return alone(self._worker.run)
            make = partial(_cell_worker, self._context)
            crowd = options.workers if options.dask else count
            opened = open_workers(self._worker.run, make, crowd, options.dask, self._share)
            self._workers = self._opened.enter_context(opened)
        return self._workers

    def _share(self, task: Task) -> float:
        return cost_s(task, self._pixels) / CHUNK_S


def _cell_worker(context: WorkerContext) -> Callable[[Task], Result]:
    return CellWorker(context).run


def _decoded_as(cell: Cell) -> tuple[TokenizerKey, bool]:
    """What a cell's references depend on, besides images and weights."""
    codec = cell.scenario.codec
    return codec.tokenizer_key, codec.enhance


def _doing(task: Task) -> str:
    if isinstance(task, ReferenceTask):
        return "tokenizing"
    return f"streaming {values_label(task.cell.values)}".strip()
