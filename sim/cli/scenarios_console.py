"""How the library looks in a terminal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from sim.progress import screen
from sim.scenario.library import GROUPS, ShippedScenario

_WIDE = 110
"""Columns of a terminal from which on the list also shows sizes."""


def as_data(found: ShippedScenario) -> dict[str, object]:
    """A scenario's description as plain data for JSON."""
    return {**asdict(found), "path": str(found.path), "repairs": list(found.repairs)}


def print_library(scenarios: list[ShippedScenario]) -> None:
    """A table of all, by group."""
    console = screen()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("scenario", no_wrap=True)
    table.add_column("question", ratio=1)
    wide = console.width >= _WIDE
    if wide:
        table.add_column("size", no_wrap=True)
    table.add_column("time", no_wrap=True)
    for group, title in GROUPS.items():
        members = [one for one in scenarios if one.group == group]
        if members:
            table.add_row(group, title, style="bold")
        for one in members:
            size = [one.size] if wide else []
            table.add_row(f"  {one.name}", one.question, *size, one.time)
    console.print(table)
    console.print(
        "sim scenarios NAME explains one, sim run NAME runs it, sim new MINE --from NAME copies it"
    )


def print_scenario(one: ShippedScenario) -> None:
    """One in full."""
    console = screen()
    console.print(f"{one.name}  {GROUPS[one.group]}", style="bold")
    console.print(f"\n{one.question}\n\n{one.look}\n")
    console.print(f"size  {one.size}")
    console.print(f"time  {one.time}")
    console.print(f"file  {_short(one.path)}", soft_wrap=True)
    console.print(f"\nsim run {one.name}")


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
