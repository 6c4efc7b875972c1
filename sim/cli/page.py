"""`sim page`: the live page of a running stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def page(
    scenario: Annotated[
        Path, typer.Argument(help="Scenario file, or the name of one that ships.")
    ] = Path("burst20"),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override the seed.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the page, on 127.0.0.1.")] = 8080,
    side: Annotated[
        int, typer.Option(min=16, help="Pixels; photographs are shrunk to this longest side.")
    ] = 384,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Watch a running stream in the browser. Change it while it runs."""
    from sim.scenario.library import find_scenario
    from sim.scenario.loader import load_scenario

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    loaded = load_scenario(find_scenario(scenario), overrides)

    from sim.page.server import serve

    serve(loaded, scenario, port, side, open_)
