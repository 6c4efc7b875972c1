"""Encodes kept on disk: searching VVC for a number of bytes takes half a minute per image.

An entry is named by a hash of the pixels, the codec with all its options and its library's
version, and the setting. Entries appear whole, so any number of processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec.files import replacing
from sim.baselines.coded import Baseline, Coded
from sim.jobs.cache import cache_folder

_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Cached:
    """A baseline that encodes nothing twice.

    Attributes:
        inner: the codec.
        folder: where entries are; made when first needed. A folder that cannot be written to
            only costs time.
    """

    inner: Baseline
    folder: Path = field(default_factory=cache_folder)

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.inner.name

    @property
    def settings(self) -> int:
        """How many quality settings there are."""
        return self.inner.settings

    @property
    def identity(self) -> str:
        """See `Baseline.identity`."""
        return self.inner.identity

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """See `Baseline.encode`."""
        about = f"{self.inner.name}|{self.identity}|{setting}|{pixels.shape}".encode()
        key = hashlib.sha256(about + np.ascontiguousarray(pixels).tobytes()).hexdigest()
        path = self.folder / "encodes" / key[:2] / key
        with contextlib.suppress(OSError, ValueError):
            return _unpack(path.read_bytes())
        coded = self.inner.encode(pixels, setting)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_bytes(_pack(coded))
        return coded

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        return self.inner.decode(file, height, width)


def _pack(coded: Coded) -> bytes:
    digest = hashlib.sha256(coded.file).digest()[:_LENGTH_BYTES]
    return coded.payload_bytes.to_bytes(_LENGTH_BYTES, "big") + digest + coded.file


def _unpack(data: bytes) -> Coded:
    """Raises ValueError if the entry is not whole."""
    payload, digest = data[:_LENGTH_BYTES], data[_LENGTH_BYTES : 2 * _LENGTH_BYTES]
    file = data[2 * _LENGTH_BYTES :]
    if hashlib.sha256(file).digest()[:_LENGTH_BYTES] != digest:
        raise ValueError("damaged cache entry")
    return Coded(file, int.from_bytes(payload, "big"))
