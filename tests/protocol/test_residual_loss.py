"""Simulated residual loss of parity against theory.

Blocks of one stream share its bursts, so they are no independent samples. Streams are: each has a
channel of its own, started in its stationary state. So a stream is one sample (its share of failed
blocks, whose expectation is exactly theory's), and the interval is Student's over streams, at a
level that all cells of the grid together miss once in a hundred times.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from channels import loss_mask, read_channel
from channels.theory import block_failure
from codec.coders import CoderBook
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady
from sim.protocol.handshake import StreamStart
from sim.protocol.protection import FecConfig
from sim.protocol.receiver import Receiver
from sim.protocol.sender import Sender

KEY = StreamKey("0123456789abcdef", 3)
BOOK = CoderBook({})
SIDE = 64  # pixels: 16 tokens, as many slices

CHANNELS: dict[str, dict[str, Any]] = {
    "uniform 10%": {"type": "uniform", "loss": 0.1},
    "uniform 20%": {"type": "uniform", "loss": 0.2},
    "burst 2": {"type": "gilbert_elliott", "loss": 0.1, "mean_burst": 2},
    "burst 5": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5},
    "four states": {
        "type": "four_state",
        "p13": 0.1,
        "p31": 0.3,
        "p32": 0.3,
        "p23": 0.4,
        "p14": 0.02,
    },
}
BLOCKS = [(4, 2), (8, 2), (16, 4)]
DEPTHS = [1, 2, 5]
GRID = list(itertools.product(BLOCKS, DEPTHS, CHANNELS))
STREAMS = 60
LEVEL = 1 - 0.01 / len(GRID)


@lru_cache(maxsize=1)
def sent(k: int, m: int, depth: int) -> tuple[StreamStart, tuple[tuple[float, bytes], ...]]:
    """A stream of a few whole groups: its terms, and its datagrams with their times."""
    groups = max(2, 120 // (k * depth))
    frames = -(-groups * k * depth // 16)
    config = StreamConfig(
        codebook_size=2,
        entropy="fixed",
        slices=16,
        fps=1,
        playout_delay_s=100,
        fec=FecConfig("reed_solomon", k, m, depth),
    )
    start = StreamStart(config, KEY, ((SIDE, SIDE),) * frames)
    sender = Sender(start, BOOK)
    datagrams = []
    for frame in range(frames):
        sender.submit(np.ones((4, 4), np.int64), SIDE, SIDE, float(frame))
        while (timer := sender.next_timer()) is not None:
            datagrams += [(timer, data) for data in sender.datagrams_to_send(timer)]
    return start, tuple(datagrams)


def failed_blocks(k: int, m: int, depth: int, channel: dict[str, Any], seed: int) -> float:
    """The share of a stream's blocks of which something stays lost."""
    start, datagrams = sent(k, m, depth)
    lost = loss_mask(read_channel(channel)[0], len(datagrams), seed)
    receiver = Receiver(start, KEY, BOOK)
    for (now, data), gone in zip(datagrams, lost, strict=True):
        if not gone:
            receiver.receive_datagram(data, now)
    receiver.handle_timer(math.inf)
    frames = []
    while (event := receiver.next_event()) is not None:
        assert isinstance(event, FrameReady)
        frames.append(event.grid.received.ravel()[np.concatenate(start.layouts[0].positions)])
    arrived = np.concatenate(frames)
    groups = len(arrived) // (k * depth)
    blocks = arrived[: groups * k * depth].reshape(groups, k, depth)
    return float(1 - blocks.all(axis=1).mean())


def check(k: int, m: int, depth: int, name: str) -> None:
    chain = read_channel(CHANNELS[name])[0].chain()
    assert chain is not None
    expected = block_failure(chain, k + m, m, depth)
    shares = [failed_blocks(k, m, depth, CHANNELS[name], seed) for seed in range(STREAMS)]
    half = student.ppf(0.5 + LEVEL / 2, STREAMS - 1) * np.std(shares, ddof=1) / math.sqrt(STREAMS)
    assert 0 < half < 0.25, "too few blocks to say anything"
    assert abs(np.mean(shares) - expected) < half, (
        f"RS({k + m},{k}) depth {depth}, {name}: {np.mean(shares):.4f} +- {half:.4f}, "
        f"theory {expected:.4f}"
    )


def test_residual_loss_is_what_theory_says() -> None:
    check(8, 2, 2, "burst 5")


@pytest.mark.slow
@pytest.mark.parametrize(("block", "depth", "name"), GRID)
def test_residual_loss_over_the_grid(block: tuple[int, int], depth: int, name: str) -> None:
    check(*block, depth, name)
