"""YAML 1.2 files that remember their lines, so that mistakes are told by file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    MappingEndEvent,
    MappingStartEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from codec.files import rooted
from sim.errors import UserError, read_text

_MAX_BYTES = 1_000_000
_MAX_NODES = 100_000
_DEEPEST = 40
_MAX_BITS = 1000
_TOO_DEEP = f"nested more than {_DEEPEST} levels deep"
_TAGS_RAISE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
)
"""What ruamel's constructors raise for values that are not what their tags say."""
TRACE_KEYS = ("path", "capacity")

Location = tuple[str | int, ...]
"""Keys and list indices from the root of a file to a value."""


class YamlError(ValueError):
    """Text that is no YAML that can be used: ``problem`` in words, and its ``line`` from 1, if
    known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


def read_yaml(text: str) -> Any:
    """YAML with its lines; small enough to be copied without its aliases.

    Raises:
        YamlError: no YAML, nested too deep, or too large when its aliases are spelled out.
    """
    try:
        _check_depth(text)
        tree = YAML().load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (error.problem or "not valid YAML").splitlines()[0]
        raise YamlError(problem, 1 if mark is None else mark.line + 1) from None
    except YAMLError as error:
        raise YamlError(f"not valid YAML ({str(error).splitlines()[0]})") from None
    except RecursionError:
        raise YamlError(_TOO_DEEP) from None
    except YamlError:
        raise
    except _TAGS_RAISE as error:
        raise YamlError(f"not valid YAML ({error})") from None
    _check_size(tree)
    return tree


def _check_depth(text: str) -> None:
    """Before anything is built: that takes very long where it is deep."""
    depth = 0
    for event in YAML().parse(StringIO(text)):
        if isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            depth += 1
            if depth > _DEEPEST:
                raise YamlError(_TOO_DEEP, event.start_mark.line + 1)
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            depth -= 1


def _check_size(tree: Any) -> None:
    waiting = [(tree, 0)]
    for _ in range(_MAX_NODES):
        if not waiting:
            return
        node, depth = waiting.pop()
        if depth > _DEEPEST:
            raise YamlError(_TOO_DEEP)
        if isinstance(node, int) and node.bit_length() > _MAX_BITS:
            raise YamlError("holds a number of more than 300 digits")
        children: list[Any] = []
        if isinstance(node, Mapping):
            children = [part for pair in node.items() for part in pair]
        elif isinstance(node, (list, tuple, set)):
            children = list(node)
        waiting += [(child, depth + 1) for child in children]
    raise YamlError(f"holds more than {_MAX_NODES:,} values when its aliases are spelled out")


def parse_mapping(path: Path, kind: str, example: str) -> CommentedMap:
    """A file's mapping of keys to values, with their lines.

    Args:
        path: the YAML file, in UTF-8, at most 1 MB.
        kind: what it is to be, in a word, such as "scenario".
        example: a line that such a file may hold.

    Raises:
        UserError: unreadable, bad YAML, or no mapping; told with the line where there is one.
    """
    text = read_text(path, f"{kind} file", _MAX_BYTES)
    try:
        tree = read_yaml(text)
    except YamlError as error:
        where = path if error.line is None else f"{path}:{error.line}"
        raise UserError(f"{where}: {error.problem}") from None
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{path}:1: a {kind} is a mapping of keys to values, such as {example}")
    return tree


def plain(node: Any) -> Any:
    """Plain dicts, lists, str, int, float, bool and None from ruamel's line-aware types."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(item) for item in node]
    if node is None or isinstance(node, bool):
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)  # dates and the like: no value here is one


def yaml_text(value: dict[str, Any]) -> str:
    """Plain data as YAML; whatever holds nothing but scalars stands on one line."""
    text = StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 96
    yaml.dump(value, text)
    return text.getvalue()


def line_of(tree: CommentedMap, location: Location) -> int:
    """The line, from 1, of a value; where it is missing, of the nearest key above it."""
    line: int = 0
    node: Any = tree
    for part in location:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0]
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line = node.lc.item(part)[0]
        else:
            break
        node = node[part]
    return line + 1


def dotted(location: Location) -> str:
    """A location as it is told: ``channel.of[0].loss``."""
    text = ".".join(f"[{part}]" if isinstance(part, int) else part for part in location)
    return text.replace(".[", "[")


def undotted(parameter: str) -> Location:
    """The inverse of `dotted`."""
    keys = re.findall(r"[^.\[\]]+", parameter)
    return tuple(int(key) if key.isdigit() else key for key in keys)


def rebase_traces(node: Any, folder: Path) -> None:
    """Let the relative trace files of a channel start at a folder; changes the plain data."""
    if isinstance(node, list):
        for item in node:
            rebase_traces(item, folder)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in TRACE_KEYS and isinstance(value, str):
                node[key] = str(rooted(folder, value))
            else:
                rebase_traces(value, folder)
