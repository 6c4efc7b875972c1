"""`sim train`: the training runs on the command line. torch is imported inside the commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.console import print_result
from sim.cli.groups import command_group
from sim.cli.options import AsJson, with_options
from sim.cli.train_arguments import (
    Batch,
    Compile,
    Crops,
    DecoderDepth,
    Depth,
    Images,
    ModelFolder,
    Out,
    PhotoArguments,
    Seed,
    Start,
    TrainArguments,
    Workers,
    carry_out,
    check_photos,
    training,
)
from sim.errors import UserError, os_errors, user_errors
from sim.progress import print_json, progress_bar

if TYPE_CHECKING:
    from codec.training.joint import JointTraining
    from codec.training.runs import TrainingRun

train_app = command_group()


@train_app.command()
def pack(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs, searched recursively.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pack to write.")],
    short_side: Annotated[
        int, typer.Option(min=64, help="Pixels; larger photos are shrunk to that short side.")
    ] = 1024,
    as_json: AsJson = False,
) -> None:
    """Many photos in one file, quick to copy and to read. For --images."""
    check_photos(photos)
    from codec.training.data import photo_source
    from codec.training.pack import write_pack

    with (
        os_errors(out, "cannot write here"),
        user_errors("", ValueError),
        progress_bar("packing") as progress,
    ):
        source = photo_source(photos)
        count = write_pack(source, out, short_side, lambda a, b: progress(a, b, "photos"))
    size = out.stat().st_size
    about = {"pack": str(out), "photos": count, "bytes": size}
    print_result(as_json, about, typer.echo, f"{out}: {count} photos, {size / 1e6:.1f} MB")


@train_app.command("all")
@with_options(PhotoArguments)
def all_(
    options: PhotoArguments,
    photos: Annotated[Path, typer.Argument(help="Folder of photographs, or a pack of them.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The model folder to make, or to resume.")
    ],
    hours: Annotated[
        float, typer.Option(min=0, help="For all that is left to do, divided among the stages.")
    ] = 24.0,
    batch: Batch = None,
    seed: Seed = None,
    workers: Workers = None,
    compiled: Compile = False,
) -> None:
    """A whole model from photos, in a given time. Stopped, the same command resumes.

    Tokenizer, encoder, upsampler, encoder and decoder together, inpainter, all of them, context
    coder, calibration.
    """
    from codec.training.chain import standard_recipe, train_all
    from sim.training.calibration import calibrate
    from sim.training.masks import packet_mask, random_slices

    changes = {"batch": batch, "seed": seed}
    recipe = standard_recipe().with_all(**{k: v for k, v in changes.items() if v is not None})
    with training(photos, options, out, "training", workers, compiled) as training_options:

        def calibrated(images: Path, model: Path, folder: Path) -> None:
            where, share = training_options.device, training_options.held_out
            progress = training_options.progress
            calibrate(images, model, folder, 160, progress, device=where, held_out=share)

        evaluations = train_all(
            photos,
            out,
            hours,
            packet_mask,
            random_slices,
            calibrated,
            recipe,
            options=training_options,
            log=lambda line: typer.echo(line, err=True),
        )
    if options.as_json:
        print_json({"model": str(out), "held_out": evaluations})
        return
    for name, value in evaluations.items():
        typer.echo(f"{name:>40} {value:.4f}")
    typer.echo(f"model: {out}")


@train_app.command()
@with_options(TrainArguments, steps=20_000, decay_steps=4_000)
def tokenizer(
    options: TrainArguments,
    out: Out = Path("training-runs/tokenizer"),
    start: Start = None,
) -> None:
    """Encoder, codebook and decoder. From photographs; then the ladder of smaller codebooks."""
    from codec.model_files import TOKENIZER_FILE
    from codec.tokenizer import TokenizerConfig
    from codec.training.runs import train_tokenizer
    from codec.training.tokenizer import TokenizerTraining

    config = options.override(TokenizerTraining(TokenizerConfig()))
    carry_out(out / TOKENIZER_FILE, options, lambda run: train_tokenizer(run, config, start=start))


@train_app.command()
@with_options(PhotoArguments)
def ladder(
    options: PhotoArguments,
    images: Images,
    out: Out = Path("training-runs/ladder"),
    model: ModelFolder = None,
    crops: Crops = 12_000,
) -> None:
    """The smaller codebooks again. Decoder, inpainter and context coder are then trained for it."""
    from codec.model_files import TOKENIZER_FILE
    from codec.training.loop import LoopConfig
    from codec.training.runs import CacheConfig, TrainingRun, train_ladder

    with training(images, options, out, "ladder") as training_options:
        run = TrainingRun(images, out, LoopConfig(1, 1), CacheConfig(crops=crops), training_options)
        train_ladder(run, model)
    weights = f"{out / TOKENIZER_FILE}"
    print_result(options.as_json, {"weights": weights}, typer.echo, f"weights: {weights}")


@train_app.command()
@with_options(PhotoArguments)
def prune(
    options: PhotoArguments,
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path(
        "training-runs/pruned"
    ),
    model: ModelFolder = None,
    crops: Annotated[
        int, typer.Option(min=1, help="Crops that are coded to see which channels are active.")
    ] = 200,
) -> None:
    """The tokenizer without hidden channels that are never active. Its results stay the same.

    After the last training of encoder and decoder: channels that are left out learn no more.
    """
    from codec.model_files import TOKENIZER_FILE
    from codec.training.loop import LoopConfig
    from codec.training.pruning import prune_tokenizer
    from codec.training.runs import CacheConfig, TrainingRun
    from sim.training.masks import packet_mask

    with training(images, options, out, "prune") as training_options:
        run = TrainingRun(images, out, LoopConfig(1, 1), CacheConfig(crops=crops), training_options)
        before, after = prune_tokenizer(run, packet_mask, model)
    weights = f"{out / TOKENIZER_FILE}"
    about = {"weights": weights, "parameters_before": before, "parameters": after}
    text = f"weights: {weights}, {after / 1e6:.3g} of {before / 1e6:.3g} million parameters left"
    print_result(options.as_json, about, typer.echo, text)


@train_app.command()
@with_options(TrainArguments, steps=5_000, decay_steps=1_500)
def encoder(
    options: TrainArguments,
    out: Out = Path("training-runs/encoder"),
    model: ModelFolder = None,
    depth: Depth = None,
) -> None:
    """An encoder conditioned on the codebook size. Decoder and codewords stay as they are.

    Its tokens differ from those before: inpainter and context coder have to be trained again.
    """
    from codec.training.joint import JointTraining

    frozen = JointTraining(rate=0, upsampler_rate=0)
    config = options.override(frozen, rates=("encoder_rate",))
    _joint(options, config, out, model, depth)


@train_app.command()
@with_options(TrainArguments, steps=5_000, decay_steps=1_500)
def joint(
    options: TrainArguments,
    out: Out = Path("training-runs/joint"),
    model: ModelFolder = None,
    depth: Depth = None,
    decoder_depth: DecoderDepth = None,
    encoder_fixed: Annotated[
        bool, typer.Option("--encoder-fixed", help="Freeze the encoder: tokens do not change.")
    ] = False,
    inpainter_fixed: Annotated[
        bool, typer.Option("--inpainter-fixed", help="Freeze the inpainter that fills losses.")
    ] = False,
    crop: Annotated[int, typer.Option(min=32, help="Pixels a side of a crop.")] = 256,
    window: Annotated[
        int, typer.Option(min=0, help="Pixels a side judged at full size, with an upsampler; or 0.")
    ] = 0,
    lpips_weight: Annotated[
        float, typer.Option(min=0, help="Weight of LPIPS beside the L1 of pixels.")
    ] = 1.0,
    spectrum_weight: Annotated[
        float, typer.Option(min=0, help="Weight of how power spectra of windows differ.")
    ] = 0.0,
    features_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the distance of windows by EfficientNet.")
    ] = 0.0,
    layers: Annotated[
        int, typer.Option(min=1, max=5, help="Feature layers of VGG16 that LPIPS uses.")
    ] = 4,
    adversary_from: Annotated[
        int, typer.Option(min=-1, help="Step from which the adversarial loss counts; -1: never.")
    ] = -1,
    codeword_rate: Annotated[
        float, typer.Option(min=0, help="Learning rate of the codewords; 0: they stay.")
    ] = 0.0,
) -> None:
    """Encoder and decoder together, for every codebook size. By LPIPS; codewords stay, or learn.

    If the model folder holds an inpainter too, half of the crops lose tokens that it fills, and it
    is trained along or stays; not if codewords learn, for which it has to be trained anew.
    """
    from codec.training.joint import JointTraining

    config = JointTraining(
        crop=crop,
        window=window,
        lpips_weight=lpips_weight,
        spectrum_weight=spectrum_weight,
        features_weight=features_weight,
        layers=layers,
        adversarial_from=adversary_from,
        codeword_rate=codeword_rate,
    )
    config = options.override(config, rates=("rate", "encoder_rate", "upsampler_rate"))
    config = replace(config, encoder_rate=0.0) if encoder_fixed else config
    config = replace(config, inpainter_rate=0.0) if inpainter_fixed else config
    _joint(options, config, out, model, depth, decoder_depth)


def _joint(
    options: TrainArguments,
    config: JointTraining,
    out: Path,
    model: Path | None,
    encoder_depth: int | None,
    decoder_depth: int | None = None,
) -> None:
    from codec.model_files import TOKENIZER_FILE
    from codec.training.runs import train_joint
    from sim.training.masks import packet_mask

    carry_out(
        out / TOKENIZER_FILE,
        options,
        lambda run: train_joint(
            run,
            packet_mask,
            model,
            config,
            encoder_depth=encoder_depth,
            decoder_depth=decoder_depth,
        ),
    )


@train_app.command()
@with_options(TrainArguments, steps=5_000, decay_steps=1_500)
def upsampler(
    options: TrainArguments,
    out: Out = Path("training-runs/upsampler"),
    model: ModelFolder = None,
    depth: Annotated[int, typer.Option(min=1, help="Convolutions, if it has none yet.")] = 16,
    pairs: Annotated[
        int, typer.Option(min=17, help="Pictures that are enlarged, once, to learn from.")
    ] = 1000,
    from_photos: Annotated[
        bool, typer.Option("--from-photos", help="Learn from photos, not Real-ESRGAN's pictures.")
    ] = False,
) -> None:
    """A decoder that draws a quarter of each side. And a network that enlarges its picture."""
    from codec.model_files import TOKENIZER_FILE
    from codec.training.runs import train_upsampler
    from codec.training.upsampler import UpsamplerTraining

    config = options.override(UpsamplerTraining())
    carry_out(
        out / TOKENIZER_FILE,
        options,
        lambda run: train_upsampler(
            run, model, config, depth=depth, pairs=pairs, enhanced=not from_photos
        ),
    )


@train_app.command()
@with_options(TrainArguments, steps=20_000, decay_steps=4_000)
def inpainter(
    options: TrainArguments,
    out: Out = Path("training-runs/inpainter"),
    model: ModelFolder = None,
    start: Start = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Layers; those that --start lacks are added.")
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option(help="Folder of videos: learn to use what was shown before, from these too."),
    ] = None,
    sequences: Annotated[
        int, typer.Option(min=2, help="Of 4 frames, from videos and moved photos; tokenized once.")
    ] = 3_000,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Train only what --clips adds to --start.")
    ] = False,
) -> None:
    """The masked transformer that fills lost tokens. For every codebook size, on packet losses."""
    from codec.inpainting import InpainterConfig
    from codec.model_files import INPAINTER_FILE
    from codec.training.inpainter import InpainterTraining
    from codec.training.runs import train_inpainter
    from sim.training.clips import ClipFolder
    from sim.training.masks import packet_mask

    if freeze and (clips is None or start is None):
        raise UserError("--freeze: needs --start, whose weights stay, and --clips to learn from")
    config = options.override(InpainterTraining(InpainterConfig(), freeze=freeze))
    check_photos(options.images)
    source = None if clips is None else ClipFolder(clips)

    def train(run: TrainingRun) -> dict[str, float]:
        run = replace(run, cache=replace(run.cache, sequences=sequences))
        return train_inpainter(
            run, packet_mask, model, config, start=start, depth=depth, clips=source
        )

    carry_out(out / INPAINTER_FILE, options, train)


@train_app.command()
@with_options(TrainArguments, steps=1_500, decay_steps=500)
def context(
    options: TrainArguments,
    out: Out = Path("training-runs/context"),
    model: ModelFolder = None,
    start: Start = None,
) -> None:
    """The context entropy coder's small network. For every codebook size and way of slicing."""
    from codec.model_files import CONTEXT_FILE
    from codec.training.context import ContextConfig, ContextTraining
    from codec.training.runs import train_context
    from sim.training.masks import random_slices

    config = options.override(ContextTraining(ContextConfig()))
    carry_out(
        out / CONTEXT_FILE,
        options,
        lambda run: train_context(run, random_slices, model, config, start=start),
    )


@train_app.command()
@with_options(PhotoArguments)
def calibrate(
    options: PhotoArguments,
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path(
        "training-runs/calibration"
    ),
    model: Annotated[
        Path | None, typer.Option(help="Folder of weights. Default: those that ship.")
    ] = None,
    photos: Annotated[int, typer.Option(min=4, help="Held-out photos at most.")] = 160,
) -> None:
    """The inpainter's temperatures. From held-out photos; checked on other ones."""
    check_photos(images)
    from codec.model_files import INPAINTER_FILE
    from sim.training.calibration import calibrate as run_calibration

    where, share = options.chosen_device(), options.held_out
    with progress_bar("calibrate") as progress:
        about = run_calibration(images, model, out, photos, progress, device=where, held_out=share)
    if options.as_json:
        print_json(about)
        return
    for row in about["levels"]:
        typer.echo(
            f"K={row['codebook']:<5} temperature {row['probability']:.2f} of probabilities, "
            f"{row['words']:.1f} of codewords; ECE {row['ece_before']:.3f} -> {row['ece']:.3f}"
        )
    typer.echo(f"weights: {out / INPAINTER_FILE}")


@train_app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A training run's folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """What of a run to commit. Config, log, curves and last samples, small."""
    from sim.training.report import write_training_report

    paths = [str(path) for path in write_training_report(run, out)]
    print_result(as_json, {"files": paths}, typer.echo, "\n".join(paths))
