"""How commands print what they found. rich is imported when something is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.progress import print_json, screen

Row = Sequence[Any] | None
"""Texts of a row of a table, plain or rich ones; None draws a line between two groups of rows."""


def print_result(
    as_json: bool, summary: object, show: Callable[..., object], *arguments: object
) -> None:
    """Print a summary as JSON, or call what shows it to people."""
    if as_json:
        print_json(summary)
    else:
        show(*arguments)


def print_table(
    title: str | None,
    headings: Sequence[str],
    rows: Iterable[Row],
    *,
    right: Sequence[str] = (),
    unbroken: Sequence[str] = (),
    **style: Any,
) -> None:
    """A table on standard output.

    Args:
        title: above it.
        headings: of its columns.
        rows: from top to bottom.
        right: headings of the columns that are aligned to the right.
        unbroken: headings of the columns that keep their width.
        style: as `rich.table.Table` takes it.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left", **style)
    for heading in headings:
        justify: Any = "right" if heading in right else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in unbroken)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    screen().print(table)


def print_line(text: str) -> None:
    """A line on standard output, as long as it is."""
    screen().print(text, soft_wrap=True)


def print_folder(folder: Path) -> None:
    """Where the figures and tables of a finished run are."""
    from sim.results.files import FIGURES, VIDEOS

    for what, where in (("pictures", folder / FIGURES), ("videos", folder / VIDEOS)):
        if where.is_dir():
            print_line(f"{what + ':':9} {where}")
    print_line(f"tables:   {folder}")


def print_warnings(counts: Mapping[str, int]) -> None:
    """What went wrong without ending a stream; nothing where nothing did."""
    found = [f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count]
    if found:
        print_line(f"warnings: {', '.join(found)} (docs/faults.md says what these mean)")
