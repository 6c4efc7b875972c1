"""Faults of the two ends, injected: processes that die, stall or stop, clocks, disks.

docs/faults.md is made of these tests and those of test_faults_bytes.py.
"""

from __future__ import annotations

import ast
import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.drivers.links import open_receiver
from sim.drivers.live_sender import Stopped
from sim.drivers.recording import Recorder, replay
from tests.drivers import live_peers as peers
from tests.drivers.fault_table import fault
from tests.drivers.live_pair import (
    Collector,
    Receiving,
    expected,
    frames_of,
    make_sender,
    no_wrong_token,
    receive_in_process,
    send,
    send_in_process,
    sending_end,
    wait_for,
)

pytestmark = pytest.mark.timeout(120)

LOOPBACK = "tcp://127.0.0.1:*"


@contextlib.contextmanager
def process(target: Any, *arguments: Any) -> Iterator[multiprocessing.process.BaseProcess]:
    child = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


# Peers that come and go


@fault(
    "sender killed, another started",
    "the receiver gives the silent one up, closes its session and takes the new one whole",
    "sender_gone",
)
def test_sender_killed_and_restarted() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK), sessions=2, silence_s=0.5)
    address = receiving.link.address
    with process(send_in_process, address, 200, 1.0) as child:
        wait_for(lambda: bool(receiving.streams) and len(receiving.streams[0].frames) > 0)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    send(address, sending_end())
    receiving.stop()
    killed, whole = receiving.streams
    assert killed.closed and killed.account is None
    assert no_wrong_token(killed.frames, peers.make_frames(200)) > 0
    assert frames_of(whole) == expected()
    return receiving.receiver.anomalies


@fault(
    "receiver killed in the middle of an image, and started again",
    "the sender notices, introduces itself again and goes on where it was; what was under way is "
    "lost and counted",
    "receiver_restarted",
    "joined_late",
)
def test_receiver_killed_and_restarted(tmp_path: Path) -> Mapping[str, int]:
    address = f"tcp://127.0.0.1:{free_port()}"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    link, sender = make_sender(address, sending_end(60), pace=1.0)
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        with process(receive_in_process, address, first, 5.0) as child:
            thread.start()
            wait_for(lambda: (first / "anomalies").exists() and sender.media_s > 0.5)
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        with process(receive_in_process, address, second, 5.0):
            wait_for(lambda: sender.anomalies["receiver_restarted"] > 0)
            sender.stop()
            thread.join(30)
            assert not thread.is_alive()
            wait_for(lambda: (second / "sessions").exists())
    anomalies = ast.literal_eval((second / "anomalies").read_text())
    return {**anomalies, **sender.anomalies}


@fault(
    "receiver started long after the sender",
    "the sender waits and sends nothing; the stream is whole",
)
def test_any_start_order() -> Mapping[str, int]:
    port = free_port()
    link, sender = make_sender(f"tcp://127.0.0.1:{port}", sending_end())
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        wait_for(lambda: sender.state == "waiting for a receiver")
        time.sleep(0.3)
        receiving = Receiving(open_receiver(f"tcp://127.0.0.1:{port}"))
        thread.join(30)
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected()
    assert not any(sender.anomalies.values())
    return {}


@fault(
    "sender told to stop (Ctrl-C) in the middle",
    "what was captured is sent to its end, the receiver gets a whole account; without a receiver "
    "it says so and ends",
)
def test_sender_stopped() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    end = sending_end(200)
    link, sender = make_sender(receiving.link.address, end, pace=1.0)

    def stop_soon() -> None:
        wait_for(lambda: sender.media_s > 0.3)
        sender.stop()

    stopper = threading.Thread(target=stop_soon, daemon=True)
    stopper.start()
    with contextlib.closing(link):
        sender.run(lambda: {"captured": end.captured})
    receiving.stop()
    stream = receiving.streams[0]
    assert 0 < end.captured < 200
    assert stream.account == {"captured": end.captured}
    assert frames_of(stream) == expected(200)[: end.captured]

    link, lonely = make_sender(f"tcp://127.0.0.1:{free_port()}", sending_end())
    lonely.stop()
    with contextlib.closing(link), pytest.raises(Stopped):
        lonely.run()
    return {}


@fault(
    "receiver stops reading (a stalled consumer)",
    "the sender stops after its window of batches, then goes on from there; nothing is lost",
    "stalls",
)
def test_stalled_consumer() -> Mapping[str, int]:
    go_on = threading.Event()

    def opened(start: bytes, about: dict[str, Any]) -> Collector:
        return Collector(start, about, lambda: go_on.wait(20))

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    end = sending_end(100)
    link, sender = make_sender(receiving.link.address, end, pace=0.1)
    link.window = 4
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        wait_for(lambda: sender.state == "waiting for the receiver to read")
        stuck = sender.media_s
        time.sleep(1.5)
        assert sender.media_s == stuck
        assert sender.unanswered <= link.window
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(100)
    return sender.anomalies


@pytest.mark.slow
def test_a_long_stall_loses_nothing() -> None:
    """Longer than any timeout, with more under way than the sockets hold."""
    go_on = threading.Event()

    def opened(start: bytes, about: dict[str, Any]) -> Collector:
        return Collector(start, about, lambda: go_on.wait(60))

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    link, sender = make_sender(receiving.link.address, sending_end(400), pace=0.1)
    link.window = 500
    thread = threading.Thread(target=sender.run, daemon=True)
    with contextlib.closing(link):
        thread.start()
        time.sleep(15)
        go_on.set()
        thread.join(60)
        assert not thread.is_alive()
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(400)
    assert not any(receiving.receiver.anomalies.values())


class JumpingClock:
    """Runs fast, and jumps an hour ahead and two back again and again."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._looks = 0
        self._began = time.monotonic()

    def now(self) -> float:
        self._looks += 1
        if self._looks % 50 == 0:
            self._offset += 3600.0 if self._looks % 100 else -7200.0
        return time.monotonic() + self._offset

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@fault(
    "the sender's clock jumps an hour ahead and two back",
    "the stream's zero moves with it: no burst, no hang, the same images",
    "clock_jumps",
)
def test_clock_jumps() -> Mapping[str, int]:
    receiving = Receiving(open_receiver(LOOPBACK))
    began = time.monotonic()
    sender = send(receiving.link.address, sending_end(20), pace=0.2, clock=JumpingClock())
    assert time.monotonic() - began < 30
    receiving.stop()
    assert frames_of(receiving.streams[0]) == expected(20)
    return sender.anomalies


@fault(
    "the disk is full while a stream is recorded",
    "the recording ends and is removed, the stream goes on unharmed",
    "recording_failed",
)
def test_full_disk(tmp_path: Path) -> Mapping[str, int]:
    recorders: list[Recorder] = []
    inner: list[Collector] = []

    def opened(start: bytes, about: dict[str, Any]) -> Recorder:
        inner.append(Collector(start, about))
        recorders.append(Recorder(inner[0], tmp_path / "r.tsr", start, about))
        return recorders[0]

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # writes beyond it fail
    try:
        send(receiving.link.address, sending_end(200))
        receiving.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert frames_of(inner[0]) == expected(200)
    assert list(tmp_path.iterdir()) == []
    return {"recording_failed": int("broke off" in recorders[0].failed)}


@fault(
    "a recording cut off or damaged",
    "cut off, it is replayed as far as it goes; damaged, one line says where",
)
def test_broken_recordings(tmp_path: Path) -> Mapping[str, int]:
    from sim.errors import UserError

    path = tmp_path / "r.tsr"

    def opened(start: bytes, about: dict[str, Any]) -> Recorder:
        return Recorder(Collector(start, about), path, start, about)

    receiving = Receiving(open_receiver(LOOPBACK), open_stream=opened)
    send(receiving.link.address, sending_end())
    receiving.stop()
    whole = path.read_bytes()
    again: list[Collector] = []

    def collect(start: bytes, about: dict[str, Any]) -> Collector:
        again.append(Collector(start, about))
        return again[-1]

    assert replay(path, collect)
    assert frames_of(again[0]) == expected()
    path.write_bytes(whole[: len(whole) // 2])
    assert not replay(path, collect)
    assert frames_of(again[1]) == expected()[: len(again[1].frames)]
    rng = np.random.default_rng(2)
    for at in rng.integers(0, len(whole), 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
        try:
            assert not replay(path, collect)  # a length that points beyond the end
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert frames_of(again[-1]) == expected()[: len(again[-1].frames)]
    return {}
