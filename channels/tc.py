"""Whole channels as lines of Linux ``tc qdisc ... netem``, both ways.

Source: tc-netem(8) and tc(8) for the words and units; net/sched/sch_netem.c for what they do: a
rate serves packets in order, ``limit`` counts all that are held (1000 by default), jitter is
uniform unless a distribution is named, and ``reorder P`` lets P of the packets skip the delay.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from channels.base import LossModel
from channels.erasure import PerfectLoss
from channels.jitter import NormalJitter, UniformJitter
from channels.link import Link
from channels.netem import from_netem, percent, percent_text, to_netem
from channels.parameters import ChannelParameterError

DEFAULT_LIMIT = 1000
NO_LIMIT = (1 << 32) - 1
"""The largest limit that tc takes, for a buffer without one."""

_OPTIONS = ("limit", "delay", "loss", "duplicate", "reorder", "rate")
_OTHERS = {
    "corrupt": "netem flips a bit in a share of the packets, whatever their size: use bit_error",
    "slot": "packets are not held for slots here",
    "ecn": "packets are lost here, not marked",
    "seed": "the seed is the scenario's",
}
_STARTS = ("tc", "sudo", "qdisc", "netem", *_OPTIONS)
_LABELS = ("p", "r", "1-h", "1-k", "p13", "p31", "p32", "p23", "p14")  # tc qdisc show has them
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6, "usec": 1e-6, "": 1e-6}
_SECONDS |= {"ns": 1e-9, "nsec": 1e-9}
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_PREFIXES |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

RATE_HEADERS = "netem's rate counts the headers of Ethernet, IP and UDP too, 42 bytes a packet"
LIMIT_WAY = "netem's limit also counts the packets that are under way"
JITTER_ORDER = "netem's jitter lets packets overtake each other; here they keep their order"
JITTER_RATE = "netem's jitter runs while a packet queues; here it comes on top"
COPY_LOST = "netem may lose one copy of a duplicate and not the other; here both are lost"


class TcLine(NamedTuple):
    """A command, and where what it does differs from the channel, a line each."""

    command: str
    notes: tuple[str, ...]


def is_tc(text: str) -> bool:
    """Whether a text is meant as a line of tc: ``tc qdisc ...``, or only netem's options."""
    words = text.split()
    return len(words) > 1 and words[0] in _STARTS


def from_tc(line: str) -> tuple[LossModel, Link]:
    """The channel that a line stands for: netem's options, with or without ``tc qdisc ...`` before
    them, or a line that ``tc qdisc show`` prints.

    Raises:
        ChannelParameterError: ("netem") not such a line, or an option that no channel here has.
    """
    words = line.split()
    if "netem" in words:
        words = words[words.index("netem") + 1 :]
        if words and words[0].endswith(":"):  # the handle, as tc qdisc show has it
            del words[0]
        while words and words[0] in ("root", "refcnt", "dev", "parent"):
            del words[: 1 if words[0] == "root" else 2]
    elif words[:1] and words[0] not in _OPTIONS:
        raise _error("only netem's lines are understood: tc qdisc add dev DEV root netem ...")
    given = _split(words)
    rate = _rate(given["rate"]) if "rate" in given else None
    delay_s, jitter = _delay(given.get("delay", ["0"]))
    limit = _limit(given.get("limit", [str(DEFAULT_LIMIT)]))
    if rate is None and limit < DEFAULT_LIMIT:
        raise _error(f"limit {limit} needs a rate: here only packets that wait for one are held")
    held, held_s = 0.0, 0.0
    if "reorder" in given:
        if rate is not None or jitter is not None or not delay_s:
            raise _error("reorder is understood with a constant delay and no rate")
        held, held_s, delay_s = 1.0 - _share("reorder", given["reorder"]), delay_s, 0.0
    link = Link(
        delay_s=delay_s,
        rate_bps=rate,
        queue_packets=None if rate is None or limit == NO_LIMIT else limit,
        jitter=jitter,
        reorder=held,
        reorder_s=held_s,
        duplicate=_share("duplicate", given["duplicate"]) if "duplicate" in given else 0.0,
    )
    if "loss" not in given:
        return PerfectLoss(), link
    loss = " ".join(word for word in given["loss"] if word not in _LABELS)
    return from_netem(loss), link


def to_tc(loss: LossModel, link: Link) -> TcLine | None:
    """The line for an equivalent channel, and in which details it differs; None if there is none.

    There is one for losses that `to_netem` knows (or none), and a link of delay, normal or uniform
    jitter, rate with a buffer counted in packets, duplicates, and reordering alone.
    """
    options, notes = [], []
    plain = Link(
        delay_s=link.delay_s,
        rate_bps=link.rate_bps,
        queue_packets=link.queue_packets,
        jitter=link.jitter,
        reorder=link.reorder,
        reorder_s=link.reorder_s,
        duplicate=link.duplicate,
    )
    if link != plain or not isinstance(link.jitter, (NormalJitter, UniformJitter, type(None))):
        return None
    if link.reorder:
        if link.delay_s or link.jitter or link.rate_bps:
            return None
        options.append(f"delay {_ms(link.reorder_s)} reorder {percent_text(1.0 - link.reorder)}")
    elif link.delay_s or link.jitter:
        options.append(f"delay {_ms(link.delay_s)}")
    if isinstance(link.jitter, UniformJitter):
        options.append(_ms(link.jitter.half_s))
    elif isinstance(link.jitter, NormalJitter):
        options.append(f"{_ms(link.jitter.std_s)} distribution normal")
    if link.jitter is not None:
        notes.append(JITTER_ORDER if link.rate_bps is None else JITTER_RATE)
    lossy = not isinstance(loss, PerfectLoss)
    if lossy:
        netem = to_netem(loss)
        if netem is None:
            return None
        options.append(netem)
    if link.duplicate:
        options.append(f"duplicate {percent_text(link.duplicate)}")
        notes += [COPY_LOST] * lossy
    if link.rate_bps is not None:
        limit = NO_LIMIT if link.queue_packets is None else link.queue_packets
        options.append(f"rate {_rate_text(link.rate_bps)} limit {limit}")
        notes.append(RATE_HEADERS)
        notes += [LIMIT_WAY] * (link.delay_s > 0.0 and link.queue_packets is not None)
    if not options:
        return None
    return TcLine(f"tc qdisc add dev DEV root netem {' '.join(options)}", tuple(notes))


def _error(problem: str) -> ChannelParameterError:
    return ChannelParameterError("netem", problem)


def _split(words: list[str]) -> dict[str, list[str]]:
    """The words of each option."""
    given: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word in _OTHERS:
            raise _error(f"{word} is not understood: {_OTHERS[word]}")
        if word in _OPTIONS:
            if word in given:
                raise _error(f"{word} is given twice")
            name, given[word] = word, []
        elif name:
            given[name].append(word)
        else:
            raise _error(f"{word!r} is no option of netem; understood are {', '.join(_OPTIONS)}")
    if not given:
        raise _error(f"no options; understood are {', '.join(_OPTIONS)}")
    return given


def _delay(words: list[str]) -> tuple[float, UniformJitter | NormalJitter | None]:
    law = "uniform"
    if "distribution" in words:
        at = words.index("distribution")
        law, words = " ".join(words[at + 1 :]), words[:at]
    if law not in ("uniform", "normal"):
        raise _error(f"distribution {law}: choose uniform or normal; netem's others are tables")
    if not 1 <= len(words) <= 3:
        raise _error("delay takes a time, a jitter and a correlation")
    if len(words) == 3 and percent(words[2]) > 0.0:
        raise _error("delays are independent here: leave their correlation out")
    delay_s = _seconds(words[0])
    spread_s = _seconds(words[1]) if len(words) > 1 else 0.0
    if not spread_s:
        return delay_s, None
    return delay_s, NormalJitter(spread_s) if law == "normal" else UniformJitter(spread_s)


def _share(name: str, words: list[str]) -> float:
    if (len(words) == 4 and words[2:] == ["gap", "1"]) or words[1:] == ["gap", "1"]:
        words = words[:-2]
    if not 1 <= len(words) <= 2:
        raise _error(f"{name} takes a percentage and a correlation")
    if len(words) == 2 and percent(words[1]) > 0.0:
        raise _error(f"{name}: only independent ones are understood; leave the correlation out")
    return percent(words[0])


def _limit(words: list[str]) -> int:
    if len(words) != 1 or not words[0].isdecimal() or not 1 <= int(words[0][:11]) <= NO_LIMIT:
        raise _error(f"limit takes a whole number of packets, got {' '.join(words)!r}")
    return int(words[0])


def _seconds(word: str) -> float:
    value, unit = _quantity(word.lower())
    scale = _SECONDS.get(unit.removesuffix("s") if unit.endswith("secs") else unit)
    if scale is None:
        raise _error(f"{word!r} is no time; write 50ms (a bare number is microseconds)")
    return value * scale


def _rate(words: list[str]) -> float:
    if len(words) != 1:
        raise _error("rate takes one rate; overheads and cells are not counted here")
    value, unit = _quantity(words[0].lower())
    kind = next((end for end in ("bit", "bps") if unit.endswith(end)), "")
    scale = _PREFIXES.get(unit.removesuffix(kind))
    if scale is None or (unit and not kind) or not value:
        raise _error(f"{words[0]!r} is no rate; write 1mbit, 500kbit or 100kbps (bytes)")
    return value * scale * (8.0 if kind == "bps" else 1.0)


def _quantity(word: str) -> tuple[float, str]:
    found = re.fullmatch(r"([0-9]{1,15}\.?[0-9]{0,15}|\.[0-9]{1,15})([a-z]*)", word)
    if found is None:
        raise _error(f"{word!r} is no quantity")
    return float(found[1]), found[2]


def _ms(seconds: float) -> str:
    return f"{1000.0 * seconds:.9g}ms"


def _rate_text(bps: float) -> str:
    for prefix, unit in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if bps % unit == 0.0:
            return f"{bps / unit:.0f}{prefix}bit"
    return f"{bps:.9g}bit"
