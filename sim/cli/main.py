"""The command line. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sim.cli.compare import compare, optimise
from sim.cli.device import DeviceName, DtypeName, chosen_device
from sim.cli.live import add_live_commands
from sim.cli.page import page
from sim.cli.report import gallery, report
from sim.cli.scenarios import new, scenarios
from sim.cli.study import paper_check
from sim.errors import UserError
from sim.progress import print_json

_UsageError: Any = typer.BadParameter.__mro__[1]  # typer names it nowhere else

_FIRST = ("run", "scenarios", "new", "report", "page", "demo")
"""What to try first stands first in the help."""


class ErrorReportingGroup(TyperGroup):
    """Tells a user's mistake in one line on standard error and exits with code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help."""
        names = super().list_commands(ctx)
        return [*_FIRST, *(name for name in names if name not in _FIRST)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a command line; ~ is the user's home, after --option= too."""
        parts = [re.match(r"(--[\w-]+=)?(.*)", word, re.DOTALL) for word in args]
        return super().parse_args(
            ctx, [(part[1] or "") + os.path.expanduser(part[2]) for part in parts if part]
        )

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        settle()
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except UserError as error:
            told = error
        except _UsageError as error:
            if "\n" in error.message:  # the help, where a command is missing
                raise
            command = error.ctx.command_path if error.ctx else "sim"
            told = UserError(f"{error.format_message().rstrip('.')}; see {command} --help")
        except MemoryError:
            told = UserError("this takes more memory than there is; make it smaller")
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: no mistake
                raise
            where = "cannot write or read" if error.filename is None else os.fspath(error.filename)
            told = UserError(f"{where}: {error.strerror or error}")
            _let_go_of_output()
        typer.echo(str(told), err=True)
        raise typer.Exit(2) from None


def settle() -> None:
    """Make surroundings that differ from place to place alike."""
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, whatever a notebook asks for
    os.environ["PYTHONSAFEPATH"] = "1"  # processes started here import nothing that lies around
    if sys.stdout is None:  # closed by whoever called
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding may lack letters of a file name
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Where standard output takes nothing more, the end of this process must not fail on it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def lazy_group(group: str) -> type[TyperGroup]:
    """Commands that are imported, from ``sim.cli.<group>``, when one of them is asked for: most of
    the start of a command line goes into commands that are not called."""

    class LazyGroup(TyperGroup):
        @cached_property
        def loaded(self) -> TyperGroup:
            module = import_module(f"sim.cli.{group}")
            return typer.main.get_group(getattr(module, f"{group}_app"))

        def list_commands(self, ctx: Any) -> list[str]:
            return self.loaded.list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return self.loaded.get_command(ctx, cmd_name)

    return LazyGroup


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help comes up in half the time
    help="Stream images as tokens through a lossy channel, repair them, and measure.",
)

GROUPS = {
    "channel": "Describe, sample, fit, check and picture channels.",
    "codec": "Images to token files and back; comparison with other codecs.",
    "model": "Models: import a VQGAN checkpoint, list and show folders.",
    "study": "Measure the repair: schedules, rivals, interleavers. Interrupted studies resume; "
    "processes given the same folder share the work.",
    "train": "Train the codec's networks from a folder of photos.",
}
for group, about in GROUPS.items():
    stub = typer.Typer(cls=lazy_group(group), no_args_is_help=True, help=about)
    app.add_typer(stub, name=group)
app.command("paper-check")(paper_check)
app.command()(scenarios)
app.command()(new)
app.command()(report)
app.command()(gallery)
app.command()(page)
app.command()(compare)
add_live_commands(app)
app.command()(optimise)

AsJson = Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")]


@app.command()
def run(
    scenario: Annotated[
        Path,
        typer.Argument(
            help="Scenario file (YAML), or the name of one that ships.", show_default=False
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override the seed.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; else results/SCENARIO/RUN.")
    ] = None,
    save_images: Annotated[
        bool, typer.Option("--save-images", help="Also write every output image.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; else as many as are worth it.", show_default=False),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do share I of N of the cells, and no tables."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on a Dask cluster; 'local' starts one."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do everything again, whatever is there.")
    ] = False,
    pcap: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the packets of one stream as pcapng, for Wireshark."
        ),
    ] = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a scenario: tables, figures, summary in a folder.

    What is in the folder already is not done again: after an interruption, or a change to some
    points of a sweep, the same command goes on.
    """
    from sim.scenario.library import find_scenario
    from sim.scenario.loader import load_scenario

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    loaded = load_scenario(find_scenario(scenario), overrides)

    from sim.cli.console import print_summary
    from sim.experiment.runner import RunOptions, run_experiment
    from sim.progress import progress_bar

    where = chosen_device(device, dtype)
    if pcap is not None:
        from sim.experiment.capture import check_target, write_capture

        check_target(pcap)
    options = RunOptions(out, save_images, fresh, workers, _share(shard), dask, where)
    with progress_bar(loaded.scenario.name) as progress:
        outcome = run_experiment(loaded, options, progress)
    stream = None if pcap is None else write_capture(loaded, pcap, where)
    if as_json:
        about = {"run": str(outcome.folder), "cells": outcome.cells, "found": outcome.found}
        print_json(about | ({} if pcap is None else {"pcap": str(pcap)}) | (outcome.summary or {}))
    else:
        print_summary(outcome)
        if stream is not None:
            typer.echo(f"packets:  {pcap} ({stream})")


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders of shards elsewhere.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make tables and figures of what shards have finished."""
    from sim.cli.console import print_summary
    from sim.experiment.runner import merge_runs

    outcome = merge_runs(out, folders or [])
    if as_json:
        print_json({"run": str(outcome.folder), **(outcome.summary or {})})
    else:
        print_summary(outcome)


@app.command()
def repeats(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    within: Annotated[float, typer.Option(help="Half width of the interval wanted.")] = 0.1,
    metric: Annotated[str, typer.Option(help="Of which metric.")] = "psnr_db",
    as_json: AsJson = False,
) -> None:
    """Tell how many repeats make a run's means certain. To +-WITHIN, for its images."""
    from sim.cli.console import print_repeats
    from sim.results.repeats import repeats_wanted

    found = repeats_wanted(run, within, metric)
    if as_json:
        print_json({"run": str(run), "metric": metric, "within": within, "points": found})
    else:
        print_repeats(found, metric, within)


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Draw a run's figures again from its saved tables."""
    from sim.figures.run import draw_figures

    figures = [str(path) for path in draw_figures(run)]
    if as_json:
        print_json({"run": str(run), "figures": figures})
    else:
        typer.echo("\n".join(figures))


@app.command()
def schema() -> None:
    """Print the JSON schema of scenario files."""
    from sim.scenario.loader import json_schema

    print_json(json_schema())


def _share(shard: str | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    number, _, of = shard.partition("/")
    try:
        share = int(number), int(of)
    except ValueError:
        share = 0, 0
    if not 1 <= share[0] <= share[1]:
        raise UserError(f"--shard {shard}: write I/N with 1 <= I <= N, such as 2/8")
    return share
