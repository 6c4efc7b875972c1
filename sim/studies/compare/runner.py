"""Strategies at equal bytes on the wire, on paired losses: `sim compare`.

    manifest.json   what ran: strategies, budgets, channels, seeds, versions, weights
    outcomes.csv    one row per strategy, budget, channel, repeat and image
    means.csv       means with intervals
    winners.csv     the best strategy per budget, channel and metric, and tokens against files
    fec.csv         what parity leaves unrepaired: simulated streams beside exact theory
    panels/         pictures of one cell
    figures/        drawn from all of the above

The loss process of a repeat is the same for every strategy: packet i of any stream with that
repeat meets fate i. Every finished part (one strategy, budget and channel) is kept in the cache
folder under a hash of all that it depends on, so interrupted work goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from sim.errors import UserError
from sim.jobs.processes import KILLED, follow_parent, spawn_context
from sim.metrics.quality import measurable
from sim.progress import ProgressCallback, no_progress
from sim.results.files import COMPARISON, RESULTS, Outcome, new_folder
from sim.studies.compare.comparison import Comparison
from sim.studies.compare.config import LoadedComparison


def run_comparison(
    loaded: LoadedComparison,
    out: Path | None = None,
    progress: ProgressCallback = no_progress,
    workers: int = 1,
) -> Outcome:
    """Compare and write the results folder, figures included.

    Args:
        loaded: the checked comparison.
        out: the folder; None: results/<name>/<hash of what ran>.
        progress: told how far it is.
        workers: processes.

    Raises:
        UserError: images, weights or settings that cannot be used; nothing is left.
    """
    base = loaded.base
    metrics = base.metrics if "metrics" in base.model_fields_set else measurable()
    comparison = Comparison(loaded, metrics, progress)
    target = out or RESULTS / loaded.name / comparison.digest
    helpers = Helpers(loaded, metrics, comparison.unfinished(), workers)
    with new_folder(target, COMPARISON) as folder, helpers:
        comparison.wait_for = helpers.wait_for
        return Outcome(target, comparison.run(folder))


class Helpers:
    """A pool that works within its context; with one worker there is none."""

    def __init__(
        self, loaded: LoadedComparison, metrics: Sequence[str], units: Sequence[int], workers: int
    ) -> None:
        """``units``: numbers of those to do."""
        self._units = units
        self._futures: dict[int, Future[None]] = {}
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            self._pool = ProcessPoolExecutor(
                workers, spawn_context(), _start_worker, (loaded, metrics)
            )

    def __enter__(self) -> None:
        if self._pool is not None:
            self._futures = {number: self._pool.submit(_work, number) for number in self._units}

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def wait_for(self, number: int) -> None:
        """Until a unit is done, if it is done here.

        Raises:
            UserError: a worker was killed, or as `Comparison.compute_unit`.
        """
        if number in self._futures:
            try:
                self._futures[number].result()
            except BrokenProcessPool:
                raise UserError(KILLED) from None


# In a pool's process.

_comparison: Comparison | None = None


def _start_worker(loaded: LoadedComparison, metrics: Sequence[str]) -> None:
    global _comparison
    import torch

    torch.set_num_threads(1)
    follow_parent()
    _comparison = Comparison(loaded, metrics, no_progress)


def _work(number: int) -> None:
    assert _comparison is not None
    _comparison.compute_unit(_comparison.units[number])
