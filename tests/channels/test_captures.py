"""Losses from captures, logs of ping, Wireshark's CSV and iperf3.

The files in ``fixtures/traces`` were written by tcpdump 4.99, editcap and tshark 4.0, ping of
iputils and iperf3 3.12 on Linux, whose firewall dropped packets: ``rtp-fates.json`` has what the
sender of the RTP packets was told, 1 = dropped. The others are written here, byte by byte.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from channels import LossTrace, loss_model
from channels.capture import rtp_streams
from channels.iperf import fit_intervals, notes_of, read_iperf3
from channels.logs import ping_runs
from channels.parameters import ChannelParameterError
from channels.trace import read_loss_trace
from sim.cli.main import app

TRACES = Path(__file__).parents[1] / "fixtures" / "traces"
FATES = json.loads((TRACES / "rtp-fates.json").read_text())


def rtp(sequence: int, ssrc: int = 7, first: int = 0x80, kind: int = 96) -> bytes:
    """RFC 3550, section 5.1."""
    return struct.pack(">BBHII", first, kind, sequence % 65536, 0, ssrc) + b"voice"


def udp(payload: bytes) -> bytes:
    """RFC 768."""
    return struct.pack(">HHHH", 4000, 5004, 8 + len(payload), 0) + payload


def ipv4(data: bytes, fragment: int = 0, options: bytes = b"", protocol: int = 17) -> bytes:
    """RFC 791, section 3.1; padded as a short Ethernet frame is."""
    words, total = 0x45 + len(options) // 4, 20 + len(options) + len(data)
    head = struct.pack(">BBHHHBBH", words, 0, total, 0, fragment, 64, protocol, 0)
    return head + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + data + b"pad"


def ipv6(data: bytes, following: int = 17) -> bytes:
    """RFC 8200, section 3."""
    ends = b"\xfe\x80" + bytes(13) + b"\1" + b"\xfe\x80" + bytes(13) + b"\2"
    return struct.pack(">IHBB", 6 << 28, len(data), following, 64) + ends + data


def ethernet(data: bytes, kind: int = 0x0800, tags: tuple[int, ...] = ()) -> bytes:
    """IEEE 802.3, with tags of 802.1Q."""
    tagged = b"".join(struct.pack(">HH", tag, 5) for tag in tags)
    return bytes(12) + tagged + struct.pack(">H", kind) + data


def pcap(packets: list[bytes], link_type: int = 1, order: str = "<", magic=0xA1B2C3D4) -> bytes:
    """draft-ietf-opsawg-pcap, sections 4 and 5."""
    file = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, 65535, link_type)
    for data in packets:
        file += struct.pack(f"{order}IIII", 1, 2, len(data), len(data)) + data
    return file


def block(kind: int, body: bytes, order: str) -> bytes:
    """draft-ietf-opsawg-pcapng, section 3.1."""
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str, *link_types: int) -> bytes:
    """A section header block and interface description blocks."""
    head = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    return head + b"".join(
        block(1, struct.pack(f"{order}HHI", link, 0, 0), order) for link in link_types
    )


def enhanced(interface: int, data: bytes, order: str = "<") -> bytes:
    """An enhanced packet block, with a comment."""
    head = struct.pack(f"{order}IIIII", interface, 0, 0, len(data), len(data))
    padded = data + bytes(-len(data) % 4)
    return block(6, head + padded + struct.pack(f"{order}HH4sI", 1, 4, b"note", 0), order)


ARRIVED = (65533, 65534, 0, 1, 4)
LOST = [0, 0, 1, 0, 0, 1, 1, 0]
DATAGRAMS = [udp(rtp(number)) for number in ARRIVED]
CAPTURES = {
    "ethernet": pcap([ethernet(ipv4(data)) for data in DATAGRAMS]),
    "big-endian": pcap([ethernet(ipv4(data)) for data in DATAGRAMS], order=">"),
    "nanoseconds": pcap([ethernet(ipv4(data)) for data in DATAGRAMS], magic=0xA1B23C4D),
    "vlan": pcap([ethernet(ipv4(data), tags=(0x8100,)) for data in DATAGRAMS]),
    "two vlans": pcap([ethernet(ipv4(data), tags=(0x88A8, 0x8100)) for data in DATAGRAMS]),
    "options": pcap([ethernet(ipv4(data, options=bytes(8))) for data in DATAGRAMS]),
    "ipv6": pcap([ethernet(ipv6(data), 0x86DD) for data in DATAGRAMS]),
    "extensions": pcap(
        [
            ethernet(ipv6(b"\x3c\0" + bytes(6) + b"\x11\1" + bytes(14) + data, 0), 0x86DD)
            for data in DATAGRAMS
        ]
    ),
    "raw": pcap([ipv4(data) for data in DATAGRAMS], 101),
    "raw ipv6": pcap([ipv6(data) for data in DATAGRAMS], 229),
    "loopback": pcap([b"\2\0\0\0" + ipv4(data) for data in DATAGRAMS], 0),
    "cooked": pcap([bytes(14) + b"\x08\0" + ipv4(data) for data in DATAGRAMS], 113),
    "cooked 2": pcap([b"\x08\0" + bytes(18) + ipv4(data) for data in DATAGRAMS], 276),
    "cut short": pcap([ethernet(ipv4(data)) for data in DATAGRAMS] + [bytes(60)])[:-9],
    "pcapng": section("<", 1) + b"".join(enhanced(0, ethernet(ipv4(d))) for d in DATAGRAMS),
    "pcapng, big-endian": section(">", 1)
    + b"".join(enhanced(0, ethernet(ipv4(d)), ">") for d in DATAGRAMS),
    "simple packets": section("<", 1)
    + b"".join(
        block(3, struct.pack("<I", len(p)) + p, "<") for p in (ethernet(ipv4(d)) for d in DATAGRAMS)
    ),
    "other packets": pcap(
        [
            packet
            for data in DATAGRAMS
            for packet in (
                ethernet(ipv4(data)),
                ethernet(ipv4(data, fragment=100)),
                ethernet(ipv4(data, protocol=6)),
                ethernet(ipv4(udp(rtp(9, kind=200)))),  # RTCP
                ethernet(ipv4(udp(rtp(9, first=0x40)))),
                ethernet(ipv4(udp(rtp(5, ssrc=9)))),  # never followed by the next number
                ethernet(b"arp", 0x0806),
                ethernet(ipv4(data))[:40],
            )
        ]
    ),
    "two sections": section(">", 101)
    + enhanced(0, ipv4(DATAGRAMS[0]), ">")
    + section("<", 113, 1)
    + b"".join(enhanced(1, ethernet(ipv4(data))) for data in DATAGRAMS[1:]),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_captures(tmp_path, name):
    (tmp_path / "a.pcap").write_bytes(CAPTURES[name])
    found = read_loss_trace(tmp_path / "a.pcap")
    assert found.mask.tolist() == (LOST[1:] if name == "two sections" else LOST)
    assert found.notes[0].startswith("stream: 0x00000007 ")


@pytest.mark.parametrize("name", ["rtp-any.pcap", "rtp-lo.pcapng", "wireshark.csv"])
@pytest.mark.parametrize("ssrc", FATES)
def test_what_tcpdump_and_wireshark_write(name, ssrc):
    """What was lost before the first or after the last packet that arrived is unknown."""
    sent = FATES[ssrc].strip("1")
    mask = read_loss_trace(TRACES / name, stream=ssrc).mask
    assert "".join("01"[int(lost)] for lost in mask) == sent


def test_several_streams_are_listed(tmp_path):
    with pytest.raises(ChannelParameterError) as caught:
        read_loss_trace(TRACES / "rtp-any.pcap")
    assert caught.value.parameter == "stream"
    for part in ("holds 2 streams", "0x1234abcd 127.0.0.1:", "> [::1]:5006 (131 packets)"):
        assert part in caught.value.problem
    with pytest.raises(ChannelParameterError, match="none named 'bach'; there are: 0x1234abcd"):
        read_loss_trace(TRACES / "rtp-any.pcap", stream="bach")
    (tmp_path / "a.txt").write_text("0011")
    with pytest.raises(ChannelParameterError, match="has no names of streams"):
        read_loss_trace(tmp_path / "a.txt", stream="bach")
    spec = {"type": "trace", "path": str(TRACES / "rtp-any.pcap"), "stream": "C0FFEE"}
    model = loss_model(spec)
    assert isinstance(model, LossTrace) and model.warnings() == [
        "stream: 0x00c0ffee [::1]:47133 > [::1]:5006"
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pcap([]), "no RTP over UDP in this capture of 0 packets"),
        (pcap([bytes(40)], 105), "1 packets of link type 105, which is not read"),
        (pcap([])[:20], "ends within the header"),
        (section("<", 1) + struct.pack("<III", 6, 7, 0), "damaged at byte 48"),
        (b"\x1f\x8b\x08\0", "is compressed; unpack it with gunzip"),
    ],
)
def test_bad_captures(tmp_path, data, says):
    (tmp_path / "a.pcap").write_bytes(data)
    with pytest.raises(ChannelParameterError, match=f"a.pcap.*{says}"):
        read_loss_trace(tmp_path / "a.pcap")


def test_damage_is_told_or_survived():
    rng = np.random.default_rng(1)
    for data in (CAPTURES["two sections"], CAPTURES["other packets"], CAPTURES["extensions"]):
        for _ in range(300):
            bad = bytearray(data)
            for at in rng.integers(4, len(bad), 3):
                bad[at] = rng.integers(256)
            try:
                assert rtp_streams(bytes(bad[: rng.integers(4, len(bad) + 1)]))
            except ChannelParameterError as error:
                assert error.parameter == "path"


LINUX = "PING a.net (10.0.0.1) 56(84) bytes of data.\n"
REPLY = "64 bytes from 10.0.0.1: icmp_seq={} ttl=64 time=0.1 ms\n"
TOTALS = "--- a.net ping statistics ---\n{} packets transmitted, 3 received, 40% packet loss\n"
WINDOWS = "\r\nPinging a.net [10.0.0.1] with 32 bytes of data:\r\n"


@pytest.mark.parametrize(
    ("log", "fates"),
    [
        (LINUX + "".join(map(REPLY.format, (2, 4, 4, 3))) + TOTALS.format(6), "100011"),
        (REPLY.format(65534) + REPLY.format(1) + REPLY.format(65535), "0010"),
        (
            LINUX
            + REPLY.format(1)
            + "no answer yet for icmp_seq=2\nno answer yet for icmp_seq=3\n"
            + REPLY.format(2)
            + "From 10.0.0.9 icmp_seq=4 Destination Host Unreachable\n",
            "0011",
        ),
        (
            "PING a.net (10.0.0.1): 56 data bytes\nRequest timeout for icmp_seq 0\n"
            + REPLY.format(1)
            + TOTALS.format(3),
            "101",
        ),
        ("PING a.net (10.0.0.1): 56 data bytes\n64 bytes from 10.0.0.1: seq=1 ttl=42\n", "10"),
        (
            WINDOWS
            + "Reply from 10.0.0.1: bytes=32 time<1ms TTL=64\r\nRequest timed out.\r\n"
            + "Reply from 10.0.0.9: Destination host unreachable.\r\n"
            + "Reply from fe80::1: time=2ms \r\n"
            + "    Packets: Sent = 4, Received = 2, Lost = 2 (50% loss),\r\n",
            "0110",
        ),
    ],
)
def test_logs_of_ping(tmp_path, log, fates):
    (tmp_path / "ping.log").write_text(log, newline="")
    found = read_loss_trace(tmp_path / "ping.log")
    assert "".join("01"[int(lost)] for lost in found.mask) == fates


def test_a_log_of_linux():
    found = read_loss_trace(TRACES / "ping-linux.txt")
    assert (found.mask.size, found.mask.sum()) == (120, 18)  # as its last lines say


def test_several_runs_of_ping_and_odd_ones():
    run = LINUX + REPLY.format(1)
    assert list(ping_runs(run + run)) == ["a.net", "a.net #2"]
    with pytest.raises(ChannelParameterError, match=r"no line for each request \(was it ping -q"):
        ping_runs(LINUX + TOTALS.format(5))
    with pytest.raises(ChannelParameterError, match="9 requests were sent, but 1 lines"):
        ping_runs(WINDOWS + "Request timed out.\n Packets: Sent = 9, Received = 0\n")


def iperf3(counts, **more) -> str:
    intervals = [{"sum": {"packets": sent, "lost_packets": lost}} for sent, lost in counts]
    return json.dumps({"intervals": intervals, "end": {}, **more})


def test_iperf3_tells_rates_not_bursts(tmp_path):
    found = read_iperf3(TRACES / "iperf3-client.json")  # the server's intervals are in it
    assert len(found.sent) == 3 and (sum(found.sent), sum(found.lost)) == (1875, 362)
    result = CliRunner().invoke(app, ["channel", "fit", str(TRACES / "iperf3-client.json")])
    assert result.exit_code == 0
    assert "gilbert          left out: which packets were lost is not known" in result.stdout
    assert "loss: 0.19306" in result.stdout
    with pytest.raises(ChannelParameterError, match="sim channel fit finds its loss rate"):
        read_loss_trace(TRACES / "iperf3-client.json")

    (tmp_path / "even.json").write_text(iperf3([(1000, 100), (1000, 103), (1000, 98), (1000, 101)]))
    (tmp_path / "odd.json").write_text(iperf3([(1000, 0), (1000, 400), (1000, 2), (1000, 0)]))
    even, odd = read_iperf3(tmp_path / "even.json"), read_iperf3(tmp_path / "odd.json")
    assert even.dispersion < 1 < 100 < odd.dispersion
    assert "in bursts, or the rate changed" in notes_of(odd)[1]
    widths = [
        estimate.high - estimate.low
        for counts in (even, odd)
        for estimate in fit_intervals(counts, ["uniform"]).best.estimates
    ]
    assert widths[1] > 10 * widths[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "not that of iperf3"),
        ("{", "not the JSON of iperf3"),
        ('{"a": ' + "[" * 100_000, "not the JSON of iperf3"),
        (iperf3([], error="unable to connect"), "iperf3 failed: unable to connect"),
        (iperf3([]), "test with iperf3 --udp"),
        ('{"intervals": 3, "end": 4}', "not that of iperf3"),
        (iperf3([("many", 3)]), "not that of iperf3"),
        (iperf3([(50, 3)]), "has 50 packets with 3 lost"),
        (iperf3([(500, 0)]), "has 500 packets with 0 lost"),
    ],
)
def test_bad_iperf3(tmp_path, text, says):
    (tmp_path / "a.json").write_text(text)
    result = CliRunner().invoke(app, ["channel", "fit", str(tmp_path / "a.json")])
    assert result.exit_code == 2 and "a.json" in result.stderr and says in result.stderr
    assert result.stderr.count("\n") == 1
