"""Who computes the pieces of a run: this process, or a pool of processes.

Which it is changes nothing but the time: every piece is a function of its task and the materials,
and networks run on one thread everywhere.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sim.cell import CellTask, Materials, Task, Workshop
from sim.errors import UserError
from sim.journal import Appender

POOL_CHUNK_S = 2.0
"""Seconds of work handed to a pool's process at once; what it has finished is kept anyway."""

_WORTH_A_POOL_S = 15.0  # below, starting processes and loading networks costs more than it saves

Done = Callable[[Task, int], object]
"""Told of steps done, and in which task."""


class Crew(Protocol):
    """Does tasks and leaves their records in the journal's folder."""

    def work(self, tasks: Sequence[Task], done: Done) -> None:
        """Do all tasks, in any order.

        Raises:
            UserError: somebody who worked was killed, or as `Workshop.do`.
        """
        ...


def cost_s(task: Task, pixels: Sequence[int]) -> float:
    """About how many seconds of one core a task takes; only sizes of chunks follow from it.

    Args:
        task: the task.
        pixels: of every image.
    """
    if not isinstance(task, CellTask):
        return 6e-6 * pixels[task.image]
    scenario = task.cell.scenario
    packets = scenario.stream.slices * len(pixels)
    return 1e-4 * packets + 6e-6 * sum(pixels) * len(scenario.concealers)


def chunks(
    tasks: Sequence[Task], pixels: Sequence[int], seconds: float, workers: int
) -> Iterator[list[Task]]:
    """Tasks in order, in parts of about so many seconds, but enough parts for every worker."""
    costs = [cost_s(task, pixels) for task in tasks]
    limit = min(seconds, sum(costs) / (4 * workers))
    part: list[Task] = []
    size = 0.0
    for task, cost in zip(tasks, costs, strict=True):
        if part and size + cost > limit:
            yield part
            part, size = [], 0.0
        part.append(task)
        size += cost
    if part:
        yield part


def usable_cores() -> int:
    """Cores that this process may run on."""
    with contextlib.suppress(AttributeError):  # only on some systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worthwhile(tasks: Sequence[Task], pixels: Sequence[int]) -> int:
    """How many processes to use when nobody says."""
    live = any(isinstance(t, CellTask) and t.cell.scenario.transport != "virtual" for t in tasks)
    if live or sum(cost_s(task, pixels) for task in tasks) < _WORTH_A_POOL_S:
        return 1
    return min(usable_cores(), len(tasks))


@dataclass(frozen=True)
class Alone:
    """This process does everything."""

    workshop: Workshop
    journal: Appender

    def work(self, tasks: Sequence[Task], done: Done) -> None:
        """See `Crew`."""
        for task in tasks:

            def progress(steps: int, task: Task = task) -> None:
                done(task, steps)

            self.journal.append(*self.workshop.do(task, progress))


class Pool:
    """Processes of this machine, each with its own journal. A context manager."""

    def __init__(self, materials: Materials, folder: Path, workers: int) -> None:
        self._pixels = [image.width * image.height for image in materials.images]
        self._workers = workers
        self._executor = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(materials, folder),
        )

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
            raise UserError(
                "a worker process was killed (out of memory?); what had been finished is kept: "
                "run again to go on, with fewer --workers if it was the memory"
            ) from None

    def _collect(self, waiting: dict[Future[None], list[Task]], done: Done) -> None:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            future.result()
            for task in waiting.pop(future):
                done(task, steps_of(task))


def steps_of(task: Task) -> int:
    """Steps of progress in a task."""
    return 2 * len(task.clean) if isinstance(task, CellTask) else 1


# In a pool's process.

_here: tuple[Workshop, Appender] | None = None


def _start_worker(materials: Materials, folder: Path) -> None:
    global _here
    follow_parent()
    _here = Workshop(materials), Appender(folder)


def follow_parent() -> None:
    """In a pool's process: Ctrl-C is the parent's to handle, and its end is this one's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(tasks: Sequence[Task]) -> None:
    assert _here is not None
    workshop, journal = _here
    for task in tasks:
        journal.append(*workshop.do(task))
