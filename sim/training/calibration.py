"""`sim train calibrate`: fit the inpainter's temperatures on held-out photos, and show how honest
its probabilities are on other held-out photos.

    inpainter.safetensors   the same weights, with what was fitted in their config
    calibration.json        per level: what was fitted, ECE before and after, rank correlation of
                            the promised and the actual pixel error
    reliability.csv, .png   what was promised and what was kept, by bins of probability
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.calibration import Reliability, fit, predict, reliability, token_errors, top_predictions
from codec.checkpoint import ModelError, load_weights, save_weights
from codec.decoding import UNFITTED, Calibration
from codec.device import CPU, Device
from codec.model import INPAINTER_FILE, PRETRAINED, Model
from codec.tokenizer import STRIDE
from codec.training.data import HELD_OUT, Photos
from sim.errors import UserError
from sim.progress import ProgressCallback, no_progress
from sim.results.files import write_json, write_table

CALIBRATION = "calibration.json"
SIDE = 256
"""Pixels: photos are cut to at most this much each way, around their middle."""
DECODED = 16
"""Photos that are decoded, for the fits that look at pixels; the others only lend their tokens."""


@dataclass(frozen=True)
class _Level:
    """One level, fitted and checked."""

    codebook_size: int
    fitted: Calibration
    tokens: int
    before: Reliability
    after: Reliability
    rank_correlation: float


def calibrate(
    photos: Path,
    model_folder: Path | None,
    out: Path,
    count: int,
    progress: ProgressCallback = no_progress,
    *,
    device: Device = CPU,
    held_out: float = HELD_OUT,
) -> dict[str, Any]:
    """Fit on every other held-out photo, check on the rest, write the folder `out`.

    Raises:
        UserError: too few photos, weights that cannot be used, or `out` cannot be written.
    """
    folder = model_folder or PRETRAINED
    if out.is_dir() and any(out.iterdir()) and not (out / CALIBRATION).is_file():
        raise UserError(f"{out}: is not empty and holds no calibration; choose another folder")
    try:
        model = Model.load(folder, device)
        config, tensors, _ = load_weights(folder / INPAINTER_FILE)
        unseen = Photos(photos, held_out=True, min_side=SIDE // 2, share=held_out)
    except (ModelError, ValueError) as error:
        raise UserError(str(error)) from None
    chosen = np.random.default_rng(0).permutation(len(unseen))[:count]
    if len(chosen) < 4:
        raise UserError(f"{photos}: {len(chosen)} held-out photos; at least 4 are needed")
    try:
        images = [_middle(unseen.photo(int(number))) for number in chosen]
    except ValueError as error:
        raise UserError(str(error)) from None
    levels = []
    for done, codebook_size in enumerate(model.codebook_sizes):
        progress(done, len(model.codebook_sizes), f"K={codebook_size}")
        levels.append(_level(model, images, codebook_size))
    config["calibration"] = {str(one.level): one.fitted.to_config() for one in levels}
    about = {
        "photos_fitted_on": len(images[::2]),
        "photos_checked_on": len(images[1::2]),
        "weights_fingerprint": model.fingerprint,
        "levels": [_summary(one) for one in levels],
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "reliability.csv", [row for one in levels for row in _rows(one)])
        _draw(levels, out / "reliability.png")
        write_json(out / CALIBRATION, about)
        save_weights(out / INPAINTER_FILE, config, tensors)
    except OSError as error:
        raise UserError(f"{out}: cannot write here ({error.strerror})") from None
    return about


def _middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (min(SIDE, side // STRIDE * STRIDE) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _level(model: Model, images: list[NDArray[np.uint8]], codebook_size: int) -> _Level:
    from scipy.stats import spearmanr

    # Apart, so that each half meets every loss rate.
    fitted = fit(model, predict(model, images[::2], codebook_size), codebook_size, DECODED)
    check = predict(model, images[1::2], codebook_size)
    before, after = (
        reliability(*top_predictions(check, calibration.probability_temperature))
        for calibration in (UNFITTED, fitted)
    )
    spread, error = token_errors(model, check[:DECODED], codebook_size, fitted)
    correlation = float(spearmanr(spread, error).statistic)
    return _Level(codebook_size, fitted, int(after.count.sum()), before, after, correlation)


def _summary(one: _Level) -> dict[str, Any]:
    return {
        "codebook": one.level,
        **one.fitted.to_config(),
        "tokens_checked": one.tokens,
        "ece_before": one.before.ece,
        "ece": one.after.ece,
        "pixel_error_rank_correlation": one.rank_correlation,
    }


def _rows(one: _Level) -> list[dict[str, Any]]:
    return [
        {
            "codebook": one.level,
            "from": float(found.edges[i]),
            "to": float(found.edges[i + 1]),
            "calibrated": calibrated,
            "tokens": int(found.count[i]),
            "probability": float(found.confidence[i]),
            "right": float(found.accuracy[i]),
        }
        for calibrated, found in ((False, one.before), (True, one.after))
        for i in range(len(found.count))
    ]


def _draw(levels: list[_Level], path: Path) -> None:
    """Promised against kept, a panel per level; the area of a dot is its share of the tokens."""
    from matplotlib.figure import Figure

    columns = min(len(levels), 5)
    lines = -(-len(levels) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.5 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(levels) :]:
        axes.set_axis_off()
    for axes, one in zip(grid.flat, levels, strict=False):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
        looks = ((one.before, "#E69F00", "before"), (one.after, "#0072B2", "calibrated"))
        for found, colour, label in looks:
            axes.plot(found.confidence, found.accuracy, color=colour, linewidth=1)
            area = 120 * found.count / max(1, one.tokens) + 4
            axes.scatter(found.confidence, found.accuracy, area, color=colour, label=label)
        axes.set_title(
            f"K={one.level}: ECE {one.before.ece:.3f} to {one.after.ece:.3f}", fontsize=8
        )
        axes.grid(alpha=0.25)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    for axes in grid[-1]:
        axes.set_xlabel("probability told", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("share right", fontsize=8)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=140, metadata={"Software": None})
