"""Laws of the schedules: what is filled when, and what the numbers beside it mean."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from codec.decoding import Calibration, Decoding, Order, fill, halton_rank

WORDS = np.eye(10, dtype=np.float32)


class Oracle:
    """Logits as a function of the position alone; remembers which positions were asked for."""

    def __init__(self, scores: NDArray[np.float32]) -> None:
        self.scores, self.asked = scores, list[NDArray[np.bool_]]()

    def __call__(
        self, indices: NDArray[np.int64], received: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        self.asked.append(~received)
        return self.scores[~received]


def random_oracle(shape: tuple[int, int], seed: int = 0) -> Oracle:
    return Oracle(np.random.default_rng(seed).normal(size=(*shape, 10)).astype(np.float32))


@pytest.mark.parametrize("order", ["confidence", "halton"])
@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_every_schedule_fills_everything_in_at_most_its_steps(order: Order, steps: int) -> None:
    shape = (15, 17)  # of so many, every pass keeps some
    oracle = random_oracle(shape)
    received = np.random.default_rng(1).random(shape) > 0.4
    tokens = np.random.default_rng(2).integers(0, 10, shape)
    before = received.copy()
    filled = fill(oracle, WORDS, tokens, received, Decoding(order, steps))
    assert len(oracle.asked) == steps
    counts = [int(asked.sum()) for asked in oracle.asked]
    taken = -np.diff([*counts, 0])
    assert (np.diff(taken) >= -1).all(), "few at first, many at last (rounded to whole tokens)"
    assert np.array_equal(filled.indices[received], tokens[received])
    # This model does not listen to its own answers, so each order must give the same tokens.
    assert np.array_equal(filled.indices[~received], oracle.scores.argmax(-1)[~received])
    assert np.array_equal(received, before)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_few_losses_take_few_passes(lost: int) -> None:
    """A pass that would keep nothing is not made."""
    oracle = random_oracle((1, 5))
    fill(oracle, WORDS, np.zeros((1, 5), int), np.arange(5)[None] >= lost, Decoding(steps=12))
    assert 0 <= len(oracle.asked) <= lost
    assert len({asked.tobytes() for asked in oracle.asked}) == len(oracle.asked)


def test_the_most_confident_go_first() -> None:
    scores = np.zeros((1, 8, 10), np.float32)
    scores[0, np.arange(8), np.arange(8)] = 10.0 - np.arange(8)
    oracle = Oracle(scores)
    result = fill(oracle, WORDS, np.zeros((1, 8), int), np.zeros((1, 8), bool), Decoding(steps=4))
    for asked in oracle.asked:
        assert asked[0, int(np.argmax(asked[0])) :].all(), "what is left are the least sure"
    assert (np.diff(result.probability[0]) < 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (16, 27), (33, 48)])
def test_halton_visits_every_cell_once_where_the_sequence_does(shape: tuple[int, int]) -> None:
    """The formula agrees with walking the sequence, and any start of it is spread evenly."""
    rank = halton_rank(*shape)
    assert len(np.unique(rank)) == rank.size
    rows = 2 ** int(np.ceil(np.log2(shape[0])))
    columns = 3 ** int(np.ceil(np.log(shape[1]) / np.log(3) - 1e-9))

    def radical_inverse(i: int, base: int) -> float:
        value, share = 0.0, 1.0 / base
        while i:
            value, i, share = value + share * (i % base), i // base, share / base
        return value

    for i in range(min(rows * columns, 200)):
        y = int(radical_inverse(i, 2) * rows + 1e-9)
        x = int(radical_inverse(i, 3) * columns + 1e-9)
        if y < shape[0] and x < shape[1]:
            assert rank[y, x] == i
    if rank.size > 400:
        first = rank < np.sort(rank.ravel())[rank.size // 4]
        halves = [first[: shape[0] // 2].mean(), first[:, : shape[1] // 2].mean()]
        assert np.abs(np.array(halves) - 0.25).max() < 0.03


def test_soft_words_are_means_and_spread_is_their_deviation() -> None:
    """Against sums over all codewords, written out, at two temperatures."""
    oracle, nothing = random_oracle((2, 3), 3), np.zeros((2, 3), bool)
    codewords = np.random.default_rng(4).normal(size=(10, 5)).astype(np.float32)
    calibration = Calibration(probability_temperature=1.5, codeword_temperature=3.0)
    soft = fill(oracle, codewords, np.zeros((2, 3), int), nothing, calibration=calibration)
    hard = fill(oracle, codewords, np.zeros((2, 3), int), nothing, Decoding(fill_mode="argmax"))
    for y, x in np.ndindex(2, 3):
        told = np.exp(oracle.scores[y, x] / 1.5)
        told /= told.sum()
        chance = np.exp(oracle.scores[y, x] / 3)
        chance /= chance.sum()
        mean = sum(c * w for c, w in zip(chance, codewords, strict=True))
        centre = told @ codewords
        far = sum(c * ((w - centre) ** 2).sum() for c, w in zip(told, codewords, strict=True))
        np.testing.assert_allclose(soft.codeword_vectors[y, x], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(soft.spread[y, x], np.sqrt(far), rtol=1e-4)
        np.testing.assert_allclose(soft.probability[y, x], told.max(), rtol=1e-5)
        assert np.array_equal(hard.codeword_vectors[y, x], codewords[hard.indices[y, x]])
    assert np.array_equal(soft.indices, hard.indices), "temperatures never change the tokens"


def test_decoding_refuses_what_it_is_not() -> None:
    for bad in ({"steps": 0}, {"steps": 13}, {"order": "raster"}, {"fill_mode": "loud"}):
        with pytest.raises(ValueError, match="choose"):
            Decoding(**bad)  # type: ignore[arg-type]
