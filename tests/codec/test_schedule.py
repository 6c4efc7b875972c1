"""What training does when: the learning rate, and the crops of each step."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from codec.training.data import PhotoDataset, random_crops
from codec.training.loop import LoopConfig, learning_rate_factor


def test_learning_rate_is_a_trapezoid() -> None:
    loop = LoopConfig(steps=100, decay_steps=20, warmup_steps=10)
    rates = [learning_rate_factor(step, loop) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[100] == 0
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))


def test_crops_are_a_pure_function_of_seed_and_step(photos: Path) -> None:
    a, b = (PhotoDataset(photos, min_side=32) for _ in range(2))
    random_crops(a, 5, 32, seed=1, step=0)  # what was drawn before does not matter
    assert torch.equal(random_crops(a, 4, 32, 1, 7), random_crops(b, 4, 32, 1, 7))
    assert not torch.equal(random_crops(a, 4, 32, 1, 7), random_crops(a, 4, 32, 1, 8))
    held_out = PhotoDataset(photos, held_out=True, min_side=32)
    assert not set(held_out.names) & set(a.names)
    assert len(held_out) + len(a) == 80
