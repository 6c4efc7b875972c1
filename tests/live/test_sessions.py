"""The live commands: two ends of one stream, its recording, its keys, its pictures."""

from __future__ import annotations

import builtins
import json
import stat
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.drivers.address import check_exposure, read_address
from sim.drivers.keys import read_keys, write_keys
from sim.errors import UserError
from sim.live.session import CaptureOptions, send_session
from sim.media.capture import Photographs, open_source
from sim.media.images import LoadedImage, load_image
from sim.scenario.loader import load_scenario

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


def test_photographs_start_over(photo: Path) -> None:
    source = Photographs([load_image(photo)], 3)
    assert source.names == ["photo", "photo-2", "photo-3"]
    assert [image.name for image in source.pictures()] == source.names
    assert source.sizes == [(56, 40)] * 3
    assert len(set(source.digests)) == 1
    image = load_image(photo)
    second = LoadedImage("photo-2", image.path, image.pixels)
    names = Photographs([image, second], 5).names
    assert names == ["photo", "photo-2", "photo-3", "photo-2-2", "photo-4"]


def film(
    path: Path,
    times: Sequence[int],
    codec: str = "mjpeg",
    pixels: str = "yuvj444p",
    turned: int = 0,
) -> None:
    """A video whose pictures are shown at these times, in tenths of a second, 10 levels brighter
    in blue each."""
    av = pytest.importorskip("av", reason="needs PyAV: the video extra")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
        if turned:
            stream.set_display_rotation(turned)
        for level, when in enumerate(times):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[..., 2] = level * 10
            picture[:12, :12] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = when, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def blues(path: Path, fps: float) -> list[int]:
    """Of the middle of each picture that is streamed."""
    pictures = list(open_source([], path.parent, fps=fps, video=path).pictures())
    return [int(picture.pixels[20:, 20:, 2].mean()) for picture in pictures]


def test_a_video_file_is_a_source_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    film(path, range(20))
    source = open_source([], tmp_path, fps=5, video=path)
    pictures = list(source.pictures())
    assert len(pictures) == len(source.names) == 10
    assert source.sizes == [(64, 48)] * 10
    assert blues(path, 5) == pytest.approx([20 * n for n in range(10)], abs=6)
    assert pictures[5].pixels[20:, 20:, 0].mean() < 10
    assert len(open_source([], tmp_path, fps=5, video=path, frames=3).names) == 3
    (tmp_path / "no.avi").write_bytes(b"no video")
    with pytest.raises(UserError, match="not a video"):
        open_source([], tmp_path, fps=5, video=tmp_path / "no.avi")
    with pytest.raises(UserError, match="none found"):
        open_source([], tmp_path, fps=5, camera=97)


def test_pictures_are_taken_when_they_are_shown(tmp_path: Path) -> None:
    """The rate of a video may vary."""
    path = tmp_path / "v.mkv"
    film(path, [0, 1, 2, 9, 10, 16])
    shown = [0, 10, 20, 20, 20, 20, 20, 20, 20, 30, 40, 40, 40, 40, 40, 40, 50]
    assert blues(path, 10) == pytest.approx(shown, abs=6)
    assert blues(path, 2)[:4] == pytest.approx([0, 20, 40, 40], abs=6)


def test_a_video_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    film(path, range(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = blues(path, 10)
    assert 5 <= len(found) <= 20 and found[:5] == pytest.approx([0, 10, 20, 30, 40], abs=6)


def test_ten_bits_and_a_turned_camera(tmp_path: Path) -> None:
    film(tmp_path / "ten.mkv", range(4), "ffv1", "yuv420p10le")
    assert blues(tmp_path / "ten.mkv", 10) == pytest.approx([0, 10, 20, 30], abs=6)
    path = tmp_path / "turned.mov"
    film(path, range(3), turned=90)
    source = open_source([], tmp_path, fps=10, video=path)
    assert source.sizes == [(48, 64)] * 3
    corners = {
        place: next(iter(source.pictures())).pixels[place].mean() > 200
        for place in ((5, 5), (5, 43), (59, 5), (59, 43))
    }
    assert [place for place, bright in corners.items() if bright] == [(59, 5)]


def test_without_pyav_there_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "av":
            raise ImportError
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install .*video"):
        open_source([], tmp_path, fps=5, camera=0)
