"""The table in docs/faults.md: one row for each test that injects a fault.

python -m tests.drivers.fault_table     writes it again
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"
_BEGIN, _END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True)
class Row:
    """What is done, what happens then, which counters tell of it, and the test that does it."""

    fault: str
    outcome: str
    counters: tuple[str, ...]
    test: str
    place: tuple[str, int]


ROWS: dict[str, Row] = {}
"""By test; a module that is imported twice changes nothing."""


def fault(
    what: str, outcome: str, *counters: str
) -> Callable[[Callable[..., Mapping[str, int]]], Callable[..., None]]:
    """Put a test in the table. The test returns what was counted; every counter that the row
    names must have counted something."""

    def wrap(test: Callable[..., Mapping[str, int]]) -> Callable[..., None]:
        code = test.__code__  # type: ignore[attr-defined]
        place = Path(code.co_filename).name, code.co_firstlineno
        ROWS[test.__name__] = Row(what, outcome, counters, test.__name__, place)

        @functools.wraps(test)
        def run(*arguments: Any, **options: Any) -> None:
            counted = test(*arguments, **options)
            for name in counters:
                assert counted.get(name, 0) > 0, f"{name} did not count: {dict(counted)}"

        del run.__annotations__["return"]
        return run

    return wrap


def table() -> str:
    """The rows as Markdown."""
    lines = ["| fault | what happens | counted as | test |", "| --- | --- | --- | --- |"]
    for row in sorted(ROWS.values(), key=lambda row: row.place):
        counters = ", ".join(f"`{name}`" for name in row.counters)
        lines.append(f"| {row.fault} | {row.outcome} | {counters} | `{row.test}` |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The document with the table of now."""
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


if __name__ == "__main__":
    from tests.drivers import (
        fault_table,
        test_faults_bytes,  # noqa: F401  (fills the rows)
        test_faults_commands,  # noqa: F401
        test_faults_peers,  # noqa: F401
    )

    DOCUMENT.write_text(fault_table.with_table(DOCUMENT.read_text()))
