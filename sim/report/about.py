"""A run's question, command and scenario, and titles that tell several runs apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.errors import UserError
from sim.results.run import Run
from sim.scenario.labels import setting_label
from sim.scenario.library import library_files, opening_paragraphs, question_of
from sim.scenario.yaml_lines import yaml_text

_LONGEST = 60
"""Characters of a title made of settings."""


def question(run: Run) -> str:
    """What the scenario asks; "" where nobody wrote it down."""
    return question_of(_opening(run))


def what_to_look_at(run: Run) -> str:
    """What the scenario says after its question, but for the names of figures' files."""
    return re.sub(r" \(figures/[^)]*\)", "", " ".join(_opening(run)[1:]))


def _opening(run: Run) -> list[str]:
    text = str(run.manifest.get("source", {}).get("question") or "")
    if text:  # as in the file, with or without its marks of a comment
        return opening_paragraphs(re.sub(r"^#? ?", "# ", text, flags=re.MULTILINE))
    shipped = {path.stem: path for path in library_files()}.get(run.name)
    return opening_paragraphs(shipped.read_text(encoding="utf-8")) if shipped else []


def command(run: Run) -> str:
    """The command that runs it again, given its scenario file or the file of `scenario_yaml`."""
    source = run.manifest.get("source", {})
    file = Path(source.get("file") or f"{run.name}.yaml")
    shipped = file.stem in {path.stem for path in library_files()}
    words = ["sim", "run", file.stem if shipped else file.name]
    for override in source.get("overrides") or ():
        words += ["--set", override]
    return shlex.join(words)


def scenario_yaml(run: Run) -> str:
    """The resolved scenario, every default written out."""
    return yaml_text(_without_nulls(run.manifest["scenario"]))


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a scenario by dotted key."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(v) for key, v in value.items() if v is not None}
    return value


def titles(runs: Sequence[Run]) -> list[str]:
    """What tells runs apart: the settings in which their scenarios differ; where these are none or
    many, the shortest tails of their folders' paths.

    Raises:
        UserError: one is there twice.
    """
    parts = [run.folder.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError("one run is named twice")
    settings = [_flat(run.manifest["scenario"]) for run in runs]
    keys = dict.fromkeys(key for found in settings for key in found if key != "name")
    differ = [key for key in keys if len({str(found.get(key)) for found in settings}) > 1]
    labels = [
        setting_label({key: found[key] for key in differ if key in found}) for found in settings
    ]
    if all(labels) and len(set(labels)) == len(labels) and max(map(len, labels)) <= _LONGEST:
        return labels
    for count in range(1, max(map(len, parts)) + 1):
        found = ["/".join(p[-count:]) for p in parts]
        if len(set(found)) == len(found):
            return found
    raise AssertionError("different paths differ")
