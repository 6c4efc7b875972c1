"""Loss models by name: what a scenario file or a command line may say.

``loss_model({"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5})`` builds a model;
``LOSS_TYPES`` lists the types with their parameters, for help texts and schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from channels.base import LossModel
from channels.erasure import PerfectLoss, Scripted, UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.parameters import ChannelParameterError


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


_TYPES = (
    LossType("perfect", "loses nothing", (), (Form(),), PerfectLoss),
    LossType(
        "uniform",
        "every packet lost with the same probability, independently",
        (Parameter("loss", "probability", "loss rate, 0 to 1"),),
        (Form(("loss",)),),
        UniformErasure,
    ),
    LossType(
        "gilbert_elliott",
        "bursts: a good and a bad state, each with its own loss rate",
        (
            Parameter("loss", "probability", "loss rate, 0 to 1 (with mean_burst)"),
            Parameter("mean_burst", "number", "mean length of a loss run in packets, >= 1"),
            Parameter("p", "probability", "P(good -> bad) per packet"),
            Parameter("r", "probability", "P(bad -> good) per packet"),
            Parameter("loss_good", "probability", "loss rate in the good state; 0 (with p, r)"),
            Parameter("loss_bad", "probability", "loss rate in the bad state; 1 (with p, r)"),
        ),
        (Form(("loss", "mean_burst")), Form(("p", "r"), ("loss_good", "loss_bad"))),
        _gilbert_elliott,
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
    return kind.make(**given)


def parse_inline(text: str) -> dict[str, object]:
    """Read the one-line form, ``type`` or ``type:name=value,name=value``.

    Values that look like numbers become int or float; the rest stays text.
    ``parse_inline("gilbert_elliott:loss=0.2,mean_burst=5")`` gives
    ``{"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}``.

    Raises:
        ChannelParameterError: a part is not name=value, or a name is given twice.
    """
    name, _, rest = text.partition(":")
    spec: dict[str, object] = {"type": name.strip()}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ChannelParameterError(part, "is not name=value; write type:name=value,name=value")
        if key in spec:
            raise ChannelParameterError(key, "is given twice")
        spec[key] = _plain(key, value.strip())
    return spec


def _plain(key: str, value: str) -> object:
    if key == "mask":  # 0011 is text, not the number eleven
        return value
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value
