"""`sim new`: a commented scenario, written from the models that check it, so it never drifts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sim.scenario.schema import Scenario

_WIDTH = 98
_HEAD = """\
# Question: what do you want to know? (Write it here; the report opens with it.)
#
# Look at figures/strip-*.png and figures/quality.png after: sim run {name}.yaml
#
# Every key may be left out; what is written here is what it then is. Lines after "#" are choices
# and examples. `sim schema` prints all of this for editors, `sim scenarios` lists ready examples.
"""
_EXAMPLES = {"data": 16, "parity": 4, "ci": 0.1}
"""What is shown for keys that a section cannot leave out."""

_LEFT_OUT = ("name", "sweep", "channel", "images")
_CHANNEL = """\
# what the network does: a loss process, a preset, or a loss process and a link
#   {type: perfect}                                        loses nothing
#   {type: uniform, loss: 0.1}                             each packet alike
#   {type: gilbert_elliott, loss: 0.2, mean_burst: 5}      in bursts of 5 on average
#   {preset: wifi}                                         sim channel describe wifi
#   {loss: {type: uniform, loss: 0.1}, link: {delay_s: 0.05, rate_bps: 100000}}
channel: {type: gilbert_elliott, loss: 0.2, mean_burst: 5}
"""
_SWEEP = """\
# run every combination of these instead of one; any key of channel, codec and stream may vary,
# over a list or a range such as {from: 0, to: 0.5, step: 0.1}
# sweep:
#   channel.loss: [0.05, 0.1, 0.2]
#   stream.interleaver: [raster, low_discrepancy]
"""


def template(name: str) -> str:
    """The text of a new scenario called `name`."""
    lines = [_HEAD.format(name=name), f"name: {name}\n"]
    lines.append('# files, folders or globs, relative to this file; "samples" = the photographs')
    lines.append('# that ship, "samples/coffee" = one of them\nimages: [samples]\n')
    for key, field in Scenario.model_fields.items():
        if key == "channel":
            lines.append(_CHANNEL)
        elif key not in _LEFT_OUT:
            lines += [*_field(key, field, ""), ""]
    return "\n".join([*lines, _SWEEP])


def _field(key: str, field: FieldInfo, indent: str) -> Iterator[str]:
    section = _section(field.annotation)
    default = (
        _EXAMPLES[key] if field.is_required() else field.get_default(call_default_factory=True)
    )
    about = field.description or (section.__doc__ or "").strip().rstrip(".").lower()
    choices = _choices(field.annotation)
    for text in (about, f"one of: {', '.join(choices)}" if choices else ""):
        mark = f"{indent}# "
        yield from textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=mark)
    if section is None:
        off = "# " if default is None else ""
        yield f"{indent}{off}{key}: {_yaml(default)}"
        return
    mark = "# " if default is None else ""  # an optional section is shown, but off
    yield f"{indent}{mark}{key}:"
    for inner, inner_field in section.model_fields.items():
        for line in _field(inner, inner_field, indent + "  "):
            yield f"{indent}# {line[len(indent) :]}" if mark and line.strip() else line


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, also where it may be left out (`Model | None`)."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) in (list, Union, UnionType):
        return [choice for kind in get_args(annotation) for choice in _choices(kind)]
    return []


def _yaml(value: object) -> str:
    """A default in YAML's flow style."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_yaml, value))}]"
    return "..." if value is None else str(value)
