"""Who computes the pieces of a run: this process, or a pool of processes.

Which it is changes nothing but the time: every piece is a function of its task and the context,
and networks run on one thread everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Protocol

from sim.errors import UserError
from sim.experiment.cell import CellTask, CellWorker, ReferenceTask, Task, WorkerContext
from sim.jobs.processes import KILLED, follow_parent, spawn_context, usable_cores
from sim.jobs.store import RecordWriter
from sim.scenario.labels import Cell

POOL_CHUNK_S = 2.0
"""Seconds of work handed to a pool's process at once; what it has finished is kept anyway."""

_SMALLEST_CHUNK_S = 0.1  # at the end, where workers wait for the last one

_WORTH_A_POOL_S = 15.0  # below, starting processes and loading networks costs more than it saves

Done = Callable[[Task, int], object]
"""Told of steps done, and in which task."""


class Crew(Protocol):
    """Does tasks and leaves their records in the store's folder."""

    def work(self, tasks: Sequence[Task], done: Done) -> None:
        """Do all tasks, in any order.

        Raises:
            UserError: somebody who worked was killed, or as `CellWorker.run`.
        """
        ...


def cost_s(piece: Cell | ReferenceTask, pixels: Sequence[int]) -> float:
    """About how many seconds of one core a piece takes; only who works, and sizes of chunks, follow
    from it.

    Args:
        piece: a cell to stream, an image to tokenize.
        pixels: of every image.
    """
    if isinstance(piece, ReferenceTask):
        return 6e-6 * pixels[piece.image] * (1 + piece.tokenizer.search)
    scenario = piece.scenario
    packets = scenario.stream.slices * len(pixels)
    return 1e-4 * packets + 6e-6 * sum(pixels) * len(scenario.concealers)


def chunks(
    tasks: Sequence[Task], pixels: Sequence[int], seconds: float, workers: int
) -> Iterator[list[Task]]:
    """Tasks in order, in parts of about so many seconds; of less towards the end, so that all
    workers finish at about the same time."""
    costs = [cost_s(t.cell if isinstance(t, CellTask) else t, pixels) for t in tasks]
    left = sum(costs)
    part: list[Task] = []
    size = 0.0
    for task, cost in zip(tasks, costs, strict=True):
        limit = min(seconds, max(_SMALLEST_CHUNK_S, left / (2 * workers)))
        if part and size + cost > limit:
            yield part
            left -= size
            part, size = [], 0.0
        part.append(task)
        size += cost
    if part:
        yield part


def worthwhile(pieces: Sequence[Cell | ReferenceTask], pixels: Sequence[int]) -> int:
    """How many processes to use for these when nobody says; live streams have their own."""
    virtual = [
        p for p in pieces if isinstance(p, ReferenceTask) or p.scenario.transport == "virtual"
    ]
    if sum(cost_s(piece, pixels) for piece in virtual) < _WORTH_A_POOL_S:
        return 1
    return min(usable_cores(), len(virtual))


@dataclass(frozen=True)
class Alone:
    """This process does everything."""

    worker: CellWorker
    writer: RecordWriter

    def work(self, tasks: Sequence[Task], done: Done) -> None:
        """See `Crew`."""
        for task in tasks:

            def progress(steps: int, task: Task = task) -> None:
                done(task, steps)

            self.writer.append(*self.worker.run(task, progress))


class Pool:
    """Processes of this machine, each with its own file of records. A context manager."""

    def __init__(self, context: WorkerContext, folder: Path, workers: int, networks: bool) -> None:
        """Start the processes; they get ready, with or without the networks, in their own time."""
        self._pixels = [image.width * image.height for image in context.images]
        self._workers = workers
        spawn = spawn_context()
        supply = spawn.Queue()  # as arguments, contexts would hold up the start of the next
        supply.cancel_join_thread()  # a process that was killed takes none
        for _ in range(workers):
            supply.put(context)
        self._executor = ProcessPoolExecutor(
            workers, spawn, initializer=_start_worker, initargs=(supply, folder)
        )
        for _ in range(workers):
            self._executor.submit(_get_ready, networks)  # what fails here will fail in the work

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def work(self, tasks: Sequence[Task], done: Done) -> None:
        """See `Crew`."""
        parts = chunks(tasks, self._pixels, POOL_CHUNK_S, self._workers)
        waiting: dict[Future[None], list[Task]] = {}
        try:
            for part in parts:
                waiting[self._executor.submit(_work, part)] = part
                if len(waiting) >= 2 * self._workers:  # all at once would fill the memory
                    self._collect(waiting, done)
            while waiting:
                self._collect(waiting, done)
        except BrokenProcessPool:
            raise UserError(KILLED) from None

    def _collect(self, waiting: dict[Future[None], list[Task]], done: Done) -> None:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            future.result()
            for task in waiting.pop(future):
                done(task, steps_of(task))


def steps_of(task: Task) -> int:
    """Steps of progress in a task."""
    return 2 * len(task.references) if isinstance(task, CellTask) else 1


# In a pool's process.

_worker: tuple[CellWorker, RecordWriter] | None = None
"""Set once, when the process starts."""


def _start_worker(supply: Queue[WorkerContext], folder: Path) -> None:
    global _worker
    follow_parent()
    _worker = CellWorker(supply.get()), RecordWriter(folder)


def _get_ready(networks: bool) -> None:
    assert _worker is not None
    if networks:
        _worker[0].load()


def _work(tasks: Sequence[Task]) -> None:
    assert _worker is not None
    worker, writer = _worker
    for task in tasks:
        writer.append(*worker.run(task))
