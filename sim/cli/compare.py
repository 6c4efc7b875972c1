"""`sim compare` and `sim optimise`: which strategy to choose, at equal bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import print_folder, print_line, print_result, print_table
from sim.cli.options import (
    AsJson,
    DeviceOptions,
    NetworkOptions,
    NewOut,
    OverrideOptions,
    Workers,
    numbers,
    with_options,
)

if TYPE_CHECKING:
    from sim.results.files import Outcome

_SHOWN = ("psnr_db", "ms_ssim", "ssimulacra2", "lpips", "dists", "flicker", "frozen", "recovery_s")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OverrideOptions, DeviceOptions):
    """What the command line changes in a comparison, and where its networks run."""


@with_options(CompareOptions)
def compare(
    options: CompareOptions,
    comparison: Annotated[
        Path,
        typer.Argument(
            help="Comparison file (YAML), or the name of one that ships.", show_default=False
        ),
    ],
    out: NewOut = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Compare strategies at equal bytes, on the same losses."""
    from sim.scenario.library import find_scenario
    from sim.studies.compare.config import load_comparison

    loaded = load_comparison(find_scenario(comparison), options.overrides)

    from sim.progress import progress_bar
    from sim.studies.compare.runner import run_comparison

    device = options.chosen_device()
    with progress_bar(loaded.name) as progress:
        outcome = run_comparison(loaded, out, progress, workers or 1, device)
    summary = {"folder": str(outcome.folder), **outcome.summary}
    print_result(as_json, summary, _print_comparison, outcome)


@with_options(NetworkOptions)
def optimise(
    options: NetworkOptions,
    bpp_wire: Annotated[
        float, typer.Option("--bpp-wire", help="Bits per pixel on the wire, all counted.")
    ],
    deadline: Annotated[
        float | None, typer.Option(help="Playout delay in seconds. Default: the scenario's.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="The metric to be best, such as psnr_db, ms_ssim or lpips.")
    ] = "ssimulacra2",
    verify: Annotated[
        int, typer.Option(min=1, help="Stream so many for real, and the best of each kind.")
    ] = 3,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Streams of each. Default: 8, or the scenario's if more."),
    ] = None,
    slices: Annotated[
        str, typer.Option(help="Packets per image to try, with commas between them.")
    ] = "8,16,32,64",
    out: NewOut = None,
    as_json: AsJson = False,
) -> None:
    """Find the best settings for a channel and a byte budget.

    Settings are the codebook, packets, parity and retransmissions.
    """
    counts = numbers("--slices", slices, int, 1, 256)
    loaded = options.load()

    from sim.progress import progress_bar
    from sim.studies.optimise.runner import optimise as search

    how = metric, verify, repeats, out
    device = options.chosen_device()
    with progress_bar(loaded.scenario.name) as progress:
        found = search(loaded, bpp_wire, deadline, *how, progress, counts, device)
    summary = {"folder": str(found.folder), **found.summary}
    print_result(as_json, summary, _print_optimisation, found.folder, found.summary)


def _print_comparison(outcome: Outcome) -> None:
    """Winners per budget, burst length and loss rate; what could not take part; where it all is."""
    from sim.metrics import metric as metric_of

    summary = outcome.summary
    winners: Sequence[Mapping[str, Any]] = summary["winners"]
    metrics = [m for m in _SHOWN if any(row["metric"] == m for row in winners)]
    conditions: dict[tuple[float, object, float], dict[str, str]] = {}
    for row in winners:
        cells = conditions.setdefault((row["budget"], row["mean_burst"], row["loss"]), {})
        sure = row["verdict"] and f" ({row['verdict']})"  # "" where all send tokens, or none does
        cells[row["metric"]] = f"{row['winner']}{sure}"
    labels = [metric_of(m).label for m in metrics]
    print_table(
        f"{summary['name']}: winner (best of tokens or files, if that is sure)",
        ["bpp wire", "burst", "lost", *labels],
        [
            (
                f"{budget:g}",
                f"{burst:g}" if isinstance(burst, float) else str(burst),
                f"{loss:.0%}",
                *(cells.get(m, "") for m in metrics),
            )
            for (budget, burst, loss), cells in conditions.items()
        ],
        spread=labels,
    )
    missed = {(row["strategy"], row["budget"]): row for row in reversed(summary["cannot_reach"])}
    for row in reversed(missed.values()):  # the first of each strategy and budget
        least = "" if row["least_bpp_wire"] is None else f" (least {row['least_bpp_wire']:.3f})"
        print_line(f"cannot reach {row['budget']:g} bpp: {row['strategy']}: {row['why']}{least}")
    for name, why in summary["skipped"].items():
        print_line(f"skipped {name}: {why}")
    print_folder(outcome.folder)


def _print_optimisation(folder: Path, summary: Mapping[str, Any]) -> None:
    """The verified candidates, best first, and where the winner is."""
    from sim.metrics import metric as metric_of
    from sim.results.files import FIGURES
    from sim.scenario.labels import count_label

    metric = summary["metric"]
    about = metric_of(metric)
    numbers = ("bpp wire", "slices there", about.heading, "95% interval", "theory")
    print_table(
        f"the best of {summary['candidates']} ways, streamed for real",
        ("K", "how", *numbers),
        [
            (
                str(row["level"]),
                row["strategy"],
                f"{row['bpp_wire']:.4f}",
                f"{row['source_there']:.1%}",
                about.text(row[metric], unit=False),
                _interval(row[f"{metric}_low"], row[f"{metric}_high"]),
                about.text(row["expected_quality"], unit=False),
            )
            for row in summary["verified"]
        ],
        right=numbers,
    )
    lead = summary["lead"]
    if lead["over"] is not None:
        between = _interval(lead["lead_low"], lead["lead_high"]) or "too few streams to tell"
        decided = "" if lead["lead_low"] > 0 else "; not decided"
        print_line(f"lead over the next: {lead['lead']:.3g} ({between}){decided}")
    streams = count_label(summary["repeats"], "stream")
    print_line(f"channel:  {json.dumps(summary['channel'])}, {streams} of each")
    print_line(f"winner:   {folder / 'winner.yaml'}")
    print_line(f"pictures: {folder / FIGURES}")


def _interval(low: float, high: float) -> str:
    """From one end to the other; nothing where there is none."""
    return "" if math.isnan(low) else f"{low:.4g} to {high:.4g}"
