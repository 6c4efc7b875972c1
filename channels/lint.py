"""Impossible and misleading channels, found before they cost an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from channels.base import LossModel
from channels.link import Link
from channels.netem import CORRELATED
from channels.parameters import ChannelParameterError
from channels.spec import read_channel
from channels.tc import from_tc, to_tc
from channels.theory import (
    effective_sample_size,
    loss_rate,
    loss_rate_variance,
    mean_loss_run,
    packets_for_half_width,
)

_OVERHEAD_BYTES = 28  # IPv4 and UDP headers, RFC 791 and RFC 768


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark.

    ``level`` is "error" (cannot be run), "warning" (likely not what was meant) or "note".
    ``where`` names the parameter; ``message`` is one line.
    """

    level: str
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Stream:
    """What is to be sent through the channel; None or 1 where it does not matter.

    Attributes:
        packets: packets in one run.
        packet_bytes: bytes of a datagram.
        mtu_bytes: largest IP packet of the path.
        interval_s: seconds between packets.
        interleaver_packets: packets over which an interleaver spreads its input, an image.
        deadline_s: playout deadline after sending, seconds.
    """

    packets: int | None = None
    packet_bytes: int | None = None
    mtu_bytes: int = 1500
    interval_s: float | None = None
    interleaver_packets: int = 1
    deadline_s: float | None = None


def lint(spec: Mapping[str, object], stream: Stream | None = None) -> list[Finding]:
    """Everything about a channel (see `channels.spec.read_channel`) that deserves a remark."""
    stream = stream or Stream()
    try:
        loss, link = read_channel(spec)
    except ChannelParameterError as error:
        return [Finding("error", error.parameter, error.problem)]
    found = [Finding("warning", "loss", line) for line in loss.warnings()]
    return found + _lint_loss(loss, stream) + _lint_link(link, stream) + _lint_stream(link, stream)


def lint_netem(options: str) -> list[Finding]:
    """Remarks about a line of tc or netem's options, such as ``loss random 20% 50%``."""
    try:
        model, link = from_tc(options)
    except ChannelParameterError as error:
        level = "warning" if error.problem == CORRELATED else "error"
        return [Finding(level, error.parameter, error.problem)]
    found = [Finding("warning", "netem", line) for line in model.warnings()]
    line = to_tc(model, link)
    found += [Finding("note", "netem", note) for note in (line.notes if line else ())]
    found.append(Finding("note", "netem", "netem starts in the good state and loses less at first"))
    return found


def _lint_loss(loss: LossModel, stream: Stream) -> list[Finding]:
    chain = loss.chain()
    if chain is None or not 0.0 < loss_rate(chain) < 1.0:
        return []
    found = []
    rate, burst = loss_rate(chain), mean_loss_run(chain)
    needed = packets_for_half_width(chain, 0.01)
    found.append(
        Finding(
            "note",
            "packets",
            f"a loss rate of {rate:.4g} known to +-1 point (95%) takes {needed:,} packets",
        )
    )
    if stream.packets is None:
        return found
    if burst > stream.packets:
        found.append(
            Finding(
                "warning",
                "mean_burst",
                f"a mean burst of {burst:.4g} packets is longer than the stream of "
                f"{stream.packets}: runs lose everything or nothing",
            )
        )
    worth = effective_sample_size(chain, stream.packets)
    sigma = loss_rate_variance(chain, stream.packets) ** 0.5
    if sigma > 0.01:
        found.append(
            Finding(
                "warning",
                "packets",
                f"{stream.packets} packets are worth {worth:.3g} independent ones: one run's loss "
                f"rate has a standard deviation of "
                f"{100 * sigma:.2g} points; use many seeds",
            )
        )
    return found


def _lint_link(link: Link, stream: Stream) -> list[Finding]:
    found = []
    size = stream.packet_bytes
    rate = (
        link.rate_bps
        if link.rate_bps is not None
        else (link.capacity.rate_bps if link.capacity else None)
    )
    if size is not None and link.queue_bytes is not None and size > link.queue_bytes:
        found.append(
            Finding(
                "error",
                "queue_bytes",
                f"of {link.queue_bytes} is less than one packet of {size} bytes: nothing passes",
            )
        )
    if size is not None and rate is not None and stream.interval_s:
        offered = 8.0 * size / stream.interval_s
        if offered > rate:
            buffered = link.queue_bytes is not None or link.queue_packets is not None
            ends = (
                f"{1 - rate / offered:.0%} will be tail-dropped"
                if buffered
                else ("the queue and the delay grow without end; give queue_packets or queue_bytes")
            )
            found.append(
                Finding(
                    "warning",
                    "rate_bps",
                    f"the stream offers up to {offered:.4g} bit/s to a link of {rate:.4g}: {ends}",
                )
            )
    if link.delay_s == 0.0 and link.jitter is not None:
        found.append(
            Finding("note", "jitter", "with delay_s 0 only its positive part can have effect")
        )
    if link.bit_error and size is not None:
        hit = 1.0 - (1.0 - link.bit_error) ** (8 * size)
        if hit > 0.5:
            found.append(Finding("warning", "bit_error", f"{hit:.0%} of packets arrive corrupted"))
    return found


def _lint_stream(link: Link, stream: Stream) -> list[Finding]:
    found = []
    if stream.packet_bytes is not None and stream.packet_bytes + _OVERHEAD_BYTES > stream.mtu_bytes:
        found.append(
            Finding(
                "warning",
                "packet_bytes",
                f"{stream.packet_bytes} + {_OVERHEAD_BYTES} bytes of IP and UDP headers exceed the "
                f"MTU of {stream.mtu_bytes}: a fragment lost is the packet lost; send at most "
                f"{stream.mtu_bytes - _OVERHEAD_BYTES}",
            )
        )
    if stream.deadline_s is None:
        return found
    if link.delay_s > stream.deadline_s:
        found.append(
            Finding(
                "error",
                "delay_s",
                f"of {link.delay_s:g} s is beyond the deadline of {stream.deadline_s:g} s: every "
                "packet is late",
            )
        )
    if stream.interval_s is not None and stream.interleaver_packets > 1:
        count, left_s = stream.interleaver_packets, stream.deadline_s - link.delay_s
        late = count - 1 - math.floor(left_s / stream.interval_s + 1e-9)
        if 0 < late <= count:
            wait = (count - 1) * stream.interval_s + link.delay_s
            found.append(
                Finding(
                    "warning",
                    "deadline",
                    f"the {count} packets of an image take {wait:.4g} s to send and to travel, "
                    f"beyond the deadline of {stream.deadline_s:g} s: the last {late} are late",
                )
            )
    return found
