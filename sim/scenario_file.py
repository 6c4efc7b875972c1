"""Scenario files: YAML 1.2 in, checked scenarios out, every mistake told by file and line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sim.errors import UserError
from sim.scenario import (
    SWEEPABLE,
    ArqSection,
    CodecSection,
    DecodingSection,
    FecSection,
    Scenario,
    StreamSection,
    grid,
    with_values,
)
from sim.yaml_source import (
    Location,
    dotted,
    line_of,
    parse_mapping,
    plain,
    rebase_traces,
    undotted,
)

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Scenario,
    ("codec",): CodecSection,
    ("stream",): StreamSection,
    ("stream", "fec"): FecSection,
    ("stream", "arq"): ArqSection,
    ("decoding",): DecodingSection,
}


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
    if "strategies" in source.raw:
        raise UserError(f"{path}: compares strategies; run it with sim compare")
    for channels in (source.raw.get("channel"), source.raw.get("sweep")):
        rebase_traces(channels, path.parent)
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
        return key, plain(YAML().load(value))
    except YAMLError:
        raise UserError(f"--set {text}: the value is not YAML") from None


class _Source:
    """A parsed file that knows the line of every key.

    Attributes:
        raw: its content as plain dicts, lists and scalars.
        overridden: key paths that came from the command line instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overridden: tuple[tuple[str, ...], ...] = ()
        self.tree = parse_mapping(path, "scenario", "seed: 1")
        self.raw: dict[str, Any] = plain(self.tree)

    def error(self, location: Location, problem: str) -> UserError:
        """A UserError at a key path; the nearest line that exists stands for a missing key."""
        where = self._line(location)
        return UserError(": ".join(part for part in (where, dotted(location), problem) if part))

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
                raise self.error(("sweep", key, at), f"{dotted(location)}: {problem}")
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
        return f"{self.path}:{line_of(self.tree, location)}"


def _explain(error: ErrorDetails) -> tuple[Location, str]:
    """Where and what, in our words; pydantic's own where they are as good."""
    location, kind = error["loc"], error["type"]
    context = error.get("ctx", {})
    got = f"got {error['input']!r}"
    if kind == "channel":
        return (*location, *undotted(context["parameter"])), context["problem"]
    if kind == "stream":
        parameter = context["parameter"]
        path = undotted(parameter)
        section = "stream" if path[0] in StreamSection.model_fields else "codec"
        return (section, *path), context["problem"]
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
