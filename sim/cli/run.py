"""`sim run` and what is done with its folder: `repeats`, `plot`; and `schema`, of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import Row, print_folder, print_line, print_result, print_table
from sim.cli.options import (
    AsJson,
    DeviceName,
    DtypeName,
    Figures,
    NewOut,
    SaveImages,
    ScenarioOptions,
    Workers,
    chosen_device,
    with_options,
)
from sim.progress import print_json

if TYPE_CHECKING:
    from sim.results.files import Outcome

Run = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]


@with_options(ScenarioOptions)
def run(
    options: ScenarioOptions,
    out: NewOut = None,
    save_images: SaveImages = False,
    workers: Workers = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on a Dask cluster; 'local' starts one."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do everything again, whatever is there.")
    ] = False,
    figures: Figures = True,
    pcap: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a stream's packets, for Wireshark."),
    ] = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Run a scenario: tables, figures, summary in a folder.

    The folder is results/SCENARIO/RUN, unless --out names another. What is in it already is not
    done again: after an interruption, or a change to some points of a sweep, the same command goes
    on; started several times with one --out, also on machines with a common file system, it shares
    the work. Without --workers, there are as many processes as are worth it.
    """
    loaded = options.load()

    from sim.experiment.runner import RunOptions, run_experiment
    from sim.progress import progress_bar

    where = chosen_device(device, dtype)
    if pcap is not None:
        from sim.experiment.capture import check_target, write_capture

        check_target(pcap)
    how = RunOptions(out, save_images, fresh, workers, dask, where, figures)
    with progress_bar(loaded.scenario.name) as progress:
        outcome = run_experiment(loaded, how, progress)
    about = {"run": str(outcome.folder), "cells": outcome.cells, "found": outcome.found}
    if pcap is not None:
        stream = write_capture(loaded, pcap, where)
        about |= {"pcap": str(pcap)}
    print_result(as_json, about | (outcome.summary or {}), print_summary, outcome)
    if pcap is not None and not as_json:
        print_line(f"packets:  {pcap} ({stream})")


def repeats(
    run: Run,
    within: Annotated[float, typer.Option(help="Half width of the interval wanted.")] = 0.1,
    metric: Annotated[
        str, typer.Option(help="The metric whose mean is to be certain.")
    ] = "psnr_db",
    as_json: AsJson = False,
) -> None:
    """Tell how many repeats make a run's means certain.

    Certain is a 95% interval of +-WITHIN, for the run's images.
    """
    from sim.results.run import Run

    found = Run.load(run).repeats_table(within, metric)
    summary = {"run": str(run), "metric": metric, "within": within, "points": found}
    print_result(as_json, summary, _print_repeats, found, metric, within)


def plot(run: Run, as_json: AsJson = False) -> None:
    """Draw a run's figures again from its saved tables."""
    from sim.figures.run import draw_figures

    figures = [str(path) for path in draw_figures(run)]
    print_result(as_json, {"run": str(run), "figures": figures}, print, "\n".join(figures))


def schema() -> None:
    """Print the JSON schema of scenario files."""
    from sim.scenario.loader import json_schema

    print_json(json_schema())


def print_summary(outcome: Outcome) -> None:
    """A run's summary as a table on standard output, and where everything is."""
    from sim.scenario.schema import CLEAN

    summary = outcome.summary
    points = summary["points"]
    title = f"{summary['scenario']}, seed {summary['seed']}"
    if all(set(point["concealers"]) == {CLEAN} for point in points):
        _print_losses(title, points)
    else:
        _print_quality(title, points, [*summary["metrics"], "token_accuracy"])
    if len(points) == 1:
        print_line(_loss_line(points[0]))
    if outcome.found:
        print_line(
            f"{outcome.found} of {outcome.cells} cells were finished before; "
            "--fresh does them again"
        )
    print_folder(outcome.folder)


def _print_losses(title: str, points: Sequence[Mapping[str, Any]]) -> None:
    """What the channel took at every point, for a run that repairs nothing."""
    swept, values = _swept(points)
    headings = ("packets", "lost", "95% interval", "by theory", "tokens lost")
    rows = [
        (
            *first,
            f"{loss['packets_sent']:,}",
            f"{loss['packets']:.1%}",
            f"{loss['low']:.0%} to {loss['high']:.0%}",
            f"{loss['expected']:.1%}" if "expected" in loss else "",
            f"{loss['tokens']:.1%}",
        )
        for first, loss in zip(values, (point["loss"] for point in points), strict=True)
    ]
    print_table(title, [*swept, *headings], rows, right=headings, unbroken=swept)


def _print_quality(title: str, points: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> None:
    from sim.metrics import metric as metric_of
    from sim.scenario.schema import CLEAN

    swept, values = _swept(points)
    rows: list[Row] = []
    for first, point in zip(values, points, strict=True):
        for name, found in point["concealers"].items():
            label = "(no loss)" if name == CLEAN else name.replace("_", " ")
            means = [found[metric]["mean"] for metric in metrics]
            cells = [
                "" if mean is None or mean != mean else metric_of(metric).text(mean, unit=False)
                for metric, mean in zip(metrics, means, strict=True)
            ]
            rows.append((*first, label, *cells))
            first = [""] * len(swept)
        rows.append(None)
    headings = [metric_of(metric).heading for metric in metrics]
    unbroken = swept or ["repair"]
    print_table(title, [*swept, "repair", *headings], rows, right=headings, unbroken=unbroken)


def _print_repeats(found: Sequence[Mapping[str, Any]], metric: str, within: float) -> None:
    from sim.metrics import metric as metric_of

    swept, values = _swept(found)
    headings = ("repeats so far", "+- so far", "repeats needed")
    rows = [
        (
            *first,
            entry["repair"].replace("_", " "),
            str(entry["repeats"]),
            "" if entry["half_width"] != entry["half_width"] else f"{entry['half_width']:.3g}",
            "run at least 2" if entry["needed"] is None else str(entry["needed"]),
        )
        for first, entry in zip(values, found, strict=True)
    ]
    left = [*swept, "repair"]
    title = f"repeats for {metric_of(metric).heading} +-{within:g}"
    print_table(title, [*left, *headings], rows, right=headings, unbroken=left)


def _swept(points: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings of the keys that differ between points, and their values at every point."""
    from sim.scenario.labels import value_label

    keys = list(dict.fromkeys(key for point in points for key in point["values"]))
    values = [
        [value_label(point["values"][key]) if key in point["values"] else "" for key in keys]
        for point in points
    ]
    return [key.rpartition(".")[2].replace("_", " ") for key in keys], values


def _loss_line(point: Mapping[str, Any]) -> str:
    loss = point["loss"]
    text = f"lost {loss['packets']:.1%} of {loss['packets_sent']} packets"
    if "expected" in loss:
        text += (
            f" (this channel loses {loss['expected']:.1%} on average; so short a stream, 95% of "
            f"the time, {loss['one_stream_low']:.0%} to {loss['one_stream_high']:.0%})"
        )
    bits = f"{point['bpp']:.4f} bits per pixel, {point['bpp_wire']:.4f} on the wire"
    return f"{text}, {loss['tokens']:.1%} of tokens; {bits}{_protection_line(point)}"


def _protection_line(point: Mapping[str, Any]) -> str:
    """What parity and retransmission did, if anything; runs of older versions do not say."""
    found = point.get("protection", {})
    counts = [
        f"{found[name]} {what}"
        for name, what in (
            ("recovered", "slices restored by parity"),
            ("retransmitted", "packets sent again"),
        )
        if found.get(name)
    ]
    if not counts:
        return ""
    return f"; {', '.join(counts)}; complete {found['latency_s']:.2f} s after capture on average"
