"""Finished work on disk: what has been computed once is never lost and never computed again.

A record is plain data under a key that hashes all that it depends on, so it never goes out of
date. It is one file, `<key>.json`, which appears whole; files that belong to it, such as pictures,
are in `pictures/<key>/` before it. A process may be killed at any moment, and any number of them,
on one machine or on a shared file system, may read and write one folder (`sim.jobs.claims`). A
record that is damaged all the same counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.files import replacing
from sim.errors import UserError

_NO_RESULTS = ("codec/training", "sim/page")  # nothing that is kept comes from here
_JSON = json.JSONEncoder(sort_keys=True)  # `json.dumps` makes one in every call

Record = dict[str, Any]
"""Plain data: what JSON can say, and NaN."""

Files = Mapping[str, bytes]
"""Content by path below the folder of a record's files."""


class Store:
    """The records in one folder."""

    def __init__(self, folder: Path) -> None:
        """``folder`` need not be there yet; it is made with the first record."""
        self.folder = folder

    def find(self, key: str) -> Record | None:
        """A record; None if it is not there or damaged."""
        try:
            record = json.loads((self.folder / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def get(self, key: str) -> Record:
        """A record that was there before.

        Raises:
            UserError: it is gone or damaged.
        """
        record = self.find(key)
        if record is None:
            raise UserError(f"{self.folder / key}.json: gone or damaged; run again to go on")
        return record

    def put(self, key: str, record: Mapping[str, Any], files: Files | None = None) -> None:
        """Keep a record and its files.

        Raises:
            OSError: the disk is full, or not to be written.
        """
        for name, content in (files or {}).items():
            _write(self.files(key) / name, content)
        text = json.dumps(record, ensure_ascii=False)
        _write(self.folder / f"{key}.json", text.encode("utf-8", "backslashreplace"))

    def files(self, key: str) -> Path:
        """The folder of a record's files."""
        return self.folder / "pictures" / key

    def computed(self, key: str, make: Callable[[], Record]) -> Record:
        """A record, made now if it is not there. A folder that cannot be written to costs time."""
        record = self.find(key)
        if record is None:
            record = make()
            try:
                self.put(key, record)
            except OSError:
                return record
        return record

    def __len__(self) -> int:
        """Of records; what a kill left half-written, whose name begins with a dot, is none."""
        return sum(1 for _ in self.folder.glob("[!.]*.json"))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)


def digest(*parts: object) -> str:
    """128 bits of the SHA-256 of plain data: 32 hexadecimal digits."""
    return hashlib.sha256(_JSON.encode(parts).encode()).hexdigest()[:32]


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """The SHA-256 of an image's shape and content."""
    content = np.ascontiguousarray(pixels).tobytes()
    return hashlib.sha256(repr(pixels.shape).encode() + content).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file. Raises OSError if it cannot be read."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Results that several commands share, whatever folder they write to.


def cache_folder() -> Path:
    """`$LOSSY_STREAM_SIM_CACHE`, else `lossy-stream-sim` in the user's cache folder."""
    given = os.environ.get("LOSSY_STREAM_SIM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given) if given else Path(home) / "lossy-stream-sim"


def cache_key(about: Mapping[str, Any]) -> str:
    """A hash of plain data and of the code that results come from."""
    return digest({**about, "code": code_digest()})


def networks_key(fingerprint: str, device: str) -> str:
    """What of the networks results follow from: the weights, and the device if it is not the CPU,
    where all were made at first; devices add up in different orders."""
    return fingerprint if device == "cpu" else f"{fingerprint} {device}"


def cached(kind: str, about: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What `make` returned for this `about`, in this or an earlier run; plain data."""
    store = Store(cache_folder() / kind)
    return store.computed(cache_key(about), lambda: {"found": make()})["found"]


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A hash of the code that results come from, so that what is kept never outlives a change."""
    root = Path(__file__).parents[2]
    code = hashlib.sha256()
    for path in hashed_files(root):
        code.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return code.hexdigest()[:16]


def hashed_files(root: Path) -> list[Path]:
    """Every source file of the packages below `root` but for the places in `_NO_RESULTS`: a file
    too many costs time, one too few gives wrong results."""
    return sorted(
        path
        for package in ("channels", "codec", "sim")
        for path in (root / package).rglob("*.py")
        if not any(path.is_relative_to(root / place) for place in _NO_RESULTS)
    )
