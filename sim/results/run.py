"""What a report is made from: the tables of finished runs, and paired comparisons between them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from sim.errors import UserError
from sim.results.files import (
    IMAGES,
    MANIFEST,
    PACKETS,
    RUN,
    SUMMARY,
    SummaryPoint,
    check_kind,
    number,
    read_json,
    read_table,
    table_rows,
)
from sim.scenario.labels import setting_label
from sim.scenario.library import library_files, opening_paragraphs, question_of
from sim.statistics import MIN_PAIRS, estimate

Key = tuple[str, str]
"""An image and a repeat."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of means with its 95% interval.

    Attributes:
        mean, low, high: NaN where there are no pairs, the interval also with only one.
        pairs: how many.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether the sign of the difference is beyond doubt at 95%."""
        return self.pairs >= MIN_PAIRS and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Setting:
    """One point of one run.

    Attributes:
        label: the values of the sweep here; "" for a run's only point.
        point: of summary.json.
        values: by (repair, metric), then by image and repeat.
    """

    label: str
    point: SummaryPoint
    values: Mapping[tuple[str, str], Mapping[Key, float]]


@dataclass(frozen=True)
class RunTables:
    """A finished run, read.

    Attributes:
        title: unique among those of a report.
        folder: where it lies.
        manifest, summary: their content.
        images, packets: rows of the pictured stream in images.csv and packets.csv, as text.
        settings: one per point.
    """

    title: str
    folder: Path
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    images: Sequence[Mapping[str, str]]
    packets: Sequence[Mapping[str, str]]
    settings: Sequence[Setting]

    @property
    def points(self) -> Sequence[SummaryPoint]:
        """Of summary.json."""
        points: Sequence[SummaryPoint] = self.summary["points"]
        return points

    @property
    def name(self) -> str:
        """Of the scenario."""
        return str(self.summary["scenario"])

    @property
    def question(self) -> str:
        """What the scenario asks; "" where nobody wrote it down."""
        return question_of(self._opening())

    @property
    def look(self) -> str:
        """What the scenario says to look at."""
        return " ".join(self._opening()[1:])

    def _opening(self) -> list[str]:
        text = str(self.manifest.get("source", {}).get("question") or "")
        if text:  # as in the file, with or without its marks of a comment
            return opening_paragraphs(re.sub(r"^#? ?", "# ", text, flags=re.MULTILINE))
        shipped = {path.stem: path for path in library_files()}.get(self.name)
        return opening_paragraphs(shipped.read_text(encoding="utf-8")) if shipped else []

    @property
    def command(self) -> str:
        """The command that runs it again, given its scenario file or the file of `scenario`."""
        source = self.manifest.get("source", {})
        file = Path(source.get("file") or f"{self.name}.yaml")
        shipped = file.stem in {path.stem for path in library_files()}
        words = ["sim", "run", file.stem if shipped else file.name]
        for override in source.get("overrides") or ():
            words += ["--set", override]
        return shlex.join(words)

    @property
    def scenario(self) -> str:
        """The resolved scenario as YAML, every default written out."""
        text = StringIO()
        yaml = YAML()
        yaml.default_flow_style = None
        yaml.width = 96
        yaml.dump(_plain(self.manifest["scenario"]), text)
        return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return value


def read_runs(folders: Sequence[Path]) -> list[RunTables]:
    """Read finished runs.

    Raises:
        UserError: not a run folder, or a table in it is missing or unreadable.
    """
    titles = _titles(folders)
    return [_read_run(folder, title) for folder, title in zip(folders, titles, strict=True)]


def _titles(folders: Sequence[Path]) -> list[str]:
    """The shortest tails of the paths that tell the runs apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise UserError("one run is named twice")
    for count in range(1, max(map(len, parts)) + 1):
        titles = ["/".join(p[-count:]) for p in parts]
        if len(set(titles)) == len(titles):
            return titles
    raise AssertionError("different paths differ")


def _read_run(folder: Path, title: str) -> RunTables:
    check_kind(folder, RUN)
    manifest, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    try:
        values = _values(folder, [*summary["metrics"], "token_accuracy"])
        settings = [
            Setting(setting_label(point["values"]), point, values[str(point["point"])])
            for point in summary["points"]
        ]
        pictured = manifest["pictured_cell"]
        images, packets = (read_table(folder / name, pictured) for name in (IMAGES, PACKETS))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its tables are not those of a run ({error!r})") from None
    return RunTables(title, folder, manifest, summary, images, packets, settings)


def _values(
    folder: Path, metrics: Sequence[str]
) -> dict[str, dict[tuple[str, str], dict[Key, float]]]:
    """The values of a setting by its point."""
    found: dict[str, dict[tuple[str, str], dict[Key, float]]] = {}
    for row in table_rows(folder / IMAGES):
        point, key = found.setdefault(row["point"], {}), (row["image"], row["repeat"])
        for metric in metrics:
            point.setdefault((row["concealer"], metric), {})[key] = number(row[metric])
    return found


def difference(a: Mapping[Key, float], b: Mapping[Key, float]) -> Difference:
    """a - b over the images and repeats that both have; see `sim.statistics.estimate`."""
    shared = [key for key in a if key in b]
    images = {image: n for n, image in enumerate(dict.fromkeys(image for image, _ in shared))}
    repeats = {repeat: n for n, repeat in enumerate(dict.fromkeys(repeat for _, repeat in shared))}
    values = np.full((len(repeats), len(images)), np.nan)
    with np.errstate(invalid="ignore"):
        for image, repeat in shared:
            values[repeats[repeat], images[image]] = a[image, repeat] - b[image, repeat]
    found = estimate(values)
    return Difference(found.mean, found.low, found.high, found.n)


def averaged(parts: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The mean over parts, for the images and repeats that all of them have."""
    shared = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: float(np.mean([part[key] for part in parts])) for key in shared}
