"""`sim train calibrate`: fit the inpainter's temperatures on held-out photos and measure the
calibration of its probabilities on other held-out photos.

    inpainter.safetensors   the same weights, with the fitted numbers in their config
    calibration.json        by codebook size: the fitted numbers, expected calibration error (ECE)
                            before and after, rank correlation of predicted and actual pixel error
    reliability.csv, .png   predicted probability against accuracy, by bins of probability
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
from codec.files import replacing
from codec.model import PRETRAINED, Model
from codec.model_files import INPAINTER_FILE
from codec.tokenizer import STRIDE
from codec.training.data import PhotoDataset
from codec.training.options import HELD_OUT
from sim.errors import UserError, os_errors, user_errors
from sim.figures.style import drawing
from sim.progress import ProgressCallback, no_progress
from sim.results.files import write_json, write_table

CALIBRATION = "calibration.json"
SIDE = 256
"""Pixels: photos are cropped to at most this much each way, around their centre."""
DECODED = 16
"""Photos that are decoded, for the two fits that need pixels; of the others only tokens count."""


@dataclass(frozen=True)
class _Fitted:
    """One codebook, its calibration fitted and checked."""

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

    Args:
        photos: a folder or a pack.
        model_folder: default: the weights that ship.
        out: must be empty or hold an earlier calibration, which is replaced.
        count: held-out photos at most, >= 4.
        progress: see `ProgressCallback`.
        device: where networks run.
        held_out: share of the photos that is held out, as in training.

    Returns:
        The content of calibration.json.

    Raises:
        UserError: too few photos, weights that cannot be used, or `out` cannot be written.
    """
    folder = model_folder or PRETRAINED
    if out.is_dir() and any(out.iterdir()) and not (out / CALIBRATION).is_file():
        raise UserError(f"{out}: is not empty and holds no calibration; choose another folder")
    with user_errors("", ModelError, ValueError):
        model = Model.load(folder, device)
        config, tensors, _ = load_weights(folder / INPAINTER_FILE)
        unseen = PhotoDataset(photos, held_out=True, min_side=SIDE // 2, share=held_out)
    chosen = np.random.default_rng(0).permutation(len(unseen))[:count]
    if len(chosen) < 4:
        raise UserError(f"{photos}: {len(chosen)} held-out photos; at least 4 are needed")
    with user_errors("", ValueError):
        images = [_centre(unseen.photo(int(number))) for number in chosen]
    fitted = []
    for done, codebook_size in enumerate(model.codebook_sizes):
        progress(done, len(model.codebook_sizes), f"K={codebook_size}")
        fitted.append(_fit_and_check(model, images, codebook_size))
    config["calibration"] = {str(one.codebook_size): one.fitted.to_config() for one in fitted}
    about = {
        "photos_fitted_on": len(images[::2]),
        "photos_checked_on": len(images[1::2]),
        "weights_fingerprint": model.fingerprint,
        "levels": [_summary(one) for one in fitted],
    }
    with os_errors(out, "cannot write here"):
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / "reliability.csv", [row for one in fitted for row in _rows(one)])
        _draw(fitted, out / "reliability.png")
        write_json(out / CALIBRATION, about)
        save_weights(out / INPAINTER_FILE, config, tensors)
    return about


def _centre(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The centre of uint8[H,W,3], at most `SIDE` pixels each way and a multiple of 16."""
    height, width = (min(SIDE, side // STRIDE * STRIDE) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _fit_and_check(model: Model, images: list[NDArray[np.uint8]], codebook_size: int) -> _Fitted:
    from scipy.stats import spearmanr

    # In two calls, so that each half has every loss rate.
    fitted = fit(model, predict(model, images[::2], codebook_size), codebook_size, DECODED)
    check = predict(model, images[1::2], codebook_size)
    before, after = (
        reliability(*top_predictions(check, calibration.probability_temperature))
        for calibration in (UNFITTED, fitted)
    )
    spread, error = token_errors(model, check[:DECODED], codebook_size, fitted)
    correlation = float(spearmanr(spread, error).statistic)
    return _Fitted(codebook_size, fitted, int(after.count.sum()), before, after, correlation)


def _summary(one: _Fitted) -> dict[str, Any]:
    return {
        "codebook": one.codebook_size,
        **one.fitted.to_config(),
        "tokens_checked": one.tokens,
        "ece_before": one.before.ece,
        "ece": one.after.ece,
        "pixel_error_rank_correlation": one.rank_correlation,
    }


def _rows(one: _Fitted) -> list[dict[str, Any]]:
    return [
        {
            "codebook": one.codebook_size,
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


@drawing()
def _draw(fitted: list[_Fitted], path: Path) -> None:
    """Reliability diagrams, a panel per codebook; the area of a dot is its share of the tokens."""
    from matplotlib.figure import Figure

    columns = min(len(fitted), 5)
    lines = -(-len(fitted) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.5 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(fitted) :]:
        axes.set_axis_off()
    for axes, one in zip(grid.flat, fitted, strict=False):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1)
        series = ((one.before, "#E69F00", "before"), (one.after, "#0072B2", "calibrated"))
        for found, colour, label in series:
            axes.plot(found.confidence, found.accuracy, color=colour, linewidth=1)
            area = 120 * found.count / max(1, one.tokens) + 4
            axes.scatter(found.confidence, found.accuracy, area, color=colour, label=label)
        axes.set_title(
            f"K={one.codebook_size}: ECE {one.before.ece:.3f} to {one.after.ece:.3f}", fontsize=8
        )
        axes.grid(alpha=0.25)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    for axes in grid[-1]:
        axes.set_xlabel("probability", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy", fontsize=8)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=140, metadata={"Software": None})
