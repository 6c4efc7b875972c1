"""Processes that start afresh and import nothing of the program that starts them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import SpawnContext


def spawn_context() -> SpawnContext:
    """How processes are started. A program read from standard input, which no process could read
    again, is left aside."""
    main = sys.modules["__main__"]
    if not os.path.exists(getattr(main, "__file__", None) or ""):
        main.__file__ = None
    return multiprocessing.get_context("spawn")
