"""Who computes: this process, processes of this machine, or the workers of a Dask cluster.

All are a `concurrent.futures.Executor`, and which it is changes nothing but the time: a task is a
pure function, and networks run on one thread everywhere.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from typing import Any, Generic, TypeVar
from uuid import uuid4

from sim.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

Worker = Callable[[T], R]
"""Does one task; made once in every process, with all that it needs."""

KILLED = (
    "a worker process was killed (out of memory?); what had been finished is kept: "
    "run again to go on, with fewer --workers if it was the memory"
)
"""What is told of a process that vanished."""

_AHEAD = 2  # parts handed out for each worker: all at once would fill the memory


class SerialExecutor(Executor):
    """Does everything at once, in this process."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """A future that is done."""
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Workers(Generic[T, R]):
    """Somebody who does tasks.

    Attributes:
        executor: who.
        work: does tasks there, in order.
        ahead: how many parts of the work are handed out at a time.
        share: of a part that a task makes.
    """

    executor: Executor
    work: Callable[[list[T]], list[R]]
    ahead: int = 1
    share: Callable[[T], float] = lambda task: 1.0

    def results(self, tasks: Iterator[T]) -> Iterator[tuple[T, R]]:
        """Tasks and their results as they come; tasks are taken when there is room for them."""
        waiting: dict[Future[list[R]], list[T]] = {}
        while True:
            while len(waiting) < self.ahead and (part := self._part(tasks)):
                waiting[self.executor.submit(self.work, part)] = part
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield from zip(waiting.pop(future), future.result(), strict=True)

    def _part(self, tasks: Iterator[T]) -> list[T]:
        part: list[T] = []
        size = 0.0
        while size < 1 and (task := next(tasks, None)) is not None:
            part.append(task)
            size += self.share(task)
        return part


def alone(worker: Worker[T, R], executor: Executor | None = None, ahead: int = 1) -> Workers[T, R]:
    """This process, with the worker that it has: one task at a time, or so many as ``executor``
    has threads."""
    parts = executor or SerialExecutor()
    return Workers(parts, lambda tasks: [worker(task) for task in tasks], ahead)


@contextlib.contextmanager
def open_workers(
    worker: Worker[T, R],
    make: Callable[[], Worker[T, R]],
    count: int | None,
    dask: str | None = None,
    share: Callable[[T], float] = lambda task: 1.0,
) -> Iterator[Workers[T, R]]:
    """Workers for as long as the block runs. An interrupt ends it, and them, at once.

    Args:
        worker: of this process.
        make: makes the worker of another process, in it; can be pickled.
        count: how many; None: as Dask has them, or one for each core.
        dask: the address of a Dask scheduler, or "local" to start one here; None: 1 worker is this
            process, and more are processes of this machine.
        share: of what is handed out at once that a task makes.

    Raises:
        UserError: nobody answers at the address, or somebody who worked was killed.
    """
    name = uuid4().hex
    work: Callable[[list[T]], list[R]] = partial(_work, name)
    if dask is not None:
        with _dask(dask, count, name, make) as (executor, found):
            yield Workers(executor, work, (_AHEAD + 1) * found, share)
    elif count == 1:
        yield alone(worker)
    else:
        workers = count or usable_cores()
        with _processes(workers, name, make) as pool:
            yield Workers(pool, work, _AHEAD * workers, share)


@contextlib.contextmanager
def _processes(count: int, name: str, make: Callable[[], Worker[T, R]]) -> Iterator[Executor]:
    context = spawn_context()
    theirs, ours = context.Pipe(duplex=False)  # closed, or closed with us, it ends the processes
    supply = context.Queue()  # as arguments, what is large would hold up the start of the next
    supply.cancel_join_thread()  # a process that was killed takes none
    for _ in range(count):
        supply.put(make)
    arguments = theirs, supply, name
    pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=arguments)
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool:
        raise UserError(KILLED) from None
    finally:
        ours.close()
        theirs.close()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _dask(
    address: str, count: int | None, name: str, make: Callable[[], Worker[T, R]]
) -> Iterator[tuple[Executor, int]]:
    """Dask's executor, and how many workers it has. They need this package, the same weights where
    networks run, and no common file system. One that dies is replaced, and its tasks go to
    others."""
    try:
        from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin
    except ImportError:
        raise UserError(
            "--dask needs Dask: pip install 'lossy-stream-sim[dask]', or leave it out"
        ) from None

    class WorkerSetup(WorkerPlugin):  # type: ignore[misc]
        """Runs on every worker, those included that come later."""

        def setup(self, worker: object) -> None:
            _employ(name, make)

        def teardown(self, worker: object) -> None:
            _dismiss(name)

    with contextlib.ExitStack() as stack:
        cluster = None
        if address == "local":
            options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None}
            cluster = LocalCluster(n_workers=count or usable_cores(), processes=True, **options)
            stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(cluster or address, timeout=10))
        except (OSError, ValueError) as error:
            raise UserError(f"--dask {address}: no scheduler there ({error})") from None
        client.register_plugin(WorkerSetup(), name=name)
        stack.callback(client.unregister_worker_plugin, name)
        executor = client.get_executor(pure=False)
        try:
            yield executor, max(1, len(client.scheduler_info()["workers"]))
        except KilledWorker:
            raise UserError(
                "a piece of work killed every Dask worker that tried it (out of memory?); what "
                "had been finished is kept: run again to go on"
            ) from None
        finally:
            executor.shutdown(wait=False)


def spawn_context() -> SpawnContext:
    """How processes are started. A program read from standard input, which no process could read
    again, is left aside."""
    main = sys.modules["__main__"]
    if not os.path.exists(getattr(main, "__file__", None) or ""):
        main.__file__ = None
    return multiprocessing.get_context("spawn")


def usable_cores() -> int:
    """Cores that this process may run on."""
    with contextlib.suppress(AttributeError):  # only on some systems
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# In a process that works for another.

_makers: dict[str, Callable[[], Worker[Any, Any]]] = {}
_workers: dict[str, Worker[Any, Any]] = {}
"""By the name of whom they work for."""


def _start(parent: Connection, supply: Queue[Callable[[], Worker[T, R]]], name: str) -> None:
    follow_parent(parent)
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are not loaded yet
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    _employ(name, supply.get())


def _employ(name: str, make: Callable[[], Worker[T, R]]) -> None:
    _makers[name] = make


def _dismiss(name: str) -> None:
    _makers.pop(name, None)
    _workers.pop(name, None)


def follow_parent(*signs: Connection) -> None:
    """In a process that was started here: Ctrl-C is the parent's to handle, and its end, or that of
    a connection from it, is this process's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    watched = [*signs, *([parent.sentinel] if parent is not None else [])]
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()


def _end_with(watched: list[Connection | int]) -> None:
    multiprocessing.connection.wait(watched)
    os._exit(1)


def _work(name: str, tasks: list[T]) -> list[Any]:
    if name not in _workers:  # by the first task: loading weights would keep it from answering
        _workers[name] = _makers[name]()
    return [_workers[name](task) for task in tasks]
