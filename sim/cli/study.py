"""`sim study` and `sim paper-check`: the repair, measured on a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import Row, print_folder, print_line, print_result, print_table
from sim.cli.groups import command_group
from sim.cli.options import (
    AsJson,
    Codebook,
    Codebooks,
    Images,
    Limit,
    ModelOptions,
    Out,
    Seed,
    numbers,
    with_options,
)

if TYPE_CHECKING:
    from codec.model import Model
    from sim.media.images import LoadedImage

study_app = command_group()

MAX_CODEBOOK = 2**16


@dataclass(frozen=True, kw_only=True)
class StudyOptions(ModelOptions):
    """The images and the model of a study, and its folder."""

    images: Images
    out: Out
    limit: Limit = 4
    side: Annotated[
        int, typer.Option(min=0, help="Cut images to their middle N pixels; 0 = whole.")
    ] = 0
    as_json: AsJson = False

    def load(self, codebooks: Sequence[int]) -> tuple[Model, list[LoadedImage]]:
        """See `sim.studies.measurements.load`."""
        from sim.studies.measurements import load

        device = self.chosen_device()
        return load(self.images, self.model, self.limit, self.side, codebooks, device)

    def print_result(self, summary: dict[str, Any]) -> None:
        """The summary, as JSON or for people."""
        folder = {"folder": str(self.out)}
        print_result(self.as_json, folder | summary, _print_study, summary, self.out)


@study_app.command()
@with_options(StudyOptions)
def schedules(
    options: StudyOptions,
    codebook: Codebooks = "1024,64",
    passes: Annotated[str, typer.Option(help="Numbers of passes, up to 12.")] = "1,2,4,8,12",
) -> None:
    """Decoding schedules.

    Order, passes, soft or most probable codewords.
    """
    chosen = numbers("--codebook", codebook, int, 2, MAX_CODEBOOK)
    counts = numbers("--passes", passes, int, 1, 12)
    from sim.drivers.clock import WallClock
    from sim.progress import progress_bar
    from sim.studies.repair.runner import study_schedules

    model, photos = options.load(chosen)
    with progress_bar("schedules") as progress:
        now = WallClock().now
        summary = study_schedules(model, photos, chosen, counts, options.out, now, progress)
    options.print_result(summary)


@study_app.command()
@with_options(StudyOptions)
def baselines(options: StudyOptions, codebook: Codebooks = "1024,64") -> None:
    """Every concealer against the transformer, at 5% to 50% loss."""
    chosen = numbers("--codebook", codebook, int, 2, MAX_CODEBOOK)
    from sim.progress import progress_bar
    from sim.studies.repair.runner import study_baselines

    model, photos = options.load(chosen)
    with progress_bar("baselines") as progress:
        summary = study_baselines(model, photos, chosen, options.out, progress)
    options.print_result(summary)


@dataclass(frozen=True, kw_only=True)
class InterleaverOptions(StudyOptions):
    """By default of more images."""

    limit: Limit = 6


@study_app.command()
@with_options(InterleaverOptions)
def interleavers(options: InterleaverOptions, codebook: Codebook = 1024) -> None:
    """Orders of the tokens.

    Repaired quality and coded bits, for 4 to 64 slices.
    """
    from sim.progress import progress_bar
    from sim.studies.repair.runner import study_interleavers

    model, photos = options.load([codebook])
    with progress_bar("interleavers") as progress:
        summary = study_interleavers(model, photos, codebook, options.out, progress)
    options.print_result(summary)


@with_options(ModelOptions)
def paper_check(
    options: ModelOptions,
    images: Images,
    out: Out = Path("results/paper-check"),
    codebook: Codebooks = "1024,64",
    repeats: Annotated[int, typer.Option(min=1, help="Losses drawn per image.")] = 1,
    limit: Limit = 0,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Test a claim: 20% of the indices lost is hardly seen."""
    chosen = numbers("--codebook", codebook, int, 2, MAX_CODEBOOK)
    from sim.progress import progress_bar
    from sim.studies.measurements import load
    from sim.studies.repair.paper_check import run_check

    model, photos = load(images, options.model, limit, 0, chosen, options.chosen_device())
    with progress_bar("paper-check") as progress:
        summary = run_check(model, photos, chosen, out, progress, repeats, seed)
    print_result(as_json, {"folder": str(out), **summary}, _print_check, summary, out)


_FORMS = {"seconds": ".2f", "bits_per_token": ".2f", "lost": ".1%"}
"""How columns of studies are written that are no metrics."""


def _print_study(summary: Mapping[str, Any], folder: Path) -> None:
    """Every point of the study, and of its coded bits if it has them."""
    _print_points(None, summary["points"])
    for key, title in (("bits", "coded bits"), ("overall", "over all losses and slices")):
        if key in summary:
            _print_points(title, summary[key])
    print_folder(folder)


def _print_points(title: str | None, points: Sequence[Mapping[str, Any]]) -> None:
    from sim.metrics import METRICS
    from sim.metrics import metric as metric_of

    keys = [key for key in points[0] if key not in {*METRICS, *_FORMS}]
    metrics = [key for key in points[0] if key in {*METRICS, *_FORMS}]
    rows: list[Row] = []
    for point, after in zip(points, [*points[1:], None], strict=True):
        cells = [_mean(point[metric]["mean"], metric) for metric in metrics]
        rows.append((*(str(point[key]) for key in keys), *cells))
        if after is not None and after[keys[0]] != point[keys[0]]:
            rows.append(None)
    headings = [metric_of(metric).heading for metric in metrics]
    print_table(title, [*keys, *headings], rows, right=headings)


def _mean(value: float | None, name: str) -> str:
    from sim.metrics import METRICS

    if value is None or value != value:
        return ""
    return format(value, _FORMS[name]) if name in _FORMS else METRICS[name].text(value, unit=False)


def _print_check(summary: Mapping[str, Any], folder: Path) -> None:
    """The verdict, and what it rests on."""
    from rich import box

    from sim.metrics import METRICS

    drop = METRICS["psnr_drop_db"].heading
    more = [f"more {METRICS[metric].label}" for metric in summary["distances"]]
    for level in summary["levels"]:
        count = level["images"]
        print_table(
            f"K={level['codebook']}, {count} image{'s' * (count > 1)}: {level['verdict']}",
            ["lost (in fact), repair", drop, *more, "verdict"],
            [
                (
                    f"{condition} ({found['lost']:.0%}), {repair.replace('_', ' ')}",
                    _interval(found["less_psnr_db"], 1, ".2f"),
                    *(_interval(v, 100, ".1f") + "%" for v in found["more_distance"].values()),
                    found.get("verdict", ""),
                )
                for condition, repairs in level["conditions"].items()
                for repair, found in repairs.items()
            ],
            right=[drop, *more],
            box=box.SIMPLE_HEAD,
            padding=(0, 1),
        )
        for metric, beyond in level["beyond"].items():
            half = beyond["half_lost_minus_best_baseline"]
            print_line(
                f"{METRICS[metric].label}: 50% of tokens lost, repaired, minus the best baseline "
                f"({beyond['best_baseline'].replace('_', ' ')}) at 20%: "
                f"{_interval(half, 1, '.3f')}; "
                f"bursts take {beyond['bursts_increase_over_packets_increase']:.2f} times what "
                "single packets take"
            )
    limits = summary["limits"]
    print_line(
        f"Claim: with up to 20% lost, at most {limits['more_distance']:.0%} more LPIPS and "
        f"{limits['less_psnr_db']} dB less PSNR than without loss: {summary['claim']}."
    )
    print_folder(folder)


def _interval(found: Mapping[str, Any], scale: float, form: str) -> str:
    if found["mean"] is None or found["mean"] != found["mean"]:
        return "-"
    mean, low, high = (scale * found[key] for key in ("mean", "low", "high"))
    return f"{mean:{form}} ({low:{form}}..{high:{form}})"
