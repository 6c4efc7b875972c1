"""The driver law over the matrix of scenarios: interleavers x entropy coders x channels x
protection, live (ZeroMQ and UDP) and virtual: byte-identical frames, packets, counters, ledgers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from channels import UniformErasure, build
from channels.base import ConstantDelay
from codec.coders import CoderBook
from sim.drivers.endpoints import ReceiverEndpoint, SenderEndpoint
from sim.drivers.links import open_receiver
from sim.drivers.record import MediaFrame, StreamRecord
from sim.drivers.virtual import run_virtual
from sim.protocol.config import StreamConfig
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.protection import ArqConfig, FecConfig
from tests.drivers import live_peers as peers
from tests.drivers.live_pair import Receiving, make_sender
from tests.drivers.test_live import as_data

CHANNELS: dict[str, dict[str, Any]] = {
    "perfect": {"type": "perfect"},
    "uniform": {"type": "uniform", "loss": 0.3},
    "bursts": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5},
    "link": {
        "loss": {"type": "gilbert_elliott", "loss": 0.1, "mean_burst": 3},
        "link": {
            "delay_s": 0.1,
            "jitter": {"type": "normal", "std_s": 0.05},
            "reorder": 0.1,
            "reorder_s": 0.08,
            "duplicate": 0.2,
            "bit_error": 0.0005,
        },
    },
    "queue": {
        "loss": {"type": "uniform", "loss": 0.1},
        "link": {"rate_bps": 20_000, "queue_packets": 10, "delay_s": 0.05},
    },
}
PROTECTION: dict[str, dict[str, Any]] = {
    "bare": {},
    "fec": {"fec": FecConfig("reed_solomon", 8, 2, 2, False)},
    "arq": {"arq": ArqConfig(delay_s=0.02)},
    "packing": {"packing": 2},
    "refresh": {"refresh": 4},
    "refresh, all": {
        "refresh": 3,
        "packing": 2,
        "fec": FecConfig("reed_solomon", 8, 2, 1),
        "arq": ArqConfig(delay_s=0.02),
    },
}
ENTROPY = ("fixed", "static")


def config_of(interleaver: str, entropy: str, protection: str) -> StreamConfig:
    return StreamConfig(
        codebook_size=64,
        slices=8,
        fps=10,
        playout_delay_s=0.35,
        first_sequence=65500,
        interleaver=interleaver,
        entropy=entropy,
        **PROTECTION[protection],
    )


def make_frames(config: StreamConfig, seed: int) -> list[MediaFrame]:
    make = peers.make_frames if config.refresh is None else peers.make_video
    return make(9, seed)


def feedback(config: StreamConfig) -> Any:
    if config.arq is None:
        return None
    return build(UniformErasure(0.2), seed=9, link=ConstantDelay(config.arq.delay_s))


class Whole:
    """An `Incoming` straight into a receiver endpoint."""

    def __init__(self, start: bytes, about: object) -> None:
        self.frames: list[Any] = []
        self.end = ReceiverEndpoint(start, peers.KEY, peers.make_book(), self.frames.append)
        self.datagrams, self.watermark = self.end.datagrams, self.end.watermark
        self.next_time, self.replies = self.end.next_time, self.end.replies

    def news(self) -> None:
        return None

    def close(self, account: object) -> dict[str, int]:
        return self.end.counters


def live(address: str, config: StreamConfig, channel: str, seed: int) -> StreamRecord:
    receiving = Receiving(open_receiver(address), open_stream=Whole)
    sending = SenderEndpoint(
        make_frames(config, seed),
        config,
        peers.make_channel(CHANNELS[channel], seed),
        peers.KEY,
        peers.make_book(),
        feedback=feedback(config),
    )
    link, sender = make_sender(receiving.link.address, sending)
    try:
        sender.run()
    finally:
        link.close()
    receiving.stop()
    stream = receiving.streams[0]
    assert not any(receiving.receiver.anomalies.values())
    assert not any(sender.anomalies.values())
    sending.ledger.check(stream.end.counters, sending.heard)
    return StreamRecord(sending.packets, stream.frames, stream.end.counters, sending.ledger)


def check(address: str, interleaver: str, entropy: str, channel: str, protection: str) -> None:
    config = config_of(interleaver, entropy, protection)
    seed = len(interleaver) + len(channel)
    frames = make_frames(config, seed)
    made = peers.make_channel(CHANNELS[channel], seed)
    book: CoderBook = peers.make_book()
    virtual = run_virtual(frames, config, made, peers.KEY, book, feedback=feedback(config))
    assert as_data(live(address, config, channel, seed)) == as_data(virtual)


MATRIX = list(itertools.product(INTERLEAVERS, ENTROPY, CHANNELS, PROTECTION))
FEW = [MATRIX[n] for n in np.random.default_rng(4).permutation(len(MATRIX))[:10]]


REFRESHED = [
    ("low_discrepancy", "static", "bursts", "refresh"),
    ("raster", "fixed", "link", "refresh, all"),
]


@pytest.mark.parametrize("row", [*FEW, *REFRESHED], ids=" ".join)
def test_some_of_the_matrix(row: tuple[str, str, str, str]) -> None:
    check("tcp://127.0.0.1:*", *row)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protection", PROTECTION)
def test_the_whole_matrix(protection: str) -> None:
    for row in itertools.product(INTERLEAVERS, ENTROPY, CHANNELS):
        check("tcp://127.0.0.1:*", *row, protection)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("protection", PROTECTION)
def test_every_channel_over_udp(protection: str) -> None:
    for channel in CHANNELS:
        check("udp://127.0.0.1:0", "low_discrepancy", "static", channel, protection)
