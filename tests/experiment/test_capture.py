"""`sim run --pcap`: the packets of a stream, for Wireshark."""

from __future__ import annotations

import csv
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.protocol.feedback import parse_requests
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import CONTROL, PARITY, MalformedPacket, parse
from sim.protocol.packing import split_parts
from sim.protocol.parity import parse_parity
from tests.media.films import film

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]

SCENARIO = """\
images: [../photo.png, ../photo.png, ../photo.png, ../photo.png, ../photo.png]
codec: {model: random, codebook: 64, entropy: fixed}
stream:
  slices: 6
  playout_delay_s: 4
  fec: {data: 4, parity: 2, depth: 2}
  arq: {retries: 2, delay_s: 0.02, loss: 0.2}
channel:
  loss: {type: gilbert, loss: 0.3, mean_burst: 3}
  link: {delay_s: 0.02, bit_error: 0.002, duplicate: 0.2}
transport: virtual
concealers: []
seed: 3
"""
VARIANTS = {
    "protected": [],
    "unequal": ["stream.fec.unequal=true", "stream.fec.code=xor", "stream.arq=null"],
    "packs": ["stream.packing=2", "codec.entropy=static", "stream.interleaver=random"],
    "bare": ["stream.fec=null", "stream.arq=null", "codec.patch=20", "stream.passes=2"],
}


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of every block: draft-ietf-opsawg-pcapng, section 3.1."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0 and data[at + size - 4 : at + size] == data[at + 4 : at + 8]
        yield kind, data[at + 8 : at + size - 4]
        at += size


def packets(path: Path) -> list[tuple[int, float, int, bytes, str]]:
    """Interface, seconds, IP identification, UDP payload and comment of every packet."""
    found = []
    for kind, body in blocks(path.read_bytes()):
        if kind != 6:
            continue
        interface, high, low, size, _ = struct.unpack_from("<5I", body)
        ip, options = body[20 : 20 + size], body[20 + size + -size % 4 :]
        words = struct.unpack(">10H", ip[:20])
        assert ip[0] == 0x45 and words[1] == len(ip)
        assert sum(words) % 0xFFFF == 0  # RFC 791: the checksum of a sound header
        code, length = struct.unpack_from("<HH", options)
        comment = options[4 : 4 + length].decode() if code == 1 else ""
        found.append((interface, ((high << 32) + low) / 1e9, words[2], ip[28:], comment))
    return found


def ledger(folder: str) -> list[dict[str, str]]:
    with open(f"{folder}/packets.csv") as file:
        return list(csv.DictReader(file))


def run(cli: Cli, name: str) -> Any:
    Path("a.yaml").write_text(SCENARIO)
    sets = [part for value in VARIANTS[name] for part in ("--set", value)]
    result = cli("run", "a.yaml", "--out", "run", "--pcap", "a.pcapng", *sets)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "protected")) for n in VARIANTS]
)
@pytest.mark.usefixtures("photo")
def test_every_packet_is_there_as_the_ledger_has_it(cli: Cli, name: str) -> None:
    assert "packets:  a.pcapng (a, repeat 0, seed 3)" in run(cli, name).stdout
    rows, found = ledger("run"), packets(Path("a.pcapng"))
    assert [when for _, when, *_ in found] == sorted(when for _, when, *_ in found)
    start = StreamStart.parse(found[0][3])
    key = start.key.seed
    back = {number for _, _, number, data, _ in found if data[0] >> 4 == CONTROL}
    sent = [one for one in found[2:] if one[0] == 0 and one[2] not in back]
    assert len(sent) == len(rows)
    for (_, when, number, data, comment), row in zip(sent, rows, strict=True):
        assert when == pytest.approx(float(row["sent_s"]), abs=1e-8)
        assert len(data) == int(row["size_bytes"])
        if data[0] >> 4 == PARITY:
            assert row["kind"] == "parity" and parse_parity(data, key)
        else:
            packet = parse(data, key)
            assert (packet.sequence, packet.slice) == (int(row["sequence"]), int(row["slice"]))
            assert packet.layout.grid == start.layouts[0].grid
        assert ("lost" in comment) == (row["fate"] == "erased")
        assert ("corrupted" in comment) == (row["fate"] == "corrupted")
        assert ("retransmission" in comment) == (row["kind"] == "retransmission")
        copies = [one for one in found if one[0] == 1 and one[2] == number]
        assert len(copies) == int(row["copies"])
        for _, _, _, copy, told in copies:
            assert ("corrupted" in told) == (copy != data)
        if copies:
            assert copies[0][1] == pytest.approx(float(row["arrival_s"]), abs=1e-8)
    assert bool(back) == (name in ("protected", "packs"))
    for interface, _, number, data, comment in found:
        if number in back and interface == 1:
            assert parse_requests(data, key)
            heard = [one for one in found if one[0] == 0 and one[2] == number]
            assert (comment == "lost") == (not heard)


@pytest.mark.usefixtures("photo")
def test_a_file_that_is_no_capture_is_not_replaced(cli: Cli) -> None:
    Path("a.yaml").write_text(SCENARIO)
    for target, says in (
        ("a.yaml", "a.yaml: is there already, and is no capture"),
        ("..", "..: is a folder"),
        ("no/such.pcapng", "there is no folder no"),
    ):
        result = cli("run", "a.yaml", "--out", "run", "--pcap", target)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1) and says in result.stderr
    assert Path("a.yaml").read_text() == SCENARIO and not Path("run").exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_wireshark_names_the_refresh(cli: Cli, tmp_path: Path) -> None:
    film(tmp_path / "clip.mkv", range(4), blue=lambda number: 25 * number)
    text = SCENARIO.split("\n", 1)[1].replace("  arq:", "  refresh: 300\n  arq:")
    Path("a.yaml").write_text("video: {file: ../clip.mkv}\n" + text)
    result = cli("run", "a.yaml", "--out", "run", "--pcap", "a.pcapng", "--no-figures")
    assert result.exit_code == 0, result.output
    wanted = ("start.magic", "start.refresh", "start.crc.good", "version", "frame")
    fields = [word for name in wanted for word in ("-e", f"lossystream.{name}")]
    start, _, *others = tshark("-T", "fields", "-E", "separator=;", *fields).splitlines()
    assert start.split(";")[:2] == ["TSS3", "300"] and start.split(";")[2] in ("1", "True")
    versions = {line.split(";")[3]: bool(line.split(";")[4]) for line in others}
    assert versions == {"1": True, "0": False}  # media, which name their frame; the others


def tshark(*arguments: str) -> str:
    script = f"lua_script:{ROOT}/docs/lossy-stream.lua"
    words = ["tshark", "-X", script, "-r", "a.pcapng", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert "Lua Error" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.usefixtures("photo")
def test_wireshark_names_every_field(cli: Cli, name: str) -> None:
    """What tshark decodes with our dissector, against the ledger and our own parsers."""
    run(cli, name)
    rows, found = ledger("run"), packets(Path("a.pcapng"))
    start = StreamStart.parse(found[0][3])
    decoded = [
        one["_source"]["layers"] for one in json.loads(tshark("-T", "json", "--no-duplicate-keys"))
    ]
    assert len(decoded) == len(found)
    told = decoded[0]["lossystream"]
    assert told["lossystream.start.crc.good"] in ("1", "True")
    assert int(told["lossystream.start.key"], 16) == start.key.seed
    assert told["lossystream.start.fingerprint"].replace(":", "") == start.key.fingerprint
    assert float(told["lossystream.start.fps"]) == start.config.fps
    assert float(told["lossystream.start.playout_delay"]) == start.config.playout_delay_s
    assert told["lossystream.start.mtu"] == str(start.config.mtu)
    assert told["lossystream.start.frames"] == "5"
    if start.config.fec:
        assert told["lossystream.start.fec.data"] == str(start.config.fec.data)
    if start.config.arq:
        assert told["lossystream.start.arq.retries"] == str(start.config.arq.retries)
        assert float(told["lossystream.start.arq.loss"]) == start.config.arq.loss

    sent = iter(rows)
    for layers, (interface, _, _, data, _) in zip(decoded[2:], found[2:], strict=True):
        told, key = layers["lossystream"], start.key.seed
        kind = data[0] >> 4 & 3
        row = next(sent) if interface == 0 and kind != CONTROL else None

        def number(field: str, told: dict[str, Any] = told) -> int:
            value = told[f"lossystream.{field}"]
            return int(value, 0) if isinstance(value, str) else len(value)

        try:
            packet: Any = (
                parse_parity(data, key)
                if kind == PARITY
                else parse_requests(data, key)
                if kind == CONTROL
                else parse(data, key)
            )
        except MalformedPacket:
            assert told["lossystream.checksum.good"] in ("0", "False")
            assert row is None  # only copies that arrived are damaged
            continue
        assert told["lossystream.checksum.good"] in ("1", "True")
        assert number("kind") == kind and number("version") == 0
        if kind == CONTROL:
            first, distances = packet
            assert number("sequence") == first
            missing = told["lossystream.control.missing"]
            missing = [missing] if isinstance(missing, str) else missing
            assert [int(n) for n in missing] == [(first + d) % 65536 for d in distances]
            continue
        if kind == PARITY:
            assert number("parity.group") == packet.sequence
            assert number("parity.number") == packet.number
            assert number("parity.block") == packet.block
            assert number("parity.depth") == packet.depth
            assert number("parity.parity") == packet.parity
            assert number("parity.data") == len(packet.members)
            members = told["lossystream.parity.member"]
            members = [members] if isinstance(members, str) else members
            assert [int(n) - packet.sequence for n in members] == list(packet.members)
            symbol = told["lossystream.parity.symbol"].replace(":", "")
            assert symbol == packet.symbol.hex()
            continue
        layout = packet.layout
        assert number("sequence") == packet.sequence
        assert number("slice") == packet.slice
        assert number("slice_count") == layout.slice_count
        assert number("codebook") == layout.codebook_size
        assert (number("width"), number("height")) == (layout.width, layout.height)
        assert (number("rows"), number("columns")) == layout.grid
        assert number("patch") == layout.patch
        assert number("first_sequence") == packet.sequence - packet.slice
        assert ("raster", "checkerboard", "low_discrepancy", "random")[
            number("interleaver")
        ] == layout.interleaver
        assert ("fixed", "static", "context")[number("entropy")] == layout.entropy
        if row is not None:
            assert number("sequence") == int(row["sequence"])
            assert number("slice") == int(row["slice"])
            frames = told["lossystream.frame"]
            frames = [frames] if isinstance(frames, str) else frames
            assert frames == [str(n) for n in range(int(row["frame"]), int(row["last_frame"]) + 1)]
        parts = told.get("lossystream.part", told.get("lossystream.payload"))
        parts = [parts] if isinstance(parts, str) else parts
        sent_parts = [part.hex() for part in split_parts(packet.payload, len(parts))]
        assert [part.replace(":", "") for part in parts] == sent_parts
    assert next(sent, None) is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
@pytest.mark.usefixtures("photo")
def test_damaged_packets_never_break_the_dissector(cli: Cli) -> None:
    run(cli, "protected")
    data = bytearray(Path("a.pcapng").read_bytes())
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 6:
            for place in range(at + 28 + 28, at + size - 24, 7):
                data[place] ^= (place * 37) & 0xFF
        at += size
    Path("a.pcapng").write_bytes(data)
    assert "LossyStream" in tshark()
