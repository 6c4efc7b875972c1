"""Whole channels as plain data: ``{"loss": {...}, "link": {...}}``, a loss model alone, a preset.

`read_channel` reads what a scenario file or a command line says; `loss_spec` writes a loss model
back, and `to_yaml` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from channels.base import LossModel
from channels.composite import AnyLoss
from channels.erasure import PerfectLoss, Scripted, UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.jitter import EmpiricalJitter, Jitter, NormalJitter, ParetoJitter, UniformJitter
from channels.link import DelayLoss, Link
from channels.markov import FourState, OrderN
from channels.parameters import ChannelParameterError, as_list
from channels.presets import PRESETS
from channels.registry import LOSS_TYPES, Form, LossType, Parameter, loss_model, parse_inline
from channels.tc import from_tc, is_tc
from channels.trace import CapacityTrace

LINK_PARAMETERS = (
    Parameter("delay_s", "number", "propagation delay, seconds"),
    Parameter("rate_bps", "number", "bottleneck rate, bits per second; none is unlimited"),
    Parameter("capacity", "path", "mahimahi trace of delivery times instead of a rate"),
    Parameter("mtu_bytes", "whole", "bytes per delivery of the capacity trace; 1500"),
    Parameter("queue_packets", "whole", "packets the buffer holds; none is unlimited"),
    Parameter("queue_bytes", "whole", "bytes the buffer holds; none is unlimited"),
    Parameter(
        "jitter",
        "mapping",
        "extra delay, seconds: type normal with std_s, uniform with half_s, pareto with mean_s and "
        "shape, or empirical with samples_s",
    ),
    Parameter("reorder", "probability", "packets held back so that later ones overtake"),
    Parameter("reorder_s", "number", "how long they are held back, seconds"),
    Parameter("duplicate", "probability", "packets that arrive twice"),
    Parameter("bit_error", "probability", "probability of each bit to flip"),
    Parameter("delay_loss", "mapping", "loss by extra delay: none at start_s, certain at full_s"),
)

_T = TypeVar("_T")
_Make = Callable[..., Jitter]
_JITTER: Mapping[str, tuple[Form, _Make]] = {
    "normal": (Form(("std_s",)), NormalJitter),
    "uniform": (Form(("half_s",)), UniformJitter),
    "pareto": (Form(("mean_s",), ("shape",)), ParetoJitter),
    "empirical": (
        Form(("samples_s",)),
        lambda samples_s: EmpiricalJitter(tuple(as_list("samples_s", samples_s))),
    ),
}


def read_channel(spec: Mapping[str, object]) -> tuple[LossModel, Link]:
    """The loss model and the link that plain data describe.

    Args:
        spec: ``{"preset": name}``, or a loss model (``{"type": ...}``, then the link is perfect),
            or ``{"loss": {...}, "link": {...}}`` with either left out.

    Raises:
        ChannelParameterError: with the path of the key at fault, such as ``loss.mean_burst``.
    """
    if "preset" in spec:
        if len(spec) > 1:
            raise ChannelParameterError("preset", "stands alone; copy its parts to change them")
        name = spec["preset"]
        if not isinstance(name, str) or name not in PRESETS:
            raise ChannelParameterError(
                "preset", f"{name!r} is unknown; choose one of {', '.join(PRESETS)}"
            )
        return read_channel(PRESETS[name].channel)
    if "type" in spec:
        return loss_model(spec), Link()
    unknown = [key for key in spec if key not in ("loss", "link")]
    if unknown or not spec:
        raise ChannelParameterError(
            str(unknown[0]) if unknown else "type",
            "is not known here; a channel has loss and link, or type, or preset",
        )
    loss: LossModel = PerfectLoss()
    if "loss" in spec:
        loss = _within("loss", loss_model, spec["loss"])
    link = _within("link", link_model, spec["link"]) if "link" in spec else Link()
    return loss, link


def link_model(spec: Mapping[str, object]) -> Link:
    """A link from plain data; keys are `LINK_PARAMETERS`.

    Raises:
        ChannelParameterError: with the path of the key at fault.
    """
    known = [parameter.name for parameter in LINK_PARAMETERS]
    for key in spec:
        if key not in known:
            raise ChannelParameterError(
                str(key), f"is not a parameter of a link; its parameters: {', '.join(known)}"
            )
    given: dict[str, Any] = dict(spec)
    mtu_bytes = given.pop("mtu_bytes", 1500)
    if "capacity" in given:
        path = given["capacity"]
        if not isinstance(path, str):
            raise ChannelParameterError("capacity", f"must be the path of a trace, got {path!r}")
        given["capacity"] = CapacityTrace.read(path, mtu_bytes)
    elif "mtu_bytes" in spec:
        raise ChannelParameterError("mtu_bytes", "goes with capacity")
    if "jitter" in given:
        given["jitter"] = _within("jitter", _jitter, given["jitter"])
    if "delay_loss" in given:
        given["delay_loss"] = _within("delay_loss", _delay_loss, given["delay_loss"])
    return Link(**given)


def _jitter(spec: Mapping[str, object]) -> Jitter:
    name = spec.get("type")
    if not isinstance(name, str) or name not in _JITTER:
        raise ChannelParameterError("type", f"must be one of {', '.join(_JITTER)}; got {name!r}")
    form, make = _JITTER[name]
    return make(**_named(f"{name} jitter", form, {k: v for k, v in spec.items() if k != "type"}))


def _delay_loss(spec: Mapping[str, object]) -> DelayLoss:
    return DelayLoss(**_named("delay_loss", Form(("start_s", "full_s")), spec))


def _named(owner: str, form: Form, given: Mapping[str, object]) -> dict[str, Any]:
    names = (*form.required, *form.optional)
    parameters = tuple(Parameter(name, "number", name) for name in names)
    LossType(owner, "", parameters, (form,), PerfectLoss).check_names(given)
    return dict(given)


def _within(key: str, read: Callable[[Mapping[str, object]], _T], spec: object) -> _T:
    if not isinstance(spec, Mapping):
        raise ChannelParameterError(key, f"must be a mapping, got {spec!r}")
    try:
        return read(spec)
    except ChannelParameterError as error:
        raise ChannelParameterError(f"{key}.{error.parameter}", error.problem) from None


def loss_spec(model: LossModel) -> dict[str, object]:
    """Plain data that `channels.registry.loss_model` turns into an equal model.

    Raises:
        ValueError: models whose parameters are files or laws have no such data.
    """
    if isinstance(model, PerfectLoss):
        return {"type": "perfect"}
    if isinstance(model, UniformErasure):
        return {"type": "uniform", "loss": model.loss}
    if isinstance(model, GilbertElliott):
        spec: dict[str, object] = {"type": "gilbert_elliott", **asdict(model)}
        if model.loss_good == 0.0:
            spec["type"] = "gilbert"
            del spec["loss_good"]
        return spec
    if isinstance(model, FourState):
        return {"type": "four_state", **asdict(model)}
    if isinstance(model, OrderN):
        return {"type": "order_n", "loss_after": list(model.loss_after)}
    if isinstance(model, Scripted):
        mask = model.script.translate(bytes.maketrans(b"\0\1", b"01")).decode()
        return {"type": "scripted", "mask": mask, "at_end": model.at_end}
    if isinstance(model, AnyLoss):
        return {"type": "any", "of": [loss_spec(part) for part in model.parts]}
    raise ValueError(f"{type(model).__name__} has no plain form")


def spec_of_text(text: str) -> dict[str, object]:
    """Plain data for `read_channel` from one line: the name of a preset, ``type:name=value,...``
    or a line of tc (see `channels.tc.from_tc`).

    Raises:
        ChannelParameterError: none of these; ("type") if it looks like none of them.
    """
    if text in PRESETS:
        return {"preset": text}
    if text.partition(":")[0].strip() in LOSS_TYPES:
        return parse_inline(text)
    if is_tc(text):
        loss, link = from_tc(text)
        return (
            {"loss": loss_spec(loss), "link": _link_spec(link)}
            if link != Link()
            else loss_spec(loss)
        )
    raise ChannelParameterError(
        "type",
        f"is no channel: give a preset ({', '.join(PRESETS)}), type:name=value,... with a type "
        f"among {', '.join(LOSS_TYPES)}, or a line of tc netem",
    )


def _link_spec(link: Link) -> dict[str, object]:
    """Plain data of a link that `from_tc` made."""
    default = Link()
    spec = {key: value for key, value in asdict(link).items() if value != getattr(default, key)}
    if isinstance(link.jitter, NormalJitter):
        spec["jitter"] = {"type": "normal", "std_s": link.jitter.std_s}
    elif isinstance(link.jitter, UniformJitter):
        spec["jitter"] = {"type": "uniform", "half_s": link.jitter.half_s}
    return spec


def to_yaml(spec: Mapping[str, object], indent: int = 0) -> str:
    """YAML 1.2 text of a spec made of mappings, lists, numbers and plain text."""
    pad = " " * indent
    lines = []
    for key, value in spec.items():
        if isinstance(value, Mapping):
            lines.append(f"{pad}{key}:\n{to_yaml(value, indent + 2)}")
        elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            lines.append(f"{pad}{key}:\n")
            for item in value:
                block = to_yaml(item, indent + 4)
                lines.append(f"{pad}  - {block[indent + 4 :]}")
        else:
            lines.append(f"{pad}{key}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(v) for v in value) + "]"
    if isinstance(value, str):
        return value if value.replace("_", "").isalpha() else f'"{value}"'
    return repr(value)
