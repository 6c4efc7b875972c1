"""`sim compare` and `sim optimise`: which strategy to choose, at equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.progress import print_json

AsJson = Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]


def compare(
    comparison: Annotated[Path, typer.Argument(help="Comparison file.", show_default=False)],
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="Override the seed.")] = None,
    out: Out = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Compare strategies at equal bytes, on the same losses."""
    from sim.scenario.library import find_scenario
    from sim.studies.compare.config import load_comparison

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    loaded = load_comparison(find_scenario(comparison), overrides)

    from sim.cli.compare_console import print_comparison
    from sim.progress import progress_bar
    from sim.studies.compare.runner import run_comparison

    with progress_bar(loaded.name) as progress:
        outcome = run_comparison(loaded, out, progress, workers)
    if as_json:
        print_json({"folder": str(outcome.folder), **outcome.summary})
    else:
        print_comparison(outcome)


def optimise(
    scenario: Annotated[Path, typer.Argument(help="Scenario file (YAML).", show_default=False)],
    bpp_wire: Annotated[
        float, typer.Option("--bpp-wire", help="Bits per pixel on the wire, all counted.")
    ],
    deadline: Annotated[
        float | None, typer.Option(help="Playout delay in seconds. Default: the scenario's.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What is to be best, such as psnr_db, ms_ssim or lpips.")
    ] = "ssimulacra2",
    verify: Annotated[
        int, typer.Option(min=1, help="Stream so many for real, and the best of each kind.")
    ] = 3,
    set_: Set = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Find the best settings for a channel and a byte budget. They are codebook, packets, parity
    and retries."""
    from sim.scenario.library import find_scenario
    from sim.scenario.loader import load_scenario

    loaded = load_scenario(find_scenario(scenario), set_ or [])

    from sim.cli.compare_console import print_optimisation
    from sim.progress import progress_bar
    from sim.studies.optimise.runner import optimise as search

    with progress_bar(loaded.scenario.name) as progress:
        found = search(loaded, bpp_wire, deadline, metric, verify, out, progress)
    if as_json:
        print_json({"folder": str(found.folder), **found.summary})
    else:
        print_optimisation(found.folder, found.summary)
