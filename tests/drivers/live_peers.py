"""What driver tests stream, and misbehaving parts; importable from every process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from channels import Channel, Delivery, build, read_channel
from codec.coders import CoderBook
from sim.drivers.record import MediaFrame
from sim.protocol.config import StreamConfig, StreamKey

KEY = StreamKey("0123456789abcdef", 9)
CONFIG = StreamConfig(
    codebook_size=64, slices=8, fps=10, playout_delay_s=0.25, first_sequence=65500
)
SIZES = ((64, 48), (33, 80), (16, 16), (200, 150))


def make_book() -> CoderBook:
    return CoderBook({64: np.repeat([2560, 512], [16, 48])})


def make_frames(count: int = 12, seed: int = 0) -> list[MediaFrame]:
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        index_map = rng.integers(0, 64, (-(-height // 16), -(-width // 16)))
        frames.append(MediaFrame(f"frame {number}", index_map, width, height))
    return frames


def make_video(count: int = 12, seed: int = 0) -> list[MediaFrame]:
    """Frames of one size, of which a fifth changes from each to the next."""
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, 64, (5, 8))]
    for _ in range(count - 1):
        maps.append(np.where(rng.random((5, 8)) < 0.2, rng.integers(0, 64, (5, 8)), maps[-1]))
    return [MediaFrame(f"frame {n}", found, 128, 80) for n, found in enumerate(maps)]


def make_channel(spec: Mapping[str, Any], seed: int) -> Channel:
    loss, link = read_channel(spec)
    return build(loss, seed=seed, link=link)


class Ties(Channel):
    """Delays and copies packets by whole twentieths of a second: many arrivals coincide with
    each other, with departures and with deadlines."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def transmit(self, data: bytes, now_s: float) -> tuple[Delivery, ...]:
        copies = self._rng.integers(0, 3)
        steps = [np.ceil(now_s * 20) + self._rng.integers(0, 8) for _ in range(copies)]
        return tuple(Delivery(float(max(now_s, step / 20))) for step in steps)


def in_receiver() -> bool:
    return multiprocessing.current_process().name == "stream-receiver"


def raising(*_: object) -> Any:
    raise ValueError("no\nsuch luck")


def raising_book() -> CoderBook:
    return raising() if in_receiver() else make_book()


def killed(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_book() -> CoderBook:
    return killed() if in_receiver() else make_book()


def exiting(*_: object) -> Any:
    os._exit(3)


def hanging() -> Any:
    time.sleep(600)


def hanging_book() -> CoderBook:
    return hanging() if in_receiver() else make_book()


def book_with_pid(path: Path) -> CoderBook:
    if in_receiver():
        path.write_text(str(os.getpid()))
    return make_book()


def frames_with_pid(path: Path) -> list[MediaFrame]:
    path.write_text(str(os.getpid()))
    return make_frames(100)
