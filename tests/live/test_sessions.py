"""The live commands: two ends of one stream, its recording, its keys, its pictures."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.drivers.address import check_exposure, read_address
from sim.drivers.keys import read_keys, write_keys
from sim.errors import UserError
from sim.live.session import CaptureOptions, send_session
from sim.scenario.loader import load_scenario
from tests.media.films import film

Cli = Callable[..., Any]

TABLES = ("images.csv", "packets.csv")


@pytest.fixture
def scenario(tmp_path: Path, photo: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"""
images: [{photo}, {photo}]
codec: {{codebook: 64, model: random}}
stream: {{slices: 4, fps: 20, playout_delay_s: 0.2}}
channel: {{type: gilbert_elliott, loss: 0.3, mean_burst: 3}}
concealers: [none, neighbour_average]
transport: virtual
pace: 0
seed: 4
"""
    )
    return path


@pytest.mark.parametrize("entropy", ["static", "context"])
def test_send_receive_replay_and_run_leave_the_same_tables(
    scenario: Path, tmp_path: Path, cli: Cli, entropy: str
) -> None:
    """The driver law through the command line, and a recording that gives it all again."""
    text = scenario.read_text()
    scenario.write_text(text.replace("codebook: 64", f"codebook: 64, entropy: {entropy}"))
    received, again, ran = tmp_path / "received", tmp_path / "again", tmp_path / "ran"
    address, recording = f"ipc://{tmp_path}/s", tmp_path / "r.tsr"
    loaded = load_scenario(scenario)
    sender = threading.Thread(target=lambda: send_session(loaded, address, CaptureOptions()))
    sender.start()
    found = cli(
        "receive", scenario, "--at", address, "--once", "--json",
        "--record", recording, "--out", received,
    )  # fmt: skip
    sender.join()
    assert found.exit_code == 0, found.output
    assert cli("replay", recording, "--out", again).exit_code == 0
    assert cli("run", scenario, "--out", ran).exit_code == 0
    for name in TABLES:
        assert (received / name).read_bytes() == (again / name).read_bytes()
        assert (received / name).read_bytes() == (ran / name).read_bytes()
    live, replayed = (
        json.loads((folder / "manifest.json").read_text())["live"] for folder in (received, again)
    )
    assert live["ended"] == replayed["ended"] == "complete"
    assert live["ledger"] == replayed["ledger"]
    assert live["anomalies"] == {}
    assert (received / "figures" / "packets.png").exists()


def test_a_sweep_is_no_stream(scenario: Path, cli: Cli) -> None:
    scenario.write_text(scenario.read_text() + "sweep: {channel.loss: [0.1, 0.2]}\n")
    result = cli("send", scenario)
    assert result.exit_code == 2
    assert "sweeps 2" in result.output


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://0.0.0.0:5570", "--keys"),
        ("tcp://192.168.1.5:5570", "--keys"),
        ("udp://0.0.0.0:5570", "stays on this machine"),
        ("http://localhost:5570", "not an address"),
        ("tcp://127.0.0.1", "not an address"),
        ("5570", "not an address"),
    ],
)
def test_unsafe_and_senseless_addresses_are_refused(
    scenario: Path, cli: Cli, address: str, words: str
) -> None:
    for command in (("receive", scenario, "--at"), ("send", scenario, "--to")):
        result = cli(*command, address)
        assert result.exit_code == 2
        assert words in result.output
        assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "ipc://x", "udp://localhost:1"]
)
def test_loopback_needs_no_keys(address: str) -> None:
    check_exposure(read_address(address), None)


def test_keys_are_private_and_never_overwritten(tmp_path: Path, cli: Cli) -> None:
    result = cli("keys", tmp_path / "k")
    assert result.exit_code == 0
    receiver, sender = tmp_path / "k" / "receiver", tmp_path / "k" / "sender"
    for folder in (receiver, sender):
        assert stat.S_IMODE((folder / "secret.key").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert read_keys(receiver).peers == (read_keys(sender).pair[1],)
    assert read_keys(sender).only_peer() == read_keys(receiver).pair[1]
    assert (receiver / "secret.key").read_text().strip() not in result.output
    assert cli("keys", tmp_path / "k").exit_code == 2
    (receiver / "secret.key").chmod(0o644)
    with pytest.raises(UserError, match="others may read"):
        read_keys(receiver)


def test_damaged_keys_are_told(tmp_path: Path) -> None:
    receiver, _ = write_keys(tmp_path / "k")
    with pytest.raises(UserError, match="cannot read"):
        read_keys(tmp_path)
    (receiver / "secret.key").write_text("short\n")
    with pytest.raises(UserError, match="not a key"):
        read_keys(receiver)


def test_a_recording_that_is_none(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "r"
    assert cli("replay", path).exit_code == 2
    path.write_bytes(b"what is this")
    assert "not a recording" in cli("replay", path).output


@pytest.mark.parametrize("sent", ["all tokens", "changed tokens"])
def test_a_video_is_streamed_and_measured_as_a_run_does(
    tmp_path: Path, cli: Cli, sent: str
) -> None:
    """Concealers that remember among them; without the originals, there is what was repaired."""
    codec, stream = "", ""
    if sent == "changed tokens":
        codec, stream = ", hysteresis: 0.5", ", refresh: 3"
    film(tmp_path / "v.mkv", range(6), blue=lambda number: 40 * number)
    path = tmp_path / "s.yaml"
    path.write_text(
        "video: {file: v.mkv, first: 1}\nseed: 3\n"
        f"codec: {{codebook: 64, model: random{codec}}}\n"
        f"stream: {{slices: 4, fps: 10, playout_delay_s: 0.2{stream}}}\n"
        "channel: {type: uniform, loss: 0.4}\n"
        "concealers: [none, previous, inpaint_memory]\nmetrics: [psnr_db, flicker]\n"
        "transport: virtual\npace: 0\n"
    )

    def receive(out: Path, *options: str | Path) -> Path:
        address = f"ipc://{tmp_path}/to-{out.name}"
        sending = (load_scenario(path), address, CaptureOptions())
        sender = threading.Thread(target=send_session, args=sending, daemon=True)
        sender.start()
        found = cli("receive", path, "--at", address, "--once", "--out", out, *options)
        assert found.exit_code == 0, found.output
        sender.join()
        return out

    recording = tmp_path / "r.tsr"
    received, ran = receive(tmp_path / "received", "--record", recording), tmp_path / "ran"
    assert cli("run", path, "--out", ran).exit_code == 0
    again = tmp_path / "again"
    assert cli("replay", recording, "--out", again).exit_code == 0
    videos = sorted(file.relative_to(ran) for file in ran.glob("videos/*"))
    assert [file.stem for file in videos] == ["inpaint_memory", "none", "previous", "side-by-side"]
    for name in (*TABLES, *videos):
        assert (received / name).read_bytes() == (ran / name).read_bytes()
        assert (received / name).read_bytes() == (again / name).read_bytes()
    blind = receive(tmp_path / "blind", "--video", "nothing.mkv")
    for name in videos[:3]:
        assert (blind / name).read_bytes() == (ran / name).read_bytes()
