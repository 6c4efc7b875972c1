"""A run's question, command and scenario, and titles that tell several runs apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sim.errors import UserError
from sim.results.run import Run
from sim.scenario.library import library_files, opening_paragraphs, question_of


def question(run: Run) -> str:
    """What the scenario asks; "" where nobody wrote it down."""
    return question_of(_opening(run))


def what_to_look_at(run: Run) -> str:
    """What the scenario says after its question."""
    return " ".join(_opening(run)[1:])


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
    text = StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 96
    yaml.dump(_without_nulls(run.manifest["scenario"]), text)
    return text.getvalue()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(v) for key, v in value.items() if v is not None}
    return value


def titles(folders: Sequence[Path]) -> list[str]:
    """The shortest tails of their paths that tell run folders apart.

    Raises:
        UserError: one is there twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise UserError("one run is named twice")
    for count in range(1, max(map(len, parts)) + 1):
        found = ["/".join(p[-count:]) for p in parts]
        if len(set(found)) == len(found):
            return found
    raise AssertionError("different paths differ")
