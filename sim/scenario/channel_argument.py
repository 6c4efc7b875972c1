"""A channel as it is named on the command line: preset, one line, or file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml.comments import CommentedMap

from channels.base import LossModel
from channels.link import Link
from channels.parameters import ChannelParameterError
from channels.presets import PRESETS, Preset
from channels.registry import LOSS_TYPES
from channels.spec import read_channel, spec_of_text
from channels.tc import is_tc
from codec.files import replacing
from sim.errors import UserError, os_errors
from sim.scenario.yaml_lines import line_of, parse_mapping, plain, rebase_traces, undotted

if TYPE_CHECKING:
    from sim.scenario.loader import LoadedScenario


@dataclass(frozen=True, slots=True)
class ChannelSource:
    """A channel read but not yet checked.

    Attributes:
        text: as it was named.
        spec: plain data for `channels.spec.read_channel`.
        preset: the preset of that name, if it is one.
        scenario: whose channel it is; None for other sources.
        lines: (file, parsed file) to tell mistakes by line, if it is a file.
    """

    text: str
    spec: Mapping[str, object]
    preset: Preset | None = None
    scenario: LoadedScenario | None = None
    lines: tuple[Path, CommentedMap] | None = None

    def models(self) -> tuple[LossModel, Link]:
        """The checked loss model and link.

        Raises:
            UserError: a parameter that cannot be used, told with its line or name.
        """
        try:
            return read_channel(self.spec)
        except ChannelParameterError as error:
            raise UserError(f"{self._where(error.parameter)}: {error}") from None
        except ValueError as error:
            raise UserError(f"{self.text}: {error}") from None

    def _where(self, parameter: str) -> str:
        if self.lines is None:
            return self.text
        path, tree = self.lines
        return f"{path}:{line_of(tree, undotted(parameter))}"


def read_source(text: str) -> ChannelSource:
    """Find what `text` names.

    It may be the name of a preset; ``type`` or ``type:name=value,...``; a line of tc or netem's
    options alone, ``loss gemodel 5% 20%``; a YAML file that holds a channel; or a scenario file.

    Raises:
        UserError: nothing of the kind, or a file that cannot be read.
    """
    named = text in PRESETS or text.partition(":")[0].strip() in LOSS_TYPES or is_tc(text)
    path = Path(text)
    if not named and (path.exists() or path.suffix in (".yaml", ".yml")):
        return _file(text, path)
    try:
        return ChannelSource(text, spec_of_text(text), PRESETS.get(text))
    except ChannelParameterError as error:
        if not named:
            raise UserError(f"{text}: {error.problem}, or a YAML file") from None
        told = error.problem if error.parameter == "netem" else str(error)
        raise UserError(f"{text}: {told}") from None


def _file(text: str, path: Path) -> ChannelSource:
    tree = parse_mapping(path, "channel", "type: uniform")
    if "channel" in tree:
        return _scenario(text, path)
    spec = plain(tree)
    rebase_traces(spec, path.parent)
    return ChannelSource(text, spec, lines=(path, tree))


def _scenario(text: str, path: Path) -> ChannelSource:
    from sim.scenario.loader import load_scenario

    loaded = load_scenario(path)
    return ChannelSource(text, loaded.scenario.channel, scenario=loaded)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A file to write beside `target`; it becomes `target` when the block ends well.

    Raises:
        UserError: it cannot be written there; nothing is left behind.
    """
    if target.is_dir():
        raise UserError(f"{target}: is a folder; give the name of a file")
    with os_errors(target, "cannot be written"), replacing(target) as partial:
        yield partial
