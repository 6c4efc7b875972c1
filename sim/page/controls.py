"""The controls of the page: which settings of the scenario they change, and to which values."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from channels import PRESETS, read_channel
from channels.link import Link
from channels.theory import autocorrelation, loss_rate, mean_loss_run
from codec.concealment import CONCEALERS, VIDEO_CONCEALERS
from codec.patches import PATCHES
from sim.page.text import picture_word
from sim.scenario.schema import Scenario, with_values

Value = float | int | str

BLOCK = 16
"""Packets that parity is added to, where the scenario has no block of its own."""

INTERLEAVERS = {
    "raster": "row by row",
    "checkerboard": "checkerboard",
    "low_discrepancy": "scattered evenly",
    "random": "scattered at random",
}

_REPAIRS = {
    "none": "none: grey holes",
    "most_frequent": "most frequent codeword",
    "nearest": "copy the nearest",
    "neighbour_average": "average the neighbours",
    "inpaint": "transformer",
}
_VIDEO_REPAIRS = {
    "inpaint": "transformer, each frame alone",
    "previous": "copy the frame before",
    "previous_or_average": "frame before or neighbours",
    "inpaint_memory": "transformer with memory",
}


class SettingRefused(ValueError):
    """A setting that cannot work; the message is one line for people."""


@dataclass(frozen=True)
class Control:
    """A slider or menu: a setting with a few values in ascending order.

    Attributes:
        key: as in `values`.
        label: for people.
        choices: what can be chosen.
        text: a choice in words, as it is read beside the label.
        ordered: whether the choices go from less to more.
    """

    key: str
    label: str
    choices: Sequence[Value]
    text: Callable[[Any], str]
    ordered: bool = True


def repairs(base: Scenario, has_memory: bool) -> Control:
    """The menu of repairs: of a video also those that remember, if the model can; and whatever
    the scenario names."""
    labels = _REPAIRS if base.video is None else _REPAIRS | _VIDEO_REPAIRS
    offered = {*labels, *base.concealers} - ({"inpaint_memory"} if not has_memory else set())
    names = [name for name in (*CONCEALERS, *VIDEO_CONCEALERS) if name in offered]
    return Control("repair", "repair", names, lambda name: labels.get(name, name), ordered=False)


def controls(levels: Sequence[int], stands: Mapping[str, Value], base: Scenario) -> list[Control]:
    """Every other control, with where it stands now among its choices.

    Args:
        levels: codebook sizes of the model.
        stands: as `values` gives.
        base: the scenario that the page began with.
    """
    block = base.stream.fec.data if base.stream.fec else BLOCK
    hundredths: list[Value] = [percent / 100 for percent in range(0, 61)]

    def parity_text(parity: int) -> str:
        return f"{parity} per {block}" if parity else "none"

    def retries_text(retries: int) -> str:
        return ("none", "once", "twice")[retries] if retries < 3 else f"up to {retries} times"

    def control(
        key: str, label: str, choices: Sequence[Value], text: Callable[[Any], str]
    ) -> Control:
        now = stands[key]
        known = choices if now in choices else sorted([*choices, now], key=float)
        return Control(key, label, tuple(known), text)

    return [
        control("loss", "packets lost", hundredths, lambda x: f"{100 * x:.3g}%"),
        control("burst", "burst length", (1.0, *_BURSTS), _burst_text),
        control("parity", "parity packets", (0, *_PARITIES), parity_text),
        control("retries", "retransmission", (0, 1, 2, 3, 4, 8), retries_text),
        control(
            "slices",
            f"packets per {picture_word(base, 'image')}",
            (2, 4, 8, 16, 32, 64, 128, 256),
            str,
        ),
        Control(
            "interleaver",
            "dealt out",
            tuple(INTERLEAVERS),
            INTERLEAVERS.__getitem__,
            ordered=False,
        ),
        control("codebook", "codewords", tuple(levels), lambda x: f"{x:,}"),
        control("patch", "pixels a token", PATCHES, lambda x: f"{x} x {x}"),
        control("deadline_s", "deadline", _DEADLINES_S, lambda x: f"{x:g} s"),
        control("delay_s", "random delay", (0.0, *_DELAYS_S), lambda x: f"{1000 * x:g} ms"),
        control("rate_bps", "link rate", (*_RATES_BPS, math.inf), _rate_text),
    ]


_PARITIES = (1, 2, 3, 4, 6, 8, 12, 16)
_BURSTS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
_DEADLINES_S = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_DELAYS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_RATES_BPS = (2e3, 4e3, 6e3, 8e3, 1e4, 1.2e4, 1.5e4, 2e4, 3e4, 5e4, 1e5, 1e6)


def _burst_text(burst: float) -> str:
    return "independent" if burst == 1.0 else f"{burst:.3g} packets"


def _rate_text(rate_bps: float) -> str:
    if math.isinf(rate_bps):
        return "unlimited"
    return f"{rate_bps / 1e6:.3g} Mbit/s" if rate_bps >= 1e6 else f"{rate_bps / 1e3:.3g} kbit/s"


def values(scenario: Scenario) -> dict[str, Value]:
    """Where each control stands for a scenario.

    Returns:
        loss (share of packets), burst (mean length of a loss run in packets; 1 stands for
        independent losses), delay_s (mean random delay of a packet), rate_bps (of the link, the
        mean of one that varies; infinity if it is unlimited), slices, interleaver, codebook, patch
        (pixels a token stands for, each way), deadline_s, parity (packets in a block of an erasure
        code), retries (requests for one packet).
    """
    stream = scenario.stream
    loss, burst = _loss_and_burst(scenario.channel)
    jitter = _link(scenario.channel).get("jitter", {})
    return {
        "loss": loss,
        "burst": burst,
        "delay_s": float(jitter.get("mean_s", jitter.get("std_s", 0.0))),
        "rate_bps": _rate(read_channel(scenario.channel)[1]),
        "slices": stream.slices,
        "interleaver": stream.interleaver,
        "codebook": scenario.codec.codebook,
        "patch": scenario.codec.patch,
        "deadline_s": stream.playout_delay_s,
        "parity": stream.fec.parity if stream.fec else 0,
        "retries": stream.arq.retries if stream.arq else 0,
    }


_KEYS = {
    "slices": "stream.slices",
    "interleaver": "stream.interleaver",
    "codebook": "codec.codebook",
    "patch": "codec.patch",
    "deadline_s": "stream.playout_delay_s",
}
_PROTECTION: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("fec", "parity", {"data": BLOCK}),
    ("arq", "retries", {}),
)
"""Sections of the stream that are there if a number is above 0, and what a new one begins with."""


def changed(scenario: Scenario, moved: Mapping[str, Value]) -> Scenario:
    """The scenario with some controls moved.

    Moving loss or burst puts a Gilbert channel in place of whatever loss process there was; a
    burst no longer than chance makes it, 1/(1 - loss), means independent losses. The link stays;
    without a rate it has no queue.

    Args:
        scenario: as it is now.
        moved: new values by control, keys and units as in `values`.

    Raises:
        SettingRefused: no scenario may say that.
    """
    channel = scenario.channel
    if "loss" in moved or "burst" in moved:
        stands = {**values(scenario), **moved}
        loss, link = _gilbert(float(stands["loss"]), float(stands["burst"])), _link(channel)
        channel = {"loss": loss, "link": link} if link else loss
    if "delay_s" in moved or "rate_bps" in moved:
        channel = _linked(channel, moved)
    more: dict[str, Any] = {}
    for section, number, new in _PROTECTION:
        if number in moved:
            now = getattr(scenario.stream, section)
            block = {**(now.model_dump() if now else new), number: moved[number]}
            more[f"stream.{section}"] = block if moved[number] else None
    more |= {key: moved[name] for name, key in _KEYS.items() if name in moved}
    try:
        return Scenario.model_validate(
            with_values(scenario.model_dump(), {"channel": channel, **more})
        )
    except ValidationError as failure:
        raise SettingRefused(failure.errors(include_url=False)[0]["msg"]) from None


def command(base: Scenario, now: Scenario, start: Sequence[str]) -> str:
    """The command that runs what is set now; ``start``: its first words, which run the base."""
    words = [*start]
    before, after = base.model_dump(), now.model_dump()
    if before["channel"] != after["channel"]:
        words += ["--set", f"channel={_flow(after['channel'])}"]
    for section, number, _ in _PROTECTION:
        block = getattr(now.stream, section)
        if getattr(base.stream, section) != block:
            about = block and {
                number: getattr(block, number),
                **block.model_dump(exclude_defaults=True),
            }
            words += ["--set", f"stream.{section}={_flow(about)}"]
    for key in _KEYS.values():
        section, field = key.split(".")
        if before[section][field] != after[section][field]:
            words += ["--set", f"{key}={after[section][field]}"]
    return shlex.join(words)


def _loss_and_burst(channel: Mapping[str, Any]) -> tuple[float, float]:
    chain = read_channel(channel)[0].chain()
    if chain is None:
        return 0.0, 1.0
    loss, run = loss_rate(chain), mean_loss_run(chain)
    independent = loss in (0.0, 1.0) or abs(float(autocorrelation(chain, 1)[0])) < 1e-9
    return round(loss, 6), 1.0 if independent else round(run, 6)


def _parts(channel: Mapping[str, Any]) -> Mapping[str, Any]:
    """Loss and link of a channel section, whichever way it is written."""
    if "preset" in channel:
        return _parts(PRESETS[channel["preset"]].channel)
    return {"loss": channel} if "type" in channel else channel


def _link(channel: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_parts(channel).get("link", {}))


def _gilbert(loss: float, burst: float) -> dict[str, Any]:
    if loss == 0.0:
        return {"type": "perfect"}
    if burst * (1 - loss) <= 1.0:
        return {"type": "uniform", "loss": loss}
    return {"type": "gilbert_elliott", "loss": loss, "mean_burst": burst}


def _rate(link: Link) -> float:
    trace = link.capacity
    if trace is not None:
        times = trace.opportunities_ms
        return 8000 * trace.mtu_bytes * len(times) / times[-1]
    return math.inf if link.rate_bps is None else float(link.rate_bps)


def _linked(channel: Mapping[str, Any], moved: Mapping[str, Value]) -> dict[str, Any]:
    """With another random delay or rate of the link."""
    link = _link(channel)
    if "delay_s" in moved:
        link["jitter"] = moved["delay_s"] and {"type": "pareto", "mean_s": moved["delay_s"]}
    if "rate_bps" in moved:
        rate = float(moved["rate_bps"])
        link |= {"capacity": None, "mtu_bytes": None, "rate_bps": rate}
        if math.isinf(rate):
            link |= dict.fromkeys(("rate_bps", "queue_packets", "queue_bytes"))
    link = {key: value for key, value in link.items() if value}
    loss = dict(_parts(channel).get("loss", {"type": "perfect"}))
    return {"loss": loss, "link": link} if link else loss


def _flow(value: Any) -> str:
    """YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)
