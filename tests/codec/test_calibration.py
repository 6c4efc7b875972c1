"""Laws of calibration: what is promised is kept, and temperatures are found again."""

from __future__ import annotations

import numpy as np
import pytest

from codec.calibration import (
    CODEWORD_TEMPERATURES,
    Predictions,
    fit,
    predict,
    probability_temperature,
    reliability,
    token_errors,
    top_predictions,
)
from codec.decoding import Calibration, fill, softmax
from codec.model import Model


def test_reliability_of_an_honest_forecaster_is_near_zero_and_of_a_liar_its_lie() -> None:
    rng = np.random.default_rng(0)
    told = rng.uniform(0, 1, 40_000)
    honest = reliability(told, rng.random(40_000) < told)
    assert honest.count.sum() == 40_000
    assert honest.ece < 0.02  # 15 bins of 2,667: each off by about .8 * .4 / sqrt(2667) = .006
    liar = reliability(np.full(1000, 0.9), np.arange(1000) < 600)
    assert liar.ece == pytest.approx(0.3)
    edge = reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert edge.ece == 0 and edge.count[0] == 1 and edge.count[-1] == 1


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_that_truth_was_drawn_with_is_found(
    temperature: float, random_model: Model
) -> None:
    """Logits and tokens drawn from them at a known temperature; the standard error is ~2%."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (6000, 16)).astype(np.float32)
    chance = softmax(logits, temperature)
    truth = (chance.cumsum(1) < rng.random((6000, 1))).sum(1).clip(max=15)
    image = np.zeros((16 * 60, 16 * 100, 3), np.uint8)
    found = Predictions(image, truth.reshape(60, 100), np.zeros((60, 100), bool), logits)
    fitted = probability_temperature([found])
    assert fitted == pytest.approx(temperature, rel=0.06)
    assert reliability(*top_predictions([found], fitted)).ece < 0.03


def test_fit_looks_at_the_hidden_tokens_of_photos(random_model: Model) -> None:
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(4)]
    found = predict(random_model, images, 64)
    for one in found:
        assert one.logits.shape == ((~one.received).sum(), 64)
    fitted = fit(random_model, found, 64)
    assert 0.2 <= fitted.probability_temperature <= 8 and fitted.pixel_error_scale > 0

    def error(temperature: float) -> float:
        told, total = Calibration(fitted.probability_temperature, temperature), 0.0
        for one in found:
            filled = fill(  # type: ignore[var-annotated]
                lambda i, k, one=one: one.logits,  # type: ignore[misc]
                random_model.codewords(64),
                one.indices,
                one.received,
                calibration=told,
            )
            done = random_model.decode_codewords(filled.codeword_vectors, *one.image.shape[:2])
            total += float(((done.astype(float) - one.image) ** 2).sum())
        return total

    assert min(CODEWORD_TEMPERATURES, key=error) == fitted.codeword_temperature
    spread, error = token_errors(random_model, found, 64, Calibration())
    assert spread.shape == error.shape == (sum((~one.received).sum() for one in found),)
