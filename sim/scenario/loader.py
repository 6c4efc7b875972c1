"""Scenario files: YAML 1.2 in, checked scenarios out, every mistake told by file and line."""

from __future__ import annotations

import copy
import difflib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap

from codec.files import rooted
from sim.errors import UserError
from sim.scenario.labels import name_of
from sim.scenario.schema import (
    SWEEPABLE,
    ArqSection,
    CodecSection,
    DecodingSection,
    FecSection,
    Scenario,
    StreamSection,
    UntilSection,
    VideoSection,
    with_values,
)
from sim.scenario.sweep import SweepError, SweepPoint, expand
from sim.scenario.yaml_lines import (
    Location,
    YamlError,
    dotted,
    line_of,
    parse_mapping,
    plain,
    read_yaml,
    rebase_traces,
    undotted,
)

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Scenario,
    ("video",): VideoSection,
    ("codec",): CodecSection,
    ("stream",): StreamSection,
    ("stream", "fec"): FecSection,
    ("stream", "arq"): ArqSection,
    ("decoding",): DecodingSection,
    ("until",): UntilSection,
}


@dataclass(frozen=True, slots=True)
class LoadedScenario:
    """A checked scenario and where it came from.

    Attributes:
        scenario: with the overrides in place.
        points: (sweep values, resolved scenario) of every point; one with {} without a sweep.
        images_base: the folder that relative paths of images, or of the video, start at.
        model: "random", a folder, or None for the weights that ship.
        raw: what was read, with the overrides in place: `load_mapping` makes the same of it.
        source: for people: "file", "question" (the comment that it opens with), "overrides".
    """

    scenario: Scenario
    points: Sequence[tuple[Mapping[str, Any], Scenario]]
    images_base: Path
    model: str | None
    raw: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


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
    tree = parse_mapping(path, "scenario", "seed: 1")
    source = Source(str(path), tree)
    if "strategies" in source.raw:
        raise UserError(f"{path}: compares strategies; run it with sim compare")
    source.raw.setdefault("name", name_of(path))
    about = {"file": str(path), "question": _opening(path), "overrides": list(overrides)}
    return _load(source, path.parent, dict(map(parse_override, overrides)), about)


def load_mapping(
    raw: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
) -> LoadedScenario:
    """Check a scenario given as plain data.

    Args:
        raw: the keys of a scenario file; `name` is "scenario" if left out. Relative paths start
            at the working directory.
        overrides: values by dotted key.
        source: as in `LoadedScenario`, when known.

    Raises:
        UserError: as `load_scenario`, told as ``scenario: key.path: what is wrong``.
    """
    given = dict(overrides or {})
    found = Source("scenario", None, copy.deepcopy(dict(raw)))
    found.raw.setdefault("name", "scenario")
    told = [override_text(key, value) for key, value in given.items()]
    return _load(found, Path(), given, source or {"file": None, "question": "", "overrides": told})


def _load(
    source: Source, folder: Path, given: Mapping[str, Any], about: Mapping[str, Any]
) -> LoadedScenario:
    for channels in (source.raw.get("channel"), source.raw.get("sweep")):
        rebase_traces(channels, folder)
    source.override(given)
    if source.raw.get("video") is not None and "video" in given and "images" not in given:
        source.raw.pop("images", None)  # it takes their place
    if source.raw.get("video") is not None and "images" in source.raw:
        raise source.error(("images",), "a scenario has images or a video, not both")
    scenario = source.check(source.raw)
    bare = {key: value for key, value in source.raw.items() if key != "sweep"}
    points = []
    for point in source.expand(scenario.sweep):
        try:
            changed = with_values(bare, point.values)
        except KeyError as error:
            raise source.error(("sweep",), f"{error.args[0]} is not a section") from None
        points.append((point.values, source.check(changed, point)))
        if scenario.video is not None and points[-1][1].stream.fps != scenario.stream.fps:
            raise source.error(("sweep",), "stream.fps: a video's frames are taken at it, once")

    def base(*keys: str) -> Path:
        return Path.cwd() if any(key in given for key in keys) else folder

    model = scenario.codec.model
    if model not in (None, "random"):
        model = str(rooted(base("codec.model"), model))
    pictures = base("images") if scenario.video is None else base("video", "video.file")
    return LoadedScenario(scenario, points, pictures, model, source.raw, about)


def _opening(path: Path) -> str:
    """The comment at the top of a file, without its marks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return "\n".join(line.lstrip("#").strip() for line in head)


def override_text(key: str, value: Any) -> str:
    """Text that `parse_override` reads as this key and value: JSON, which is YAML but for
    characters beyond U+FFFF and unprintable ones, so all that are not ASCII have YAML's escape."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{key}=" + re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", text)


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of "dotted.key=value"; raises UserError if it is not so written."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise UserError(f"--set {text}: write key=value, such as channel.loss=0.1")
    try:
        return key, plain(read_yaml(value))
    except YamlError as error:
        raise UserError(f"--set {text}: the value is not YAML ({error.problem})") from None


class Source:
    """A scenario as given, which knows the line of every key if it came from a file.

    Attributes:
        raw: its content as plain dicts, lists and scalars.
        overridden: key paths that came from elsewhere instead.
    """

    def __init__(
        self, label: str, tree: CommentedMap | None, raw: dict[str, Any] | None = None
    ) -> None:
        self.label, self.tree = label, tree
        self.overridden: tuple[tuple[str, ...], ...] = ()
        self.raw: dict[str, Any] = plain(tree) if raw is None else raw

    def override(self, given: Mapping[str, Any]) -> None:
        """Put values by dotted key in place; raises UserError where there is no such section."""
        for key, value in given.items():
            try:
                self.raw = with_values(self.raw, {key: value})
            except KeyError as error:
                raise UserError(f"--set {key}: {error.args[0]} is not a section") from None
        self.overridden = tuple(tuple(key.split(".")) for key in given)

    def error(self, location: Location, problem: str) -> UserError:
        """A UserError at a key path; the nearest line that exists stands for a missing key."""
        where, key = self._line(location), dotted(location)
        parts = (where, "" if where == f"--set {key}" else key, problem)
        return UserError(": ".join(part for part in parts if part))

    def check(self, raw: Mapping[str, Any], point: SweepPoint | None = None) -> Scenario:
        """Validate raw values. Of several mistakes the first is raised, with the others."""
        try:
            return Scenario.model_validate(raw)
        except ValidationError as failure:
            errors = failure.errors(include_url=False)
        first, *others = (self._mistake(*explain(error), point) for error in errors)
        raise UserError(f"{first} (and {len(others)} more)" if others else str(first), others)

    def _mistake(self, location: Location, problem: str, point: SweepPoint | None) -> UserError:
        """One of them; that of a swept value is told at the sweep."""
        for key, place in point.places.items() if point else ():
            path = tuple(key.split("."))
            if location[: len(path)] == path or path[: len(location)] == location:
                return self.error(("sweep", *place), f"{dotted(location)}: {problem}")
        return self.error(location, problem)

    def expand(self, sweep: Mapping[str, Any]) -> Iterator[SweepPoint]:
        """The points of a sweep, which may set keys of some sections only."""
        try:
            for point in expand(sweep):
                for key, place in point.places.items():
                    if key.split(".")[0] not in SWEEPABLE:
                        sections = ", ".join(sorted(SWEEPABLE))
                        at = place[: place.index(key) + 1]  # the key, not its value
                        raise SweepError(at, f"only keys of {sections} can be swept")
                yield point
        except SweepError as error:
            raise self.error(("sweep", *error.place), error.problem) from None

    def _line(self, location: Location) -> str:
        for path in self.overridden:
            if location[: len(path)] == path:
                return f"--set {'.'.join(path)}"
        return f"{self.label}:{line_of(self.tree, location)}" if self.tree else self.label


def explain(error: ErrorDetails) -> tuple[Location, str]:
    """Where and what, in our words; pydantic's own where they are as good."""
    location, kind = error["loc"], error["type"]
    context = error.get("ctx", {})
    got = f"got {error['input']!r}"
    if kind == "channel":
        return (*location, *undotted(context["parameter"])), context["problem"]
    if kind == "video":
        return (context["key"],), context["problem"]
    if kind == "stream":
        parameter = context["parameter"]
        path = undotted(parameter)
        section = "stream" if path[0] in StreamSection.model_fields else "codec"
        return (section, *path), context["problem"]
    if kind == "extra_forbidden":
        fields = list(_SECTIONS[tuple(str(p) for p in location[:-1])].model_fields)
        return location, unknown_key(str(location[-1]), fields)
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ").replace("'", "")
        return location, f"must be one of {choices}; {got}"
    if kind == "missing":
        return location, "is missing"
    message = error["msg"]
    return location, f"{message[0].lower()}{message[1:]}, {got}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What is told of a key that is none of those."""
    close = difflib.get_close_matches(key, known, 1)
    hint = f" did you mean {close[0]}?" if close else ""
    return f"unknown key;{hint} valid keys: {', '.join(known)}"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, for editors."""
    schema = Scenario.model_json_schema()
    schema["required"] = [key for key in schema.get("required", []) if key != "name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
