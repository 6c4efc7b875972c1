"""Studies of the repair itself: which schedule, against which baselines, after which interleaver.

    schedules      order x passes x words, after 20% and 50% of single tokens and bursts of packets
    baselines      every concealer, after 5% to 50% of single tokens and in bursts of packets
    interleavers   slices x order of the tokens, after 5% to 50% of the packets, alone and in
                   bursts; and what each costs in coded bits

Each works on index maps directly, without packets or time, so it is quick; `sim run` streams.
Means and 95% intervals are over images (percentile bootstrap), losses being paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.concealment import CONCEALERS, conceal, restore
from codec.decoding import Decoding, Order
from codec.entropy import ENTROPY_MODES
from codec.model import Model
from codec.pixel_repair import RepairMissing, check_installed
from sim.media.images import LoadedImage
from sim.media.token_file import ImageCodec
from sim.metrics.quality import measurable, psnr_db, quality, token_accuracy
from sim.progress import ProgressCallback, no_progress
from sim.protocol.interleaver import INTERLEAVERS
from sim.results.files import SUMMARY, write_json, write_table
from sim.scenario.schema import CLEAN
from sim.statistics import estimate, finite_mean
from sim.studies.codec_bench.bits import entropy_modes, measure_bits
from sim.studies.measurements import Rows, StudyTask, grouped, run_tasks, study_manifest
from sim.studies.repair.masks import Condition, grids_of, received

TABLE, BITS = "table.csv", "bits.csv"
LOSSES = (0.05, 0.1, 0.2, 0.3, 0.5)
SCHEDULE_CONDITIONS = (Condition("tokens", 0.2), Condition("tokens", 0.5), Condition("bursts", 0.2))
SLICES = (4, 8, 16, 32, 64)
ORDERS: tuple[Order, ...] = ("confidence", "halton")

Mask = NDArray[np.bool_]
"""bool[h,w], the tokens that arrive."""


def study_schedules(
    model: Model,
    images: Sequence[LoadedImage],
    levels: Sequence[int],
    passes: Sequence[int],
    out: Path,
    now: Callable[[], float],
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """The ablation of decoding schedules; `now` tells seconds, for the column of that name."""
    schedules: list[tuple[Order, int]] = [("confidence", 1)]
    schedules += [(order, n) for order in ORDERS for n in passes if n > 1]
    settings = {"levels": [*levels], "passes": [*passes], "metrics": [*measurable()]}
    about = study_manifest("schedules", model, images, settings)
    rows_of = partial(_schedule_rows, model, schedules, now)
    tasks = _tasks(images, levels, SCHEDULE_CONDITIONS, rows_of)
    rows = run_tasks(out, about, tasks, progress)
    keys = ("codebook", "condition", "order", "passes", "words")
    metrics = (*measurable(), "token_accuracy", "seconds")
    return _finish(out, about, rows, keys, metrics)


def _tasks(
    images: Sequence[LoadedImage],
    levels: Sequence[int],
    conditions: Sequence[Condition],
    rows_of: Callable[[LoadedImage, int, Condition, Mask], Rows],
) -> list[StudyTask]:
    """One for each image at each codebook size under each condition."""
    masks = {condition: received(condition, grids_of(images), 1) for condition in conditions}
    return [
        StudyTask(
            f"{image.name} K={level} {condition.name}",
            partial(rows_of, image, level, condition, there[n]),
        )
        for level in levels
        for n, image in enumerate(images)
        for condition, there in masks.items()
    ]


def _schedule_rows(
    model: Model,
    schedules: Sequence[tuple[Order, int]],
    now: Callable[[], float],
    image: LoadedImage,
    level: int,
    condition: Condition,
    there: Mask,
) -> Rows:
    indices = model.encode(image.pixels, level)
    size = (image.height, image.width)
    about = {"image": image.name, "codebook": level, "condition": condition.name}
    clean = quality(image.pixels, model.decode(indices, level, *size), measurable())
    clean |= {"token_accuracy": math.nan, "seconds": math.nan}
    rows: Rows = [{**about, "order": CLEAN, "passes": 0, "words": CLEAN, **clean}]
    for order, passes in schedules:
        began = now()
        filled = model.inpaint(indices, there, level, Decoding(order, passes))
        seconds = now() - began
        best = model.codewords(level)[filled.indices]  # what "argmax" gives: the same tokens
        for kind, words in (("soft", filled.codeword_vectors), ("argmax", best)):
            done = model.decode_codewords(words, *size)
            rows.append(
                {
                    **about,
                    "order": "any" if passes == 1 else order,
                    "passes": passes,
                    "words": kind,
                    **quality(image.pixels, done, measurable()),
                    "token_accuracy": token_accuracy(indices, filled.indices, there),
                    "seconds": seconds,
                }
            )
    return rows


def study_baselines(
    model: Model,
    images: Sequence[LoadedImage],
    levels: Sequence[int],
    out: Path,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Every concealer whose library is installed."""
    names = installed_concealers()
    settings = {"levels": [*levels], "concealers": [*names], "metrics": [*measurable()]}
    about = study_manifest("baselines", model, images, settings)
    conditions = [Condition(kind, loss) for kind in ("tokens", "bursts") for loss in LOSSES]
    tasks = _tasks(images, levels, conditions, partial(_baseline_rows, model, names))
    rows = run_tasks(out, about, tasks, progress)
    keys = ("codebook", "kind", "loss", "concealer")
    metrics = (*measurable(), "token_accuracy")
    return _finish(out, about, rows, keys, metrics)


def installed_concealers() -> tuple[str, ...]:
    """Those that run here."""
    found = []
    for name in CONCEALERS:
        try:
            check_installed(name)
        except RepairMissing:
            continue
        found.append(name)
    return tuple(found)


def _baseline_rows(
    model: Model,
    names: Sequence[str],
    image: LoadedImage,
    level: int,
    condition: Condition,
    there: Mask,
) -> Rows:
    indices = model.encode(image.pixels, level)
    size = (image.height, image.width)
    about = {"image": image.name, "codebook": level}
    about |= {"kind": condition.kind, "loss": condition.loss}
    clean = quality(image.pixels, model.decode(indices, level, *size), measurable())
    rows: Rows = [{**about, "concealer": CLEAN, **clean, "token_accuracy": math.nan}]
    for name in names:
        done = restore(name, model, indices, there, level, size)
        rows.append(
            {
                **about,
                "concealer": name,
                **quality(image.pixels, done.image, measurable()),
                "token_accuracy": token_accuracy(indices, done.concealed.indices, there),
            }
        )
    return rows


def study_interleavers(
    model: Model,
    images: Sequence[LoadedImage],
    level: int,
    out: Path,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Which order of the tokens makes repair easiest, and at what cost in coded bits."""
    about = study_manifest("interleavers", model, images, {"level": level})
    codec = ImageCodec(model)
    entropy = entropy_modes(codec.coders(level), level)
    tasks = []
    for n, image in enumerate(images):
        tokens = cache(partial(model.encode, image.pixels, level))  # when a task first needs them
        for slices in SLICES:
            for order in INTERLEAVERS:
                conditions = [
                    Condition(kind, loss, slices, order)
                    for kind in ("packets", "bursts")
                    for loss in LOSSES
                ]
                work = partial(
                    _interleaver_rows, model, image, n, images, level, conditions, tokens
                )
                tasks.append(StudyTask(f"{image.name} {slices} slices {order}", work))
        work = partial(_bit_rows, codec, image, level, tokens)
        tasks.append(StudyTask(f"{image.name} bits {' '.join(entropy)}", work))
    rows = run_tasks(out, about, tasks, progress)
    bits = [row for row in rows if "entropy" in row]
    write_table(out / BITS, bits)
    summary = {"bits": _means(bits, ("entropy", "slices", "interleaver"), ("bits_per_token",))}
    keys = ("kind", "loss", "slices", "interleaver")
    rows = [row for row in rows if "entropy" not in row]
    overall = ("psnr_drop_db", "token_accuracy")
    summary["overall"] = sorted(  # best first: the default should be the first
        _means(_by_image(rows, ("interleaver",), overall), ("interleaver",), overall),
        key=lambda point: float(point["psnr_drop_db"]["mean"]),
    )
    metrics = ("psnr_drop_db", "psnr_db", "token_accuracy", "lost")
    return _finish(out, about, rows, keys, metrics, summary)


def _interleaver_rows(
    model: Model,
    image: LoadedImage,
    number: int,
    images: Sequence[LoadedImage],
    level: int,
    conditions: Sequence[Condition],
    tokens: Callable[[], NDArray[np.int64]],
) -> Rows:
    indices = tokens()
    size = (image.height, image.width)
    clean = psnr_db(image.pixels, model.decode(indices, level, *size))
    rows: Rows = []
    for condition in conditions:
        there = received(condition, grids_of(images), 1)[number]
        concealed = conceal("inpaint", model, indices, there, level)
        psnr = clean
        if not there.all():
            psnr = psnr_db(image.pixels, model.decode_codewords(concealed.codeword_vectors, *size))
        rows.append(
            {
                "image": image.name,
                "kind": condition.kind,
                "loss": condition.loss,
                "slices": condition.slices,
                "interleaver": condition.interleaver,
                "lost": float(1 - there.mean()),
                "token_accuracy": token_accuracy(indices, concealed.indices, there),
                "psnr_db": psnr,
                "psnr_drop_db": clean - psnr,
            }
        )
    return rows


def _bit_rows(
    codec: ImageCodec, image: LoadedImage, level: int, tokens: Callable[[], NDArray[np.int64]]
) -> Rows:
    """Payload bits per token; headers are the same for every interleaver."""
    indices = tokens()
    return [
        {
            "image": image.name,
            "entropy": found.entropy,
            "slices": found.slices,
            "interleaver": found.interleaver,
            "bits_per_token": found.bits / indices.size,
        }
        for found in sorted(
            measure_bits(codec, image, indices, level, SLICES),
            key=lambda found: ENTROPY_MODES.index(found.entropy),
        )
    ]


def _finish(
    out: Path,
    about: dict[str, Any],
    rows: Rows,
    keys: Sequence[str],
    metrics: Sequence[str],
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the table, the summary and the figures; returns the summary."""
    summary = {
        "study": about["kind"],
        "images": len(about["images"]),
        "points": _means(rows, keys, metrics),
        **(more or {}),
    }
    write_table(out / TABLE, rows)
    write_json(out / SUMMARY, summary)
    from sim.studies.repair.figures import draw_study

    draw_study(out)
    return summary


def _by_image(rows: Rows, keys: Sequence[str], metrics: Sequence[str]) -> Rows:
    """One row per image and setting of the keys, of means: rows of one image are no more
    independent than that image is one."""
    keys = ("image", *keys)
    return [
        dict(zip(keys, values, strict=True))
        | {m: finite_mean([row[m] for row in group]) for m in metrics}
        for values, group in grouped(rows, keys).items()
    ]


def _means(rows: Rows, keys: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per setting of the keys: {key: value, metric: {"mean", "low", "high", "n"}}. Rows
    of one setting are independent: one per image."""
    found = []
    for values, group in grouped(rows, keys).items():
        columns = {m: np.array([row[m] for row in group], np.float64) for m in metrics}
        estimates = {m: asdict(estimate(column[None])) for m, column in columns.items()}
        found.append({**dict(zip(keys, values, strict=True)), **estimates})
    return found
