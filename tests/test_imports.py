"""Who may import whom, read from the source: the structure of the house, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sim.jobs.cache import hashed_files

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT)
    for name in ("channels", "codec", "sim")
    for path in (ROOT / name).rglob("*.py")
)


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, wherever in it."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            yield node.module


def packages(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imported(path)}


def test_every_package_is_found() -> None:
    assert {path.parts[0] for path in FILES} == {"channels", "codec", "sim"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_import_direction(path: Path) -> None:
    found = packages(path)
    home = path.parts[0]
    if home == "channels":
        beyond = found - set(sys.stdlib_module_names) - {"channels", "numpy"}
        assert not beyond, "channels needs numpy only"
    if home == "codec":
        assert not found & {"sim", "channels"}
    if path.parts[:2] == ("sim", "protocol"):
        assert not found & {"torch", "socket", "simpy", "zmq", "asyncio", "threading"}
        assert all(
            name in ("codec", "codec.entropy", "codec.patches")
            for name in imported(path)
            if name.startswith("codec")
        )


@pytest.mark.parametrize(
    ("package", "places"),
    [
        ("simpy", {"sim/drivers/virtual.py"}),
        ("zmq", {"sim/drivers/zeromq.py"}),
        ("typer", {str(p) for p in FILES if p.parts[:2] == ("sim", "cli")}),
        ("nicegui", {"sim/page/layout.py", "sim/page/server.py"}),
        ("pickle", set()),
    ],
)
def test_only_place(package: str, places: set[str]) -> None:
    assert {str(path) for path in FILES if package in packages(path)} <= places


def test_no_clock_but_the_live_drivers() -> None:
    """Results follow from the scenario and the seed, so nothing that makes them asks the time, but
    for which number format is faster here."""
    allowed = {"sim/drivers/clock.py", "codec/fast.py"}
    asking = {str(path) for path in FILES if packages(path) & {"time", "datetime"}}
    assert {path for path in asking if not path.startswith("codec/training/")} <= allowed


def test_light_parts_do_not_load_torch() -> None:
    code = (
        "import sys, channels, codec.entropy, sim.protocol.receiver, sim.protocol.sender, "
        "sim.scenario.loader, sim.stream, sim.results.files, "
        "sim.experiment.tables, sim.experiment.workers; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_all_that_a_comparison_runs_is_hashed() -> None:
    """Whatever code the kept results come from, a change of it must make them void."""
    modules = {".".join(path.with_suffix("").parts): path for path in FILES}
    studies = "sim.studies"
    waiting = [f"{studies}.{name}" for name in ("compare.runner", "optimise.runner")]
    reached = set[Path]()
    while waiting:
        name = waiting.pop()
        path = modules.get(name) or modules.get(f"{name}.__init__")
        if path is not None and path not in reached:
            reached.add(path)
            waiting += imported(path)
    assert len(reached) > 50
    assert reached <= {path.relative_to(ROOT) for path in hashed_files(ROOT)}
