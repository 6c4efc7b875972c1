"""What is told on the terminal: text as it is, and nothing cut where there is no terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNBOUNDED = 100_000  # columns


def screen(*, stderr: bool = False) -> Console:
    """A console on standard output or error that takes text for text: no markup, no emoji codes.

    In a file, a pipe or a log, lines are as long as their content.
    """
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.file.isatty():
        console.width = _UNBOUNDED
    elif console.width < 1:  # COLUMNS=0
        console.width = 80
    return console


def print_json(value: Any) -> None:
    """Plain data as JSON on standard output, in ASCII: whatever the encoding there, it stays JSON.
    NaN and infinities, which it has not, become null."""
    print(json.dumps(finite(value), indent=2, allow_nan=False))


def finite(value: Any) -> Any:
    """A copy of plain data in which NaN and infinities are None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
