"""How far a long piece of work is: what it calls, and a bar that shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from sim.screen import screen


class ProgressCallback(Protocol):
    """Told how far the work is."""

    def __call__(self, done: int, total: int, doing: str, /) -> object:
        """`done` of `total` steps are finished; `doing` says what is going on."""
        ...


def no_progress(done: int, total: int, doing: str, /) -> None:
    """For whoever does not want to know."""


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error with the time left; yields what to call with done, total, doing."""
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
    with Progress(*columns, console=screen(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{label}: loading", total=None)

        def update(done: int, total: int, doing: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{label}: {doing}")

        yield update
