"""Laws of sequences of frames, and of what is learnt from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from codec.codebook import Ladder
from codec.inpainting import InpainterConfig
from codec.training.data import PhotoDataset
from codec.training.inpainter import InpainterTask, InpainterTraining
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.sequences import FRAMES, Sequences, excerpt, moved
from codec.training.tokens import TokenCache

SIDE, STEPS = 8, 120


class Numbered:
    """Clips whose frames are of one colour, which counts them."""

    names = ("a", "b", "c", "d")
    fingerprint = "numbered"

    def __init__(self) -> None:
        self.read: list[str] = []

    def frames(self, name: str) -> NDArray[np.uint8]:
        self.read.append(name)
        return np.full((20, 64, 80, 3), np.arange(20).reshape(-1, 1, 1, 1), np.uint8)


@pytest.mark.parametrize("seed", range(10))
def test_an_excerpt_goes_on_evenly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for count in (20, 2):
        frames = Numbered().frames("a")[:count]
        found = excerpt(frames, 32, rng)
        assert found.shape == (FRAMES, 32, 32, 3) and found.dtype == np.uint8
        steps = np.diff(found[:, 0, 0, 0].astype(int))
        assert set(steps) <= ({steps[0]} if count == 20 else {0, 1}) and 0 <= steps.min() < 4
        assert count == 2 or steps[0] > 0


@pytest.mark.parametrize("seed", range(10))
def test_a_photograph_moves_by_little_or_not_at_all(seed: int) -> None:
    """So the first frame is nearly the photograph; half of them have something in front of it."""
    smooth = np.add.outer(np.arange(64), np.arange(64))[..., None].repeat(3, 2).astype(np.uint8)
    found = moved(lambda side: smooth, 64, np.random.default_rng(seed))
    assert found.shape == (FRAMES, 64, 64, 3) and found.dtype == np.uint8
    assert abs(found[0].astype(int) - smooth).mean() < 30


def test_whole_clips_are_held_out_and_read_once(photos: Path) -> None:
    read = []
    for held_out in (False, True):
        clips = Numbered()
        source = PhotoDataset(photos, held_out=held_out, min_side=64)
        sequences = Sequences(source, clips, 4, 6, 1, held_out)
        assert len(sequences) == 6 * FRAMES
        frames = [sequences.pixels(number) for number in range(len(sequences))]
        assert all(frame.shape == (1, 3, 64, 64) for frame in frames)
        assert len(clips.read) == len(set(clips.read)) == len(sequences.names)
        read += clips.read
        again = Sequences(source, Numbered(), 4, 6, 1, held_out)
        for number in (22, 5, 6):
            assert torch.equal(again.pixels(number), frames[number])
    assert sorted(read) == sorted(Numbered.names)


def test_one_clip_is_too_few(photos: Path) -> None:
    clips = Numbered()
    clips.names = ("a",)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="one clip is too few"):
        Sequences(PhotoDataset(photos, min_side=64), clips, 4, 2, 1, held_out=False)


class Nothing:
    """Crops of which tokens alone are known."""

    side = SIDE

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def pixels(self, number: int) -> torch.Tensor:
        raise NotImplementedError

    def reader(self, options: TrainingOptions) -> Callable[[int], torch.Tensor]:
        raise NotImplementedError


@pytest.mark.slow
def test_a_memory_is_used_and_left_alone_after_a_cut() -> None:
    """Still sequences of tokens that say nothing of each other: with the memory of what was there,
    itself repaired, nearly all is known; with another's, what is known without one."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ladder = Ladder.pairs(F.normalize(torch.randn(32, 4), dim=1))

    def cache(count: int, frames: int = 1) -> TokenCache:
        maps = rng.integers(0, 32, (count, 1, SIDE, SIDE)).astype(np.uint16).repeat(frames, 0)
        return TokenCache(Nothing(len(maps)), ladder, maps)

    network = InpainterConfig(latent_dim=4, width=32, depth=2, heads=1, memory=True)
    config = InpainterTraining(
        network, batch=16, rate=5e-3, rising_steps=1, ema_decay=0.9, cuts=0.3
    )

    def masks(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        return rng.random(shape) > rng.uniform(0.1, 0.5)

    sequences = cache(100, FRAMES), cache(32, FRAMES)
    task = InpainterTask(
        torch.nn.Identity(), cache(100), cache(32), masks, config, DEFAULT_OPTIONS, sequences
    )
    for step in range(STEPS):
        task.train_step(step, 1.0)
    found = task.evaluate()
    assert found["accuracy_16_remembering"] > 0.9 > 0.5 > found["accuracy_16_alone"]
    assert found["bits_16_cut"] < found["bits_16_alone"] + 0.3
