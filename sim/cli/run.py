"""`sim run` and what is done with its folder: `repeats`, `plot`; and `schema`, of its files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import Row, print_folder, print_line, print_result, print_table
from sim.cli.options import (
    AsJson,
    Figures,
    NetworkOptions,
    NewOut,
    SaveImages,
    Workers,
    plain_cpu,
    with_options,
)
from sim.progress import print_json

if TYPE_CHECKING:
    from sim.results.files import Outcome
    from sim.results.run import PointSummary
    from sim.scenario.loader import LoadedScenario

_CHOSEN = ("lpips", "ssimulacra2", "token_accuracy")
"""Shown of a sweep before other metrics, after the first."""

Run = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]


@with_options(NetworkOptions)
def run(
    options: NetworkOptions,
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
    as_json: AsJson = False,
) -> None:
    """Run a scenario: tables, figures, summary in a folder.

    The folder is results/SCENARIO/RUN, unless --out names another. What is in it already is not
    done again: after an interruption, or a change to some points of a sweep, the same command goes
    on; started several times with one --out, also on machines with a common file system, it shares
    the work. Without --workers, there are as many processes as are worth it.
    """
    loaded = options.load()
    _warn(loaded)

    from sim.experiment.runner import RunOptions, run_experiment
    from sim.progress import progress_bar

    where = None if plain_cpu(options.device, options.dtype) else options.chosen_device()
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


def _warn(loaded: LoadedScenario) -> None:
    """One line on standard error if the stream and the channel do not fit."""
    from sim.progress import screen
    from sim.scenario.lint import lint_scenario

    found = [f"{f.where}: {f.message}" for f in lint_scenario(loaded) if f.level == "warning"]
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        screen(stderr=True).print(f"warning: {found[0]}{more}", soft_wrap=True, markup=False)


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
    """A run's summary as tables on standard output, its answer, and where everything is."""
    from sim.progress import screen
    from sim.report.answer import answer
    from sim.results.run import Run
    from sim.scenario.labels import count_label
    from sim.scenario.schema import CLEAN

    run = Run.load(outcome.folder)
    summary, points = run.summary, run.points
    title = f"{summary['scenario']}, seed {summary['seed']}"
    repairs = any(set(point.concealers) != {CLEAN} for point in points)
    if repairs:
        _print_quality(title, points, [*summary["metrics"], "token_accuracy"])
    if len(points) > 1 or not repairs:
        _print_packets("packets and bits" if repairs else title, points)
    if len(points) == 1:
        screen().print(_loss_line(points[0], summary["points"][0]["protection"]))
        screen().print(_images_line(points[0]))
    screen().print(f"answer:   {answer(run, run.metrics[0])}")
    if outcome.found:
        print_line(
            f"finished before: {outcome.found} of {count_label(outcome.cells, 'cell')}; "
            "--fresh does all again"
        )
    print_folder(outcome.folder)


def _print_packets(title: str, points: Sequence[PointSummary]) -> None:
    """What was lost at every point and in which way, and what was sent; in a line what is the same
    everywhere."""
    from sim.results.run import ways_lost

    swept, values = _swept([point.values for point in points])
    ways = ways_lost(points)
    columns: dict[str, list[str]] = {"packets": [], ways[0]: [], "95%": [], "theory": []}
    columns |= {name: [] for name in (*ways[1:], "tokens lost", "bpp", "on the wire")}
    for point in points:
        loss = point.loss
        cells = [
            f"{loss.packets_sent:,}",
            f"{loss.erased:.1%}",
            f"{loss.low:.0%} to {loss.high:.0%}",
            "" if math.isnan(loss.expected) else f"{loss.expected:.1%}",
            *(f"{getattr(loss, how):.1%}" for how in ways[1:]),
            f"{loss.tokens:.1%}",
            f"{point.bpp:.4f}",
            f"{point.bpp_wire:.4f}",
        ]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    columns["images complete"] = [f"{p.images_complete} of {p.images}" for p in points]
    if any(point.images_lost for point in points):
        columns["images lost"] = [str(point.images_lost) for point in points]
    latencies = [point.latency_s for point in points]
    if max(latencies) > 1.2 * min(latencies):
        columns["complete after (s)"] = [f"{latency:.3f}" for latency in latencies]
    same = {name: cells[0] for name, cells in columns.items() if len(set(cells)) == 1 and swept}
    columns = {name: cells for name, cells in columns.items() if name not in same}
    if columns:
        rows = [(*first, *cells) for first, *cells in zip(values, *columns.values(), strict=True)]
        print_table(title, [*swept, *columns], rows, right=[*columns], unbroken=swept)
    if any(same.values()):
        texts = (f"{name} {cell}" for name, cell in same.items() if cell)
        print_line(f"the same at every point: {', '.join(texts)}")


def _print_quality(title: str, points: Sequence[PointSummary], metrics: Sequence[str]) -> None:
    """Means of every repair; where there are several streams, also how much the mean of the first
    metric differs between them. Of a sweep, the metrics that fit on the screen."""
    from sim.metrics import metric as metric_of
    from sim.scenario.schema import CLEAN

    swept, values = _swept([point.values for point in points])
    if swept:
        metrics = sorted(metrics, key=lambda name: (name != metrics[0], name not in _CHOSEN))
    spread = "between streams" if points[0].repeats > 1 else ""
    rows: list[Row] = []
    for first, point in zip(values, points, strict=True):
        for name, found in point.concealers.items():
            label = "(no loss)" if name == CLEAN else name.replace("_", " ")
            cells = [_text(found[metric].mean, metric) for metric in metrics]
            if spread:
                sd = point.precision[name][metrics[0]].sd if name != CLEAN else math.nan
                cells.insert(1, "" if math.isnan(sd) else f"±{_text(sd, metrics[0])}")
            rows.append((*first, label, *cells))
            first = [""] * len(swept)
        rows.append(None)
    headings = [metric_of(metric).heading for metric in metrics]
    headings[1:1] = [spread] * bool(spread)
    unbroken = swept or ["repair"]
    left = print_table(
        title,
        [*swept, "repair", *headings],
        rows,
        right=headings,
        unbroken=unbroken,
        tables=1 if swept else None,
    )
    if left:
        print_line(f"not shown: {', '.join(left)} (summary.json has them)")
    if spread:
        label = metric_of(metrics[0]).label
        print_line(f"between streams: standard deviation of a stream's mean {label}")


def _text(value: float, metric: str) -> str:
    from sim.metrics import metric as metric_of

    return "" if math.isnan(value) else metric_of(metric).text(value, unit=False)


def _print_repeats(found: Sequence[Mapping[str, Any]], metric: str, within: float) -> None:
    from sim.metrics import metric as metric_of

    swept, values = _swept([entry["values"] for entry in found])
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

    keys = list(dict.fromkeys(key for values in points for key in values))
    labels = [
        [value_label(values[key]) if key in values else "" for key in keys] for values in points
    ]
    return [key.rpartition(".")[2].replace("_", " ") for key in keys], labels


def _loss_line(point: PointSummary, protection: Mapping[str, Any]) -> str:
    from sim.results.run import ways_lost

    loss, others = point.loss, ways_lost([point])[1:]
    text = f"lost {loss.packets:.1%} of {loss.packets_sent} packets"
    if others:
        shares = [f"{getattr(loss, how):.1%} {how}" for how in ("erased", *others)]
        text += f": {', '.join(shares)}"
    if not math.isnan(loss.expected):
        text += (
            f" (this channel {'erases' if others else 'loses'} {loss.expected:.1%} on average; "
            "so short a stream, 95% of the time, "
            f"{loss.one_stream_low:.0%} to {loss.one_stream_high:.0%})"
        )
    bits = f"{point.bpp:.4f} bits per pixel, {point.bpp_wire:.4f} on the wire"
    return f"{text}, {loss.tokens:.1%} of tokens; {bits}{_protection_line(protection)}"


def _images_line(point: PointSummary) -> str:
    """How many images were complete, and when."""
    from sim.scenario.labels import count_label

    images = count_label(point.images, "image")
    text = f"complete: {point.images_complete} of {images}, lost: {point.images_lost}"
    if math.isnan(point.latency_s):
        return text
    shares: dict[str, list[str]] = {}
    for percent, seconds in point.latency_percentiles_s.items():
        shares.setdefault(f"{seconds:.3f} s", []).append(f"{percent}%")
    within = "; ".join(f"{time} for {', '.join(found)}" for time, found in shares.items())
    return (
        f"{text}; the last packet of an image came {point.latency_s:.3f} s after its capture on "
        f"average, within {within}"
    )


def _protection_line(found: Mapping[str, Any]) -> str:
    """What parity and retransmission did, if anything."""
    counts = [
        f"{found[name]} {what}"
        for name, what in (
            ("recovered", "slices restored by parity"),
            ("retransmitted", "packets sent again"),
        )
        if found.get(name)
    ]
    return "".join(f"; {count}" for count in counts)
