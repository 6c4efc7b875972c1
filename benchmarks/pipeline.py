"""How many packets a second go through packetize, channel, receive and reassemble, on one core.

    python -m benchmarks.pipeline [--frames 20] [--rounds 20] [--profile]

No networks, no sockets, no event loop: the sender's datagrams go straight through a
Gilbert-Elliott channel (20%, bursts of 5) into the receiver, which releases every frame. A frame
is handled at once wherever the protocol does so; arrivals are cut where a deadline passes. Stages
run one after another over the same data; a stage's time is the processor time of its best round,
because other processes can only add to it. Rates count packets sent.

The goals are 200,000 packets/s with static coding and 300,000 with fixed. Measured with Python 3.11
on a shared core, where the revision before stood beside it:

    fixed   32 slices  214,000     166,000 with a tuple and a NumPy row for each packet
    fixed   64 slices  325,000     241,000
    fixed  256 slices  482,000     277,000
    static  32 slices  116,000      84,000
    static  64 slices  153,000     103,000
    static 256 slices  194,000     133,000

What stands between. With fixed coding a packet costs 1.2 us, the checksums at both ends .5 of
it, and a frame 110 us whatever it holds: some 70 calls of numpy. So 32 packets a frame miss the
goal and 64 meet it. Static coding adds 3.9 us a packet at 32 slices: constriction's own calls on 48
tokens take 1.1 to encode and 1.9 to decode, the shortest bytes of its final interval 1; it has no
call for several slices.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import pstats
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from channels import build, read_channel
from codec.coders import CoderBook
from codec.entropy import FREQUENCY_TOTAL
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import headers, seal_all
from sim.protocol.packetizer import Packetizer
from sim.protocol.receiver import Receiver

WIDTH, HEIGHT, CODEBOOK = 768, 512, 1024
KEY = StreamKey("0123456789abcdef")
CHANNEL = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}

_T = TypeVar("_T")


class Stopwatch:
    """Processor seconds by stage: the least of all rounds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], _T]) -> _T:
        began = time.process_time()
        result = work()
        spent = time.process_time() - began
        self.seconds[stage] = min(spent, self.seconds.get(stage, spent))
        return result


def frequencies() -> NDArray[np.uint32]:
    """An uneven table, about 9.3 bits per token: uint32[K]."""
    weights = np.random.default_rng(1).gamma(1.0, size=CODEBOOK)
    table = 1 + np.floor((FREQUENCY_TOTAL - CODEBOOK) * weights / weights.sum()).astype(np.int64)
    table[0] += FREQUENCY_TOTAL - table.sum()
    return table.astype(np.uint32)


def run(entropy: str, slices: int, frames: int, clock: Stopwatch) -> int:
    """Stream random images; return how many packets were sent."""
    table = frequencies()
    rng = np.random.default_rng(2)
    maps = rng.choice(CODEBOOK, (frames, HEIGHT // 16, WIDTH // 16), p=table / FREQUENCY_TOTAL)
    config = StreamConfig(codebook_size=CODEBOOK, entropy=entropy, slices=slices, fps=10)
    book = CoderBook({CODEBOOK: table})
    packetizer = Packetizer(config, book)
    loss, link = read_channel(CHANNEL)
    channel = build(loss, link=link, seed=3)
    receiver = Receiver(StreamStart(config, KEY, ((WIDTH, HEIGHT),) * frames), KEY, book)
    packetizer.payloads(maps[0], WIDTH, HEIGHT)  # fill the caches

    coded = clock(
        "code", lambda: [packetizer.payloads(index_map, WIDTH, HEIGHT) for index_map in maps]
    )
    frames_sent = clock(
        "pack",
        lambda: [
            seal_all(headers(layout, number * slices), payloads, KEY.seed)
            for number, (layout, payloads) in enumerate(coded)
        ],
    )
    times_s = np.arange(frames * slices).reshape(frames, slices) / (config.fps * slices)
    fates = clock(
        "channel",
        lambda: [
            channel.transmit_all(datagrams, when)
            for datagrams, when in zip(frames_sent, times_s, strict=True)
        ],
    )

    def receive() -> int:
        tokens = 0
        for datagrams, arrivals in zip(frames_sent, fates, strict=True):
            arrived_s = arrivals.arrival_s.tolist()
            arrived = [datagrams[n] for n in arrivals.packet.tolist()]
            due_s = receiver.next_timer() or math.inf
            intime = bisect_right(arrived_s, due_s)
            receiver.receive(arrived_s[:intime], arrived[:intime])
            if intime < len(arrived):
                receiver.handle_timer(due_s)
                receiver.receive(arrived_s[intime:], arrived[intime:])
        receiver.handle_timer(1e9)
        while (event := receiver.next_event()) is not None:
            tokens += int(event.grid.received.sum())  # type: ignore[union-attr]
        return tokens

    clock("receive", receive)
    assert receiver.counters["accepted"] == sum(arrivals.packet.size for arrivals in fates)
    return frames * slices


def main() -> None:
    """Print packets per second and microseconds per packet and stage."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--frames", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--profile", action="store_true", help="where the time goes")
    options = arguments.parse_args()
    profile = cProfile.Profile()
    print(f"{'entropy':8} {'slices':>6} {'packets/s':>10}   us per packet")
    for entropy in ("fixed", "static"):
        for slices in (32, 64, 256):
            clock = Stopwatch()
            if options.profile:
                profile.enable()
            for _ in range(options.rounds):
                packets = run(entropy, slices, max(1, options.frames * 32 // slices), clock)
            profile.disable()
            total = sum(clock.seconds.values())
            stages = "  ".join(f"{s} {1e6 * t / packets:.2f}" for s, t in clock.seconds.items())
            print(f"{entropy:8} {slices:6} {packets / total:10,.0f}   {stages}")
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
