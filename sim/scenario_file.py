"""Scenario files: YAML 1.2 in, checked scenarios out, every mistake told by file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from sim.errors import UserError
from sim.scenario import SWEEPABLE, CodecSection, Scenario, StreamSection, grid, with_values

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Scenario,
    ("codec",): CodecSection,
    ("stream",): StreamSection,
}
_MAX_BYTES = 1_000_000
_TRACE_KEYS = ("path", "capacity")

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class LoadedScenario:
    """A checked scenario and where it came from.

    Attributes:
        scenario: with the overrides in place.
        points: (sweep values, resolved scenario) of every point; one with {} without a sweep.
        images_base: the folder that relative image paths start at.
        model: "random", a folder, or None for the weights that ship.
    """

    scenario: Scenario
    points: Sequence[tuple[Mapping[str, Any], Scenario]]
    images_base: Path
    model: str | None


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> LoadedScenario:
    """Read and check a scenario file.

    Relative paths of images, weights and traces start at the scenario's folder, or, when an
    override gives them, at the working directory.

    Args:
        path: the YAML file.
        overrides: "dotted.key=value" each; the value is read as YAML.

    Raises:
        UserError: unreadable file, bad YAML, unknown key, wrong type, value out of range; told as
            ``file:line: key.path: what is wrong``.
    """
    source = _Source(path)
    for channels in (source.raw.get("channel"), source.raw.get("sweep")):
        _rebase(channels, path.parent)
    given = dict(_parse_override(text) for text in overrides)
    for key, value in given.items():
        try:
            source.raw = with_values(source.raw, {key: value})
        except KeyError as error:
            raise UserError(f"--set {key}: {error.args[0]} is not a section") from None
    source.overridden = tuple(tuple(key.split(".")) for key in given)
    source.raw.setdefault("name", path.stem)

    scenario = source.check(source.raw, {})
    bare = {key: value for key, value in source.raw.items() if key != "sweep"}
    source.check_sweep(scenario.sweep)
    points = []
    for values in grid(scenario.sweep):
        try:
            changed = with_values(bare, values)
        except KeyError as error:
            raise source.error(("sweep",), f"{error.args[0]} is not a section") from None
        points.append((values, source.check(changed, values)))

    def base(key: str) -> Path:
        return Path.cwd() if key in given else path.parent

    model = scenario.codec.model
    if model not in (None, "random"):
        model = str(base("codec.model") / Path(model).expanduser())
    return LoadedScenario(scenario, points, base("images"), model)


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise UserError(f"--set {text}: write key=value, such as channel.loss=0.1")
    try:
        return key, _plain(YAML().load(value))
    except YAMLError:
        raise UserError(f"--set {text}: the value is not YAML") from None


def _rebase(node: Any, folder: Path) -> None:
    """Let the relative trace files of a channel start at a folder; changes the mapping."""
    if isinstance(node, list):
        for item in node:
            _rebase(item, folder)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _TRACE_KEYS and isinstance(value, str):
                node[key] = str(folder / value)
            else:
                _rebase(value, folder)


class _Source:
    """A parsed file that knows the line of every key.

    Attributes:
        raw: its content as plain dicts, lists and scalars.
        overridden: key paths that came from the command line instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overridden: tuple[tuple[str, ...], ...] = ()
        self.tree = _parse(path)
        self.raw: dict[str, Any] = _plain(self.tree)

    def error(self, location: Location, problem: str) -> UserError:
        """A UserError at a key path; the nearest line that exists stands for a missing key."""
        where = self._line(location)
        dotted = ".".join(
            f"[{part}]" if isinstance(part, int) else str(part) for part in location
        ).replace(".[", "[")
        return UserError(": ".join(part for part in (where, dotted, problem) if part))

    def check(self, raw: Mapping[str, Any], swept: Mapping[str, Any]) -> Scenario:
        """Validate raw values; mistakes in swept values are told at the sweep."""
        try:
            return Scenario.model_validate(raw)
        except ValidationError as failure:
            errors = failure.errors(include_url=False)
        location, problem = _explain(errors[0])
        if len(errors) > 1:
            problem += f" (and {len(errors) - 1} more)"
        for key, value in swept.items():
            path = tuple(key.split("."))
            if location[: len(path)] == path or path[: len(location)] == location:
                at = self.raw["sweep"][key].index(value)
                dotted = ".".join(map(str, location))
                raise self.error(("sweep", key, at), f"{dotted}: {problem}")
        raise self.error(location, problem)

    def check_sweep(self, sweep: Mapping[str, Sequence[Any]]) -> None:
        """Only keys of the sections that can vary, each with at least one value."""
        for key, values in sweep.items():
            if key.split(".")[0] not in SWEEPABLE:
                sections = ", ".join(SWEEPABLE)
                raise self.error(("sweep", key), f"only keys of {sections} can be swept")
            if not values:
                raise self.error(("sweep", key), "has no values")

    def _line(self, location: Location) -> str:
        for path in self.overridden:
            if location[: len(path)] == path:
                return f"--set {'.'.join(path)}"
        line, node = 0, self.tree
        for part in location:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0]
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0]
            else:
                break
            node = node[part]
        return f"{self.path}:{line + 1}"


def _parse(path: Path) -> CommentedMap:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a scenario file")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: too large for a scenario file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such scenario file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        tree = YAML().load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        problem = (error.problem or "not valid YAML").splitlines()[0]
        raise UserError(f"{path}:{line}: {problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path}:1: a scenario is a mapping of keys to values, such as seed: 1")
    return tree


def _plain(node: Any) -> Any:
    """Plain dicts, lists, str, int, float, bool and None from ruamel's line-aware types."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if node is None or isinstance(node, bool):
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)  # dates and the like: no scenario value is one


def _explain(error: ErrorDetails) -> tuple[Location, str]:
    """Where and what, in our words; pydantic's own where they are as good."""
    location, kind = error["loc"], error["type"]
    context = error.get("ctx", {})
    got = f"got {error['input']!r}"
    if kind == "channel":
        keys = re.findall(r"[^.\[\]]+", context["parameter"])  # such as of[0].loss
        deeper = (int(key) if key.isdigit() else key for key in keys)
        return (*location, *deeper), context["problem"]
    if kind == "stream":
        parameter = context["parameter"]
        section = "stream" if parameter in StreamSection.model_fields else "codec"
        return (section, parameter), context["problem"]
    if kind == "extra_forbidden":
        fields = list(_SECTIONS[tuple(str(p) for p in location[:-1])].model_fields)
        close = difflib.get_close_matches(str(location[-1]), fields, 1)
        hint = f" did you mean {close[0]}?" if close else ""
        return location, f"unknown key;{hint} valid keys: {', '.join(fields)}"
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return location, f"must be one of {choices}; {got}"
    if kind == "missing":
        return location, "is missing"
    message = error["msg"]
    return location, f"{message[0].lower()}{message[1:]}, {got}"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, for editors."""
    schema = Scenario.model_json_schema()
    schema["required"] = [key for key in schema.get("required", []) if key != "name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
