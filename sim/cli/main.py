"""The command line. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.compare import compare, optimise
from sim.cli.groups import ErrorReportingGroup, command_group, lazy_group
from sim.cli.live import demo, keys, receive, replay, send
from sim.cli.page import page
from sim.cli.report import gallery, report
from sim.cli.run import merge, plot, repeats, run, schema
from sim.cli.scenarios import new, scenarios
from sim.cli.study import paper_check
from sim.version import __version__

COMMANDS = (
    *(run, scenarios, new, report, gallery, page, compare, optimise, paper_check),
    *(demo, send, receive, replay, keys, merge, repeats, plot, schema),
)
GROUPS = {
    "channel": "Describe, sample, fit, check and picture channels.",
    "codec": "Images to token files and back; comparison with other codecs.",
    "model": "Models: import a VQGAN checkpoint, list and show folders.",
    "study": "Measure the repair: schedules, rivals, interleavers. Interrupted studies resume; "
    "processes given the same folder share the work.",
    "train": "Train the codec's networks from a folder of photos.",
}

app = command_group(cls=ErrorReportingGroup)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sim {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Stream images as tokens through a lossy channel, repair them, and measure."""


for command in COMMANDS:
    app.command()(command)
for group, about in GROUPS.items():
    app.add_typer(command_group(cls=lazy_group(group), help=about), name=group)
