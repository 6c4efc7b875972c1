"""Processes that work for this one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.context import SpawnContext

KILLED = (
    "a worker process was killed (out of memory?); what had been finished is kept: "
    "run again to go on, with fewer --workers if it was the memory"
)
"""What is told of a process that vanished."""


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


def follow_parent() -> None:
    """In a pool's process: Ctrl-C is the parent's to handle, and its end is this one's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
