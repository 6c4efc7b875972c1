"""What the live driver costs: its throughput beside bare pyzmq, and beside the networks alone.

    python -m benchmarks.live [--packets 200000] [--rounds 5] [--images 6] [--json]

Sender and receiver are two processes, as in `sim run`. Times are processor time of both processes,
threads of ZeroMQ included, of the best round, in which reference and subject take turns: other
work on the machine can only add to it, and which core waits for which does not matter.

link       the link alone: sockets set up as they are here, one connection for both directions
driver     packets of 200 bytes through timeline, batches, window and acknowledgements, over the
           ZeroMQ link, to where the receiver would be: everything live but channel and protocol;
           a deadline after every 32 packets, as a stream has
bare       pyzmq PUSH/PULL in the same sizes and batches: packets are joined into messages, sent,
           and cut apart again
protocol   the same packets through the whole stack without networks: packetize, code, channel,
           driver, receive, reassemble
networks   images per processor second of the receiver in a live run, beside the very forward
           passes (repair, decode) alone in one process

The goals are 70% of bare pyzmq without networks and 85% of the bare passes with them. Measured on a
crowded machine (us of processor time per packet, both ends; before items travelled in columns):

    ZeroMQ, 16 packets a message   3.2  17% of bare   (5.1  11%)
    ZeroMQ, as it comes (163)      1.4  31%           (3.0  15%)
    UDP, as it comes (40)          2.8  16%           (4.0  12%)
    whole stack, no networks        20   3%            (41   1%)
    with networks, 8 images             93% to 98%

What stands between: bare pyzmq takes .4 to .6 us a packet, of which it cuts messages for .15. The
link adds a return address, acknowledgements and a bounded window: .35 at 16 packets a message. The
rest is Python. Sender: .55 for the order of media time, .15 to .3 to pack times, kinds and lengths;
receiver: .3 to .6 to unpack, check the order of and cut out the same; and some 25 us a message,
whatever it holds, which at 16 packets are half of all. In the whole stack the protocol dominates:
coding, sealing, the channel's verdict and the record of each packet take 8 us at the sender, 4 at
the receiver, and 4 go into carrying records and frames to the parent process.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from benchmarks.live_networks import CODEBOOK, SLICES, channel, networks
from sim.drivers.clock import WallClock
from sim.drivers.links import open_receiver, open_sender
from sim.drivers.receiving import LiveReceiver
from sim.drivers.sending import LiveSender
from sim.drivers.udp import BATCH_BYTES as UDP_BATCH_BYTES
from sim.drivers.zeromq import BATCH_BYTES

SIZE = 200
_WIDTH, _HEIGHT = 768, 512


class Packets:
    """Stands for a `SendingEnd`: so many packets of one size, one every microsecond, with a
    deadline after every frame of `SLICES`."""

    interactive = False
    start = b""

    def __init__(self, count: int) -> None:
        self.data = [bytes([n % 256]) * SIZE for n in range(256)]
        self._arrivals_s = [n * 1e-6 + 1e-5 for n in range(count)]
        self._sent, self._due, self._count = 0, SLICES, count

    def next_time(self) -> float | None:
        return None if self._sent == self._count else self._sent * 1e-6

    def next_due(self) -> float | None:
        return None if self._due > self._count else self._due * 1e-6

    def passed(self, now: float) -> None:
        self._due += SLICES

    def advance(self, until_s: float) -> tuple[list[float], list[bytes]]:
        sent = self._sent
        self._sent = int(min(self._count, until_s * 1e6 + 1e-3 + 1))
        data = [self.data[n & 255] for n in range(sent, self._sent)]
        return self._arrivals_s[sent : self._sent], data


class Sink:
    """Stands for a receiver: counts packets and bytes."""

    def __init__(self) -> None:
        self.packets = self.bytes = 0

    def datagrams(self, times_s: Sequence[float], data: Sequence[bytes]) -> None:
        self.packets += len(data)
        self.bytes += sum(map(len, data))

    def watermark(self, when: float) -> None: ...

    def next_time(self) -> None: ...

    def replies(self) -> tuple[()]:
        return ()

    def news(self) -> None: ...

    def close(self, account: object) -> dict[str, int]:
        return {"packets": self.packets, "bytes": self.bytes}


def _receive_driver(pipe: Connection, address: str) -> None:
    link = open_receiver(address)
    pipe.send(link.address)
    sinks: list[Sink] = []

    def opened(start: bytes, about: dict[str, Any]) -> Any:
        sinks.append(Sink())
        return sinks[-1]

    receiver = LiveReceiver(link, opened, WallClock())
    before = time.process_time()
    receiver.serve()
    pipe.send((sinks[0].packets, time.process_time() - before))
    receiver.answer_for(0.2)
    link.close()


def _receive_bare(pipe: Connection, address: str) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = 64
    socket.bind(address)
    pipe.send(socket.last_endpoint.decode().rstrip("\0"))
    before = time.process_time()
    packets = size = 0
    while message := socket.recv():
        for at in range(0, len(message), SIZE):
            data = message[at : at + SIZE]
            packets += 1
            size += len(data)
    pipe.send((packets, time.process_time() - before))
    context.destroy(linger=0)


def _with_receiver(
    target: Callable[..., None], send: Callable[[str], None], scheme: str = "tcp"
) -> tuple[int, float, float]:
    """(packets, processor seconds of both, wall seconds)."""
    ours, theirs = multiprocessing.Pipe()
    address = f"{scheme}://127.0.0.1:*"
    child = multiprocessing.get_context("spawn").Process(target=target, args=(theirs, address))
    child.start()
    address = ours.recv()
    before, began = time.process_time(), time.perf_counter()
    send(address)
    packets, theirs_s = ours.recv()
    spent, wall = time.process_time() - before + theirs_s, time.perf_counter() - began
    child.join()
    return packets, spent, wall


def driver(count: int, batch: int, scheme: str = "tcp") -> tuple[int, float, float]:
    """Through the live driver."""

    packets = Packets(count)

    def send(address: str) -> None:
        with closing(open_sender(address)) as link:
            link.batch_bytes = batch * SIZE
            LiveSender(packets, link, WallClock(), pace=0).run()  # type: ignore[arg-type]

    return _with_receiver(_receive_driver, send, scheme)


def bare(count: int, batch: int) -> tuple[int, float, float]:
    """Through pyzmq alone."""

    def send(address: str) -> None:
        packets = Packets(count).data
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.sndhwm = 64
        socket.connect(address)
        sent = 0
        while sent < count:
            size = min(batch, count - sent)
            socket.send(b"".join([packets[(sent + n) & 255] for n in range(size)]))
            sent += size
        socket.send(b"")
        context.destroy(linger=-1)

    return _with_receiver(_receive_bare, send)


def _receive_link(pipe: Connection, address: str) -> None:
    link = open_receiver(address)
    pipe.send(link.address)
    before = time.process_time()
    packets = 0
    while (got := link.receive(10.0)) is not None and got[1]:
        message = got[1]
        packets += len([message[at : at + SIZE] for at in range(0, len(message), SIZE)])
    pipe.send((packets, time.process_time() - before))
    link.close()


def link_only(count: int, batch: int, scheme: str = "tcp") -> tuple[int, float, float]:
    """Messages over the link, with nothing of the driver around it."""

    def send(address: str) -> None:
        packets = Packets(count).data
        sent = 0
        with closing(open_sender(address)) as link:
            while sent < count:
                size = min(batch, count - sent)
                message = b"".join([packets[(sent + n) & 255] for n in range(size)])
                while not link.send(message):
                    time.sleep(0.0005)
                sent += size
            while not link.send(b""):
                time.sleep(0.0005)
            time.sleep(0.5)

    return _with_receiver(_receive_link, send, scheme)


def protocol(frames: int) -> tuple[int, float]:
    """(packets, processor seconds) of whole live streams without networks."""
    from functools import partial

    from sim.drivers.live import run_live
    from sim.protocol.config import StreamConfig, StreamKey

    config = StreamConfig(codebook_size=CODEBOOK, entropy="fixed", slices=SLICES, fps=10)
    before = os.times()
    record = run_live(
        partial(_frames, frames),
        config,
        channel,
        StreamKey("0123456789abcdef"),
        _coders,
        pace=0,
    )
    after = os.times()
    spent = sum(
        getattr(after, n) - getattr(before, n) for n in ("children_user", "children_system")
    )
    return record.ledger.sent, spent


def _frames(count: int) -> list[Any]:
    from sim.drivers.record import MediaFrame

    rng = np.random.default_rng(1)
    shape = (_HEIGHT // 16, _WIDTH // 16)
    return [
        MediaFrame(str(n), rng.integers(0, CODEBOOK, shape), _WIDTH, _HEIGHT) for n in range(count)
    ]


def _coders() -> Any:
    from codec.entropy import FREQUENCY_TOTAL, CoderBook

    return CoderBook({CODEBOOK: np.full(CODEBOOK, FREQUENCY_TOTAL // CODEBOOK)})


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--packets", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--images", type=int, default=6, help="with the networks; 0 = skip")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []

    for name, batch, scheme in (
        ("ZeroMQ, 16 packets a message", 16, "tcp"),
        ("ZeroMQ, as it comes", BATCH_BYTES // SIZE, "tcp"),
        ("UDP, as it comes", UDP_BATCH_BYTES // SIZE, "udp"),
    ):
        best = {"driver": math.inf, "bare": math.inf, "link": math.inf}
        walls = dict(best)
        for _ in range(options.rounds):
            for subject, work in (
                ("bare", lambda batch=batch: bare(options.packets, batch)),
                ("link", lambda batch=batch: link_only(options.packets, batch)),
                ("driver", lambda batch=batch, s=scheme: driver(options.packets, batch, s)),
            ):
                packets, spent, wall = work()
                if packets != options.packets:
                    raise SystemExit(f"{name}: {packets} of {options.packets} packets arrived")
                best[subject] = min(best[subject], spent)
                walls[subject] = min(walls[subject], wall)
        rows.append(
            {
                "what": name,
                "us_per_packet": 1e6 * best["driver"] / options.packets,
                "bare_us_per_packet": 1e6 * best["bare"] / options.packets,
                "link_ratio": best["bare"] / best["link"],
                "ratio": best["bare"] / best["driver"],
                "packets_per_s": options.packets / walls["driver"],
            }
        )
    few, many = 20, 2020
    runs = [(protocol(few), protocol(many)) for _ in range(options.rounds)]
    packets = runs[0][1][0] - runs[0][0][0]
    begun_s, all_s = (min(spent for _, spent in several) for several in zip(*runs, strict=True))
    spent_us = 1e6 * (all_s - begun_s) / packets  # starting two processes cancels
    bare_us = rows[0]["bare_us_per_packet"]
    rows.append(
        {
            "what": "whole stack, no networks",
            "us_per_packet": spent_us,
            "bare_us_per_packet": bare_us,
            "link_ratio": math.nan,
            "ratio": bare_us / spent_us,
            "packets_per_s": 1e6 / spent_us,
        }
    )
    found = networks(options.images) if options.images > 1 else None
    if options.json:
        print(json.dumps({"rows": rows, "networks": found}, indent=2))
        return
    print(f"{'':32} {'us/packet':>9} {'bare':>6} {'link':>6} {'driver':>6} {'packets/s':>10}")
    for row in rows:
        link = "" if math.isnan(row["link_ratio"]) else f"{row['link_ratio']:.0%}"
        print(
            f"{row['what']:32} {row['us_per_packet']:9.2f} {row['bare_us_per_packet']:6.2f} "
            f"{link:>6} {row['ratio']:6.0%} {row['packets_per_s']:10,.0f}"
        )
    if found is not None:
        live, alone = (found["images"] / found[name] for name in ("live_s", "bare_s"))
        print(
            f"with networks: {live:.2f} images per processor second, {alone:.2f} by the networks "
            f"alone: {live / alone:.0%}"
        )


if __name__ == "__main__":
    main()
