"""`sim study` and `sim paper-check`: the repair, measured on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli.device import DeviceName, DtypeName, chosen_device
from sim.errors import UserError
from sim.progress import print_json

study_app = typer.Typer(no_args_is_help=True)

Images = Annotated[str, typer.Option(help="Image, folder or glob, or the word samples.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write, or to go on with.")]
Limit = Annotated[int, typer.Option(min=0, help="First N images only; 0 = all.")]
Side = Annotated[int, typer.Option(min=0, help="Cut images to their middle N pixels; 0 = whole.")]
Levels = Annotated[str, typer.Option(help="Codebook sizes, with commas between them.")]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Folder of weights. Default: those that ship.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")]


@study_app.command()
def schedules(
    images: Images,
    out: Out,
    levels: Levels = "1024,64",
    passes: Annotated[str, typer.Option(help="Numbers of passes, up to 12.")] = "1,2,4,8,12",
    limit: Limit = 4,
    side: Side = 0,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Decoding schedules. Order, passes, soft or most probable words."""
    chosen, counts = _numbers("--levels", levels), _numbers("--passes", passes)
    if not all(1 <= count <= 12 for count in counts):
        raise UserError(f"--passes {passes}: from 1 to 12")
    from sim.drivers.clock import WallClock
    from sim.progress import progress_bar
    from sim.studies.measurements import load
    from sim.studies.repair.runner import study_schedules

    loaded, photos = load(images, model, limit, side, chosen, chosen_device(device, dtype))
    with progress_bar("schedules") as progress:
        now = WallClock().now
        summary = study_schedules(loaded, photos, chosen, counts, out, now, progress)
    _tell(summary, out, as_json)


@study_app.command()
def rivals(
    images: Images,
    out: Out,
    levels: Levels = "1024,64",
    limit: Limit = 4,
    side: Side = 0,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Every concealer against the transformer, at 5% to 50% loss."""
    chosen = _numbers("--levels", levels)
    from sim.progress import progress_bar
    from sim.studies.measurements import load
    from sim.studies.repair.runner import study_rivals

    loaded, photos = load(images, model, limit, side, chosen, chosen_device(device, dtype))
    with progress_bar("rivals") as progress:
        summary = study_rivals(loaded, photos, chosen, out, progress)
    _tell(summary, out, as_json)


@study_app.command()
def interleavers(
    images: Images,
    out: Out,
    level: Annotated[int, typer.Option(help="Codebook size.")] = 1024,
    limit: Limit = 6,
    side: Side = 0,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Orders of the tokens. Repaired quality and coded bits, for 4 to 64 slices."""
    from sim.progress import progress_bar
    from sim.studies.measurements import load
    from sim.studies.repair.runner import study_interleavers

    loaded, photos = load(images, model, limit, side, [level], chosen_device(device, dtype))
    with progress_bar("interleavers") as progress:
        summary = study_interleavers(loaded, photos, level, out, progress)
    _tell(summary, out, as_json)


def paper_check(
    images: Images,
    out: Out = Path("results/paper-check"),
    levels: Levels = "1024,64",
    repeats: Annotated[int, typer.Option(min=1, help="Losses drawn per image.")] = 1,
    limit: Limit = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the losses.")] = 1,
    model: ModelName = None,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    as_json: AsJson = False,
) -> None:
    """Test a claim: 20% of the indices lost is hardly seen."""
    chosen = _numbers("--levels", levels)
    from sim.progress import progress_bar
    from sim.studies.measurements import load
    from sim.studies.repair.paper_check import CheckConfig, run_check

    loaded, photos = load(images, model, limit, 0, chosen, chosen_device(device, dtype))
    with progress_bar("paper-check") as progress:
        config = CheckConfig(chosen, repeats, seed)
        summary = run_check(loaded, photos, config, out, progress)
    if as_json:
        _print_json(summary, out)
    else:
        from sim.cli.study_console import print_check

        print_check(summary, out)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(word) for word in text.split(",") if word.strip()))
    except ValueError:
        found = ()
    if not found:
        raise UserError(f"{option} {text}: numbers with commas between them, as 64,1024")
    return found


def _tell(summary: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        _print_json(summary, out)
    else:
        from sim.cli.study_console import print_study

        print_study(summary, out)


def _print_json(summary: dict[str, Any], out: Path) -> None:

    print_json({"folder": str(out), **summary})
