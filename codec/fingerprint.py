"""Which weights a model folder holds, told without loading them: this module needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

PRETRAINED = Path(__file__).parent / "pretrained"
"""The weights that ship."""
WEIGHT_FILES = ("tokenizer.safetensors", "inpainter.safetensors", "context.safetensors")
"""Of a model folder; only the first must be there."""


def model_fingerprint(fingerprints: Iterable[str]) -> str:
    """The 16 hexadecimal digits of a model, given the fingerprints of its files in order."""
    return hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]


def random_fingerprint(seed: int = 0) -> str:
    """Of `codec.model.Model.random`."""
    return f"{seed:016x}"


def stored_fingerprint(folder: Path | None = None) -> str | None:
    """`codec.model.Model.fingerprint` as the files of a folder (default: the weights that ship)
    say themselves; that it is true is checked when they are loaded. None if they do not say."""
    files = [(folder or PRETRAINED) / name for name in WEIGHT_FILES]
    found = []
    for path in [path for path in files if path.exists() or path is files[0]]:
        try:
            with safe_open(path, framework="np") as file:
                found.append((file.metadata() or {})["fingerprint"])
        except (SafetensorError, OSError, KeyError):
            return None
    return model_fingerprint(found)
