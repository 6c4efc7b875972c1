"""What the live driver costs: its throughput beside bare pyzmq, and beside the networks alone.

    python -m benchmarks.live [--packets 200000] [--rounds 5] [--images 6] [--json]

Sender and receiver are two processes, as in `sim run`. Times are processor time of both processes,
threads of ZeroMQ included, of the best round, in which reference and subject take turns: other work
on the machine can only add to it.

bare       pyzmq PUSH/PULL in the same sizes and batches: packets are joined into messages, sent,
           and cut apart again, which needs packets of one size
multipart  the same as pyzmq offers it: each message a list of packets (`send_multipart`)
link       the same over the ZeroMQ link: sockets set up as they are here, one connection for both
           directions
columns    the same in the driver's messages: with a kind, a time and a length for each packet
driver     packets of 200 bytes through event sequencer, batches, window and acknowledgements, over
           either link: all but channel and protocol; a deadline after every 32 packets
protocol   the same packets through the whole stack without networks: packetize, code, channel,
           driver, receive, reassemble
networks   images per processor second of the receiver in a live run, beside the very forward
           passes (repair, decode) alone in one process

The goals are 70% of bare pyzmq without networks and 85% of the bare passes with them. Measured on
two cores, in us of processor time per packet, both ends (with networks, 8 images, 101%):

                              driver  bare  multipart   of bare: link columns driver  of multipart
    ZeroMQ, 16 a message        3.58   .68       4.30             67%     46%    19%          120%
    ZeroMQ, as it comes (245)   1.07   .37       3.32            112%     86%    35%          310%
    UDP, as it comes (40)       1.45   .51       4.19                            35%          288%
    whole stack, no networks    20.9   .68       4.30                             3%           21%

Beside batches as pyzmq offers them the driver reaches the first goal. Beside packets of one size
joined by hand it does not (in other hours 17 to 20% and 34 to 48%), and cannot: of 16 packets a
message, the link's return address and the few calls that make columns use up more than it allows;
in large messages, a deadline after every 32 packets takes 9 us at both ends, and each message 30 us
whatever it holds.

In the whole stack the protocol dominates: coding, sealing, the channel's verdict and the record of
each packet take 6 us at the sender, 4 at the receiver, and 1 more to the parent process.
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
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import zmq

from benchmarks.live_networks import CODEBOOK, SLICES, channel, networks
from sim.drivers.clock import WallClock
from sim.drivers.links import open_receiver, open_sender
from sim.drivers.live_receiver import LiveReceiver
from sim.drivers.live_sender import LiveSender
from sim.drivers.udp import BATCH_BYTES as UDP_BATCH_BYTES
from sim.drivers.wire import DATAGRAM, Batch, Items, pack_batch, parse_from_sender
from sim.drivers.zeromq import BATCH_BYTES

SIZE = 200
_DATA = [bytes([n]) * SIZE for n in range(256)]
_WIDTH, _HEIGHT = 768, 512


def _packets(start: int, stop: int) -> list[bytes]:
    return [_DATA[n & 255] for n in range(start, stop)]


class Packets:
    """Stands for a `SenderEndpoint`: so many packets of one size, one every microsecond, with a
    deadline after every frame of `SLICES`."""

    interactive = False
    start = b""

    def __init__(self, count: int) -> None:
        self._arrivals_s = [n * 1e-6 + 1e-5 for n in range(count)]
        self._sent, self._due, self._count = 0, SLICES, count

    def next_time(self) -> float | None:
        return None if self._sent == self._count else self._sent * 1e-6

    def next_due(self) -> float | None:
        return None if self._due > self._count else self._due * 1e-6

    def deadlines_passed(self, now: float) -> None:
        self._due += SLICES

    def send_until(self, until_s: float) -> tuple[list[float], list[bytes]]:
        sent = self._sent
        self._sent = int(min(self._count, until_s * 1e6 + 1e-3 + 1))
        return self._arrivals_s[sent : self._sent], _packets(sent, self._sent)


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


def _receive_bare(multipart: bool, pipe: Connection, address: str) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = 64
    socket.bind(address)
    pipe.send(socket.last_endpoint.decode().rstrip("\0"))
    before = time.process_time()
    packets = size = 0
    if multipart:
        while (parts := socket.recv_multipart()) != [b""]:
            packets += len(parts)
            size += sum(map(len, parts))
    else:
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

    stream = Packets(count)

    def send(address: str) -> None:
        with closing(open_sender(address)) as link:
            link.batch_bytes = batch * SIZE
            LiveSender(stream, link, WallClock(), pace=0).run()  # type: ignore[arg-type]

    return _with_receiver(_receive_driver, send, scheme)


def bare(count: int, batch: int, multipart: bool = False) -> tuple[int, float, float]:
    """Through pyzmq alone."""

    def send(address: str) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.sndhwm = 64
        socket.connect(address)
        sent = 0
        while sent < count:
            size = min(batch, count - sent)
            packets = _packets(sent, sent + size)
            if multipart:
                socket.send_multipart(packets)
            else:
                socket.send(b"".join(packets))
            sent += size
        socket.send(b"")
        context.destroy(linger=-1)

    return _with_receiver(partial(_receive_bare, multipart), send)


def _receive_link(cut: Callable[[bytes], list[bytes]], pipe: Connection, address: str) -> None:
    link = open_receiver(address)
    pipe.send(link.address)
    before = time.process_time()
    packets = 0
    while (got := link.receive(10.0)) is not None and got[1]:
        packets += len(cut(got[1]))
    pipe.send((packets, time.process_time() - before))
    link.close()


def _over_link(
    count: int,
    batch: int,
    join: Callable[[list[bytes]], bytes],
    cut: Callable[[bytes], list[bytes]],
) -> tuple[int, float, float]:
    def send(address: str) -> None:
        sent = 0
        with closing(open_sender(address)) as link:
            while sent < count:
                size = min(batch, count - sent)
                message = join(_packets(sent, sent + size))
                while not link.send(message):
                    time.sleep(0.0005)
                sent += size
            while not link.send(b""):
                time.sleep(0.0005)
            time.sleep(0.5)

    return _with_receiver(partial(_receive_link, cut), send)


def _cut(message: bytes) -> list[bytes]:
    return [message[at : at + SIZE] for at in range(0, len(message), SIZE)]


def link(count: int, batch: int) -> tuple[int, float, float]:
    """Messages over the ZeroMQ link, with nothing of the driver around it."""
    return _over_link(count, batch, b"".join, _cut)


def _join_columns(packets: list[bytes]) -> bytes:
    kinds, times_s = bytearray([DATAGRAM]) * len(packets), [0.0] * len(packets)
    return pack_batch(0, 0, 0, Items(kinds, times_s, packets))


def _cut_columns(message: bytes) -> list[bytes]:
    batch = parse_from_sender(message)
    return batch.items.contents if isinstance(batch, Batch) else []


def columns(count: int, batch: int) -> tuple[int, float, float]:
    """The driver's messages over the same link: a kind, a time and a length for each packet."""
    return _over_link(count, batch, _join_columns, _cut_columns)


def protocol(frames: int) -> tuple[int, float]:
    """(packets, processor seconds) of whole live streams without networks."""
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
    from codec.coders import CoderBook
    from codec.entropy import FREQUENCY_TOTAL

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
        count = options.packets
        subjects = {n: partial(bare, count, batch, n == "multipart") for n in ("bare", "multipart")}
        if scheme == "tcp":  # a UDP link loses without the driver's window
            subjects |= {"link": partial(link, count, batch)}
            subjects |= {"columns": partial(columns, count, batch)}
        subjects |= {"driver": partial(driver, count, batch, scheme)}
        best = dict.fromkeys(subjects, math.inf)
        walls = dict(best)
        for _ in range(options.rounds):
            for subject, work in subjects.items():
                packets, spent, wall = work()
                if packets != count:
                    raise SystemExit(f"{name}: {packets} of {count} packets arrived")
                best[subject] = min(best[subject], spent)
                walls[subject] = min(walls[subject], wall)
        rows.append(
            {
                "what": name,
                "us_per_packet": 1e6 * best["driver"] / count,
                "bare_us_per_packet": 1e6 * best["bare"] / count,
                "multipart_us_per_packet": 1e6 * best["multipart"] / count,
                "link_ratio": best["bare"] / best.get("link", math.nan),
                "columns_ratio": best["bare"] / best.get("columns", math.nan),
                "ratio": best["bare"] / best["driver"],
                "multipart_ratio": best["multipart"] / best["driver"],
                "packets_per_s": count / walls["driver"],
            }
        )
    few, many = 20, 2020
    runs = [(protocol(few), protocol(many)) for _ in range(options.rounds)]
    packets = runs[0][1][0] - runs[0][0][0]
    begun_s, all_s = (min(spent for _, spent in several) for several in zip(*runs, strict=True))
    spent_us = 1e6 * (all_s - begun_s) / packets  # starting two processes cancels
    bare_us, multipart_us = (rows[0][f"{n}_us_per_packet"] for n in ("bare", "multipart"))
    rows.append(
        {
            "what": "whole stack, no networks",
            "us_per_packet": spent_us,
            "bare_us_per_packet": bare_us,
            "multipart_us_per_packet": multipart_us,
            "link_ratio": math.nan,
            "columns_ratio": math.nan,
            "ratio": bare_us / spent_us,
            "multipart_ratio": multipart_us / spent_us,
            "packets_per_s": 1e6 / spent_us,
        }
    )
    found = networks(options.images) if options.images > 1 else None
    if options.json:
        print(json.dumps({"rows": rows, "networks": found}, indent=2))
        return
    print(
        f"{'us of processor time a packet':29} {'driver':>6} {'bare':>5} {'multipart':>9} | "
        f"{'link':>5} {'columns':>7} {'driver':>6} of bare | driver of multipart | packets/s"
    )
    for row in rows:
        several = (row["link_ratio"], row["columns_ratio"])
        alone, cut = ("" if math.isnan(ratio) else f"{ratio:.0%}" for ratio in several)
        print(
            f"{row['what']:29} {row['us_per_packet']:6.2f} {row['bare_us_per_packet']:5.2f} "
            f"{row['multipart_us_per_packet']:9.2f} | {alone:>5} {cut:>7} {row['ratio']:6.0%}"
            f"{'':8} | {row['multipart_ratio']:19.0%} | {row['packets_per_s']:9,.0f}"
        )
    if found is not None:
        live, alone = (found["images"] / found[name] for name in ("live_s", "bare_s"))
        print(
            f"with networks: {live:.2f} images per processor second, {alone:.2f} by the networks "
            f"alone: {live / alone:.0%}"
        )


if __name__ == "__main__":
    main()
