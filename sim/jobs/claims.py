"""Work shared by processes: whoever is given the same folder does what nobody else is doing.

While a process computes a task it holds the claim `claims/<key>`: a hard link, which only one can
make, to a hidden file of its own that says which process it is. The process touches that file, and
so all its claims, every few seconds. A claim is void when its process is not alive on this machine,
or has not been heard of for a minute by the file system's clock. Claims only save time: tasks are
pure functions and records appear whole, so one that two processes do comes out the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from codec.files import beside
from sim.jobs.executor import Workers
from sim.jobs.store import Files, Record, Store

BEAT_S = 5.0
SILENT_S = 60.0
"""How old a claim's time may be while its process counts as alive."""

_LOOK_AGAIN_S = 0.1  # what others do is looked for so often
_ATTEMPTS = 100


class Keyed(Protocol):
    """A piece of work."""

    @property
    def key(self) -> str:
        """The name of its result."""
        ...


T = TypeVar("T", bound=Keyed)


class Claims:
    """What this process claims in a folder. A context manager."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of the results."""
        self._folder = folder / "claims"
        self._own = beside(self._folder / "claim")
        self._held: set[str] = set()
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claims:
        """Raises OSError if nothing can be written there."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._own.write_text(f"{socket.gethostname()} {os.getpid()}")
                break
            except (FileNotFoundError, FileExistsError):  # others remove the folder as they leave
                if attempt == _ATTEMPTS:
                    raise
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beating.join()
        for key in tuple(self._held):
            self.drop(key)
        with contextlib.suppress(OSError):
            for path in self._folder.glob(".*"):
                if self._is_void(path):
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)
            self._folder.rmdir()  # by the last one

    def take(self, key: str) -> bool:
        """Claim a task; False if somebody else is at it. Where no links can be made, everybody
        does everything."""
        path = self._folder / key
        for _ in range(2):
            try:
                os.link(self._own, path)
            except FileExistsError:
                if not self._is_void(path):
                    return False
                self._remove_void(path)
            except OSError:
                return True
            else:
                self._held.add(key)
                return True
        return False

    def drop(self, key: str) -> None:
        """Give up a claim, if it is ours."""
        if key in self._held:
            self._held.discard(key)
            with contextlib.suppress(OSError):
                (self._folder / key).unlink()

    def wait(self) -> None:
        """Give others a moment."""
        self._over.wait(_LOOK_AGAIN_S)

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Hold a claim, waiting for it if need be."""
        while not self.take(key):
            self.wait()
        try:
            yield
        finally:
            self.drop(key)

    def _remove_void(self, path: Path) -> None:
        """One at a time looks again and removes it: another may have, and holds the claim now."""
        guard = path.with_name(f".{path.name}.void")
        try:
            os.link(self._own, guard)
        except OSError:
            if self._is_void(guard, gone=False):
                guard.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError):
            if self._is_void(path, gone=False):
                path.unlink()
        guard.unlink(missing_ok=True)

    def _is_void(self, path: Path, gone: bool = True) -> bool:
        """Whether a claim is void; ``gone`` if there is none any more."""
        try:
            self._own.touch()
            age_s = self._own.stat().st_mtime - path.stat().st_mtime
            host, _, process = path.read_text().partition(" ")
        except OSError:
            return gone
        here = host == socket.gethostname() and process.isdecimal()
        return age_s > SILENT_S or (here and not _is_alive(int(process)))

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(OSError):
                self._own.touch()


def _is_alive(process: int) -> bool:
    """Whether a process of this machine runs."""
    import psutil

    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def complete(
    store: Store,
    tasks: Sequence[T],
    workers: Workers[T, tuple[Record, Files]],
    done: Callable[[T], object] = lambda task: None,
    is_done: Callable[[T, Record], bool] = lambda task, record: True,
) -> int:
    """Have the records of all tasks, by these workers and whoever else is at work in the store.

    Args:
        store: of the records.
        tasks: in the order in which they are begun.
        workers: give a task's record and its files.
        done: told of each task when its record is there; at once of those that are there already.
        is_done: whether a record that is there is what the task asks for.

    Returns:
        How many were computed here.

    Raises:
        OSError: the folder cannot be written.
    """

    left = {id(task): task for task in tasks}

    def ready(task: T) -> bool:
        record = store.find(task.key)
        return record is not None and is_done(task, record)

    def settle() -> None:
        """Take out what is there."""
        for task in [task for task in left.values() if ready(task)]:
            done(task)
            del left[id(task)]

    settle()
    if not left:
        return 0
    computed = 0
    with Claims(store.folder) as claims:

        def free() -> Iterator[T]:
            for task in tuple(left.values()):
                if claims.take(task.key):
                    if ready(task):
                        claims.drop(task.key)  # done since
                    else:
                        yield task

        while left:
            before = len(left)
            for task, (record, files) in workers.results(free()):
                store.put(task.key, record, files)
                claims.drop(task.key)
                done(task)
                del left[id(task)]
                computed += 1
            settle()
            if len(left) == before:
                claims.wait()
    return computed
