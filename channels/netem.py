"""The loss options of Linux ``tc ... netem``, both ways.

Source: tc-netem(8), whose ``gemodel`` takes p r (1-h) (1-k), that is loss_bad and loss_good, and
whose ``state`` takes p13 p31 p32 p23 p14; net/sched/sch_netem.c.
"""

from __future__ import annotations

from channels.base import LossModel
from channels.erasure import UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.markov import FourState
from channels.parameters import ChannelParameterError

CORRELATED = (
    "netem's loss correlation does not do what it says: `loss 20% 50%` was measured to lose 3.0%, "
    "`20% 25%` 10.3% and `5% 75%` nothing (Linux 6.1); use `loss gemodel` or `loss state`"
)


def from_netem(options: str) -> LossModel:
    """The model that ``loss ...`` of netem stands for; numbers are percent with or without ``%``.

    Understood are ``loss [random] P``, ``loss gemodel P [R [1-H [1-K]]]`` and
    ``loss state P13 [P31 [P32 [P23 [P14]]]]``, with netem's defaults.

    Raises:
        ChannelParameterError: anything else; a correlation is refused with the reason.
    """
    words = options.split()
    if words[:1] == ["loss"]:
        words = words[1:]
    kind = words.pop(0) if words and words[0] in ("random", "gemodel", "state") else "random"
    values = [percent(word) for word in words]
    most = {"random": 2, "gemodel": 4, "state": 5}[kind]
    if not 1 <= len(values) <= most:
        raise ChannelParameterError("netem", f"loss {kind} takes 1 to {most} numbers")
    if kind == "random":
        if len(values) == 2 and values[1] > 0.0:
            raise ChannelParameterError("netem", CORRELATED)
        return UniformErasure(values[0])
    p = values[0]
    if kind == "gemodel":
        r = values[1] if len(values) > 1 else 1.0 - p
        bad = values[2] if len(values) > 2 else 1.0
        good = values[3] if len(values) > 3 else 0.0
        return GilbertElliott(p, r, good, bad)
    p31 = values[1] if len(values) > 1 else 1.0 - p
    return FourState(
        p,
        p31,
        values[2] if len(values) > 2 else 0.0,
        values[3] if len(values) > 3 else 1.0,
        values[4] if len(values) > 4 else 0.0,
    )


def percent(word: str) -> float:
    """A share in [0, 1] from percent, with or without ``%``.

    Raises:
        ChannelParameterError: ("netem") it is none.
    """
    try:
        value = float(word.removesuffix("%")) / 100.0
    except ValueError:
        raise ChannelParameterError("netem", f"{word!r} is not a percentage") from None
    if not 0.0 <= value <= 1.0:
        raise ChannelParameterError("netem", f"{word!r} is not between 0% and 100%")
    return value


def to_netem(model: LossModel) -> str | None:
    """The equivalent netem options, such as ``loss gemodel 5% 20%``; None if there are none."""
    if isinstance(model, UniformErasure):
        return f"loss random {percent_text(model.loss)}"
    if isinstance(model, GilbertElliott):
        values = [model.p, model.r]
        if model.loss_bad != 1.0 or model.loss_good != 0.0:
            values.append(model.loss_bad)
        if model.loss_good != 0.0:
            values.append(model.loss_good)
        return "loss gemodel " + " ".join(map(percent_text, values))
    if isinstance(model, FourState):
        values = [model.p13, model.p31, model.p32, model.p23, model.p14]
        return "loss state " + " ".join(map(percent_text, values))
    return None


def percent_text(probability: float) -> str:
    """A probability as tc writes it, such as ``5%``."""
    return f"{100.0 * probability:.6g}%"
