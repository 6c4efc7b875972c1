"""`sim scenarios` and `sim new`: what ships, and how to begin one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.progress import print_json


def scenarios(
    name: Annotated[
        str | None, typer.Argument(help="Explain this one.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the scenarios that ship, or explain one. What each asks, its size, how long it takes."""
    from sim.cli.scenarios_console import as_data, print_library, print_scenario
    from sim.scenario.library import describe, find_scenario, shipped

    if name is not None:
        found = describe(find_scenario(Path(name)))
        if as_json:
            print_json(as_data(found))
        else:
            print_scenario(found)
    elif as_json:
        print_json({"scenarios": [as_data(one) for one in shipped()]})
    else:
        print_library(shipped())


def new(
    name: Annotated[str, typer.Argument(help="What to call it.", show_default=False)],
    like: Annotated[
        str | None,
        typer.Option("--from", metavar="SCENARIO", help="Start from a copy of this one."),
    ] = None,
) -> None:
    """Write NAME.yaml, a commented scenario to change and run."""
    from sim.scenario.library import write_new

    path = write_new(Path(name), like)
    typer.echo(f"wrote {path}; change it, then: sim run {path}")
