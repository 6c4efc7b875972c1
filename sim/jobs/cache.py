"""Finished parts of long comparisons, kept under a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from codec.files import replacing
from sim.errors import UserError

_NO_RESULTS = ("codec/training", "sim/page")  # nothing that is kept comes from here


def cache_folder() -> Path:
    """`$LOSSY_STREAM_SIM_CACHE`, else `lossy-stream-sim` in the user's cache folder."""
    given = os.environ.get("LOSSY_STREAM_SIM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given) if given else Path(home) / "lossy-stream-sim"


def cache_key(about: Mapping[str, Any]) -> str:
    """A hash of plain data and of the code that results come from."""
    text = json.dumps({**about, "code": code_digest()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def cached(kind: str, about: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What `make` returned for this `about`, in this or an earlier run; plain data.

    Raises:
        UserError: the cache folder cannot be written to.
    """
    path = cache_folder() / kind / f"{cache_key(about)}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(made), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot keep results here ({error.strerror})") from None
    return made


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A hash of the code that results come from, so that what is kept never outlives a change."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in hashed_files(root):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def hashed_files(root: Path) -> list[Path]:
    """Every source file of the packages below `root` but for the places in `_NO_RESULTS`: a file
    too many costs time, one too few gives wrong results."""
    return sorted(
        path
        for package in ("channels", "codec", "sim")
        for path in (root / package).rglob("*.py")
        if not any(path.is_relative_to(root / place) for place in _NO_RESULTS)
    )
