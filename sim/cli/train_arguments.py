"""Arguments that the commands of `sim train` share, and how they carry out a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sim.cli.options import AsJson, DeviceOptions
from sim.errors import UserError, os_errors
from sim.progress import no_progress, print_json, progress_bar

if TYPE_CHECKING:
    from codec.device import Device
    from codec.training.options import TrainingOptions
    from codec.training.runs import TrainingRun

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
Depth = Annotated[
    int | None,
    typer.Option(min=1, help="Blocks of the encoder at 16 pixels; those that it lacks are added."),
]
DecoderDepth = Annotated[
    int | None,
    typer.Option(min=1, help="Blocks of the decoder at 16 pixels; those that it lacks are added."),
]
Steps = Annotated[int, typer.Option(min=1, help="Steps in all, those already done included.")]
Decay = Annotated[int, typer.Option(min=1, help="Last steps, in which the rate falls to zero.")]
Crops = Annotated[int, typer.Option(min=1, help="Crops that are tokenized once and trained on.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Crops a step, those of all processes.")]
Rate = Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of batches and random weights.")]
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


@dataclass(frozen=True, kw_only=True)
class PhotoArguments(DeviceOptions):
    """The options of every command that runs networks on photos."""

    held_out: HeldOut = 0.03
    threads: Threads = 0
    as_json: AsJson = False

    def chosen_device(self) -> Device:
        """The device; sets the number of CPU threads unless that is 0."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        return super().chosen_device()


@dataclass(frozen=True, kw_only=True)
class TrainArguments(PhotoArguments):
    """The options of every training run."""

    images: Images
    steps: Steps = 1
    decay_steps: Decay = 1
    crops: Crops = 12_000
    batch: Batch = None
    rate: Rate = None
    seed: Seed = None
    workers: Workers = None
    compiled: Compile = False

    def override(self, config: Config, *, rates: tuple[str, ...] = ("rate",)) -> Config:
        """Hyper-parameters with the given batch, seed and learning rate, where there are such;
        ``rates`` are the names of those that the learning rate is for."""
        given = {"batch": self.batch, "seed": self.seed, **dict.fromkeys(rates, self.rate)}
        changes = {name: value for name, value in given.items() if value is not None}
        changed: Config = replace(config, **changes)  # type: ignore[type-var]
        return changed


def check_photos(photos: Path) -> None:
    """Raise UserError unless the folder or pack of photos exists."""
    if not photos.exists():
        raise UserError(f"{photos}: no such folder, and no such pack of photographs")


@contextlib.contextmanager
def training(
    images: Path,
    options: PhotoArguments,
    out: Path,
    label: str,
    workers: int | None = None,
    compiled: bool = False,
) -> Iterator[TrainingOptions]:
    """Options of a run in the folder `out`, which is made, with a progress bar. Errors of the run
    become UserError; an interrupted one exits with code 130."""
    from codec.training.options import TrainingOptions
    from codec.training.parallel import joined, rank

    check_photos(images)
    device = options.chosen_device()
    with os_errors(out, "cannot make the run folder"):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with joined(device) as own_device:
            bar = progress_bar(label) if rank() == 0 else contextlib.nullcontext(no_progress)
            with bar as progress:
                yield TrainingOptions(own_device, options.held_out, workers, compiled, progress)
    except (ValueError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            out.rmdir()  # only if the run has written nothing
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        typer.echo(f"{out}: stopped and saved; the same command resumes it", err=True)
        raise typer.Exit(130) from None


def carry_out(
    weights: Path, options: TrainArguments, train: Callable[[TrainingRun], dict[str, float]]
) -> None:
    """Train in the folder of the weights file to be written, and print the last evaluation."""
    from codec.training.loop import LoopConfig
    from codec.training.parallel import rank
    from codec.training.runs import CacheConfig, TrainingRun

    out = weights.parent
    loop = LoopConfig(options.steps, options.decay_steps)
    cache = CacheConfig(crops=options.crops)
    how = options.workers, options.compiled
    with training(options.images, options, out, weights.stem, *how) as training_options:
        held_out = train(TrainingRun(options.images, out, loop, cache, training_options))
        if rank() > 0:
            return
    if options.as_json:
        print_json({"run": str(out), "weights": weights.name, "held_out": held_out})
        return
    for name, value in held_out.items():
        typer.echo(f"{name:>20} {value:.4f}")
    typer.echo(f"weights: {weights}")
