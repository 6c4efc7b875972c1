"""Output on the terminal: text as it is, JSON, and the progress of long work."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console


UNBOUNDED = 100_000
"""Columns of what is not a terminal."""


def screen(*, stderr: bool = False) -> Console:
    """A console on standard output or error that takes text for text: no markup, no emoji codes.

    In a file, a pipe or a log, lines are as long as their content.
    """
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.file.isatty():
        console.width = UNBOUNDED
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


class ProgressCallback(Protocol):
    """Called as work goes on."""

    def __call__(self, done: int, total: int, doing: str, /) -> object:
        """`done` of `total` steps are finished; `doing` says what is going on."""
        ...


def no_progress(done: int, total: int, doing: str, /) -> None:
    """A callback that does nothing."""


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar with the time left, on standard error if it is a terminal; yields what to call with
    done, total, doing."""
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = screen(stderr=True)
    silent = not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task(f"{label}: loading", total=None)

        def update(done: int, total: int, doing: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{label}: {doing}")

        yield update
