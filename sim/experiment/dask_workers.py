"""Pieces of a run on a Dask cluster, local or far: the distributed sibling of `workers`.

Workers need this package, the same weights where cells are repaired, and no common file system:
records come back to this process, which keeps them. A worker that dies is replaced, and its tasks
go to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.errors import UserError
from sim.experiment.cell import CellWorker, Pictures, Task, WorkerContext
from sim.experiment.workers import Done, chunks, steps_of
from sim.jobs.processes import usable_cores
from sim.jobs.store import Record, RecordWriter

try:
    from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
except ImportError:
    raise UserError(
        "--dask needs Dask: pip install 'lossy-stream-sim[dask]', or leave it out"
    ) from None

CHUNK_S = 2.0
"""Seconds of work in a task: Dask itself takes some milliseconds for each, and at the end workers
wait for the last one."""

_CELL_WORKER = "lossy-stream-sim"


class DaskCrew:
    """The workers of a cluster. A context manager."""

    def __init__(
        self, context: WorkerContext, writer: RecordWriter, address: str, workers: int | None
    ) -> None:
        """Connect.

        Args:
            context: of the run.
            writer: takes what comes back.
            address: of a scheduler, such as tcp://10.0.0.1:8786, or "local" to start one here.
            workers: processes of a local cluster; None: one for each core.

        Raises:
            UserError: nobody answers there.
        """
        self._writer = writer
        self._pixels = [image.width * image.height for image in context.images]
        self._cluster: Any = None
        if address == "local":
            self._cluster = LocalCluster(
                n_workers=workers or usable_cores(),
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
            )
        try:
            self._client = Client(self._cluster or address, timeout=10)
        except (OSError, ValueError) as error:
            raise UserError(f"--dask {address}: no scheduler there ({error})") from None
        self._plugin = _CellWorkers(context)
        self._client.register_plugin(self._plugin)

    def __enter__(self) -> DaskCrew:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.unregister_worker_plugin(self._plugin.name)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def work(self, tasks: Sequence[Task], done: Done) -> None:
        """See `sim.experiment.workers.Crew`."""
        workers = max(1, len(self._client.scheduler_info()["workers"]))
        parts = chunks(tasks, self._pixels, CHUNK_S, workers)
        running: dict[Any, list[Task]] = {}
        completed = as_completed()

        def submit(part: list[Task] | None) -> None:
            if part is not None:
                future = self._client.submit(_work, self._plugin.name, part, pure=False)
                running[future] = part
                completed.add(future)

        for _ in range(3 * workers):  # all at once would fill the scheduler's memory
            submit(next(parts, None))
        for future in completed:
            for record, pictures in self._results(future):
                self._writer.append(record, pictures)
            for task in running.pop(future):
                done(task, steps_of(task))
            submit(next(parts, None))

    def _results(self, future: Any) -> list[tuple[Record, Pictures]]:
        try:
            results: list[tuple[Record, Pictures]] = future.result()
        except KilledWorker:
            raise UserError(
                "a piece of work killed every Dask worker that tried it (out of memory?); what "
                "had been finished is kept: run again to go on"
            ) from None
        return results


class _CellWorkers(WorkerPlugin):  # type: ignore[misc]
    """Gives a cell worker to every worker, those included that come later."""

    def __init__(self, context: WorkerContext) -> None:
        self.name = f"{_CELL_WORKER}-{context.fingerprint}-{id(context):x}"
        self._context = context

    def setup(self, worker: Any) -> None:
        """On the worker: nothing yet; loading weights would keep it from answering."""
        worker.lossy_stream_sim = {**getattr(worker, "lossy_stream_sim", {}), self.name: self}

    def cell_worker(self) -> CellWorker:
        """On the worker, when the first task comes."""
        if not hasattr(self, "_cell_worker"):
            self._cell_worker = CellWorker(self._context)
        return self._cell_worker


def _work(name: str, tasks: Sequence[Task]) -> list[tuple[Record, Pictures]]:
    from distributed import get_worker

    worker = get_worker().lossy_stream_sim[name].cell_worker()
    return [worker.run(task) for task in tasks]
