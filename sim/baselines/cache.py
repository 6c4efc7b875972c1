"""Encodes kept on disk: searching VVC for a number of bytes takes half a minute per image."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.baselines.coded import Baseline, Coded
from sim.jobs.store import Record, Store, cache_folder, digest, pixel_digest


@dataclass(frozen=True)
class Cached:
    """A baseline that encodes nothing twice.

    Attributes:
        inner: the codec.
        store: of what it encoded. A folder that cannot be written to only costs time.
    """

    inner: Baseline
    store: Store = field(default_factory=lambda: Store(cache_folder() / "encodes"))

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

        def make() -> Record:
            coded = self.inner.encode(pixels, setting)
            file = base64.b64encode(coded.file).decode()
            return {"payload_bytes": coded.payload_bytes, "file": file}

        key = digest(self.inner.name, self.identity, setting, pixel_digest(pixels))
        record = self.store.computed(key, make)
        return Coded(base64.b64decode(record["file"]), record["payload_bytes"])

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        return self.inner.decode(file, height, width)
