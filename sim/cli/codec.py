"""`sim codec`: images <-> files, and the comparison with other codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import print_folder, print_line, print_result, print_table
from sim.cli.groups import command_group
from sim.cli.options import (
    AsJson,
    Codebook,
    Codebooks,
    Figures,
    Images,
    Limit,
    ModelOptions,
    Out,
    OutFiles,
    Workers,
    names,
    numbers,
    with_options,
)
from sim.errors import UserError, user_errors

if TYPE_CHECKING:
    from sim.baselines import Counted
    from sim.media.token_file import ImageCodec

codec_app = command_group()

Entropy = Annotated[str, typer.Option(help="fixed, static or context.")]
Patch = Annotated[int, typer.Option(help="Pixels a token stands for, each way: more is smaller.")]
Search = Annotated[
    int, typer.Option(help="Steps in which better tokens are sought: slower; 16 is plenty.")
]


@codec_app.command()
@with_options(ModelOptions)
def encode(
    options: ModelOptions,
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="An image, or a folder.", show_default=False)
    ],
    out: OutFiles,
    codebook: Codebook = 1024,
    patch: Patch = 16,
    search: Search = 0,
    entropy: Entropy = "static",
    slices: Annotated[
        int, typer.Option(min=1, max=256, help="Packets; each that is damaged costs its share.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Write each image as a small file of tokens (.tok)."""
    from sim.media.coded_files import encode_files
    from sim.progress import progress_bar

    codec = options.codec()
    with progress_bar("encode") as progress:
        rows = encode_files(
            codec,
            input_,
            out,
            codebook_size=codebook,
            entropy=entropy,
            slices=slices,
            patch=patch,
            search=search,
            progress=progress,
            written=lambda row: None if as_json else _print_encoded(row),
        )
    print_result(as_json, {**_made_by(codec), "files": rows}, lambda: None)


@codec_app.command()
@with_options(ModelOptions)
def decode(
    options: ModelOptions,
    input_: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .tok file, or a folder.", show_default=False)
    ],
    out: OutFiles,
    concealer: Annotated[
        str, typer.Option(help="What fills in the tokens of damaged packets.")
    ] = "inpaint",
    enhance: Annotated[
        bool, typer.Option("--enhance", help="Let Real-ESRGAN enlarge what is decoded; slow.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write each token file's image.

    It is PNG, or has the format of the output's ending.
    """
    from codec.concealment import CONCEALERS
    from codec.enhance import check_enhancer
    from codec.perceptual import FeaturesMissing
    from codec.pixel_repair import RepairMissing, check_installed
    from sim.media.coded_files import decode_files

    names("--concealer", concealer, CONCEALERS)
    with user_errors("--concealer: ", RepairMissing):
        check_installed(concealer)
    if enhance:
        with user_errors("--enhance: ", FeaturesMissing):
            check_enhancer()
    codec = options.codec()
    written = partial(_print_decoded, as_json=as_json)
    rows = decode_files(codec, input_, out, concealer, written, enhance)
    print_result(as_json, {**_made_by(codec), "files": rows}, lambda: None)


@codec_app.command()
@with_options(ModelOptions)
def bench(
    options: ModelOptions,
    images: Images,
    out: Out,
    metrics: Annotated[
        str, typer.Option(help="Such as psnr_db,lpips. Default: all that can be measured here.")
    ] = "",
    codebook: Annotated[
        str,
        typer.Option(
            "--codebook",
            "--levels",
            help="Codebook sizes, with patch: 8,64,512@24. Default: all, at 16.",
        ),
    ] = "",
    codecs: Annotated[str, typer.Option(help="Other codecs: jpeg,vvc-half. Default: all.")] = "",
    limit: Limit = 0,
    search: Search = 0,
    entropy: Entropy = "static",
    count: Annotated[
        str, typer.Option(help="What must be equal: file (all bytes) or payload.")
    ] = "file",
    rates: Annotated[
        str, typer.Option(help="Bits per pixel at which the other codecs are measured.")
    ] = "0.0085,0.013,0.02,0.03,0.045",
    workers: Workers = 1,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Measure the other codecs only; call again for ours.")
    ] = False,
    figures: Figures = True,
    as_json: AsJson = False,
) -> None:
    """Compare with other codecs at equal bytes.

    The folder holds tables, curves and side-by-side sheets. What is in it already is not measured
    again: an interrupted comparison goes on, and new weights cost only our own points.
    """
    from sim.baselines import BASELINES
    from sim.media.images import load_images
    from sim.metrics import DEFAULT, OPTIONAL
    from sim.metrics.quality import measurable

    others = names("--codecs", codecs, BASELINES) if codecs else BASELINES
    wanted = names("--metrics", metrics, (*DEFAULT, *OPTIONAL)) if metrics else measurable()
    names("--count", count, ("file", "payload"))
    bpp = sorted(numbers("--rates", rates, float, 1e-6, 24.0, "bits per pixel"))
    loaded = load_images([images], Path.cwd())[: limit or None]
    codec = options.codec()

    from sim.progress import progress_bar
    from sim.studies.codec_bench.runner import run_bench
    from sim.studies.codec_bench.work import BenchConfig, BenchLevel

    try:
        chosen = [BenchLevel(*map(int, w.split("@", 1))) for w in codebook.split(",") if w.strip()]
    except ValueError:
        raise UserError(f"--codebook {codebook}: as 8,64 or 512@24, with commas between") from None
    levels = tuple(chosen or map(BenchLevel, codec.model.codebook_sizes))
    counted: Counted = "file" if count == "file" else "payload"
    config = BenchConfig(levels, entropy, others, search, counted, wanted, tuple(bpp), workers or 1)
    with progress_bar("bench") as progress:
        summary = run_bench(codec, loaded, config, out, progress, options.model, prepare, figures)
    if prepare:
        typer.echo(f"{out}: the other codecs are measured; now call without --prepare", err=True)
    else:
        print_result(as_json, {"folder": str(out), **summary}, _print_bench, summary, out)


@codec_app.command()
@with_options(ModelOptions)
def bits(
    options: ModelOptions,
    images: Images,
    out: Out,
    codebook: Codebooks = "",
    slices: Annotated[str, typer.Option(help="Packets per image.")] = "1,8,24",
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Bits per token by entropy mode and interleaver.

    The folder holds a table and a figure.
    """
    from sim.media.images import load_images
    from sim.progress import progress_bar

    counts = sorted(numbers("--slices", slices, int, 1, 256))
    chosen = sorted(numbers("--codebook", codebook, int, 2, 2**16)) if codebook else None
    loaded = load_images([images], Path.cwd())[: limit or None]
    codec = options.codec()

    from sim.studies.codec_bench.bits import bits_study

    with progress_bar("bits") as progress:
        rows = bits_study(
            codec, loaded, chosen or codec.model.codebook_sizes, counts, out, progress
        )
    print_result(as_json, {"folder": str(out), "rows": rows}, _print_bits, rows, out)


@codec_app.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="A folder of sim codec bench.")],
) -> None:
    """Draw a comparison's figures again from its saved tables."""
    from sim.studies.codec_bench.figures import draw_bench

    typer.echo("\n".join(str(path) for path in draw_bench(folder)))


def _made_by(codec: ImageCodec) -> dict[str, str]:
    return {"model": codec.model.fingerprint, "device": str(codec.model.device)}


def _print_encoded(row: Mapping[str, Any]) -> None:
    typer.echo(f"{row['file']}: {row['file_bytes']} bytes, {row['bpp']:.4f} bits per pixel")


def _print_decoded(row: Mapping[str, Any], as_json: bool) -> None:
    if row["packets_lost"]:
        typer.echo(
            f"{row['file']}: {row['packets_lost']} of {row['packets']} packets damaged, filled in "
            f"by {row['concealer']}",
            err=True,
        )
    if not as_json:
        typer.echo(row["image"])


def _print_bits(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """A line per codebook and number of slices, a column per mode and interleaver."""
    from sim.results.files import FIGURES

    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        entropy, order = row["entropy"], row["interleaver"]
        if entropy == "context" or order == "raster":  # the order matters only to the context
            heading = order.replace("_", " ") if entropy == "context" else entropy
            cells = lines.setdefault((str(row["codebook"]), str(row["slices"])), {})
            cells[heading] = f"{row['bits_per_token']:.2f} ({row['saved']:.0%})"
    headings = ["K", "slices", *next(iter(lines.values()))]
    print_table(
        "Bits per token (share of log2 K saved); context coding by interleaver",
        headings,
        [(*line, *(cells[heading] for heading in headings[2:])) for line, cells in lines.items()],
        right=headings,
        spread=headings[2:],
    )
    print_line(f"figure: {folder / FIGURES / 'bits.png'}")


def _print_bench(summary: Mapping[str, Any], folder: Path) -> None:
    """One line per level: ours, and by each metric the best of the others that fit everywhere."""
    from sim.metrics import METRICS
    from sim.studies.codec_bench.work import OURS

    levels = summary["levels"]
    metrics = [METRICS[name] for name in METRICS if name in levels[0]["codecs"][OURS]]
    size = ("K@patch", "bytes", "bpp")
    print_table(
        "Ours / the best other at equal bytes",
        [*size, *(metric.heading for metric in metrics)],
        [
            (
                level["level"],
                f"{level['file_bytes']:.0f}",
                f"{level['bpp']:.4f}",
                *(_ours_and_best(level["codecs"], metric.name) for metric in metrics),
            )
            for level in levels
        ],
        right=size,
        spread=[metric.heading for metric in metrics],
    )
    less = ", ".join(metric.label for metric in metrics if not metric.larger_is_better)
    if less:
        print_line(f"{less}: less is better")
    labels = [metric.label for metric in metrics]
    print_table(
        "BD-rate: our bytes at equal quality, against theirs; - where no quality is shared",
        ["against", *labels],
        [
            (name, *("-" if rate != rate else f"{rate:+.0%}" for rate in rates.values()))
            for name, rates in summary["bd_rate"].items()
        ],
        right=labels,
    )
    for name, why in summary["skipped"].items():
        print_line(f"skipped {name}: {why}")
    print_folder(folder)


def _ours_and_best(codecs: Mapping[str, Any], name: str) -> str:
    from sim.metrics import METRICS
    from sim.studies.codec_bench.work import OURS

    about = METRICS[name]
    known = {n: found[name] for n, found in codecs.items() if found["fits"] == 1 or n == OURS}
    texts = {n: about.text(value, unit=False) for n, value in known.items() if value == value}
    others = [n for n in texts if n != OURS]
    best = max(others, key=lambda n: about.sign * known[n], default="")
    return f"{texts.get(OURS, '-')} / " + (f"{texts[best]} {best}" if best else "-")
