"""The options that commands share: each has one name, one help text and one check everywhere.

Whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from sim.errors import UserError, user_errors

if TYPE_CHECKING:
    from codec.device import Device
    from sim.media.token_file import ImageCodec
    from sim.scenario.loader import LoadedScenario

Number = TypeVar("Number", int, float)


def _folder(path: Path | None) -> Path | None:
    if path is not None and path.is_file():
        raise UserError(f"{path}: is a file; --out needs a folder")
    return path


def _file(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise UserError(f"{path}: is a folder; --out needs a file")
    return path


_FOLDER: Any = typer.Option("--out", "-o", callback=_folder, help="The folder to write.")
_FILE: Any = typer.Option("--out", "-o", callback=_file, help="The file to write.")
_SEED: Any = typer.Option("--seed", min=0, help="Decides all losses: the same seed, the same ones.")
_IMAGES: Any = typer.Option("--images", help="Image, folder or glob, or the word samples.")
_CODEBOOK: Any = typer.Option("--codebook", help="Codebook size: more is better and larger.")

Out = Annotated[Path, _FOLDER]
NewOut = Annotated[Path | None, _FOLDER]
"""If it is not given, the command chooses a folder below results/."""
OutFile = Annotated[Path, _FILE]
NewOutFile = Annotated[Path | None, _FILE]
OutFiles = Annotated[
    Path, typer.Option("--out", "-o", help="The file to write; of a folder, the folder.")
]
Seed = Annotated[int, _SEED]
NewSeed = Annotated[int | None, _SEED]
"""If it is not given, the file's."""
Images = Annotated[str, _IMAGES]
NewImages = Annotated[str | None, _IMAGES]
Codebook = Annotated[int, _CODEBOOK]
NewCodebook = Annotated[int | None, _CODEBOOK]
Codebooks = Annotated[
    str, typer.Option("--codebook", "--levels", help="Codebook sizes, with commas between them.")
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="Folder of weights. Default: those that ship.")
]
DeviceName = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or mps; auto: CUDA if there is one.")
]
DtypeName = Annotated[
    str, typer.Option("--dtype", help="float32, bfloat16; auto: float32, the fastest in training.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=256, help="Processes that share the work."),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="First N images only; 0 = all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]
Figures = Annotated[bool, typer.Option(help="Draw figures, or leave that to the command plot.")]
SaveImages = Annotated[bool, typer.Option("--save-images", help="Also write every output image.")]
ScenarioName = Annotated[
    Path,
    typer.Argument(help="Scenario file (YAML), or the name of one that ships.", show_default=False),
]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where the networks run."""

    device: DeviceName = "auto"
    dtype: DtypeName = "auto"

    def chosen_device(self) -> Device:
        """The device; raises UserError where there is none."""
        from codec.device import DeviceError, choose_device

        with user_errors("", DeviceError):
            return choose_device(self.device, self.dtype)


@dataclass(frozen=True, kw_only=True)
class OverrideOptions:
    """What the command line changes in a file of settings."""

    set_: Set = None
    images: NewImages = None
    model: ModelName = None
    seed: NewSeed = None

    @property
    def overrides(self) -> list[str]:
        """KEY=VALUE for every key that an option sets."""
        given = {"images": self.images, "codec.model": self.model, "seed": self.seed}
        return [*(self.set_ or []), *(_override(k, v) for k, v in given.items() if v is not None)]


@dataclass(frozen=True, kw_only=True)
class ScenarioOptions(OverrideOptions):
    """A scenario, and what the command line changes in it."""

    scenario: ScenarioName
    codebook: NewCodebook = None

    @property
    def overrides(self) -> list[str]:
        """As of `OverrideOptions`."""
        codebook = [] if self.codebook is None else [_override("codec.codebook", self.codebook)]
        return [*super().overrides, *codebook]

    def load(self) -> LoadedScenario:
        """The checked scenario; raises UserError where it cannot be read."""
        from sim.scenario.library import compares, find_scenario
        from sim.scenario.loader import load_scenario

        path = find_scenario(self.scenario)
        if compares(path):
            raise UserError(f"{path}: compares strategies; run it by: sim compare {self.scenario}")
        return load_scenario(path, self.overrides)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(ScenarioOptions, DeviceOptions):
    """A scenario, and where its networks run."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(DeviceOptions):
    """The networks, and where they run."""

    model: ModelName = None

    def codec(self) -> ImageCodec:
        """The codec of whole images; raises UserError where its model cannot be loaded."""
        from sim.media.frames import load_model
        from sim.media.token_file import ImageCodec

        return ImageCodec(load_model(self.model, self.chosen_device()))


def with_options(
    group: Any, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass; its parameter `options` is then an
    instance of that class. ``defaults``: of fields whose default is another one here."""
    hints = get_type_hints(group, include_extras=True)
    shared = {
        field.name: inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(
                field.name, inspect.Parameter.empty if field.default is MISSING else field.default
            ),
            annotation=hints[field.name],
        )
        for field in fields(group)
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]

        @functools.wraps(command)
        def called(**given: Any) -> None:
            options = group(**{name: given.pop(name) for name in shared})
            command(**given, options=options)

        parameters = [
            *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.values()),
            *shared.values(),
        ]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in parameters}
        return called

    return decorate


def _override(key: str, value: str | int) -> str:
    from sim.scenario.loader import override_text

    return override_text(key, value)


def plain_cpu(name: str, dtype: str) -> bool:
    """Whether this is the CPU as usual, which takes seconds to find out by torch."""
    cpu_only = sys.platform == "darwin" or importlib.metadata.version("torch").endswith("+cpu")
    return dtype == "auto" and (name == "cpu" or (name == "auto" and cpu_only))


def numbers(
    option: str,
    text: str,
    kind: Callable[[str], Number],
    low: Number,
    high: Number,
    what: str = "numbers",
) -> tuple[Number, ...]:
    """Numbers with commas between them, each once, as given; raises UserError if there is none or
    one lies outside low..high."""
    try:
        found = tuple(dict.fromkeys(kind(word) for word in text.split(",") if word.strip()))
    except ValueError:
        found = ()
    if not found or not all(low <= number <= high for number in found):
        raise UserError(
            f"{option} {text}: {what} from {low:g} to {high:g}, with commas between them"
        )
    return found


def names(option: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names with commas between them; raises UserError if one is not among the known ones."""
    found, choices = tuple(text.replace(" ", "").split(",")), list(known)
    for name in found:
        if name not in choices:
            raise UserError(f"{option} {name}: choose from {', '.join(choices)}")
    return found
