"""Results that do not depend on the number of threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside = 0  # blocks that are running
_before = 1  # threads that a network had before the first of them


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run networks on one thread within the block. With more, convolutions are split and summed
    differently, and the last bits of images and tables would depend on the machine.

    Blocks may run side by side in threads of Python's: part of the setting is the process's, so the
    last of them restores it.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                torch.set_num_threads(_before)
