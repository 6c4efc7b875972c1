"""Finished parts of long comparisons, kept under a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from codec.files import replacing
from sim.baselines.cache import cache_folder
from sim.errors import UserError


def mark_of(about: Mapping[str, Any]) -> str:
    """A hash of plain data and of the code that results come from."""
    text = json.dumps({**about, "code": code_mark()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def kept(kind: str, about: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What `make` returned for this `about`, in this or an earlier run; plain data.

    Raises:
        UserError: the cache folder cannot be written to.
    """
    path = cache_folder() / kind / f"{mark_of(about)}.json"
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
def code_mark() -> str:
    """A hash of the code that results come from, so that what is kept never outlives a change."""
    digest = hashlib.sha256()
    for path in sorted(_sources(Path(__file__).parent.parent)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(root: Path) -> Iterator[Path]:
    for package in ("channels", "codec", "sim/protocol", "sim/drivers", "sim/baselines"):
        yield from (root / package).glob("*.py")
    for name in ("compare", "compare_send", "media", "metrics", "streaming", "vgg_hed"):
        yield root / "sim" / f"{name}.py"
