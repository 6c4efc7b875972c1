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

BEAT_S = 5.0
SILENT_S = 60.0
"""How old a claim's time may be while its process counts as alive."""

_LOOK_AGAIN_S = 0.1  # what others do is looked for so often


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
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own.write_text(f"{socket.gethostname()} {os.getpid()}")
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
                with contextlib.suppress(OSError):
                    path.unlink()
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

    def _is_void(self, path: Path) -> bool:
        try:
            self._own.touch()
            age_s = self._own.stat().st_mtime - path.stat().st_mtime
            host, _, process = path.read_text().partition(" ")
        except OSError:
            return True  # it has gone meanwhile
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
    folder: Path,
    tasks: Sequence[T],
    is_done: Callable[[T], bool],
    compute: Callable[[Iterator[T]], Iterator[T]],
    found: Callable[[T], object] = lambda task: None,
) -> int:
    """Have all tasks done, by this process and whoever else is at work in the folder.

    Args:
        folder: of the results.
        tasks: in the order in which they are begun.
        is_done: whether a task's result is there, whoever made it.
        compute: computes tasks, which it takes one by one, keeps each result and yields its task.
        found: told of each task that somebody else does meanwhile.

    Returns:
        How many were computed here.

    Raises:
        OSError: the folder cannot be written.
    """
    left = [task for task in tasks if not is_done(task)]
    computed = 0
    if not left:
        return 0
    with Claims(folder) as claims:

        def free() -> Iterator[T]:
            for task in left:
                if claims.take(task.key):
                    if is_done(task):
                        claims.drop(task.key)  # done since
                    else:
                        yield task

        while left:
            ours = set()
            for task in compute(free()):
                claims.drop(task.key)
                ours.add(task.key)
            computed += len(ours)
            theirs = [task for task in left if task.key not in ours and is_done(task)]
            for task in theirs:
                found(task)
            gone = ours | {task.key for task in theirs}
            left = [task for task in left if task.key not in gone]
            if left and not gone:
                claims.wait()
    return computed
