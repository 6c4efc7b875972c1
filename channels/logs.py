"""Which packets were lost, from text that other tools print: `ping`, and Wireshark's CSV.

`ping`: iputils (Linux) numbers from 1, macOS, BSD and busybox from 0, in 16 bits; Windows prints a
line for each request, without numbers. Wireshark: *Export Packet Dissections, As CSV*, whose column
Info says ``SSRC=0x3E8, Seq=17`` of RTP.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from channels.parameters import ChannelParameterError
from channels.samplers import Mask
from channels.sequence import MAX_PACKETS

_START = re.compile(r"^(?:PING|Pinging) (\S+)")
_NUMBER = re.compile(r"\b(?:icmp_)?seq[= ](\d{1,9})\b")
_FROM_ONE = re.compile(r"\(\d+\) bytes of data")  # in the first line of Linux
_SENT = re.compile(r"(\d{1,9}) packets transmitted|Packets: Sent = (\d{1,9})")
_REPLY = re.compile(r"\bbytes from\b|\bReply from .*\bTTL=|\bReply from .*: time[<=]")
_NO_REPLY = re.compile(
    r"^(Request timed out|Reply from .*unreachable|Reply from .*expired|General failure"
    r"|PING: transmit failed|Destination .* unreachable)"
)
_RTP = re.compile(r"SSRC=(0x[0-9A-Fa-f]{1,8}), Seq=(\d{1,5})\b")


def is_ping(text: str) -> bool:
    """Whether a text is a log of `ping`: whole, or a part of one with its numbers."""
    lines = text.splitlines()[:50]
    return any(_START.match(line) for line in lines) or any(
        "bytes from" in line and _NUMBER.search(line) for line in lines
    )


def ping_runs(text: str) -> dict[str, Mask]:
    """Which requests went without a reply, of every run in a log: bool[n] by host, True = lost.

    A second run to a host is named ``host #2``. Requests before the first line that was kept are
    unknown; those after the last reply count if the log ends with the totals.

    Raises:
        ChannelParameterError: ("path") it has totals alone, or lines that do not add up to them.
    """
    runs: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        start = _START.match(line)
        if start or not runs:
            runs.append((start[1] if start else "host", []))
        runs[-1][1].append(line)
    found: dict[str, Mask] = {}
    for host, lines in runs:
        mask = _run(lines)
        if mask.size:
            count = sum(name.partition(" #")[0] == host for name in found)
            found[f"{host} #{count + 1}" if count else host] = mask
    if not found:
        raise ChannelParameterError(
            "path", "this log of ping has no line for each request (was it ping -q?)"
        )
    return found


def _run(lines: Sequence[str]) -> Mask:
    sent = None
    for line in lines:
        if total := _SENT.search(line):
            sent = int(total[1] or total[2])
    if any(_NUMBER.search(line) for line in lines):
        return _numbered(lines, sent)
    fates = [
        not _REPLY.search(line) for line in lines if _REPLY.search(line) or _NO_REPLY.match(line)
    ]
    if fates and sent is not None and sent != len(fates):
        raise ChannelParameterError(
            "path", f"{sent} requests were sent, but {len(fates)} lines tell of one"
        )
    return np.array(fates, np.bool_)


def _numbered(lines: Sequence[str], sent: int | None) -> Mask:
    events = [
        (int(n[1]), bool(_REPLY.search(line))) for line in lines if (n := _NUMBER.search(line))
    ]
    numbers = np.array([number for number, _ in events], np.int64)
    steps = (np.diff(numbers) + 32768) % 65536 - 32768
    places = numbers[0] + np.concatenate(([0], np.cumsum(steps)))
    first, last = int(places.min()), int(places.max())
    if _START.match(lines[0]):
        first = min(first, 1 if _FROM_ONE.search(lines[0]) else 0)
        last = max(last, first + sent - 1) if sent else last
    if last - first >= MAX_PACKETS:
        raise ChannelParameterError("path", "sequence numbers span more than 2^30 packets")
    mask = np.ones(last - first + 1, np.bool_)
    mask[places[[replied for _, replied in events]] - first] = False
    return mask


def rtp_of_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """The sequence numbers of every RTP stream in Wireshark's CSV, in order of arrival, by SSRC
    and, where they are there, source and destination.

    Args:
        header: column names in lower case, one of them "info".
        rows: of cells.
    """
    info = header.index("info")
    ends = [header.index(name) for name in ("source", "destination") if name in header]
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        rtp = _RTP.search(row[info]) if info < len(row) else None
        if rtp:
            names = " > ".join(row[end] for end in ends if end < len(row))
            found[f"0x{int(rtp[1], 16):08x} {names}".strip()].append(int(rtp[2]))
    return found
