"""`sim train`: the training loops on the command line. torch is imported inside the commands."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sim.cli.groups import command_group
from sim.cli.options import AsJson, DeviceName, DtypeName, chosen_device
from sim.errors import UserError
from sim.progress import print_json

if TYPE_CHECKING:
    from codec.device import Device
    from codec.training.data import Setup

train_app = command_group()

Images = Annotated[
    Path, typer.Option(help="Folder of photographs, searched recursively, or a pack of them.")
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Run folder; an existing run there is resumed.")
]
ModelFolder = Annotated[
    Path | None, typer.Option(help="Folder with the tokenizer's weights. Default: the shipped one.")
]
Start = Annotated[Path | None, typer.Option(help="Folder with weights that a new run starts from.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps in all, those already done included.")]
Decay = Annotated[int, typer.Option(min=1, help="Last steps, in which the rate falls to zero.")]
Crops = Annotated[int, typer.Option(min=1, help="Index maps cached for the runs that follow.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Crops a step, those of all processes.")]
Rate = Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Decides batches and random weights.")]
HeldOut = Annotated[
    float, typer.Option(min=0, max=1, help="Share of the photos never trained on, by their names.")
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that make batches. Default: by the device.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the networks, which takes minutes; not on CPUs.")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")]

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunOptions:
    """What all runs are told."""

    images: Images
    crops: Crops = 12_000
    batch: Batch = None
    rate: Rate = None
    seed: Seed = None
    held_out: HeldOut = 0.03
    device: DeviceName = "auto"
    dtype: DtypeName = "auto"
    workers: Workers = None
    compiled: Compile = False
    threads: Threads = 0
    as_json: AsJson = False

    def of(self, config: Config, *, rates: tuple[str, ...] = ("rate",)) -> Config:
        """A run's hyper-parameters with those that were given; ``rates`` are the names of those
        that the learning rate stands for."""
        given = {"batch": self.batch, "seed": self.seed, **dict.fromkeys(rates, self.rate)}
        changes = {name: value for name, value in given.items() if value is not None}
        changed: Config = replace(config, **changes)  # type: ignore[type-var]
        return changed


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all runs; its parameter `options` is a `RunOptions`."""
    mine = dict(inspect.signature(command, eval_str=True).parameters)
    del mine["options"]
    shared = inspect.signature(RunOptions, eval_str=True).parameters

    @functools.wraps(command)
    def told(**given: Any) -> None:
        options = RunOptions(**{name: given.pop(name) for name in shared})
        command(**given, options=options)

    all_of_them = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (mine | dict(shared)).values()
    ]
    told.__signature__ = inspect.Signature(all_of_them)  # type: ignore[attr-defined]
    told.__annotations__ = {each.name: each.annotation for each in all_of_them}
    return told


def _device(name: str, dtype: str, threads: int) -> Device:
    """The device, and the threads of this process."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return chosen_device(name, dtype)


def _check_photos(photos: Path) -> None:
    if not photos.exists():
        raise UserError(f"{photos}: no such folder, and no such pack of photographs")


@contextlib.contextmanager
def _carrying_out(options: RunOptions, out: Path) -> Iterator[Setup]:
    """How the runs of a command are carried out. Mistakes are told in one line; a stop, too."""
    from codec.training.data import Setup
    from codec.training.parallel import joined

    _check_photos(options.images)
    device = _device(options.device, options.dtype, options.threads)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot make the run folder ({error.strerror})") from None
    try:
        with joined(device) as mine:
            yield Setup(mine, options.held_out, options.workers, options.compiled)
    except (ValueError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            out.rmdir()  # if nothing came of it
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo(f"{out}: stopped and saved; the same command goes on", err=True)
        raise typer.Exit(130) from None


def _train(
    run: Callable[..., dict[str, float]],
    weights: Path,
    options: RunOptions,
    steps: int,
    decay_steps: int,
) -> None:
    """Call a run with its loop, and its setup by name, and tell what came out."""
    from codec.training.loop import LoopConfig
    from codec.training.parallel import rank

    with _carrying_out(options, weights.parent) as setup:
        held_out = run(LoopConfig(steps, decay_steps), setup=setup)
        if rank() > 0:
            return
    if options.as_json:
        summary = {"run": str(weights.parent), "weights": weights.name, "held_out": held_out}
        print_json(summary)
        return
    for name, value in held_out.items():
        typer.echo(f"{name:>20} {value:.4f}")
    typer.echo(f"weights: {weights}")


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
    _check_photos(photos)
    from codec.training.data import source_of
    from codec.training.pack import write_pack
    from sim.progress import progress_bar

    try:
        with progress_bar("packing") as told:
            count = write_pack(source_of(photos), out, short_side, lambda a, b: told(a, b, ""))
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{out}: cannot write here ({error.strerror})") from None
    size = out.stat().st_size
    about = {"pack": str(out), "photos": count, "bytes": size}
    if as_json:
        print_json(about)
    else:
        typer.echo(f"{out}: {count} photos, {size / 1e6:.1f} MB")


@train_app.command("all")
def all_(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs, or a pack of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model folder to make, or go on.")],
    hours: Annotated[
        float, typer.Option(min=0, help="For all that is left to do, divided among the stages.")
    ] = 24.0,
    batch: Batch = None,
    seed: Seed = None,
    held_out: HeldOut = 0.03,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    workers: Workers = None,
    compiled: Compile = False,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """A whole model from photos, within some hours. Stopped, the same command goes on.

    Tokenizer, encoder, upsampler, encoder and decoder together, inpainter, all of them, context
    coder, calibration.
    """
    options = RunOptions(
        photos, 0, batch, None, seed, held_out, device, dtype, workers, compiled, threads, as_json
    )
    from codec.training.chain import standard_recipe, train_all
    from sim.training.calibration import calibrate
    from sim.training.masks import packet_mask, random_slices

    changes = {"batch": batch, "seed": seed}
    recipe = standard_recipe().with_all(**{k: v for k, v in changes.items() if v is not None})
    with _carrying_out(options, out) as setup:

        def calibrated(images: Path, model: Path, folder: Path) -> None:
            calibrate(images, model, folder, 160, device=setup.device, held_out=held_out)

        found = train_all(
            photos,
            out,
            hours,
            packet_mask,
            random_slices,
            calibrated,
            recipe,
            setup=setup,
            say=lambda line: typer.echo(line, err=True),
        )
    if as_json:
        print_json({"model": str(out), "held_out": found})
        return
    for name, value in found.items():
        typer.echo(f"{name:>40} {value:.4f}")
    typer.echo(f"model: {out}")


@train_app.command()
@with_run_options
def tokenizer(
    options: RunOptions,
    out: Out = Path("training-runs/tokenizer"),
    start: Start = None,
    steps: Steps = 20_000,
    decay_steps: Decay = 4_000,
) -> None:
    """Encoder, codebook and decoder. From photographs; then the ladder of smaller codebooks."""
    from codec.model import TOKENIZER_FILE
    from codec.tokenizer import TokenizerConfig
    from codec.training.runs import CacheConfig, train_tokenizer
    from codec.training.tokenizer import TokenizerTraining

    def run(loop: Any, setup: Setup) -> dict[str, float]:
        config = options.of(TokenizerTraining(TokenizerConfig()))
        cache = CacheConfig(crops=options.crops)
        return train_tokenizer(
            options.images, out, loop, config, start=start, cache=cache, setup=setup
        )

    _train(run, out / TOKENIZER_FILE, options, steps, decay_steps)


@train_app.command()
def ladder(
    images: Images,
    out: Out = Path("training-runs/ladder"),
    model: ModelFolder = None,
    crops: Crops = 12_000,
    held_out: HeldOut = 0.03,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The smaller codebooks anew. Decoder, inpainter and context coder are then trained for it."""
    options = RunOptions(
        images, crops, held_out=held_out, device=device, dtype=dtype, threads=threads
    )
    from codec.model import TOKENIZER_FILE
    from codec.training.runs import CacheConfig, train_ladder

    with _carrying_out(options, out) as setup:
        train_ladder(images, out, model, cache=CacheConfig(crops=crops), setup=setup)
    weights = out / TOKENIZER_FILE
    if as_json:
        print_json({"weights": str(weights)})
    else:
        typer.echo(f"weights: {weights}")


Depth = Annotated[
    int | None,
    typer.Option(min=1, help="Blocks of the encoder at 16 pixels; those that it lacks are added."),
]


@train_app.command()
@with_run_options
def encoder(
    options: RunOptions,
    out: Out = Path("training-runs/encoder"),
    model: ModelFolder = None,
    depth: Depth = None,
    steps: Steps = 5_000,
    decay_steps: Decay = 1_500,
) -> None:
    """An encoder that is told the codebook's size. Decoder and codewords stay as they are.

    Its tokens are used otherwise than before: inpainter and context coder have to be trained on.
    """
    from codec.training.joint import JointTraining

    still = JointTraining(rate=0, upsampler_rate=0)
    _joint(
        options, options.of(still, rates=("encoder_rate",)), out, model, depth, steps, decay_steps
    )


@train_app.command()
@with_run_options
def joint(
    options: RunOptions,
    out: Out = Path("training-runs/joint"),
    model: ModelFolder = None,
    depth: Depth = None,
    encoder_fixed: Annotated[
        bool, typer.Option("--encoder-fixed", help="Tokens stay as they are.")
    ] = False,
    crop: Annotated[int, typer.Option(min=32, help="Pixels a side of a crop.")] = 256,
    window: Annotated[
        int, typer.Option(min=0, help="Pixels a side judged at full size, with an upsampler; or 0.")
    ] = 0,
    lpips_weight: Annotated[float, typer.Option(min=0, help="Of LPIPS beside pixels.")] = 1.0,
    layers: Annotated[int, typer.Option(min=1, max=5, help="Of VGG16 that LPIPS sees.")] = 4,
    adversary_from: Annotated[
        int, typer.Option(min=-1, help="Step from which discriminators are heard; -1: never.")
    ] = -1,
    steps: Steps = 5_000,
    decay_steps: Decay = 1_500,
) -> None:
    """Encoder and decoder together, for every level. By LPIPS; codewords stay.

    If the model folder holds an inpainter too, half of the crops have lost tokens that it fills,
    and it learns along.
    """
    from codec.training.joint import JointTraining

    config = JointTraining(
        crop=crop,
        window=window,
        lpips_weight=lpips_weight,
        layers=layers,
        adversarial_from=adversary_from,
    )
    config = options.of(config, rates=("rate", "encoder_rate", "upsampler_rate"))
    config = replace(config, encoder_rate=0.0) if encoder_fixed else config
    _joint(options, config, out, model, depth, steps, decay_steps)


def _joint(
    options: RunOptions,
    config: Any,
    out: Path,
    model: Path | None,
    depth: int | None,
    steps: int,
    decay_steps: int,
) -> None:
    from codec.model import TOKENIZER_FILE
    from codec.training.runs import CacheConfig, train_joint
    from sim.training.masks import packet_mask

    def run(loop: Any, setup: Setup) -> dict[str, float]:
        given: Any = {"depth": depth, "cache": CacheConfig(crops=options.crops), "setup": setup}
        return train_joint(options.images, out, loop, packet_mask, model, config, **given)

    _train(run, out / TOKENIZER_FILE, options, steps, decay_steps)


@train_app.command()
@with_run_options
def upsampler(
    options: RunOptions,
    out: Out = Path("training-runs/upsampler"),
    model: ModelFolder = None,
    depth: Annotated[int, typer.Option(min=1, help="Convolutions, if it has none yet.")] = 16,
    pairs: Annotated[int, typer.Option(min=17, help="Pictures that are enlarged, once.")] = 1000,
    from_photos: Annotated[
        bool, typer.Option("--from-photos", help="Learn from photos, not Real-ESRGAN's pictures.")
    ] = False,
    steps: Steps = 5_000,
    decay_steps: Decay = 1_500,
) -> None:
    """A decoder that draws a quarter of each side. And a network that enlarges its picture."""
    from codec.model import TOKENIZER_FILE
    from codec.training.runs import train_upsampler
    from codec.training.upsampler import UpsamplerTraining

    def run(loop: Any, setup: Setup) -> dict[str, float]:
        config = options.of(UpsamplerTraining())
        given: Any = {"depth": depth, "pairs": pairs, "enhanced": not from_photos, "setup": setup}
        return train_upsampler(options.images, out, loop, model, config, **given)

    _train(run, out / TOKENIZER_FILE, options, steps, decay_steps)


@train_app.command()
@with_run_options
def inpainter(
    options: RunOptions,
    out: Out = Path("training-runs/inpainter"),
    model: ModelFolder = None,
    start: Start = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Layers; those that --start lacks are added.")
    ] = None,
    steps: Steps = 20_000,
    decay_steps: Decay = 4_000,
) -> None:
    """The masked transformer that fills lost tokens. For every level, on real loss patterns."""
    from codec.inpainting import InpainterConfig
    from codec.model import INPAINTER_FILE
    from codec.training.inpainter import InpainterTraining
    from codec.training.runs import CacheConfig, train_inpainter
    from sim.training.masks import packet_mask

    def run(loop: Any, setup: Setup) -> dict[str, float]:
        config = options.of(InpainterTraining(InpainterConfig()))
        given: Any = {"start": start, "depth": depth, "setup": setup}
        given["cache"] = CacheConfig(crops=options.crops)
        return train_inpainter(options.images, out, loop, packet_mask, model, config, **given)

    _train(run, out / INPAINTER_FILE, options, steps, decay_steps)


@train_app.command()
@with_run_options
def context(
    options: RunOptions,
    out: Out = Path("training-runs/context"),
    model: ModelFolder = None,
    start: Start = None,
    steps: Steps = 1_500,
    decay_steps: Decay = 500,
) -> None:
    """The context entropy coder's small network. For every level and way of slicing."""
    from codec.model import CONTEXT_FILE
    from codec.training.context import ContextConfig, ContextTraining
    from codec.training.runs import CacheConfig, train_context
    from sim.training.masks import random_slices

    def run(loop: Any, setup: Setup) -> dict[str, float]:
        config = options.of(ContextTraining(ContextConfig()))
        given: Any = {"start": start, "setup": setup, "cache": CacheConfig(crops=options.crops)}
        return train_context(options.images, out, loop, random_slices, model, config, **given)

    _train(run, out / CONTEXT_FILE, options, steps, decay_steps)


@train_app.command()
def calibrate(
    images: Images,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path(
        "training-runs/calibration"
    ),
    model: Annotated[
        Path | None, typer.Option(help="Folder of weights. Default: those that ship.")
    ] = None,
    photos: Annotated[int, typer.Option(min=4, help="Held-out photos at most.")] = 160,
    held_out: HeldOut = 0.03,
    device: DeviceName = "auto",
    dtype: DtypeName = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The inpainter's temperatures. From held-out photos; how honest it is on other ones."""
    _check_photos(images)
    from codec.model import INPAINTER_FILE
    from sim.progress import progress_bar
    from sim.training.calibration import calibrate as run_calibration

    where = _device(device, dtype, threads)
    with progress_bar("calibrate") as steps:
        about = run_calibration(images, model, out, photos, steps, device=where, held_out=held_out)
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
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """What of a run to commit. Config, log, curve and last samples, small."""
    from sim.training.report import write_training_report

    paths = [str(path) for path in write_training_report(run, out)]
    if as_json:
        print_json({"files": paths})
    else:
        typer.echo("\n".join(paths))
