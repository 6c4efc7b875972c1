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

from codec.files import rooted
from sim.errors import UserError

_MAX_BYTES = 1_000_000
TRACE_KEYS = ("path", "capacity")

Location = tuple[str | int, ...]
"""Keys and list indices from the root of a file to a value."""


def parse_mapping(path: Path, kind: str, example: str) -> CommentedMap:
    """A file's mapping of keys to values, with their lines.

    Args:
        path: the YAML file, in UTF-8, at most 1 MB.
        kind: what it is to be, in a word, such as "scenario".
        example: a line that such a file may hold.

    Raises:
        UserError: unreadable, bad YAML, or no mapping; told with the line where there is one.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a {kind} file")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: too large for a {kind} file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such {kind} file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        tree = YAML().load(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        problem = (error.problem or "not valid YAML").splitlines()[0]
        raise UserError(f"{path}:{line}: {problem}") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
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
