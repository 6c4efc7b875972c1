"""`sim train`: the training loops on the command line. torch is imported inside the commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.errors import UserError
from sim.progress import print_json

if TYPE_CHECKING:
    from codec.training.loop import LoopConfig
    from codec.training.runs import CacheConfig

train_app = typer.Typer(no_args_is_help=True)

Images = Annotated[Path, typer.Option(help="Folder of photographs, searched recursively.")]
Out = Annotated[Path, typer.Option(help="Run folder; an existing run there is resumed.")]
ModelFolder = Annotated[
    Path | None, typer.Option(help="Folder with the tokenizer's weights. Default: the shipped one.")
]
Start = Annotated[Path | None, typer.Option(help="Folder with weights that a new run starts from.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps in all, those already done included.")]
Decay = Annotated[int, typer.Option(min=1, help="Last steps, in which the rate falls to zero.")]
Crops = Annotated[int, typer.Option(min=1, help="Index maps cached for the runs that follow.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]


def _prepare(images: Path, out: Path, threads: int) -> None:
    if not images.is_dir():
        raise UserError(f"{images}: not a folder; --images wants a folder of photographs")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot make the run folder ({error.strerror})") from None
    if threads:
        import torch

        torch.set_num_threads(threads)


def _train(
    run: Callable[[LoopConfig, CacheConfig], dict[str, float]],
    weights: Path,
    numbers: tuple[int, int, int],
    as_json: bool,
) -> None:
    """Run one training with (steps, decay steps, crops) and tell what came out."""
    from codec.training.loop import LoopConfig
    from codec.training.runs import CacheConfig

    steps, decay_steps, crops = numbers
    try:
        held_out = run(LoopConfig(steps, decay_steps), CacheConfig(crops=crops))
    except (ValueError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            weights.parent.rmdir()  # if nothing came of it
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo(f"{weights.parent}: stopped and saved; the same command goes on", err=True)
        raise typer.Exit(130) from None
    if as_json:
        summary = {"run": str(weights.parent), "weights": weights.name, "held_out": held_out}
        print_json(summary)
        return
    for name, value in held_out.items():
        typer.echo(f"{name:>20} {value:.4f}")
    typer.echo(f"weights: {weights}")


@train_app.command()
def tokenizer(
    images: Images,
    out: Out = Path("training-runs/tokenizer"),
    start: Start = None,
    steps: Steps = 20_000,
    decay_steps: Decay = 4_000,
    crops: Crops = 12_000,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Encoder, codebook and decoder. From photographs; then the ladder of smaller codebooks."""
    _prepare(images, out, threads)
    from codec.model import TOKENIZER_FILE
    from codec.training.runs import train_tokenizer

    def run(loop: LoopConfig, cache: CacheConfig) -> dict[str, float]:
        return train_tokenizer(images, out, loop, start=start, cache=cache)

    _train(run, out / TOKENIZER_FILE, (steps, decay_steps, crops), as_json)


@train_app.command()
def ladder(
    images: Images,
    out: Out = Path("training-runs/ladder"),
    model: ModelFolder = None,
    crops: Crops = 12_000,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The smaller codebooks anew. Decoder, inpainter and context coder are then trained for it."""
    _prepare(images, out, threads)
    from codec.model import TOKENIZER_FILE
    from codec.training.runs import CacheConfig, train_ladder

    try:
        train_ladder(images, out, model, cache=CacheConfig(crops=crops))
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from error
    weights = out / TOKENIZER_FILE
    if as_json:
        print_json({"weights": str(weights)})
    else:
        typer.echo(f"weights: {weights}")


@train_app.command()
def encoder(
    images: Images,
    out: Out = Path("training-runs/encoder"),
    model: ModelFolder = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Blocks at 16 pixels; those that it lacks are added."),
    ] = None,
    steps: Steps = 5_000,
    decay_steps: Decay = 1_500,
    crops: Crops = 12_000,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """An encoder that is told the codebook's size. Decoder and codewords stay as they are.

    Its tokens are used otherwise than before: inpainter and context coder have to be trained on.
    """
    _prepare(images, out, threads)
    from codec.model import TOKENIZER_FILE
    from codec.training.runs import train_encoder

    def run(loop: LoopConfig, cache: CacheConfig) -> dict[str, float]:
        return train_encoder(images, out, loop, model, depth=depth, cache=cache)

    _train(run, out / TOKENIZER_FILE, (steps, decay_steps, crops), as_json)


@train_app.command()
def decoder(
    images: Images,
    out: Out = Path("training-runs/decoder"),
    model: ModelFolder = None,
    steps: Steps = 4_000,
    decay_steps: Decay = 1_000,
    crops: Crops = 12_000,
    level: Annotated[
        list[int] | None,
        typer.Option(help="Codebook size to train for; may be repeated. Default: all."),
    ] = None,
    with_encoder: Annotated[
        bool, typer.Option("--with-encoder", help="The encoder learns along; it knows levels.")
    ] = False,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """One decoder for every level. Sharpened by discriminators; codewords stay.

    If the model folder holds an inpainter too, half of the crops have lost tokens that it fills,
    and it learns along.
    """
    _prepare(images, out, threads)
    from codec.model import TOKENIZER_FILE
    from codec.training.decoder import DecoderTraining
    from codec.training.runs import train_decoder
    from sim.training.masks import packet_mask

    config = DecoderTraining(levels=tuple(level or ()))

    def run(loop: LoopConfig, cache: CacheConfig) -> dict[str, float]:
        return train_decoder(
            images, out, loop, packet_mask, model, config, with_encoder=with_encoder, cache=cache
        )

    _train(run, out / TOKENIZER_FILE, (steps, decay_steps, crops), as_json)


@train_app.command()
def inpainter(
    images: Images,
    out: Out = Path("training-runs/inpainter"),
    model: ModelFolder = None,
    start: Start = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Layers; those that --start lacks are added.")
    ] = None,
    steps: Steps = 20_000,
    decay_steps: Decay = 4_000,
    crops: Crops = 12_000,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The masked transformer that fills lost tokens. For every level, on real loss patterns."""
    _prepare(images, out, threads)
    from codec.model import INPAINTER_FILE
    from codec.training.runs import train_inpainter
    from sim.training.masks import packet_mask

    def run(loop: LoopConfig, cache: CacheConfig) -> dict[str, float]:
        return train_inpainter(
            images, out, loop, packet_mask, model, start=start, depth=depth, cache=cache
        )

    _train(run, out / INPAINTER_FILE, (steps, decay_steps, crops), as_json)


@train_app.command()
def context(
    images: Images,
    out: Out = Path("training-runs/context"),
    model: ModelFolder = None,
    start: Start = None,
    steps: Steps = 1_500,
    decay_steps: Decay = 500,
    crops: Crops = 12_000,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The context entropy coder's small network. For every level and way of slicing."""
    _prepare(images, out, threads)
    from codec.model import CONTEXT_FILE
    from codec.training.runs import train_context
    from sim.training.masks import random_slices

    def run(loop: LoopConfig, cache: CacheConfig) -> dict[str, float]:
        return train_context(images, out, loop, random_slices, model, start=start, cache=cache)

    _train(run, out / CONTEXT_FILE, (steps, decay_steps, crops), as_json)


@train_app.command()
def calibrate(
    images: Images,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path(
        "training-runs/calibration"
    ),
    model: Annotated[
        Path | None, typer.Option(help="Folder of weights. Default: those that ship.")
    ] = None,
    photos: Annotated[int, typer.Option(min=4, help="Held-out photos at most.")] = 160,
    as_json: AsJson = False,
) -> None:
    """The inpainter's temperatures. From held-out photos; how honest it is on other ones."""
    _prepare(images, out, 0)
    from codec.model import INPAINTER_FILE
    from sim.progress import progress_bar
    from sim.training.calibration import calibrate as run_calibration

    with progress_bar("calibrate") as progress:
        about = run_calibration(images, model, out, photos, progress)
    if as_json:
        print_json(about)
        return
    for level in about["levels"]:
        typer.echo(
            f"K={level['codebook']:<5} temperature {level['probability']:.2f} of probabilities, "
            f"{level['words']:.1f} of words; ECE {level['ece_before']:.3f} -> {level['ece']:.3f}"
        )
    typer.echo(f"weights: {out / INPAINTER_FILE}")


@train_app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A training run's folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Where to write it.")],
    as_json: AsJson = False,
) -> None:
    """What of a run to commit. Config, log, curve and last samples, small."""
    from sim.training.report import write_training_report

    paths = [str(path) for path in write_training_report(run, out)]
    if as_json:
        print_json({"files": paths})
    else:
        typer.echo("\n".join(paths))
