"""What a comparison of codecs found: every codec at our bytes, means over images, who is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sim.metrics import METRICS
from sim.results.files import Row
from sim.statistics import finite_mean
from sim.studies.codec_bench.bd_rate import bd_rates
from sim.studies.codec_bench.work import OURS, BenchConfig
from sim.studies.measurements import grouped

_SIZES = ("file_bytes", "payload_bytes", "bpp", "bpp_payload")


def at_equal_bytes(
    rows: Sequence[Row], counted: str, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Every codec at the size of each of our files, one row per image, level and codec.

    Between two of its points a codec's metric is interpolated linearly in the logarithm of bytes;
    beyond its largest it is that of the largest. Where even the smallest is too large, `fits` is
    False and the smallest stands there.
    """
    size = f"{counted}_bytes"
    curves = grouped(rows, ("image", "codec"))
    for curve in curves.values():
        curve.sort(key=lambda row: row[size])
    result = []
    for row in rows:
        if row["codec"] != OURS:
            continue
        for (image, codec), curve in curves.items():
            if image != row["image"]:
                continue
            here = [row] if codec == OURS else curve
            below = [point for point in here if point[size] <= row[size]]
            result.append(
                {
                    "image": image,
                    "level": row["setting"],
                    "codec": codec,
                    "bytes": row[size],
                    "fits": bool(below),
                    "file_bytes": (below or here[:1])[-1]["file_bytes"],
                    **{metric: _interpolated(here, row[size], size, metric) for metric in metrics},
                }
            )
    return result


def _interpolated(curve: Sequence[Row], budget: int, size: str, metric: str) -> float:
    below = [row for row in curve if row[size] <= budget]
    above = [row for row in curve if row[size] > budget]
    if not below or not above:
        return float((below[-1] if below else above[0])[metric])
    low, high = below[-1], above[0]
    share = math.log(budget / low[size]) / math.log(high[size] / low[size])
    return float(low[metric] + share * (high[metric] - low[metric]))


def summarize_bench(
    rows: Sequence[Row], equal: Sequence[Row], config: BenchConfig, notes: Mapping[str, str]
) -> dict[str, Any]:
    """Means over images.

    `levels`: every codec at our bytes; `fits` is the share of images where it can be so small, and
    `beaten` by metric the share of *these* images where ours is better, `fitting` the means of ours
    and theirs over them; None where there is none.
    `best` names by metric who is best of ours and those that fit everywhere. `curves`: every codec
    at the rates at which it was measured. `bd_rate`: see `bd_rates`.
    """
    metrics = [name for name in METRICS if equal and name in equal[0]]
    levels = []
    for level in config.levels:
        here = [row for row in equal if row["level"] == str(level)]
        ours = {row["image"]: row for row in here if row["codec"] == OURS}
        codecs: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys(row["codec"] for row in here):
            mine = [row for row in here if row["codec"] == name]
            codecs[name] = {
                "images": len(mine),
                "fits": finite_mean([float(row["fits"]) for row in mine]),
                **{metric: finite_mean([row[metric] for row in mine]) for metric in metrics},
            }
            fit = [row for row in mine if row["fits"]]
            if name != OURS:
                pairs = {m: _pairs(ours, fit, m) for m in metrics}
                codecs[name]["beaten"] = {m: _share(pairs[m], m) for m in metrics}
                codecs[name]["fitting"] = {m: _both(pairs[m]) for m in metrics}
        sizes = [r for r in rows if r["codec"] == OURS and r["setting"] == str(level)]
        levels.append(
            {
                "level": str(level),
                **{column: finite_mean([row[column] for row in sizes]) for column in _SIZES},
                "best": {metric: _best(codecs, metric) for metric in metrics},
                "codecs": codecs,
            }
        )
    curves = _curves(rows, config, metrics)
    return {
        "images": len({row["image"] for row in rows}),
        "levels": levels,
        "curves": curves,
        "bd_rate": bd_rates(curves, "bpp" if config.counted == "file" else "bpp_payload", metrics),
        "skipped": dict(notes),
    }


def _curves(
    rows: Sequence[Row], config: BenchConfig, metrics: Sequence[str]
) -> dict[str, list[dict[str, float]]]:
    """By codec, means over images: ours at each level, others at the largest point within each
    rate, or their smallest."""
    curves: dict[str, list[dict[str, float]]] = {}
    for name in dict.fromkeys(row["codec"] for row in rows):
        by_image = grouped([row for row in rows if row["codec"] == name], ["image"])
        steps: list[list[Row]] = []
        if name == OURS:
            every = [row for found in by_image.values() for row in found]
            for level in map(str, config.levels):
                steps.append([row for row in every if row["setting"] == level])
        else:
            rate = "bpp" if config.counted == "file" else "bpp_payload"
            for limit in config.rates:
                chosen = []
                for found in by_image.values():
                    fitting = [row for row in found if row[rate] <= limit]
                    pick = max if fitting else min
                    chosen.append(pick(fitting or found, key=lambda row: float(row[rate])))
                if chosen not in steps:
                    steps.append(chosen)
        columns = (*_SIZES, *metrics)
        curves[name] = [
            {c: finite_mean([row[c] for row in step]) for c in columns} for step in steps
        ]
    return curves


def _best(codecs: Mapping[str, Mapping[str, Any]], metric: str) -> str | None:
    """Who is best by a metric, of those that are small enough on every image."""
    known = [
        n for n, found in codecs.items() if found["fits"] == 1 and found[metric] == found[metric]
    ]
    return max(known, key=lambda name: METRICS[metric].sign * codecs[name][metric], default=None)


Pairs = list[tuple[float, float]]
"""A metric of ours and theirs, by image."""


def _pairs(ours: Mapping[str, Row], theirs: Sequence[Row], metric: str) -> Pairs:
    """Where both are defined."""
    pairs = [(ours[row["image"]][metric], row[metric]) for row in theirs]
    return [(a, b) for a, b in pairs if a == a and b == b]


def _both(pairs: Pairs) -> dict[str, float] | None:
    if not pairs:
        return None
    ours, theirs = map(finite_mean, zip(*pairs, strict=True))
    return {"ours": ours, "theirs": theirs}


def _share(pairs: Pairs, metric: str) -> float | None:
    return finite_mean([float(METRICS[metric].better(a, b)) for a, b in pairs]) if pairs else None
