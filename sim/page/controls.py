"""What a slider or a menu may change in a running stream's scenario, and to what."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from channels import PRESETS, read_channel
from channels.theory import autocorrelation, loss_rate, mean_loss_run
from sim.scenario import Scenario, with_values

MAX_LOSS = 0.6
MAX_BURST = 20.0

Value = float | int | str


class Refused(ValueError):
    """A setting that cannot work; the message is one line for people."""


def values(scenario: Scenario) -> dict[str, Value]:
    """Where each control stands for a scenario.

    Returns:
        loss (share of packets), burst (mean length of a loss run in packets; 1 stands for
        independent losses), delay_s (mean random delay of a packet), slices, interleaver,
        codebook, deadline_s.
    """
    loss, burst = _loss_and_burst(scenario.channel)
    jitter = _link(scenario.channel).get("jitter", {})
    return {
        "loss": loss,
        "burst": burst,
        "delay_s": float(jitter.get("mean_s", jitter.get("std_s", 0.0))),
        "slices": scenario.stream.slices,
        "interleaver": scenario.stream.interleaver,
        "codebook": scenario.codec.codebook,
        "deadline_s": scenario.stream.playout_delay_s,
    }


_KEYS = {
    "slices": "stream.slices",
    "interleaver": "stream.interleaver",
    "codebook": "codec.codebook",
    "deadline_s": "stream.playout_delay_s",
}


def changed(scenario: Scenario, moved: Mapping[str, Value]) -> Scenario:
    """The scenario with some controls moved.

    Moving loss or burst puts a Gilbert channel in place of whatever loss process there was; a
    burst no longer than chance makes it, 1/(1 - loss), means independent losses. The link stays.

    Args:
        scenario: as it is now.
        moved: new values by control, keys and units as in `values`.

    Raises:
        Refused: no scenario may say that.
    """
    channel = scenario.channel
    if "loss" in moved or "burst" in moved:
        stands = {**values(scenario), **moved}
        loss, link = _gilbert(float(stands["loss"]), float(stands["burst"])), _link(channel)
        channel = {"loss": loss, "link": link} if link else loss
    if "delay_s" in moved:
        channel = _delayed(channel, float(moved["delay_s"]))
    assignment: dict[str, Any] = {key: moved[name] for name, key in _KEYS.items() if name in moved}
    try:
        return Scenario.model_validate(
            with_values(scenario.model_dump(), {"channel": channel, **assignment})
        )
    except ValidationError as failure:
        raise Refused(failure.errors(include_url=False)[0]["msg"]) from None


def command(base: Scenario, now: Scenario, file: str) -> str:
    """The command that runs what is set now: ``sim run FILE --set ...``."""
    words = ["sim", "run", file]
    before, after = base.model_dump(), now.model_dump()
    if before["channel"] != after["channel"]:
        words += ["--set", f"channel={_flow(after['channel'])}"]
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
    return loss, 1.0 if independent else run


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


def _delayed(channel: Mapping[str, Any], mean_s: float) -> dict[str, Any]:
    parts, link = _parts(channel), _link(channel)
    link.pop("jitter", None)
    if mean_s > 0:
        link["jitter"] = {"type": "pareto", "mean_s": mean_s}
    loss = dict(parts.get("loss", {"type": "perfect"}))
    return {"loss": loss, "link": link} if link else loss


def _flow(value: Any) -> str:
    """YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)
