"""The processes of a live stream: this one, which may be told to stop, and a sender beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType

from sim.errors import UserError
from sim.jobs.processes import follow_parent, spawn_context

_GRACE_S = 1.0


class SenderProcess:
    """The sender of a demo: a process of its own that is gone when the block ends."""

    def __init__(self, send: Callable[..., object], *arguments: object) -> None:
        """``send`` is called in the process with the arguments; all of them can be pickled."""
        context = spawn_context()
        self._failure, theirs = context.Pipe(duplex=False)
        self._theirs = theirs
        self._process = context.Process(target=_run, args=(theirs, send, arguments), daemon=True)

    def __enter__(self) -> SenderProcess:
        with _interrupts_ignored():
            self._process.start()
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.join(_GRACE_S)
        self._process.terminate()
        self._process.join(_GRACE_S)
        self._process.kill()
        self._process.join()

    def check(self) -> None:
        """Raises UserError if the sender has failed."""
        if self._process.exitcode:
            with contextlib.suppress(EOFError):
                raise UserError(f"sender: {self._failure.recv()}")
            raise UserError(f"sender: ended with exit code {self._process.exitcode}")


def _run(failure: Connection, send: Callable[..., object], arguments: tuple[object, ...]) -> None:
    follow_parent()
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the terminal is the parent's
        os.dup2(silence, stream)
    try:
        send(*arguments)
    except Exception as error:
        reason = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        failure.send(str(reason))
        raise SystemExit(1) from None


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started here ignore Ctrl-C, from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():  # signals are not ours there
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def interruptible(stop: Callable[[], object]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks to stop; the second ends at once. A signal that this
    process was started to ignore stays ignored."""

    if threading.current_thread() is not threading.main_thread():  # signals are not ours there
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        stop()

    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    previous = {s: signal.signal(s, handle) for s in heard}

    def restore() -> None:
        for which, how in previous.items():
            signal.signal(which, how)

    try:
        yield
    finally:
        restore()
