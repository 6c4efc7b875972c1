"""What metrics make of an original, kept for the next image that is measured against it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 2**27
"""Limit of what is kept in memory, for each metric."""


class Array(Protocol):
    """Of numpy or torch."""

    @property
    def nbytes(self) -> int:
        """Its size."""
        ...


T = TypeVar("T", bound=Sequence[Sequence[Array]])
"""What is made of one original."""


class OriginalCache(Generic[T]):
    """What one metric makes of the latest originals. Threads may share it."""

    def __init__(self, make: Callable[[NDArray[np.uint8]], T]) -> None:
        """``make``: of an original, uint8[H,W,3]."""
        self._make = make
        self._kept: OrderedDict[bytes, T] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, original: NDArray[np.uint8]) -> T:
        """Kept, or made now."""
        key = hashlib.sha256(repr(original.shape).encode() + original.tobytes()).digest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._make(original)
        with self._lock:
            self._kept[key] = made
            while sum(map(_size, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return made


def _size(made: Sequence[Sequence[Array]]) -> int:
    return sum(array.nbytes for arrays in made for array in arrays)
