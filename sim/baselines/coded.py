"""What every baseline offers, half-size coding for each, and the search for a number of bytes."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sim.jobs.store import Record, Store, digest, pixel_digest

Counted = Literal["file", "payload"]
"""What a budget is compared with: all that a user stores, or the coded picture alone."""


class BaselineError(RuntimeError):
    """A codec that is there did not do its work; one line says how."""


@dataclass(frozen=True, slots=True)
class Coded:
    """An encoded image.

    Attributes:
        file: all that a user would store.
        payload_bytes: of these, the coded picture: without container, parameter sets and tables.
    """

    file: bytes
    payload_bytes: int

    def size(self, counted: Counted) -> int:
        """Bytes."""
        return len(self.file) if counted == "file" else self.payload_bytes


class FileEncoder(Protocol):
    """What makes files at quality settings.

    Attributes:
        name: as in tables, such as "jpeg" or "jpeg-half".
        settings: how many; 0 gives the smallest files, and they grow with it, though
            perhaps not at every step.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> int: ...

    @property
    def identity(self) -> str:
        """Library versions and options: what a file depends on besides pixels and setting."""
        ...

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """Encode uint8[H,W,3], sRGB, without any metadata, or a video uint8[T,H,W,3]; may raise
        BaselineError."""
        ...


class Baseline(FileEncoder, Protocol):
    """A codec of images."""

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """The image uint8[height,width,3] of a file; may raise BaselineError."""
        ...


@dataclass(frozen=True)
class HalfSize:
    """A codec given the image at half its width and height (Lanczos down, bicubic up)."""

    full: Baseline

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.full.name}-half"

    @property
    def settings(self) -> int:
        """How many quality settings there are."""
        return self.full.settings

    @property
    def identity(self) -> str:
        """See `Baseline.identity`."""
        return f"half {self.full.identity}"

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """See `Baseline.encode`."""
        height, width = pixels.shape[:2]
        small = Image.fromarray(pixels).resize(
            (-(-width // 2), -(-height // 2)), Image.Resampling.LANCZOS
        )
        return self.full.encode(np.asarray(small), setting)

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        small = self.full.decode(file, -(-height // 2), -(-width // 2))
        return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


class RateSearch:
    """One image, or video, through one baseline; no setting is encoded twice."""

    def __init__(
        self, baseline: FileEncoder, pixels: NDArray[np.uint8], store: Store | None = None
    ) -> None:
        """``store``: of what earlier searches encoded; that of VVC takes half a minute."""
        self.baseline = baseline
        self._pixels = pixels
        self._store = store
        self._coded: dict[int, Coded] = {}

    def coded(self, setting: int) -> Coded:
        """The image at a setting."""
        if setting not in self._coded:
            make = partial(self.baseline.encode, self._pixels, setting)
            self._coded[setting] = make() if self._store is None else self._kept(setting, make)
        return self._coded[setting]

    def _kept(self, setting: int, make: Callable[[], Coded]) -> Coded:
        assert self._store is not None

        def encode() -> Record:
            coded = make()
            file = base64.b64encode(coded.file).decode()
            return {"payload_bytes": coded.payload_bytes, "file": file}

        about = self.baseline.name, self.baseline.identity, setting, pixel_digest(self._pixels)
        record = self._store.computed(digest(*about), encode)
        return Coded(base64.b64decode(record["file"]), record["payload_bytes"])

    def size(self, setting: int, counted: Counted) -> int:
        """Bytes at a setting."""
        return self.coded(setting).size(counted)

    def at_most(self, budget: int, counted: Counted = "file") -> int | None:
        """See `largest_setting`; the budget is in bytes."""
        return largest_setting(
            lambda setting: self.size(setting, counted), self.baseline.settings, budget
        )


def largest_setting(size: Callable[[int], float], settings: int, budget: float) -> int | None:
    """A setting in [0, settings) whose size is at most `budget`, the highest if sizes grow with
    the setting; None if even setting 0 takes more.

    Goes up from the smallest in growing steps, since small files are quick to make; then guesses
    between the last two, sizes growing about exponentially with the setting, and halves what a
    guess has not.

    Args:
        size: bytes at a setting; asked for the same one more than once.
        settings: how many there are, >= 1.
        budget: bytes.
    """
    if size(0) > budget:
        return None
    low, high = 0, 1
    while high < settings and size(high) <= budget:
        low, high = high, 2 * high
    high = min(high, settings)
    halve = high == settings  # its size is not known: maybe there is none
    while high - low > 1:
        middle = (low + high) // 2
        if not halve:
            sizes = [math.log(max(1, size(at))) for at in (low, high)]
            share = (math.log(max(1, budget)) - sizes[0]) / max(1e-9, sizes[1] - sizes[0])
            middle = min(max(low + math.floor(share * (high - low)), low + 1), high - 1)
        width = high - low
        if size(middle) <= budget:
            low = middle
        else:
            high = middle
        halve = high == settings or (not halve and 2 * (high - low) > width)
    return low
