"""The answers of the scenarios that ship: `python -m docs.scenarios [NAME ...]` runs them (those
without an answer, if none is named), in virtual time, and writes what their runs answer into
docs/scenarios.md."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sim.api import run
from sim.report.answer import answer
from sim.scenario.library import GROUPS, ShippedScenario, shipped

PAGE = Path(__file__).with_suffix(".md")
NOT_RUN = "not run yet"

_HEAD = """\
# The scenarios that ship

What each asks, and what its run answers: the last lines of `sim run NAME` say the same.
`sim scenarios NAME` says what to look at. Made by `python -m docs.scenarios`, which runs them all
with the weights that ship, half an hour on one core; tests hold the questions to the files, and an
answer to a new run.
"""
_ENTRY = re.compile(r"^### (\S+)\n\n.*?\n\n> (.*?)\n", re.MULTILINE | re.DOTALL)


def answers(page: str) -> dict[str, str]:
    """The answers that a page quotes, by the scenario's name."""
    return dict(_ENTRY.findall(page))


def page(found: Mapping[str, str]) -> str:
    """The whole page, with these answers; those that are missing are said to be."""
    parts = [_HEAD]
    for group, title in GROUPS.items():
        members = [one for one in shipped() if one.group == group]
        parts += [f"## {title[0].upper()}{title[1:]}\n"] * bool(members)
        parts += [
            f"### {one.name}\n\n{one.question} ({one.size}, {one.time})\n\n> {_told(one, found)}\n"
            for one in members
        ]
    return "\n".join(parts)


def _told(one: ShippedScenario, found: Mapping[str, str]) -> str:
    if one.group == "compare":
        told = "video" if one.name.startswith("video/") else "protection"
        return f"`sim compare {one.name}` answers with a table: see [{told}.md]({told}.md)."
    return found.get(one.name, NOT_RUN)


def _runs() -> list[str]:
    return [one.name for one in shipped() if one.group != "compare"]


def answered(one: ShippedScenario) -> str:
    """What a run of it answers, by its first metric."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"transport": "virtual"}
        found = run(str(one.path), set=given, out=Path(folder) / "run", figures=False)
        return answer(found, found.metrics[0])


def main(names: list[str]) -> None:
    """Run some scenarios, the smallest first, and write the page after each."""
    kept = answers(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    wanted = names or [name for name in _runs() if kept.get(name, NOT_RUN) == NOT_RUN]
    chosen = [one for one in shipped() if one.name in wanted]
    for one in sorted(chosen, key=lambda one: one.points * one.repeats * one.images):
        told = answered(one)
        kept |= {one.name: told}
        PAGE.write_text(page(kept), encoding="utf-8")
        print(f"{one.name}: {told}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
