"""Files over the stream: bytes as tokens, damage as decoders see it, encodes kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from codec.coders import CoderBook
from sim.baselines import RESILIENT, Coded, RateSearch, find_baselines
from sim.baselines.byte_frames import BYTE_STREAM, ReceivedFile, byte_frame, received_file
from sim.baselines.damage import GREY, decode_damaged
from sim.jobs.store import Store
from sim.metrics.quality import psnr_db
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.packet import HEADER_BYTES, pack, parse
from sim.protocol.packetizer import Packetizer

CONFIG = StreamConfig(codebook_size=256, entropy="fixed", interleaver="raster", slices=7)
KEY = StreamKey("0" * 16).seed


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth and colourful."""
    y, x = np.mgrid[:height, :width]
    bands = [128 + 100 * np.sin(y / 9), 60 + 3 * x, 200 - y - x]
    return np.stack(bands, axis=2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("length", [1, 6, 1023, 1024, 1025, 2049, 20_011, 131_072])
def test_a_file_survives_its_packets(length: int) -> None:
    """Byte for byte, at the cost of headers and less than one row of padding; the packets alone
    tell its length, and missing packets leave zeros in their place."""
    data = np.random.default_rng(length).integers(1, 256, length, dtype=np.uint8).tobytes()
    frame = byte_frame("file", data)
    config = CONFIG if length < 9000 else StreamConfig(**{**vars(CONFIG), "slices": 250})
    packetizer = Packetizer(config, CoderBook({}))
    packets = packetizer.split(frame.index_map, frame.width, frame.height, 0)
    wire = [pack(packet, KEY) for packet in packets]
    rows = frame.index_map.shape[0]
    assert length <= sum(len(w) - HEADER_BYTES for w in wire) < length + rows
    parsed = [parse(w, KEY) for w in wire]
    layout = parsed[0].layout
    for kept in (parsed, parsed[1:], parsed[:-1]):
        grid = packetizer.join(kept) if kept else None
        if grid is None:
            continue
        got = received_file(grid.indices, grid.received, layout.width, layout.height)
        assert len(got.data) == len(got.received) == length
        there = np.frombuffer(got.data, np.uint8)
        assert np.array_equal(there, np.where(got.received, np.frombuffer(data, np.uint8), 0))
        assert got.complete == (len(kept) == len(parsed))


def test_the_settings_that_make_tokens_bytes() -> None:
    assert {
        "codec.codebook": CONFIG.codebook_size,
        "codec.entropy": CONFIG.entropy,
        "codec.patch": CONFIG.patch,
        "stream.interleaver": CONFIG.interleaver,
        "stream.refresh": CONFIG.refresh,
    } == BYTE_STREAM
    with pytest.raises(ValueError, match="1 to"):
        byte_frame("file", b"")


def hole(data: bytes, start: float, stop: float) -> ReceivedFile:
    """A file without the bytes between two shares of its length."""
    there = np.ones(len(data), bool)
    there[int(start * len(data)) : int(stop * len(data))] = False
    zeroed = np.where(there, np.frombuffer(data, np.uint8), 0).astype(np.uint8)
    return ReceivedFile(zeroed.tobytes(), there)


def test_restart_markers_confine_a_hole_and_progression_keeps_what_came_before() -> None:
    names = ["jpeg", *RESILIENT]
    found, _ = find_baselines(names)
    original = picture(160, 120)
    quality = {}
    for name, codec in found.items():
        file = codec.encode(original, 60).file
        pixels, shown = decode_damaged(codec, hole(file, 0.75, 0.8), 160, 120)
        assert shown and pixels.shape == original.shape
        quality[name] = psnr_db(codec.decode(file, 160, 120), pixels)
    assert quality["jpeg-restart"] > quality["jpeg"] + 1
    assert quality["jpeg-progressive"] > quality["jpeg"] + 1


@pytest.mark.parametrize("name", ["jpeg", "jpeg2000", "webp-half", "avif", "heic", "vvc", "x265"])
def test_whatever_is_missing_there_is_a_picture(name: str) -> None:
    found, missing = find_baselines([name])
    if not found:
        pytest.skip(str(missing))
    codec, original = found[name], picture(48, 64)
    file = codec.encode(original, codec.settings // 2).file
    whole, shown = decode_damaged(codec, hole(file, 0, 0), 48, 64)
    assert shown and np.array_equal(whole, codec.decode(file, 48, 64))
    for start, stop in [(0, 0.3), (0.4, 0.6), (0.9, 1), (0, 1)]:
        damaged = hole(file, start, stop)
        pixels, shown = decode_damaged(codec, damaged, 48, 64)
        assert pixels.shape == original.shape and pixels.dtype == np.uint8
        again, _ = decode_damaged(codec, damaged, 48, 64)
        assert np.array_equal(pixels, again)
        grey, shown_grey = decode_damaged(codec, damaged, 48, 64, "grey")
        assert not shown_grey and (grey == GREY).all()
        assert shown or (pixels == GREY).all()


class Counting:
    """A codec that counts what it is asked for."""

    name, settings, identity = "counting", 3, "1.0"

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        self.asked += 1
        return Coded(bytes(10 + setting), 5)

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        return np.zeros((height, width, 3), np.uint8)


def test_encodes_are_kept_and_damaged_entries_made_again(tmp_path: Path) -> None:
    inner, image = Counting(), picture(16, 16)

    def coded(pixels: NDArray[np.uint8], setting: int) -> Coded:
        return RateSearch(inner, pixels, Store(tmp_path / "cache")).coded(setting)

    first = coded(image, 1)
    assert coded(image, 1) == first and inner.asked == 1
    coded(image, 2)
    coded(image[:8], 1)
    coded(image + 1, 1)
    inner.identity = "1.1"  # another version of the library
    coded(image, 1)
    assert inner.asked == 5
    for entry in (tmp_path / "cache").iterdir():
        entry.write_bytes(entry.read_bytes()[:-1])
    assert coded(image, 1) == first and inner.asked == 6
    assert coded(image, 1) == first and inner.asked == 6


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    inner = Counting()
    image = picture(16, 16)
    one, two = (RateSearch(inner, image, Store(blocked)).coded(0) for _ in range(2))
    assert one == two
    assert inner.asked == 2 and blocked.read_text() == "mine"
