"""A scenario, run: images -> tokens -> streams -> repaired images -> tables -> run folder.

A run is a plan (`plan`) of pieces, done by whoever is there (`workers`, `dask_workers`) and kept in
a store (`sim.jobs.store`) that survives them; tables and figures are made of the store
(`tables`). What is in the store already is not done again, so running again goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.checkpoint import ModelError
from codec.device import CPU, Device
from codec.model import Model
from sim.drivers.record import StreamRecord
from sim.errors import UserError
from sim.experiment.cell import (
    CellTask,
    CellWorker,
    LosslessReference,
    ReferenceTask,
    Task,
    WorkerContext,
    read_reference,
)
from sim.experiment.folder import open_run
from sim.experiment.plan import ImageAbout, Plan
from sim.experiment.summary import certainty
from sim.experiment.tables import MAX_PANELS, finish_run, point_rows
from sim.experiment.workers import Alone, Crew, Pool, steps_of, worthwhile
from sim.jobs.store import CELLS, RecordStore, RecordWriter
from sim.media.frames import load_model
from sim.media.images import LoadedImage, load_images
from sim.metrics.quality import check_metrics
from sim.progress import ProgressCallback, no_progress
from sim.protocol.config import StreamConfigError
from sim.results.files import RESULTS, Outcome
from sim.results.manifest import run_id
from sim.scenario.labels import Cell, values_label
from sim.scenario.loader import LoadedScenario
from sim.scenario.schema import TokenizerKey
from sim.statistics import MIN_REPEATS, repeats_to_go
from sim.stream import check_model


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a scenario; none of it changes the results, but for the device their last digits.

    Attributes:
        out: the run folder; None: results/<scenario>/<run id> in the working directory.
        save_images: also write every output at original size.
        fresh: do everything again, whatever is there.
        workers: processes; None: as many as are worth it, on this machine's cores.
        shard: (i, n), do only the i-th of n shares of the cells (from 1), and no tables.
        dask: the address of a Dask scheduler, or "local" to start one here; None: none.
        device: where the networks run, in every process. Results of different devices are kept
            apart.
    """

    out: Path | None = None
    save_images: bool = False
    fresh: bool = False
    workers: int | None = None
    shard: tuple[int, int] | None = None
    dask: str | None = None
    device: Device = CPU


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """A stream that ran elsewhere: its pictures, what became of them, and how it went."""

    pictures: Sequence[LoadedImage]
    record: StreamRecord
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
    images = load_images(scenario.images, loaded.images_base)
    model = _model_for(loaded, images, options.device)
    about = [ImageAbout.of(image) for image in images]
    plan = Plan(loaded, about, model.fingerprint, str(model.device))
    context = WorkerContext.of(images, loaded.model, model, loaded.scenario.metrics)
    target = options.out or RESULTS / scenario.name / run_id(scenario, plan.networks)
    with open_run(target, options.fresh) as folder:
        plan.save(folder / CELLS)
        run = Runner(plan, context, model, folder, options, progress)
        counts = run.compute()
        summary: dict[str, Any] = {}
        if options.shard is None:
            progress(1, 1, "drawing")
            summary = finish_run(folder, plan, run.store, counts, options.save_images)
    return Outcome(target, summary, run.cells, run.cells - run.computed)


def measure_recorded(
    loaded: LoadedScenario,
    given: RecordedStream,
    out: Path,
    save_images: bool,
    progress: ProgressCallback,
) -> Outcome:
    """Write the run folder of a stream that ran elsewhere; `loaded` has one point and one repeat.

    Raises:
        UserError: as `run_experiment`.
    """
    images = given.pictures
    model = _model_for(loaded, images)
    plan = Plan(loaded, [ImageAbout.of(image) for image in images], model.fingerprint)
    context = WorkerContext.of(images, loaded.model, model, loaded.scenario.metrics)
    with open_run(out, fresh=True) as folder:
        plan.save(folder / CELLS)
        run = Runner(plan, context, model, folder, RunOptions(save_images=save_images), progress)
        run.measure(given.record)
        progress(1, 1, "drawing")
        summary = finish_run(folder, plan, run.store, [1], save_images, given.about)
    return Outcome(out, summary)


def _model_for(
    loaded: LoadedScenario, images: Sequence[LoadedImage], device: Device = CPU
) -> Model:
    """The model, when it can do what every point asks for; all before anything is written."""
    check_metrics(loaded.scenario.metrics)
    try:
        model = load_model(loaded.model, device)
    except ModelError as error:
        raise UserError(str(error)) from None
    sizes = {(image.width, image.height) for image in images}
    for _, scenario in loaded.points:
        check_model(model, scenario)
        config = scenario.stream_config()
        for width, height in sizes:
            try:
                config.layout(width, height)
            except StreamConfigError as error:
                raise UserError(f"{scenario.name}: stream.{error}") from None
    return model


def merge_runs(out: Path, folders: Sequence[Path]) -> Outcome:
    """Make tables and figures of the cells that shards have finished.

    Args:
        out: the run folder; its own cells count too.
        folders: run folders of shards, elsewhere.

    Raises:
        UserError: cells are missing, or the folders belong to different runs or cannot be read.
    """
    sources = [folder / CELLS for folder in (out, *folders) if (folder / CELLS).is_dir()]
    if not sources:
        raise UserError(f"{out}: no finished cells there, and no folders to take them from")
    plan = Plan.read(sources[0])
    for source in sources[1:]:
        if not plan.same_as(Plan.read(source)):
            raise UserError(f"{source.parent}: another scenario than {sources[0].parent}")
    with open_run(out) as folder:
        plan.save(folder / CELLS)
        store = RecordStore(folder / CELLS)
        for source in sources:
            if source.resolve() != (folder / CELLS).resolve():
                store.take(source)
        counts = _counts_so_far(plan, store)
        wanted = list(plan.cells(counts))
        missing = sum(not store.has(plan.cell_key(cell)) for cell in wanted)
        if missing:
            raise UserError(
                f"{out}: {missing} of {len(wanted)} cells are not finished; run the missing "
                "shards, or sim run with this --out to compute them here"
            )
        summary = finish_run(folder, plan, store, counts, save_images=False)
    return Outcome(out, summary, len(wanted), len(wanted))


def _counts_so_far(plan: Plan, store: RecordStore) -> list[int]:
    """Repeats of each point as the rule has them, as far as the cells that are there can tell."""
    counts = first_counts(plan)
    while True:
        more = [
            next_count(plan, store, point, count) if _complete(plan, store, point, count) else count
            for point, count in enumerate(counts)
        ]
        if more == counts:
            return counts
        counts = more


def _complete(plan: Plan, store: RecordStore, point: int, count: int) -> bool:
    counts = [0] * len(plan.loaded.points)
    counts[point] = count
    return all(store.has(plan.cell_key(cell)) for cell in plan.cells(counts))


def first_counts(plan: Plan) -> list[int]:
    """Repeats of each point at first."""
    count, until = plan.scenario.repeats, plan.scenario.until
    if until is not None:
        count = min(until.max_repeats, max(count, MIN_REPEATS))
    return [count] * len(plan.loaded.points)


def next_count(plan: Plan, store: RecordStore, point: int, count: int) -> int:
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
        context: WorkerContext,
        model: Model,
        folder: Path,
        options: RunOptions,
        progress: ProgressCallback,
    ) -> None:
        self._plan, self._context = plan, context
        self._pictured = plan.pictured()
        self._options, self._progress = options, progress
        self.store = RecordStore(folder / CELLS)
        self._worker, self._writer = CellWorker(context, model), RecordWriter(folder / CELLS)
        self._alone = Alone(self._worker, self._writer)
        self.cells = self.computed = 0
        self._crews = contextlib.ExitStack()
        self._crew: Crew | None = None
        self._pixels = [image.width * image.height for image in context.images]
        self._references: dict[TokenizerKey, tuple[LosslessReference, ...]] = {}

    def compute(self) -> list[int]:
        """Do all that is missing; returns the repeats of each point."""
        counts = first_counts(self._plan)
        open_points = set(range(len(counts)))
        with self._crews:
            while open_points:
                cells = [c for c in self._plan.cells(counts) if c.point in open_points]
                cells = [cell for cell in cells if self._is_mine(cell)]
                self._compute(cells)
                points = {cell.point for cell in cells}
                more = {n: next_count(self._plan, self.store, n, counts[n]) for n in points}
                open_points = {n for n in points if more[n] > counts[n]}
                for n in open_points:
                    counts[n] = more[n]
        self.cells = sum(self._is_mine(cell) for cell in self._plan.cells(counts))
        return counts

    def measure(self, record: StreamRecord) -> None:
        """Take a stream that is over for the one cell."""
        (cell,) = self._plan.cells([1])
        with self._crews:
            self._prepare([cell])
        task = self._task(cell)
        done = 0

        def progress(steps: int) -> None:
            nonlocal done
            done += steps
            self._progress(done, len(task.references), "measuring")

        self._writer.append(*self._worker.measure(task, record, progress))
        self.store.refresh()

    def _is_mine(self, cell: Cell) -> bool:
        if self._options.shard is None:
            return True
        number, of = self._options.shard
        return self._plan.share(cell, of) == number - 1

    def _compute(self, cells: Sequence[Cell]) -> None:
        missing = [
            cell
            for cell in cells
            if not self.store.has(self._plan.cell_key(cell), self._pictures(cell))
        ]
        if missing:
            crew = self._prepare(missing)
            self._work(crew, [self._task(cell) for cell in missing])
            self.computed += len(missing)

    def _task(self, cell: Cell) -> CellTask:
        references = self._references[cell.scenario.codec.tokenizer_key]
        return CellTask(self._plan.cell_key(cell), cell, references, self._pictures(cell))

    def _pictures(self, cell: Cell) -> int:
        """Of how many images pictures are to be kept."""
        images = len(self._context.images)
        if not cell.scenario.concealers:
            return 0
        if self._options.save_images:
            return images
        shown = (cell.point, cell.repeat) == self._pictured
        return min(MAX_PANELS, images) if shown else 0

    def _prepare(self, cells: Sequence[Cell]) -> Crew:
        """Have the lossless reference of every image for every tokenizer key of the cells; returns
        who streams them, and starts already."""
        numbers = range(len(self._context.images))
        wanted = {
            tokenizer: [self._plan.reference_key(n, *tokenizer) for n in numbers]
            for tokenizer in sorted({cell.scenario.codec.tokenizer_key for cell in cells})
        }
        tasks = [
            ReferenceTask(key, n, tokenizer)
            for tokenizer, keys in wanted.items()
            for n, key in enumerate(keys)
            if not self.store.has(key)
        ]
        crew = self._crew_for(cells, tasks)
        few = worthwhile(tasks, self._pixels) == 1
        self._work(self._alone if few else crew, tasks)
        for tokenizer, keys in wanted.items():
            self._references[tokenizer] = tuple(read_reference(self.store.get(key)) for key in keys)
        return crew

    def _work(self, crew: Crew, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        total = sum(map(steps_of, tasks))
        done = 0

        def progress(task: Task, steps: int) -> None:
            nonlocal done
            done += steps
            self._progress(done, total, _doing(task))

        self._progress(0, total, _doing(tasks[0]))
        crew.work(tasks, progress)
        self.store.refresh()

    def _crew_for(self, cells: Sequence[Cell], tasks: Sequence[ReferenceTask]) -> Crew:
        """Who does these. Others, once called, do the rest too."""
        if self._crew is not None:
            return self._crew
        folder, options = self.store.folder, self._options
        if options.dask is not None:
            from sim.experiment.dask_workers import DaskCrew

            dask = DaskCrew(self._context, self._writer, options.dask, options.workers)
            self._crew = self._crews.enter_context(dask)
            return self._crew
        workers = options.workers or worthwhile([*tasks, *cells], self._pixels)
        if workers == 1:
            return self._alone
        networks = any(cell.scenario.concealers for cell in cells)
        pool = Pool(self._context, folder, workers, networks)
        self._crew = self._crews.enter_context(pool)
        return self._crew


def _doing(task: Task) -> str:
    if isinstance(task, ReferenceTask):
        return "tokenizing"
    return f"streaming {values_label(task.cell.values)}".strip()
