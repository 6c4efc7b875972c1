"""Comparison files: a scenario's keys, and the strategies, rates and losses to compare.

    images or video, codec, stream, channel (its link alone), decoding, metrics, repeats, seed: as
                in a scenario
    bpp_wire:   bits per pixel on the wire, headers, parity and retransmissions included
    loss:       loss rates of packets
    mean_burst: mean lengths of loss runs in packets; "independent" for no bursts
    strategies: what to send, and how to protect and repair it

Mistakes are told by file, line and key, as in scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from channels import ChannelParameterError, read_channel
from codec.files import rooted
from sim.baselines import BASELINES, RESILIENT
from sim.baselines.byte_frames import BYTE_STREAM
from sim.baselines.clip import CLIP_CODECS
from sim.baselines.damage import Damaged
from sim.scenario.labels import name_of
from sim.scenario.loader import Source, explain, parse_override, unknown_key
from sim.scenario.schema import Concealer, Scenario, Section, with_values
from sim.scenario.yaml_lines import Location, parse_mapping, rebase_traces

TOKENS = "tokens"
INDEPENDENT: Literal["independent"] = "independent"
Burst = float | Literal["independent"]

_SCENARIO_KEYS = (
    "name", "images", "video", "codec", "stream", "channel",
    "decoding", "metrics", "repeats", "seed",
)  # fmt: skip


class Strategy(Section):
    """One way to send images, or a video.

    Attributes:
        name: in tables and figures.
        coder: "tokens", or one of `sim.baselines.BASELINES` and `RESILIENT`; of a video, of
            `CLIP_CODECS`.
        concealer: what fills in lost tokens.
        damaged: what to do with an incomplete file of a classical coder: decode it, or show grey;
            of a video, freeze until the next key frame.
        codec, stream: keys that differ from the comparison's.
    """

    name: str
    coder: str = TOKENS
    concealer: Concealer = "inpaint"
    damaged: Damaged = "decode"
    codec: dict[str, Any] = Field(default_factory=dict)
    stream: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _names_a_file(cls, name: str) -> str:
        if not 1 <= len(name) <= 60 or name != name.strip() or "/" in name:
            rule = "must have 1 to 60 characters, no slash, and no space at either end"
            raise PydanticCustomError("name", rule)
        return name


class _Comparison(Section):
    """The keys that a scenario has not."""

    bpp_wire: list[float] = Field(min_length=1)
    loss: list[float] = Field(min_length=1)
    mean_burst: list[float | Literal["independent"]] = Field([INDEPENDENT], min_length=1)
    strategies: list[Strategy] = Field(min_length=1)

    @field_validator("bpp_wire", "loss", "mean_burst")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise PydanticCustomError("repeated", "names one value twice")
        return values

    @field_validator("bpp_wire")
    @classmethod
    def _rates(cls, rates: list[float]) -> list[float]:
        for rate in rates:
            if not 0 < rate <= 24:
                raise PydanticCustomError("rate", "must lie above 0 and at most at 24")
        return rates


@dataclass(frozen=True, slots=True)
class LossCondition:
    """One channel.

    Attributes:
        loss: rate of packets, 0 to 1.
        mean_burst: packets, or "independent".
        channel: the section of a scenario.
    """

    loss: float
    mean_burst: Burst
    channel: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedComparison:
    """A checked comparison.

    Attributes:
        name: of its results folder.
        base: what all strategies have in common; its channel is only the link.
        strategies: in the file's order.
        scenarios: the scenario of each strategy by name; its channel is to be replaced by a
            cell's, and its codebook by the level that fits, unless `fixed_level` has the name.
        fixed_level: strategies that name their codebook.
        bpp_wire: budgets, bits per pixel.
        cells: every loss rate at every burst length; no loss comes once, at the first.
        losses, bursts: as in the file.
        images_base: the folder that relative paths of images, or of the video, start at.
        model: "random", a folder, or None for the weights that ship.
    """

    name: str
    base: Scenario
    strategies: Sequence[Strategy]
    scenarios: Mapping[str, Scenario]
    fixed_level: frozenset[str]
    bpp_wire: Sequence[float]
    cells: Sequence[LossCondition]
    losses: Sequence[float]
    bursts: Sequence[Burst]
    images_base: Path
    model: str | None


def load_comparison(path: Path, overrides: Sequence[str] = ()) -> LoadedComparison:
    """Read and check a comparison file.

    Args:
        path: the YAML file.
        overrides: "dotted.key=value" each; the value is read as YAML.

    Raises:
        UserError: as `file:line: key.path: what is wrong`.
    """
    source = ComparisonSource(path)
    rebase_traces(source.raw.get("channel"), path.parent)
    given = dict(map(parse_override, overrides))
    source.override(given)
    source.raw.setdefault("name", name_of(path))
    own = source.own()
    base_raw = {k: v for k, v in source.raw.items() if k not in _Comparison.model_fields}
    channel = base_raw.get("channel", {})
    if not isinstance(channel, dict) or set(channel) - {"link"}:
        raise source.error(
            ("channel",), "give only its link: loss and mean_burst say what is lost here"
        )
    base_raw |= {"transport": "virtual", "concealers": ["inpaint"]}
    base_raw["channel"] = {"loss": {"type": "perfect"}, **channel}
    if base_raw.get("video") is not None and "images" in base_raw:
        raise source.error(("images",), "a comparison has images or a video, not both")
    base = source.scenario(base_raw, None)
    scenarios = {}
    for number, strategy in enumerate(own.strategies):
        if strategy.name in scenarios:
            raise source.error(("strategies", number, "name"), "names a strategy twice")
        scenarios[strategy.name] = source.strategy(base_raw, strategy, number)
    folder = Path.cwd() if "codec.model" in given else path.parent
    model = base.codec.model
    return LoadedComparison(
        name=base.name,
        base=base,
        strategies=own.strategies,
        scenarios=scenarios,
        fixed_level=frozenset(s.name for s in own.strategies if "codebook" in s.codec),
        bpp_wire=own.bpp_wire,
        cells=source.cells(own, channel),
        losses=own.loss,
        bursts=own.mean_burst,
        images_base=Path.cwd() if {"images", "video", "video.file"} & {*given} else path.parent,
        model=model if model in (None, "random") else str(rooted(folder, model)),
    )


def loss_section(loss: float, burst: Burst) -> dict[str, Any]:
    """The loss process of a condition, as scenarios have it."""
    if loss == 0:
        return {"type": "perfect"}
    if burst == INDEPENDENT:
        return {"type": "uniform", "loss": loss}
    return {"type": "gilbert_elliott", "loss": loss, "mean_burst": burst}


class ComparisonSource(Source):
    """A parsed comparison file that knows the line of every key."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), parse_mapping(path, "comparison", "seed: 1"))

    def own(self) -> _Comparison:
        """The keys of a comparison; refuses keys that neither it nor a scenario has."""
        known = (*_SCENARIO_KEYS, *_Comparison.model_fields)
        for key in self.raw:
            if key not in known:
                raise self.error((key,), unknown_key(key, known))
        try:
            return _Comparison.model_validate(
                {k: v for k, v in self.raw.items() if k in _Comparison.model_fields}
            )
        except ValidationError as failure:
            raise self.error(*_explain_own(failure.errors(include_url=False)[0])) from None

    def scenario(self, raw: Mapping[str, Any], strategy: int | None) -> Scenario:
        """A checked scenario; mistakes in a strategy's own keys are told there."""
        try:
            return Scenario.model_validate(raw)
        except ValidationError as failure:
            location, problem = explain(failure.errors(include_url=False)[0])
        section, *keys = (*location, None)
        if strategy is not None and section in ("codec", "stream"):
            mine = self.raw["strategies"][strategy].get(section, {})
            if keys[0] is None or keys[0] in mine:
                raise self.error(("strategies", strategy, *location), problem)
            problem += f" (in strategies[{strategy}])"
        raise self.error(location, problem)

    def strategy(self, base: Mapping[str, Any], strategy: Strategy, number: int) -> Scenario:
        """The scenario of a strategy."""
        place: Location = ("strategies", number)
        sections = {
            name: {**base.get(name, {}), **getattr(strategy, name)} for name in ("codec", "stream")
        }
        raw = {**base, **sections, "concealers": [strategy.concealer]}
        kinds = CLIP_CODECS if base.get("video") is not None else (*BASELINES, *RESILIENT)
        if strategy.coder not in (TOKENS, *kinds):
            known = ", ".join((TOKENS, *kinds))
            problem = f"must be one of {known}; got {strategy.coder!r}"
            raise self.error((*place, "coder"), problem)
        if strategy.damaged == ("grey" if kinds is CLIP_CODECS else "freeze"):
            raise self.error((*place, "damaged"), "images turn grey, and videos freeze")
        if strategy.coder == TOKENS:
            return self.scenario(raw, number)
        for key in ("codec", "concealer"):
            if key in self.raw["strategies"][number]:
                raise self.error((*place, key), f"says nothing to {strategy.coder}; only to tokens")
        for key in ("interleaver", "refresh"):
            if key in strategy.stream:
                raise self.error((*place, "stream", key), "a file's bytes are all sent, in order")
        self.scenario(raw, number)
        return self.scenario(with_values(raw, BYTE_STREAM), number)

    def cells(self, own: _Comparison, link: Mapping[str, Any]) -> list[LossCondition]:
        """Every channel; infeasible ones are told at their mean burst."""
        cells = []
        for at, burst in enumerate(own.mean_burst):
            for which, loss in enumerate(own.loss):
                spec = loss_section(loss, burst)
                try:
                    read_channel(spec)
                except ChannelParameterError as error:
                    key = "mean_burst" if error.parameter == "mean_burst" else "loss"
                    place = at if key == "mean_burst" else which
                    raise self.error((key, place), error.problem) from None
                if loss > 0 or at == 0:
                    cells.append(LossCondition(loss, burst, {"loss": spec, **link}))
        return cells


def _explain_own(error: ErrorDetails) -> tuple[Location, str]:
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        section: type[BaseModel] = Strategy if location[0] == "strategies" else _Comparison
        return location, unknown_key(str(location[-1]), tuple(section.model_fields))
    if location[0] == "mean_burst" and len(location) > 1:
        return location[:2], f"must be a number of packets or {INDEPENDENT}"
    return explain(error)
