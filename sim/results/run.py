"""The reader of finished runs, for figures, reports, the command line and Python.

Means and intervals are those of summary.json, rows those of images.csv and packets.csv; whatever is
not defined, or was not measured, is NaN.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sim.drivers.record import LOST
from sim.errors import UserError
from sim.results.files import (
    FIGURES,
    IMAGES,
    MANIFEST,
    PACKETS,
    PANELS,
    PIXEL_ERROR,
    PROBABILITY,
    RUN,
    SUMMARY,
    check_kind,
    number,
    read_json,
    table_rows,
)
from sim.results.rows import ImageRow, PacketRow
from sim.scenario.labels import setting_label
from sim.scenario.schema import CLEAN
from sim.statistics import Estimate, Precision, repeats_needed

Values = Mapping[tuple[str, int], float]
"""A metric by image and repeat."""


LATENCY_PERCENTILES = (50, 95, 99)
"""Of the latencies of images, in percent of them."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Losses at a point.

    Attributes:
        packets: share of packets lost in any way.
        low, high: 95% interval of the rate behind ``erased``, bursts accounted for.
        packets_sent: all of them.
        effective_packets: how many independent ones they are worth, for ``erased``.
        tokens: share of tokens lost.
        tokens_precision: of that, over repeats.
        erased, overflowed, corrupted, late: shares of packets lost in each of the ways of
            `sim.drivers.record.LOST`; NaN in runs of versions that did not tell them apart.
        expected: what ``erased`` should be, by theory; NaN where there is none.
        one_stream_low, one_stream_high: where that of one stream falls 95% of the time.
    """

    packets: float
    low: float
    high: float
    packets_sent: int
    effective_packets: float
    tokens: float
    tokens_precision: Precision = field(repr=False)
    erased: float = math.nan
    overflowed: float = math.nan
    corrupted: float = math.nan
    late: float = math.nan
    expected: float = math.nan
    one_stream_low: float = field(default=math.nan, repr=False)
    one_stream_high: float = field(default=math.nan, repr=False)


@dataclass(frozen=True, slots=True)
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
        latency_s: mean of `ImageRow.latency_s` over the images of which anything arrived.
        concealers: mean and interval by repair and metric; "clean" is the decode without loss.
        gains: of paired differences, by "one - other" and metric.
        precision: over repeats for these images, by repair and metric.
        images_complete, images_lost: images of which all tokens arrived or were restored, and of
            which none; None in runs of versions that did not count them.
        latency_percentiles_s: of the same as `latency_s`, by the percent of `LATENCY_PERCENTILES`.
    """

    index: int
    values: Mapping[str, Any]
    channel: Mapping[str, Any] = field(repr=False)
    repeats: int
    images: int
    loss: Loss
    bpp: float
    bpp_wire: float
    latency_s: float
    concealers: Mapping[str, Mapping[str, Estimate]] = field(repr=False)
    gains: Mapping[str, Mapping[str, Estimate]] = field(repr=False)
    precision: Mapping[str, Mapping[str, Precision]] = field(repr=False)
    images_complete: int | None = None
    images_lost: int | None = None
    latency_percentiles_s: Mapping[int, float] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The values in words; "" for a run's only point."""
        return setting_label(self.values)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From an element of summary.json's "points"."""

        def typed(kind: type[Any], by_name: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
            return {
                name: {metric: _typed(kind, values) for metric, values in metrics.items()}
                for name, metrics in by_name.items()
            }

        loss = found["loss"]
        precision = _typed(Precision, loss["tokens_precision"])
        named: dict[str, Any] = {"index": found["point"]}
        protection = found.get("protection", {})
        named["latency_s"] = number(protection.get("latency_s"))
        named["latency_percentiles_s"] = {
            percent: number(protection.get(f"latency_p{percent}_s"))
            for percent in LATENCY_PERCENTILES
        }
        named["loss"] = _typed(Loss, loss, tokens_precision=precision)
        for name, kind in (("concealers", Estimate), ("gains", Estimate), ("precision", Precision)):
            named[name] = typed(kind, found[name])
        known: dict[str, Any] = {f.name: found.get(f.name) for f in fields(cls)}
        return cls(**known | named)


def ways_lost(points: Iterable[PointSummary]) -> list[str]:
    """The ways in which packets were lost at any of these points, of `sim.drivers.record.LOST`;
    "erased" always."""
    losses = [point.loss for point in points]
    return [how for how in LOST if how == "erased" or any(getattr(o, how) > 0 for o in losses)]


def losses_label(points: Sequence[PointSummary]) -> str:
    """The smallest and the largest share of packets lost: "5.0% to 20.1%"."""
    shares = [point.loss.packets for point in points]
    return " to ".join(dict.fromkeys(f"{share:.1%}" for share in (min(shares), max(shares))))


def rates_vary(points: Sequence[PointSummary]) -> bool:
    """Whether points repair and differ in their bits on the wire, so that quality can be drawn
    over rate."""
    rates = [point.bpp_wire for point in points]
    return set(points[0].concealers) != {CLEAN} and max(rates) > 1.02 * min(rates)


def _typed(kind: type[Any], found: Mapping[str, Any], **named: Any) -> Any:
    """A dataclass from an object of JSON, which has null for NaN."""
    known = {f.name: found[f.name] for f in fields(kind) if f.name in found}
    return kind(**{key: math.nan if v is None else v for key, v in known.items()} | named)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: its folder.
        summary: the content of summary.json.
        manifest: the content of manifest.json: what ran, on what.
    """

    folder: Path
    summary: Mapping[str, Any] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read its manifest and summary; all else is read when asked for.

        Raises:
            UserError: there is none. Whatever is read later raises it too, if it is not as a run
                leaves it.
        """
        check_kind(folder, RUN)
        return cls(folder, read_json(folder / SUMMARY), read_json(folder / MANIFEST))

    @property
    def name(self) -> str:
        """Of the scenario."""
        return str(self.summary["scenario"])

    @property
    def seed(self) -> int:
        """Of the scenario."""
        return int(self.summary["seed"])

    @property
    def metrics(self) -> list[str]:
        """What was measured of every image, by name."""
        return list(self.summary["metrics"])

    @cached_property
    def points(self) -> list[PointSummary]:
        """Means and intervals, one entry for each point of the sweep."""
        with reading(self.folder):
            return [PointSummary.of(found) for found in self.summary["points"]]

    @cached_property
    def images(self) -> list[ImageRow]:
        """The rows of images.csv."""
        return list(self._rows(ImageRow, IMAGES))

    @property
    def packets(self) -> Iterator[PacketRow]:
        """The rows of packets.csv, one by one: there may be millions."""
        return self._rows(PacketRow, PACKETS)

    @cached_property
    def values(self) -> Mapping[int, Mapping[tuple[str, str], Values]]:
        """Every single measurement: by point, then by repair and metric."""
        found: dict[int, dict[tuple[str, str], dict[tuple[str, int], float]]] = {}
        with reading(self.folder):
            for row in self.images:
                of_point = found.setdefault(row.point, {})
                for metric in (*self.metrics, "token_accuracy"):
                    values = of_point.setdefault((row.concealer, metric), {})
                    values[row.image, row.repeat] = row.metric(metric)
        return found

    def pictured_images(self) -> dict[str, dict[str, ImageRow]]:
        """Rows of images.csv of the cell whose pictures were kept, by image and repair."""
        found: dict[str, dict[str, ImageRow]] = {}
        for row in self._rows(ImageRow, IMAGES, self._pictured_cell):
            found.setdefault(row.image, {})[row.concealer] = row
        return found

    def pictured_packets(self) -> list[PacketRow]:
        """Rows of packets.csv of the cell whose pictures were kept."""
        return list(self._rows(PacketRow, PACKETS, self._pictured_cell))

    @property
    def _pictured_cell(self) -> int:
        with reading(self.folder):
            return int(self.manifest["pictured_cell"])

    def pictures(self, image: str) -> dict[str, NDArray[np.uint8]]:
        """Pictures of one image of the pictured cell, uint8[H,W,3]: "original", "clean" and every
        repair; "received", uint8[h,w], is 255 where a token arrived.

        Raises:
            UserError: no pictures of it were kept.
        """
        folder = self.folder / PANELS / image
        if not folder.is_dir():
            kept = ", ".join(sorted(path.name for path in folder.parent.glob("*"))) or "none"
            raise UserError(f"{folder}: no pictures of this image; there are: {kept}")
        found = {}
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as picture:
                found[path.stem] = np.asarray(picture, np.uint8)
        return found

    def certainty(self, image: str) -> tuple[NDArray[np.float32], ...]:
        """The probability that the transformer gave to the tokens it filled in, and the expected
        error of their pixels, float32[h,w] each; () if it did not run. See
        `codec.concealment.Concealed`."""
        paths = [self.folder / PANELS / image / name for name in (PROBABILITY, PIXEL_ERROR)]
        if not paths[0].is_file():
            return ()
        return tuple(np.load(path, allow_pickle=False) for path in paths)

    def figure(self, name: str, kind: str = "svg") -> Path | None:
        """The file of one of its figures; None if it has none of that name."""
        path = self.folder / FIGURES / f"{name}.{kind}"
        return path if path.is_file() else None

    def repeats_needed(
        self, half_width: float, metric: str = "psnr_db"
    ) -> dict[tuple[int, str], int | None]:
        """How many repeats would bring the 95% interval of a mean, for these images, to
        +-half_width: by point and repair; None with fewer than two repeats so far."""
        found: dict[tuple[int, str], int | None] = {}
        for point in self.points:
            for name, precision in point.precision.items():
                sd = precision[metric].sd
                needed = None if math.isnan(sd) else repeats_needed(sd, half_width)
                found[point.index, name] = needed
        return found

    def repeats_table(self, half_width: float, metric: str) -> list[dict[str, Any]]:
        """What `repeats_needed` says, a row for each point and repair: {"point", "values",
        "repair", "repeats" and "half_width" so far, "needed"}.

        Raises:
            UserError: no such metric, no repairs, or a half width not above 0.
        """
        if not half_width > 0:
            raise UserError(f"--within {half_width:g}: must be above 0")
        known = [*self.metrics, "token_accuracy"]
        if metric not in known:
            raise UserError(f"--metric {metric}: choose one of {', '.join(known)}")
        rows = []
        for (index, name), needed in self.repeats_needed(half_width, metric).items():
            point = self.points[index]
            found = point.precision[name][metric]
            row = {"point": index, "values": dict(point.values), "repair": name}
            row |= {"repeats": found.repeats, "half_width": found.half_width, "needed": needed}
            rows.append(row)
        if not rows:
            raise UserError(
                f"{self.folder}: repairs nothing, so there is no {metric} to be certain of"
            )
        return rows

    def _rows(self, kind: type[Any], table: str, cell: int | None = None) -> Iterator[Any]:
        """Rows of a table as a dataclass; columns that it does not know go to its `values`."""
        read = {f.name: _READ[str(f.type)] for f in fields(kind) if f.name != "values"}
        with reading(self.folder):
            for row in table_rows(self.folder / table, cell):
                typed = {name: read[name](text) for name, text in row.items() if name in read}
                if kind is ImageRow:
                    typed["values"] = {name: row[name] for name in row if name not in read}
                yield kind(**typed)


_READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "int | None": int,
    "str": str,
    "bool": lambda text: text == "1",
    "float": number,
}


@contextlib.contextmanager
def reading(folder: Path | str, kind: str = RUN) -> Iterator[None]:
    """Raise UserError where reading in this block fails because a table, manifest or summary is not
    as a run (or results of another kind) has it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{folder}: its tables are not those of a {kind} ({error!r})") from None
