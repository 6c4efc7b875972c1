"""How many packets a second go through packetize, channel, receive and reassemble, on one core.

    python -m benchmarks.pipeline [--frames 20] [--rounds 20] [--profile]

No networks, no sockets, no event loop: the sender's datagrams go straight through a
Gilbert-Elliott channel (20%, bursts of 5) into the receiver, which releases every frame. Stages
run one after another over the same data; a stage's time is the processor time of its best round,
because other processes can only add to it. Rates count packets sent.

The goal is 200,000 packets/s, 5 us a packet. Measured with Python 3.11 on a shared core: 54,000
to 61,000 with fixed coding, 33,000 to 39,000 with static. What stands between, in us per packet:
entropy coding, a few calls of numpy or constriction on arrays of 48 tokens (encode 3.6 fixed, 7.6
static; decode 4.3 and 4.9); channel 2.4; the receiver's questions 2.6; parse 2.1; pack .7;
scattering tokens .3. Without any coder about 9 would remain: the goal takes code that handles
frames, not packets, at a time.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from channels import build, read_channel
from codec.entropy import FREQUENCY_TOTAL, CoderBook
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import pack
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
    packetizer.split(maps[0], WIDTH, HEIGHT, 0)  # fill the caches

    packets = clock(
        "split",
        lambda: [
            packet
            for number, index_map in enumerate(maps)
            for packet in packetizer.split(index_map, WIDTH, HEIGHT, number * slices)
        ],
    )
    datagrams = clock("pack", lambda: [pack(packet, KEY.seed) for packet in packets])
    step_s = 1 / (config.fps * slices)
    fates = clock(
        "channel",
        lambda: [channel.transmit(data, n * step_s) for n, data in enumerate(datagrams)],
    )
    arrivals = [
        (delivery.arrival_s, data)
        for data, deliveries in zip(datagrams, fates, strict=True)
        for delivery in deliveries
    ]

    def receive() -> int:
        tokens = 0
        due_s = receiver.next_timer()
        for now, data in arrivals:
            if due_s is not None and due_s < now:
                receiver.handle_timer(now)
                due_s = receiver.next_timer()
            receiver.receive_datagram(data, now)
        receiver.handle_timer(1e9)
        while (event := receiver.next_event()) is not None:
            tokens += int(event.grid.received.sum())  # type: ignore[union-attr]
        return tokens

    clock("receive", receive)
    assert receiver.counters["accepted"] == len(arrivals)
    return len(packets)


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
        for slices in (32, 256):
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
