"""The JSON schema of the sections whose keys are not fields of a model: channel and sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from channels import LINK_PARAMETERS, LOSS_TYPES, PRESETS
from channels.registry import Parameter


class ChannelSchema:
    """The JSON schema of a channel section, from the registry of loss types."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        losses = [
            _object(loss.name, loss.summary, {"type": {"const": loss.name}}, loss.parameters)
            for loss in LOSS_TYPES.values()
        ]
        link = _object("link", "what else happens to packets", {}, LINK_PARAMETERS)
        preset = {"preset": {"enum": list(PRESETS)}}
        both = {"loss": {"oneOf": losses}, "link": link}
        return {
            "description": "loss process (started in its stationary state), link, or preset",
            "oneOf": [
                {"type": "string", "description": "a preset, type:name=value,... or a line of tc"},
                *losses,
                _object("preset", "a ready channel", preset),
                _object("loss and link", "a loss process and what else happens", both),
            ],
        }


def _object(
    title: str, summary: str, fixed: dict[str, Any], parameters: Sequence[Parameter] = ()
) -> dict[str, Any]:
    """The schema of one mapping; keys that are fixed are required, parameters are not."""
    kinds: dict[str, dict[str, Any]] = {
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "number": {"type": "number"},
        "whole": {"type": "integer"},
        "list": {"type": "array"},
        "mapping": {"type": "object"},
    }
    described = {p.name: kinds.get(p.kind, {}) | {"description": p.description} for p in parameters}
    return {
        "type": "object",
        "title": title,
        "description": summary,
        "properties": fixed | described,
        "required": [key for key in fixed if key in ("type", "preset")],
        "additionalProperties": False,
    }


class SweepSchema:
    """The JSON schema of a sweep (`sim.scenario.sweep`)."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        number: dict[str, Any] = {"type": "number"}
        kinds = {"from": number, "to": number, "step": number, "count": {"type": "integer"}}
        span = {
            "type": "object",
            "properties": kinds | {"log": {"type": "boolean"}},
            "required": ["from", "to"],
            "additionalProperties": False,
        }
        axis = {"oneOf": [{"type": "array", "minItems": 1}, span]}
        together = {"type": "object", "additionalProperties": axis}
        several = {"type": "array", "items": together}
        return {
            "type": "object",
            "description": "dotted keys, each with values to try: a list, or {from, to, step} or "
            "{from, to, count, log}; points are their grid",
            "properties": {
                "zip": {"description": "keys varied together", "oneOf": [together, several]},
                "points": {
                    "description": "points named one by one, each a mapping of dotted keys",
                    "type": "array",
                    "items": {"type": "object"},
                },
            },
            "additionalProperties": axis,
        }
