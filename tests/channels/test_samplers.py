"""A sampler's stream does not depend on how it is asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.registry import loss_model
from channels.samplers import BLOCK, bernoulli_mask, mask_of_runs, merge_runs, runs_of_mask

MODELS = {
    "perfect": {"type": "perfect"},
    "total": {"type": "uniform", "loss": 1.0},
    "uniform": {"type": "uniform", "loss": 0.2},
    "rare": {"type": "uniform", "loss": 1e-4},
    "gilbert": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5},
    "dense": {"type": "gilbert_elliott", "p": 0.3, "r": 0.4},
    "dense-elliott": {"type": "gilbert_elliott", "p": 0.3, "r": 0.4, "loss_bad": 0.9},
    "sparse": {"type": "gilbert_elliott", "p": 0.01, "r": 0.4, "loss_bad": 0.9},
    "alternating": {"type": "gilbert_elliott", "p": 1.0, "r": 1.0},
    "anti-bursty": {"type": "gilbert_elliott", "p": 0.9, "r": 0.8},
    "long": {"type": "gilbert_elliott", "p": 1e-5, "r": 1e-4},
    "endless": {"type": "gilbert_elliott", "p": 1e-200, "r": 0.5},
    "stuck": {"type": "gilbert_elliott", "p": 0.1, "r": 0.0},
    "elliott": {"type": "gilbert_elliott", "p": 0.05, "r": 0.2, "loss_good": 0.02, "loss_bad": 0.7},
    "gilbert60": {"type": "gilbert_elliott", "p": 0.05, "r": 0.2, "loss_bad": 0.5},
    "four-state": {
        "type": "four_state",
        "p13": 0.04,
        "p31": 0.3,
        "p32": 0.6,
        "p23": 0.4,
        "p14": 0.01,
    },
    "lone": {"type": "four_state", "p13": 0.0, "p31": 0.3, "p14": 0.1},
    "order-2": {"type": "order_n", "loss_after": [0.05, 0.5, 0.2, 0.9]},
    "order-6": {"type": "order_n", "loss_after": [0.1 + 0.8 * i / 63 for i in range(64)]},
    "forced": {"type": "order_n", "loss_after": [0.1, 1.0, 0.0, 0.5]},
    "heavy-tail": {"type": "semi_markov", "loss": 0.1, "mean_burst": 6},
    "resampled": {"type": "semi_markov", "bursts": [1, 1, 9], "gaps": [3, 30]},
    "outages": {"type": "outages", "up": 100, "down": 20, "spread": 0.5},
    "periodic": {"type": "outages", "up": 3, "down": 2},
    "any": {
        "type": "any",
        "of": [{"type": "uniform", "loss": 0.1}, {"type": "outages", "up": 90, "down": 10}],
    },
    "script": {"type": "scripted", "mask": "0010110"},
    "script-once": {"type": "scripted", "mask": "0010111", "at_end": "receive"},
}
REACH = 2 * BLOCK + 1000  # across block edges


def sampler(name: str, seed: int = 7):
    return loss_model(MODELS[name]).sampler(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    return {name: sampler(name).mask(REACH) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["lost", "mask", "runs"]),
            st.sampled_from([0, 1, 2, 3, 7, 64, 1000, BLOCK - 1, BLOCK, BLOCK + 1]),
        ),
        max_size=12,
    )
)
@settings(max_examples=20, deadline=None)
def test_any_mix_of_calls_walks_the_same_stream(references, name, calls):
    stream = sampler(name)
    at = 0
    for call, size in calls:
        n = min(1 if call == "lost" else size, REACH - at)
        expected = references[name][at : at + n]
        if call == "lost" and n:
            fate = stream.lost()
            assert isinstance(fate, bool)
            assert fate == expected[0]
        elif call == "mask":
            got = stream.mask(n)
            assert got.dtype == np.bool_
            assert np.array_equal(got, expected)
        elif call == "runs":
            runs = stream.runs(n)
            assert runs.dtype == np.int64
            assert np.array_equal(runs, runs_of_mask(expected))
        at += n


@pytest.mark.parametrize("name", MODELS)
def test_packet_by_packet_equals_one_mask(references, name):
    stream = sampler(name)
    fates = [stream.lost() for _ in range(3000)]
    assert fates == references[name][:3000].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_stream_as_runs(references, name):
    assert np.array_equal(sampler(name).runs(REACH), runs_of_mask(references[name]))


def test_no_packets_have_no_runs_even_inside_a_run():
    stream = loss_model({"type": "gilbert_elliott", "p": 0.5, "r": 0.01}).sampler(
        np.random.default_rng(5)
    )
    for _ in range(20):
        stream.lost()
        assert stream.runs(0).shape == (0, 2)
        assert stream.mask(0).shape == (0,)


def test_an_answer_is_the_callers_own(references):
    stream = sampler("gilbert")
    stream.mask(10)[:] = True
    stream.runs(1000)[:] = 0
    assert np.array_equal(stream.mask(1000), references["gilbert"][1010:2010])


@given(st.lists(st.booleans(), max_size=200))
def test_masks_and_runs_are_inverse(fates):
    mask = np.array(fates, np.bool_)
    runs = runs_of_mask(mask)
    assert np.array_equal(mask_of_runs(runs, mask.size), mask)
    assert np.all(runs[:, 0] < runs[:, 1])
    assert np.all(runs[1:, 0] > runs[:-1, 1])


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 50))
def test_merging_the_runs_of_chunks_restores_the_runs(fates, chunk):
    mask = np.array(fates, np.bool_)
    parts = [runs_of_mask(mask[i : i + chunk]) + i for i in range(0, mask.size, chunk)]
    joined = merge_runs(np.concatenate([np.empty((0, 2), np.int64), *parts]))
    assert np.array_equal(joined, runs_of_mask(mask))


@pytest.mark.parametrize("p", [0.0, 1e-9, 1 / 512, 0.2, 0.25, 0.5, 255.5 / 256, 1.0])
def test_bernoulli_bytes_have_the_right_rate(p):
    n = 1 << 20
    rate = bernoulli_mask(np.random.default_rng(3), p, n).mean()
    assert abs(rate - p) <= 4 * np.sqrt(p * (1 - p) / n)


def test_ten_billion_packets_as_runs_in_bounded_memory():
    stream = loss_model({"type": "gilbert_elliott", "p": 1e-6, "r": 1e-2}).sampler(
        np.random.default_rng(1)
    )
    lost = 0
    for _ in range(10):
        runs = stream.runs(10**9)
        lost += int((runs[:, 1] - runs[:, 0]).sum())
    assert 0.9 < lost / 10**10 / (1e-6 / (1e-6 + 1e-2)) < 1.1
