"""A finished run from Python: its points, tables, figures and pictures."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sim.errors import UserError
from sim.metrics import metric as metric_of
from sim.results.rows import ImageRow, PacketRow, column, typed_row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sim.statistics import Estimate, Precision


def load(folder: str | Path) -> RunResult:
    """A finished run.

    Raises:
        UserError: there is none.
    """
    from sim.results.files import MANIFEST, RUN, SUMMARY, check_kind, read_json

    path = Path(folder)
    check_kind(path, RUN)
    return RunResult(path, read_json(path / SUMMARY), read_json(path / MANIFEST))


@dataclass(frozen=True)
class Loss:
    """Losses at a point.

    Attributes:
        packets: share of packets lost, erased, corrupted or late.
        low, high: 95% interval of the rate behind it, bursts accounted for.
        packets_sent: all of them.
        effective_packets: how many independent ones they are worth.
        tokens: share of tokens lost.
        expected: by the channel's theory; NaN where there is none.
    """

    packets: float
    low: float
    high: float
    packets_sent: int
    effective_packets: float
    tokens: float
    expected: float


@dataclass(frozen=True)
class PointSummary:
    """One point of a run: one setting, its repeats and images taken together.

    Attributes:
        index: from 0.
        values: what the sweep sets here, by dotted key.
        channel: its channel section.
        repeats: streams.
        images: images, counted in every repeat.
        loss: of packets and tokens.
        bpp, bpp_wire: bits per pixel, payload and everything.
        concealers: mean and interval by repair and metric; "clean" is the decode without loss.
        gains: of paired differences, by "one - other" and metric.
        precision: over repeats for these images, by repair and metric.
    """

    index: int
    values: Mapping[str, Any]
    channel: Mapping[str, Any] = field(repr=False)
    repeats: int
    images: int
    loss: Loss
    bpp: float
    bpp_wire: float
    concealers: Mapping[str, Mapping[str, Estimate]] = field(repr=False)
    gains: Mapping[str, Mapping[str, Estimate]] = field(repr=False)
    precision: Mapping[str, Mapping[str, Precision]] = field(repr=False)


@dataclass(frozen=True)
class Figure:
    """A drawn figure; a notebook shows it. ``svg`` is None for one of photographs."""

    path: Path
    svg: str | None = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: its folder.
        summary: the content of summary.json.
        manifest: the content of manifest.json: what ran, on what.
    """

    folder: Path
    summary: Mapping[str, Any] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Of the scenario."""
        return str(self.summary["scenario"])

    @property
    def seed(self) -> int:
        """Of the scenario."""
        return int(self.summary["seed"])

    @cached_property
    def points(self) -> list[PointSummary]:
        """Means and intervals, one entry for each point of the sweep."""
        return [_point(found) for found in self.summary["points"]]

    @cached_property
    def images(self) -> list[ImageRow]:
        """The rows of images.csv."""
        from sim.results.files import IMAGES, table_rows

        return [typed_row(ImageRow, row) for row in table_rows(self.folder / IMAGES)]

    @property
    def packets(self) -> Iterator[PacketRow]:
        """The rows of packets.csv, one by one: there may be millions."""
        from sim.results.files import PACKETS, table_rows

        return (typed_row(PacketRow, row) for row in table_rows(self.folder / PACKETS))

    def table(self, name: Literal["images", "packets"]) -> NDArray[np.void]:
        """A table as a numpy structured array: numbers where a column has only such (NaN where
        it is empty), else text."""
        import numpy as np

        from sim.results.files import table_rows

        rows = list(table_rows(self.folder / f"{name}.csv"))
        columns = {key: column([row[key] for row in rows]) for key in (rows[0] if rows else {})}
        kinds = [(key, values.dtype) for key, values in columns.items()]
        table = np.empty(len(rows), kinds)
        for key, values in columns.items():
            table[key] = values
        return table

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name."""
        from sim.results.files import FIGURES

        found = {}
        for path in sorted((self.folder / FIGURES).glob("*.png")):
            svg = path.with_suffix(".svg")
            text = svg.read_text(encoding="utf-8") if svg.is_file() else None
            found[path.stem] = Figure(path, text)
        return found

    def pictures(self, image: str) -> dict[str, NDArray[np.uint8]]:
        """Pictures of one image of the pictured cell, uint8[H,W,3]: "original", "clean" and every
        repair; "received", uint8[h,w], is 255 where a token arrived.

        Raises:
            UserError: no pictures of it were kept.
        """
        import numpy as np
        from PIL import Image

        from sim.results.files import PANELS

        folder = self.folder / PANELS / image
        if not folder.is_dir():
            kept = ", ".join(sorted(path.name for path in folder.parent.glob("*"))) or "none"
            raise UserError(f"{folder}: no pictures of this image; there are: {kept}")
        found = {}
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as picture:
                found[path.stem] = np.asarray(picture, np.uint8)
        return found

    def repeats_needed(
        self, half_width: float, metric: str = "psnr_db"
    ) -> dict[tuple[int, str], int | None]:
        """How many repeats would bring the 95% interval of a mean, for these images, to
        +-half_width: by point and repair; None where fewer than two repeats tell nothing."""
        from sim.statistics import repeats_needed

        found: dict[tuple[int, str], int | None] = {}
        for point in self.points:
            for name, precision in point.precision.items():
                sd = precision[metric].sd
                needed = None if math.isnan(sd) else repeats_needed(sd, half_width)
                found[point.index, name] = needed
        return found

    def _repr_html_(self) -> str:
        metrics = self.summary["metrics"]
        heads = [metric_of(name).heading for name in metrics]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", "repair", *heads))
        lines = []
        for point in self.points:
            label = ", ".join(f"{key}: {value}" for key, value in point.values.items())
            for concealer, found in point.concealers.items():
                cells = "".join(
                    f"<td>{metric_of(name).text(found[name].mean, unit=False)}</td>"
                    for name in metrics
                )
                repair = "no loss" if concealer == "clean" else concealer.replace("_", " ")
                lines.append(f"<tr><td>{html.escape(label)}</td><td>{repair}</td>{cells}</tr>")
        caption = html.escape(f"{self.name}, seed {self.seed}: {self.folder}")
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{''.join(lines)}</table>"


def _point(found: Mapping[str, Any]) -> PointSummary:
    from sim.statistics import Estimate, Precision

    def typed(kind: type[Any], by_name: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {
            name: {metric: kind(**_defined(values)) for metric, values in metrics.items()}
            for name, metrics in by_name.items()
        }

    loss = {field.name: found["loss"].get(field.name) for field in fields(Loss)}
    return PointSummary(
        found["point"],
        found["values"],
        found["channel"],
        found["repeats"],
        found["images"],
        Loss(**_defined(loss)),
        found["bpp"],
        found["bpp_wire"],
        typed(Estimate, found["concealers"]),
        typed(Estimate, found["gains"]),
        typed(Precision, found["precision"]),
    )


def _defined(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: it was written as null."""
    return {key: math.nan if value is None else value for key, value in values.items()}
