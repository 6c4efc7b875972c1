"""`sim page`: the live page of a running stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.live import Camera, VideoOptions
from sim.cli.options import DeviceOptions, ScenarioName, with_options


@dataclass(frozen=True, kw_only=True)
class PageOptions(VideoOptions, DeviceOptions):
    """The scenario may be left out."""

    scenario: ScenarioName = Path("burst20")


@with_options(PageOptions)
def page(
    options: PageOptions,
    camera: Camera = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the page, on 127.0.0.1.")
    ] = 8080,
    side: Annotated[
        int, typer.Option(min=16, help="Pixels; pictures are shrunk to this longest side.")
    ] = 384,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Watch a running stream in the browser.

    Its settings can be changed while it runs. The scenario is burst20, unless another is named.
    """
    loaded = options.load_with(camera)

    from sim.page.server import serve

    serve(loaded, options.scenario, port, side, open_, options.chosen_device())
