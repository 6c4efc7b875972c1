"""Laws of the concealers that remember what they showed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from codec.checkpoint import ModelError
from codec.concealment import VIDEO_CONCEALERS, Concealed, conceal
from codec.inpainting import Inpainter, InpainterConfig
from codec.model import Model
from sim.errors import UserError
from sim.scenario.schema import Scenario
from sim.stream import check_model

GRID, K = (9, 12), 64


def masks(seed: int, count: int) -> list[NDArray[np.bool_]]:
    """What arrives of so many frames: any share of the tokens, nothing at times."""
    rng = np.random.default_rng(seed)
    shares = [0.0, 1.0, *rng.random(count - 2)]
    return [rng.random(GRID) < share for share in rng.permuted(shares)]


def shown(
    model: Model, name: str, clip: NDArray[np.int64], received: list[NDArray[np.bool_]]
) -> list[Concealed]:
    """Every frame of a clip int64[T,h,w], each made with those before it."""
    found: list[Concealed] = []
    for frame, there in zip(clip, received, strict=True):
        lost = np.where(there, frame, -1)
        found.append(conceal(name, model, lost, there, K, shown=found))
    return found


@pytest.mark.parametrize("name", ["previous", "previous_or_average"])
def test_a_still_clip_is_exact_once_it_was_seen(random_model: Model, name: str) -> None:
    still = np.random.default_rng(1).integers(0, K, GRID)
    received = [np.ones(GRID, np.bool_), *masks(2, 8)]
    truth = random_model.codewords(K)[still]
    for frame in shown(random_model, name, np.stack([still] * 9), received):
        assert np.array_equal(frame.indices, still)
        assert np.array_equal(frame.codeword_vectors, truth)


def test_previous_shows_the_latest_token_that_came(random_model: Model) -> None:
    clip = np.random.default_rng(3).integers(0, K, (8, *GRID))
    received = masks(4, 8)
    frames = shown(random_model, "previous", clip, received)
    nothing = conceal("none", random_model, clip[0], np.zeros(GRID, np.bool_), K)
    latest = nothing.codeword_vectors
    for frame, tokens, there in zip(frames, clip, received, strict=True):
        latest = np.where(there[..., None], random_model.codewords(K)[tokens], latest)
        assert np.array_equal(frame.codeword_vectors, latest)


@pytest.mark.parametrize("name", VIDEO_CONCEALERS)
def test_what_comes_later_changes_nothing(random_model: Model, name: str) -> None:
    clip = np.random.default_rng(5).integers(0, K, (8, *GRID))
    received = masks(6, 8)
    whole = shown(random_model, name, clip, received)
    other = clip.copy()
    other[5:] = (other[5:] + 7) % K
    never = [*received[:5], *(~there for there in received[5:])]
    for frame, again in zip(whole[:5], shown(random_model, name, other, never), strict=False):
        assert np.array_equal(frame.codeword_vectors, again.codeword_vectors)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("previous", "none"),
        ("previous_or_average", "neighbour_average"),
        ("inpaint_memory", "inpaint"),
    ],
)
def test_without_a_frame_of_the_same_grid_they_know_nothing(
    random_model: Model, name: str, like: str
) -> None:
    tokens = np.random.default_rng(7).integers(0, K, GRID)
    there = masks(8, 3)[0]
    turned = conceal("none", random_model, tokens.T, there.T, K)
    for memory in ([], [turned]):
        found = conceal(name, random_model, tokens, there, K, shown=memory)
        expected = conceal(like, random_model, tokens, there, K)
        assert np.array_equal(found.codeword_vectors, expected.codeword_vectors)


def test_the_transformer_sees_what_was_shown_and_how_sure_it_was(random_model: Model) -> None:
    """The untrained one of `random_model` starts from the memory, where there is any."""
    rng = np.random.default_rng(11)
    first, nothing = rng.integers(0, K, GRID), np.zeros(GRID, np.bool_)
    half = rng.random(GRID) < 0.5
    before = conceal("none", random_model, first, half, K)
    found = conceal("inpaint_memory", random_model, first, nothing, K, shown=[before])
    assert np.array_equal(found.indices[half], first[half])
    blind = conceal("inpaint", random_model, first, nothing, K)
    assert np.array_equal(found.indices[~half], blind.indices[~half])
    assert np.array_equal(found.probability[~half], blind.probability[~half])


def test_a_network_without_a_memory_refuses_one(random_model: Model) -> None:
    network, tokens = Inpainter(InpainterConfig(width=32, depth=2, heads=2)), np.zeros(GRID, int)
    parts = random_model.encoder, random_model.decoder, random_model.ladder
    model = Model(*parts, network, "without")
    before = conceal("inpaint", model, tokens, tokens == 0, K)
    with pytest.raises(ModelError, match="has no memory: sim train inpainter --clips"):
        conceal("inpaint_memory", model, tokens, tokens > 0, K, shown=[before])
    about = {"name": "a", "video": {"file": "a"}, "concealers": ["inpaint_memory"]}
    scenario = Scenario.model_validate(about)
    with pytest.raises(UserError, match="concealers: inpaint_memory: this model has no"):
        check_model(model, scenario)
    check_model(random_model, scenario)


def test_after_a_cut_the_neighbours_are_asked(random_model: Model) -> None:
    """A plain picture after another one: what came of it says that the memory is stale."""
    rng = np.random.default_rng(9)
    before = conceal("none", random_model, rng.integers(6, K, GRID), np.ones(GRID, np.bool_), K)
    there = rng.random(GRID) < 0.7
    plain = np.full(GRID, 5)
    found = conceal("previous_or_average", random_model, plain, there, K, shown=[before])
    assert (found.indices == plain).all()
    assert (conceal("previous", random_model, plain, there, K, shown=[before]).indices != 5).any()


def test_where_part_of_a_picture_moves_only_that_part_is_forgotten(random_model: Model) -> None:
    """The left half stands still and has no structure that neighbours could tell; the right half
    becomes plain."""
    rng = np.random.default_rng(10)
    first = rng.integers(6, K, GRID)
    second = first.copy()
    second[:, 6:] = 5
    before = conceal("none", random_model, first, np.ones(GRID, np.bool_), K)
    there = (np.add.outer(np.arange(9), np.arange(12)) % 2).astype(np.bool_)
    found = conceal("previous_or_average", random_model, second, there, K, shown=[before])
    far = np.abs(np.arange(12) - 5.5) > 3
    assert np.array_equal(found.indices[:, far], second[:, far])
