"""`sim report` and `sim gallery`: finished runs as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; several are compared.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The HTML file; else report.html in the run.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="What the answer is about. Default: what is measured first.")
    ] = None,
) -> None:
    """Explain finished runs in one HTML file. It opens anywhere, without a network."""
    from sim.report.html import write_report

    target = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    typer.echo(write_report(runs, target, metric))


def gallery(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder of the gallery.")] = Path(
        "results/gallery"
    ),
) -> None:
    """Run some shipped scenarios and show them on one page."""
    from sim.report.gallery import make_gallery

    typer.echo(make_gallery(out, doing=lambda name: typer.echo(f"running {name}", err=True)))
