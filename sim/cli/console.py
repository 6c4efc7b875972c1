"""How commands print what they found. rich is imported when something is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.progress import UNBOUNDED, print_json, screen

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
    spread: Sequence[str] | None = None,
    unbroken: Sequence[str] = (),
    tables: int | None = None,
    **style: Any,
) -> list[str]:
    """A table on standard output; one that is wider than the screen becomes several, one below the
    other.

    Args:
        title: above it.
        headings: of its columns.
        rows: from top to bottom.
        right: headings of the columns that are aligned to the right, and not broken.
        spread: headings of the columns that several tables share out; the others are in each of
            them. None: `right`.
        unbroken: headings of the other columns that keep their width.
        tables: so many at most.
        style: as `rich.table.Table` takes it.

    Returns:
        Headings of the columns for which there was no room.
    """
    from rich.table import Table

    console, rows = screen(), list(rows)
    unbounded = console.options.update_width(UNBOUNDED)
    shared = set(right if spread is None else spread)
    everywhere = [n for n, heading in enumerate(headings) if heading not in shared]
    narrow = False

    def table(columns: Sequence[int]) -> Table:
        drawn = Table(title=title, title_justify="left", **style)
        for n in columns:
            number, heading = headings[n] in right, headings[n]
            drawn.add_column(
                "\n".join(heading.rsplit(" ", 1)) if number and narrow else heading,
                justify="right" if number else "left",
                no_wrap=number or heading in unbroken,
            )
        for row in rows:
            if row is None:
                drawn.add_section()
            else:
                drawn.add_row(*(row[n] for n in columns if n < len(row)))
        return drawn

    def fits(columns: Sequence[int]) -> bool:
        return console.measure(table(columns), options=unbounded).maximum <= console.width

    narrow = not fits(range(len(headings)))
    parts = [everywhere]
    for n in (n for n, heading in enumerate(headings) if heading in shared):
        if parts[-1] != everywhere and not fits(sorted([*parts[-1], n])):
            parts.append(everywhere)
        parts[-1] = sorted([*parts[-1], n])
    for columns in parts[:tables]:
        console.print(table(columns))
        title = None
    left = {n for columns in parts[len(parts[:tables]) :] for n in columns} - set(everywhere)
    return [headings[n] for n in sorted(left)]


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
