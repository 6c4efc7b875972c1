"""Processes that do the parts of a comparison, which then finds them finished."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

from sim.errors import UserError
from sim.experiment.workers import KILLED, follow_parent
from sim.jobs.spawning import spawn_context
from sim.studies.compare.config import LoadedComparison

if TYPE_CHECKING:
    from sim.studies.compare.runner import Comparison


class Helpers:
    """A pool that works within its context; with one worker there is none."""

    def __init__(
        self, loaded: LoadedComparison, hed: Path | None, units: Sequence[int], workers: int
    ) -> None:
        """``units``: numbers of those to do."""
        self._units = units
        self._futures: dict[int, Future[None]] = {}
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            self._pool = ProcessPoolExecutor(workers, spawn_context(), _start_worker, (loaded, hed))

    def __enter__(self) -> None:
        if self._pool is not None:
            self._futures = {number: self._pool.submit(_work, number) for number in self._units}

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def wait_for(self, number: int) -> None:
        """Until a unit is done, if it is done here.

        Raises:
            UserError: a worker was killed, or as `Comparison.part`.
        """
        if number in self._futures:
            try:
                self._futures[number].result()
            except BrokenProcessPool:
                raise UserError(KILLED) from None


# In a pool's process.

_here: Comparison | None = None


def _start_worker(loaded: LoadedComparison, hed: Path | None) -> None:
    global _here
    import torch

    from sim.studies.compare.runner import Comparison

    torch.set_num_threads(1)
    follow_parent()
    _here = Comparison(loaded, hed, lambda done, total, doing: None)


def _work(number: int) -> None:
    assert _here is not None
    _here.part(_here.units[number])
