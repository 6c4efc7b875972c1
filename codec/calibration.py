"""Calibration of the inpainter's probabilities: temperatures, and how far off they are.

Fitted on photos that were held out of training, with dispersed losses of 10% to 50%:

* probability_temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
  section 4.2): at which the mean probability of the most probable tokens equals their accuracy.
  Guo et al. minimise the negative log-likelihood, which depends on all K probabilities and leaves
  the largest ones less well calibrated;
* codeword_temperature: whose mean codewords decode nearest to the originals (mean squared error);
* pixel_error_scale: the least-squares factor from a token's spread to the error of its pixels.

Calibration is judged by the expected calibration error over 15 bins of equal width (Naeini et al.,
AAAI 2015; Guo et al., eq. 3), on other photos than those fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from codec.decoding import ONE_PASS, Calibration, fill, softmax
from codec.model import Model
from codec.tokenizer import STRIDE

BINS = 15
LOSSES = (0.1, 0.2, 0.3, 0.5)
"""Shares of tokens hidden, each independently of the others; photo n gets the (n modulo 4)-th."""
CODEWORD_TEMPERATURES = (1.0, 1.4, 2.0, 2.8, 4.0, 5.6)


@dataclass(frozen=True)
class Predictions:
    """The hidden tokens of one photo.

    Attributes:
        image: uint8[H,W,3].
        indices: int64[h,w], all of its tokens.
        received: bool[h,w].
        logits: float32[n,K] of the hidden ones.
    """

    image: NDArray[np.uint8]
    indices: NDArray[np.int64]
    received: NDArray[np.bool_]
    logits: NDArray[np.float32]

    @property
    def truth(self) -> NDArray[np.int64]:
        """The hidden tokens, int64[n]."""
        return self.indices[~self.received]


@dataclass(frozen=True)
class Reliability:
    """Predicted probability against observed accuracy, by bins of probability.

    Attributes:
        edges: float64[bins+1], 0 to 1.
        count: int64[bins].
        confidence, accuracy: float64[bins], means; NaN in empty bins.
        ece: sum over bins of count/n * |accuracy - confidence|, 0 to 1.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float


def predict(
    model: Model, images: Sequence[NDArray[np.uint8]], codebook_size: int
) -> list[Predictions]:
    """Hide tokens of each image uint8[H,W,3] and predict them in one pass of the transformer."""
    found = []
    for number, image in enumerate(images):
        indices = model.encode(image, codebook_size)
        rng = np.random.default_rng([number, codebook_size])
        received = rng.random(indices.shape) >= LOSSES[number % len(LOSSES)]
        found.append(
            Predictions(image, indices, received, model.logits(indices, received, codebook_size))
        )
    return found


def reliability(
    probability: NDArray[np.floating], right: NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Bin probabilities float[n] in [0, 1] of tokens that were right or not, bool[n]."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(probability, edges[1:-1], right=True), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, probability, bins) / count
        accuracy = np.bincount(place, right, bins) / count
    gaps = np.abs(accuracy - confidence)[count > 0]
    ece = float((gaps * count[count > 0]).sum() / max(1, count.sum()))
    return Reliability(edges, count, confidence, accuracy, ece)


def top_predictions(
    found: Sequence[Predictions], temperature: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Of every hidden token the probability float32[n] of the most probable codeword, and whether
    it is the right one, bool[n]."""
    chance = [softmax(one.logits, temperature).max(1) for one in found]
    right = [one.logits.argmax(1) == one.truth for one in found]
    return np.concatenate(chance), np.concatenate(right)


def fit(
    model: Model, found: Sequence[Predictions], codebook_size: int, decoded: int | None = None
) -> Calibration:
    """Fit one codebook on the predictions of `predict`, whatever calibration the model has.

    The first `decoded` photos (default: all) are decoded, for the two fits that need pixels.
    """
    probability = probability_temperature(found)
    subset = found[:decoded]
    errors = []
    for temperature in CODEWORD_TEMPERATURES:
        images = _filled(model, subset, codebook_size, Calibration(probability, temperature))
        errors.append(
            sum(
                _squared_error(done, one.image).sum()
                for (done, _), one in zip(images, subset, strict=True)
            )
        )
    codeword = CODEWORD_TEMPERATURES[int(np.argmin(errors))]
    fitted = Calibration(probability, codeword)
    spread, pixels = token_errors(model, subset, codebook_size, fitted)
    return Calibration(probability, codeword, float((spread * pixels).sum() / (spread**2).sum()))


def token_errors(
    model: Model, found: Sequence[Predictions], codebook_size: int, calibration: Calibration
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spread of every hidden token, and the root mean squared error of its 16x16 pixels against
    the decode without loss: float64[n] each. Tokens whose pixels are cropped are left out."""
    spreads, errors = [], []
    for (done, spread), one in zip(
        _filled(model, found, codebook_size, calibration), found, strict=True
    ):
        height, width = (side // STRIDE for side in one.image.shape[:2])
        clean = model.decode(one.indices, codebook_size, *one.image.shape[:2])
        square = _squared_error(done, clean)[: height * STRIDE, : width * STRIDE]
        square = square.reshape(height, STRIDE, width, STRIDE).mean((1, 3))
        hidden = ~one.received[:height, :width]
        spreads.append(spread[:height, :width][hidden].astype(np.float64))
        errors.append(np.sqrt(square[hidden]))
    return np.concatenate(spreads), np.concatenate(errors)


def _filled(
    model: Model, found: Sequence[Predictions], codebook_size: int, calibration: Calibration
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Each photo decoded after filling in one pass, uint8[H,W,3], and its spread, float32[h,w]."""
    codewords = model.codewords(codebook_size)
    for one in found:
        logits = one.logits
        filled = fill(
            lambda i, k, logits=logits: logits,  # type: ignore[misc]
            codewords,
            one.indices,
            one.received,
            ONE_PASS,
            calibration,
        )
        yield model.decode_codewords(filled.codeword_vectors, *one.image.shape[:2]), filled.spread


def _squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Squared difference of uint8[H,W,3], mean over colours: float64[H,W]."""
    error: NDArray[np.float64] = ((a.astype(np.float64) - b) ** 2).mean(2)
    return error


def probability_temperature(found: Sequence[Predictions]) -> float:
    """The temperature at which the mean probability of the most probable tokens is the share of
    them that is right."""

    def gap(log_temperature: float) -> float:
        chance, right = top_predictions(found, float(np.exp(log_temperature)))
        return abs(float(chance.mean()) - float(right.mean()))

    best = minimize_scalar(gap, bounds=(np.log(0.2), np.log(8)), method="bounded")
    return round(float(np.exp(best.x)), 3)
