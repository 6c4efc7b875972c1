"""Faults of `sim send` and `sim receive` as they are used: two processes, signals, files left.

docs/faults.md is made of these tests too.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.fault_table import fault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE_S = 120.0


class Commands:
    """Runs the commands in a folder of their own, against one address."""

    def __init__(self, folder: Path, photo: Path) -> None:
        self.folder = folder
        self._address = f"ipc://{folder}/socket"
        self._running: list[subprocess.Popen[bytes]] = []
        (folder / "s.yaml").write_text(
            f"""
images: [{photo}]
codec: {{codebook: 64, model: random}}
stream: {{slices: 4, fps: 10, playout_delay_s: 0.3}}
channel: {{type: gilbert_elliott, loss: 0.3, mean_burst: 3}}
concealers: [none, neighbour_average]
seed: 4
"""
        )

    def send(self, name: str, frames: int) -> subprocess.Popen[bytes]:
        return self._start(name, "send", "--to", self._address, "--frames", str(frames), "--json")

    def receive(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        return self._start(name, "receive", "--at", self._address, "--out", name, *options)

    def _start(self, name: str, command: str, *options: str) -> subprocess.Popen[bytes]:
        with (
            (self.folder / f"{name}.out").open("wb") as out,
            (self.folder / f"{name}.err").open("wb") as errors,
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "sim", command, "s.yaml", *options],
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=out,
                stderr=errors,
                stdin=subprocess.DEVNULL,
            )
        self._running.append(process)
        return process

    def said(self, name: str) -> str:
        """What a command has told on its terminal."""
        return (self.folder / f"{name}.err").read_text()

    def wait_for_images(self, name: str, count: int) -> None:
        """Until a receiver has told of so many images."""
        until = time.monotonic() + PATIENCE_S
        while self.said(name).count("packets in time") < count:
            assert time.monotonic() < until, self.said(name)
            assert all(process.poll() is None for process in self._running[-1:]), self.said(name)
            time.sleep(0.05)

    def end(self, process: subprocess.Popen[bytes], name: str) -> None:
        """It ends by itself, in good order."""
        assert process.wait(PATIENCE_S) == 0, self.said(name)
        assert "Traceback" not in self.said(name)

    def sent(self, name: str) -> dict[str, Any]:
        """The sender's summary."""
        found: dict[str, Any] = json.loads((self.folder / f"{name}.out").read_text())
        return found

    def left(self, name: str) -> dict[str, Any]:
        """What the manifest says of a stream, after a look at the run folder."""
        folder = self.folder / name
        live: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["live"]
        for table, key in (("images.csv", "image"), ("packets.csv", "image")):
            with (folder / table).open() as file:
                assert len({row[key] for row in csv.DictReader(file)}) == live["images"]
        assert (folder / "summary.json").exists()
        assert (folder / "figures" / "packets.png").exists()
        return live

    def kill(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def commands(tmp_path: Path, photo: Path) -> Iterator[Commands]:
    made = Commands(tmp_path, photo)
    try:
        yield made
    finally:
        made.kill()


@fault(
    "Ctrl-C at `sim send`, started before its receiver (`-m slow`)",
    "it waits for the receiver, sends what was captured, and ends; both leave whole accounts",
)
def test_ctrl_c_at_the_sender(commands: Commands) -> Mapping[str, int]:
    sender = commands.send("sender", 3000)
    time.sleep(1.0)
    receiver = commands.receive("received", "--once")
    commands.wait_for_images("received", 5)
    sender.send_signal(signal.SIGINT)
    commands.end(sender, "sender")
    commands.end(receiver, "received")
    summary, live = commands.sent("sender"), commands.left("received")
    assert summary["interrupted"] and live["ended"] == "interrupted"
    assert 5 <= summary["images"] == live["images"] < 3000
    assert live["ledger"]["sent"] == summary["packets"]
    assert not live["anomalies"] and not summary["anomalies"]
    return {}


@fault(
    "Ctrl-C at `sim receive`, and another receiver (`-m slow`)",
    "the first leaves the tables of what came; the sender waits for the next and goes on",
    "joined_late",
    "receiver_restarted",
)
def test_ctrl_c_at_the_receiver(commands: Commands) -> Mapping[str, int]:
    first = commands.receive("first")
    sender = commands.send("sender", 3000)
    commands.wait_for_images("first", 5)
    first.send_signal(signal.SIGINT)
    commands.end(first, "first")
    second = commands.receive("second", "--once")
    commands.wait_for_images("second", 5)
    sender.send_signal(signal.SIGINT)
    commands.end(sender, "sender")
    commands.end(second, "second")
    stopped, whole = commands.left("first"), commands.left("second")
    assert stopped["ended"] == "stopped" and stopped["images"] >= 5
    assert whole["ended"] == "interrupted" and whole["images"] >= 5
    assert whole["first_image"] >= stopped["images"]
    return {**whole["anomalies"], **commands.sent("sender")["anomalies"]}


@fault(
    "`sim send` killed, and another one (`-m slow`)",
    "the receiver leaves what came of the first, then takes the second whole",
    "sender_gone",
)
def test_killed_sender_command(commands: Commands) -> Mapping[str, int]:
    receiver = commands.receive("received")
    killed = commands.send("killed", 3000)
    commands.wait_for_images("received", 5)
    killed.kill()
    until = time.monotonic() + PATIENCE_S
    while not (commands.folder / "received" / "manifest.json").exists():
        assert time.monotonic() < until, commands.said("received")
        time.sleep(0.05)
    partial = commands.left("received")
    assert partial["ended"] == "sender gone" and partial["images"] >= 5
    assert partial["ledger"] is None
    sender = commands.send("sender", 8)
    commands.end(sender, "sender")
    while commands.left("received")["ended"] != "complete":
        assert time.monotonic() < until, commands.said("received")
        time.sleep(0.05)
    receiver.send_signal(signal.SIGINT)
    commands.end(receiver, "received")
    whole = commands.left("received")
    assert (whole["ended"], whole["images"], whole["images_meant"]) == ("complete", 8, 8)
    return partial["anomalies"]


@fault(
    "`sim receive` killed, and another one (`-m slow`)",
    "the sender notices and goes on; the second leaves the images that came whole to it",
    "joined_late",
    "receiver_restarted",
)
def test_killed_receiver_command(commands: Commands) -> Mapping[str, int]:
    killed = commands.receive("killed")
    sender = commands.send("sender", 3000)
    commands.wait_for_images("killed", 5)
    killed.kill()
    killed.wait()
    receiver = commands.receive("received", "--once")
    commands.wait_for_images("received", 5)
    sender.send_signal(signal.SIGINT)
    commands.end(sender, "sender")
    commands.end(receiver, "received")
    live = commands.left("received")
    assert live["ended"] == "interrupted" and live["first_image"] >= 5
    assert not (commands.folder / "killed").exists()
    return {**live["anomalies"], **commands.sent("sender")["anomalies"]}
