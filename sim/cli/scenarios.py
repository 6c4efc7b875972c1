"""`sim scenarios` and `sim new`: the scenarios that ship, and how to begin one's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.console import Row, print_line, print_result, print_table
from sim.cli.options import AsJson
from sim.progress import screen

if TYPE_CHECKING:
    from sim.scenario.library import ShippedScenario

_WIDE = 110
"""Columns of a terminal from which on the list also shows sizes."""


def scenarios(
    name: Annotated[
        str | None, typer.Argument(help="Explain this one.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the scenarios that ship, or explain one.

    Each has a question, a size, and the time that it takes.
    """
    from sim.scenario.library import describe, find_scenario, shipped

    if name is None:
        found = shipped()
        print_result(as_json, {"scenarios": [_as_data(one) for one in found]}, _print_list, found)
    else:
        one = describe(find_scenario(Path(name)))
        print_result(as_json, _as_data(one), _print_scenario, one)


def new(
    name: Annotated[str, typer.Argument(help="Its name, or a path.", show_default=False)],
    like: Annotated[
        str | None,
        typer.Option("--from", metavar="SCENARIO", help="Start from a copy of this one."),
    ] = None,
) -> None:
    """Write NAME.yaml, a commented scenario to change and run."""
    from sim.scenario.library import write_new

    path = write_new(Path(name), like)
    typer.echo(f"wrote {path}; change it, then: sim run {path}")


def _as_data(one: ShippedScenario) -> dict[str, object]:
    return {**asdict(one), "path": str(one.path)}


def _print_list(found: list[ShippedScenario]) -> None:
    from rich.text import Text

    from sim.scenario.library import GROUPS

    sizes = screen().width >= _WIDE
    rows: list[Row] = []
    for group, title in GROUPS.items():
        members = [one for one in found if one.group == group]
        rows += [(Text(group, "bold"), Text(title, "bold"))] if members else []
        rows += [
            (f"  {one.name}", one.question, *([one.size] if sizes else []), one.time)
            for one in members
        ]
    print_table(
        None,
        ["scenario", "question", *(["size"] if sizes else []), "time"],
        rows,
        unbroken=("scenario", "size", "time"),
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    print_line(
        "sim scenarios NAME explains one, sim run NAME runs it, sim new MINE --from NAME copies it"
    )


def _print_scenario(one: ShippedScenario) -> None:
    from sim.scenario.library import GROUPS

    here = Path.cwd()
    path = one.path.relative_to(here) if one.path.is_relative_to(here) else one.path
    screen().print(f"{one.name}  {GROUPS[one.group]}", style="bold")
    screen().print(f"\n{one.question}\n\n{one.look}\n")
    command = "compare" if one.group == "compare" else "run"
    print_line(f"size  {one.size}\ntime  {one.time}\nfile  {path}\n\nsim {command} {one.name}")
