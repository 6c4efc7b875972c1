"""Loss models by name: what a scenario file or a command line may say.

``loss_model({"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5})`` builds a model;
``LOSS_TYPES`` lists the types with their parameters, for help texts and schemas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from channels.base import LossModel
from channels.composite import AnyLoss
from channels.erasure import PerfectLoss, Scripted, UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.markov import FourState, OrderN
from channels.parameters import ChannelParameterError
from channels.renewal import SemiMarkov
from channels.trace import LossTrace


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a loss type.

    ``kind`` is "probability", "number", "whole", "text", "mask", "path", "list" or "model".
    """

    name: str
    kind: str
    description: str


@dataclass(frozen=True, slots=True)
class Form:
    """One way to state a loss type: names that must be given, and names that may be."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LossType:
    """One loss type.

    Attributes:
        name: as written after ``type:``.
        summary: one line.
        parameters: all it knows.
        forms: the alternative ways to state it; one is used at a time.
        make: keyword arguments -> model; raises ChannelParameterError.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    forms: tuple[Form, ...]
    make: Callable[..., LossModel]

    def check_names(self, given: Mapping[str, object]) -> None:
        """Raise ChannelParameterError unless the given names make up one of the forms."""
        known = [p.name for p in self.parameters]
        for name in given:
            if name not in known:
                has = ", ".join(known) if known else "none"
                raise ChannelParameterError(
                    name, f"is not a parameter of {self.name}; its parameters: {has}"
                )
        if any(
            given.keys() >= set(form.required) and given.keys() <= {*form.required, *form.optional}
            for form in self.forms
        ):
            return
        nearest = max(self.forms, key=lambda form: len(given.keys() & set(form.required)))
        wanted = ", or ".join(" + ".join(form.required) for form in self.forms)
        for name in nearest.required:
            if name not in given:
                raise ChannelParameterError(name, f"is missing; {self.name} needs {wanted}")
        for name in given:
            if name not in (*nearest.required, *nearest.optional):
                raise ChannelParameterError(
                    name, f"does not go with {' + '.join(nearest.required)}; drop one or the other"
                )


def _gilbert_elliott(**given: float) -> LossModel:
    if "mean_burst" in given:
        return GilbertElliott.from_loss(**given)
    return GilbertElliott(**given)


def _semi_markov(**given: Any) -> LossModel:
    if "bursts" in given:
        return SemiMarkov.resampled(**given)
    return SemiMarkov.heavy_tailed(**given)


def _any(of: object) -> LossModel:
    if isinstance(of, str) or not isinstance(of, Sequence):
        raise ChannelParameterError("of", f"must be a list of loss models, got {of!r}")
    parts = []
    for index, part in enumerate(of):
        if not isinstance(part, Mapping):
            raise ChannelParameterError(f"of[{index}]", "must be a loss model (type: ...)")
        try:
            parts.append(loss_model(part))
        except ChannelParameterError as error:
            raise ChannelParameterError(f"of[{index}].{error.parameter}", error.problem) from None
    return AnyLoss(tuple(parts))


def _order_n(loss_after: Any) -> LossModel:
    return OrderN(tuple(loss_after) if isinstance(loss_after, list) else loss_after)


_LOSS = Parameter("loss", "probability", "loss rate, 0 to 1")
_MEAN_BURST = Parameter("mean_burst", "number", "mean length of a loss run in packets, >= 1")
_P = Parameter("p", "probability", "P(good -> bad) per packet")
_R = Parameter("r", "probability", "P(bad -> good) per packet")
_LOSS_BAD = Parameter("loss_bad", "probability", "loss rate in the bad state; default 1")

_TYPES = (
    LossType("perfect", "loses nothing", (), (Form(),), PerfectLoss),
    LossType(
        "uniform",
        "every packet lost with the same probability, independently",
        (_LOSS,),
        (Form(("loss",)),),
        UniformErasure,
    ),
    LossType(
        "gilbert",
        "bursts: a good state without loss and a bad state",
        (_LOSS, _MEAN_BURST, _P, _R, _LOSS_BAD),
        (Form(("loss", "mean_burst")), Form(("p", "r"), ("loss_bad",))),
        _gilbert_elliott,
    ),
    LossType(
        "gilbert_elliott",
        "bursts: a good and a bad state, each with its own loss rate",
        (
            _LOSS,
            _MEAN_BURST,
            _P,
            _R,
            Parameter("loss_good", "probability", "loss rate in the good state; default 0"),
            _LOSS_BAD,
        ),
        (Form(("loss", "mean_burst")), Form(("p", "r"), ("loss_good", "loss_bad"))),
        _gilbert_elliott,
    ),
    LossType(
        "four_state",
        "netem's loss state: gaps with lone losses, bursts with lone receptions",
        (
            Parameter("p13", "probability", "P(received in gap -> lost in burst)"),
            Parameter("p31", "probability", "P(lost in burst -> received in gap)"),
            Parameter("p32", "probability", "P(lost in burst -> received in burst); default 0"),
            Parameter("p23", "probability", "P(received in burst -> lost in burst); default 1"),
            Parameter("p14", "probability", "P(received in gap -> lone loss); default 0"),
        ),
        (Form(("p13", "p31"), ("p32", "p23", "p14")),),
        FourState,
    ),
    LossType(
        "order_n",
        "loss probability given the fates of the last n packets",
        (
            Parameter(
                "loss_after",
                "list",
                "2^n probabilities, one per history (binary, oldest first, 1 = lost)",
            ),
        ),
        (Form(("loss_after",)),),
        _order_n,
    ),
    LossType(
        "semi_markov",
        "bursts with a heavy tail, or runs resampled from observed lengths",
        (
            _LOSS,
            _MEAN_BURST,
            Parameter("tail", "number", "tail index of burst lengths; default 1.5, less = heavier"),
            Parameter("longest", "whole", "longest burst in packets; default 1000"),
            Parameter("bursts", "list", "observed lengths of lost runs"),
            Parameter("gaps", "list", "observed lengths of received runs"),
        ),
        (Form(("loss", "mean_burst"), ("tail", "longest")), Form(("bursts", "gaps"))),
        _semi_markov,
    ),
    LossType(
        "outages",
        "an on/off link: packets pass, then vanish, by turns",
        (
            Parameter("up", "whole", "mean packets between outages"),
            Parameter("down", "whole", "mean packets of an outage"),
            Parameter("spread", "number", "lengths vary by +- this share, [0, 1); default 0"),
        ),
        (Form(("up", "down"), ("spread",)),),
        SemiMarkov.outages,
    ),
    LossType(
        "scripted",
        "replays a given sequence of fates",
        (
            Parameter("mask", "mask", 'fates in order, 1 = lost: a list or text like "0011"'),
            Parameter("at_end", "text", "then: repeat (default), receive, or refuse"),
        ),
        (Form(("mask",), ("at_end",)),),
        Scripted.of,
    ),
    LossType(
        "trace",
        "replays recorded losses from a file, in a circle",
        (
            Parameter("path", "path", ".npy mask, text of 0 and 1, CSV, capture or log of ping"),
            Parameter("start", "text", "random (default) or first"),
            Parameter("bits", "whole", "width of the sequence counter; found out by default"),
            Parameter("stream", "text", "part of the name of one of several streams in the file"),
        ),
        (Form(("path",), ("start", "bits", "stream")),),
        LossTrace.read,
    ),
    LossType(
        "any",
        "lost if any of several independent models loses it",
        (Parameter("of", "list", "loss models, each with type and parameters"),),
        (Form(("of",)),),
        _any,
    ),
)

LOSS_TYPES: Mapping[str, LossType] = {t.name: t for t in _TYPES}
"""Every loss type by name, simplest first."""


def loss_model(spec: Mapping[str, object]) -> LossModel:
    """Build a loss model from plain data.

    Args:
        spec: "type" (a key of `LOSS_TYPES`) and that type's parameters.

    Raises:
        ChannelParameterError: unknown type or parameter, missing parameters, bad values; its
            ``parameter`` is the key at fault.
    """
    choices = ", ".join(LOSS_TYPES)
    if "type" not in spec:
        raise ChannelParameterError("type", f"is missing; choose one of {choices}")
    name = spec["type"]
    if not isinstance(name, str) or name not in LOSS_TYPES:
        raise ChannelParameterError("type", f"{name!r} is unknown; choose one of {choices}")
    given = {str(key): value for key, value in spec.items() if key != "type"}
    kind = LOSS_TYPES[name]
    kind.check_names(given)
    for parameter in kind.parameters:
        wanted = _PLAIN.get(parameter.kind)
        value = given.get(parameter.name)
        if wanted and parameter.name in given and not isinstance(value, wanted[0]):
            problem = f"must be {wanted[1]}, got {value!r}"
            raise ChannelParameterError(parameter.name, problem)
    try:
        return kind.make(**given)
    except ChannelParameterError:
        raise
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:
        raise ChannelParameterError("type", f"{name} with these values: {error}") from None


_PLAIN: Mapping[str, tuple[tuple[type, ...], str]] = {
    "text": ((str,), "text"),
    "path": ((str,), "the path of a file, in quotes if it looks like a number"),
    "mask": ((str, list, tuple), "a list of 0 and 1, or text of them"),
    "list": ((list, tuple), "a list"),
}

_COMMA = re.compile(r",(?![^\[]*\])")  # one outside brackets


def parse_inline(text: str) -> dict[str, object]:
    """Read the one-line form, ``type`` or ``type:name=value,name=value``.

    Values that look like numbers become int or float, [a,b] a list; the rest stays text.
    ``parse_inline("gilbert_elliott:loss=0.2,mean_burst=5")`` gives
    ``{"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}``.

    Raises:
        ChannelParameterError: a part is not name=value, or a name is given twice.
    """
    name, _, rest = text.partition(":")
    spec: dict[str, object] = {"type": name.strip()}
    for part in filter(None, (p.strip() for p in _COMMA.split(rest))):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ChannelParameterError(part, "is not name=value; write type:name=value,name=value")
        if key in spec:
            raise ChannelParameterError(key, "is given twice")
        spec[key] = _plain(key, value.strip())
    return spec


def _plain(key: str, value: str) -> object:
    if value[:1] == "[" and value[-1:] == "]":
        return [_plain(key, item.strip()) for item in value[1:-1].split(",") if item.strip()]
    if key == "mask":  # 0011 is text, not the number eleven
        return value
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value
