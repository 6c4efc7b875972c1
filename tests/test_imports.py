"""Who may import whom, read from the source: the structure of the house, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from sim.jobs.store import hashed_files

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT)
    for name in ("channels", "codec", "sim")
    for path in (ROOT / name).rglob("*.py")
)


def module_of(path: Path) -> str:
    """The dotted name of a file's module."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}

LAYERS = [
    {"errors", "version", "progress", "statistics"},
    {"protocol", "metrics", "jobs"},
    {"drivers"},
    {"media", "baselines"},
    {"scenario"},
    {"results", "stream"},
    {"figures"},
    {"training"},
    {"experiment", "studies"},
    {"report", "live", "api"},
    {"page"},
    {"cli"},
    {"__main__"},
]
"""The parts of `sim`, from the ground up: each may import itself and what stands above it here."""

CLI = {str(path) for path in FILES if path.parts[:2] == ("sim", "cli")}

LEVEL = {name: number for number, layer in enumerate(LAYERS) for name in layer}

FLAT = {
    "__init__",
    "__main__",
    "api",
    "errors",
    "progress",
    "statistics",
    "stream",
    "version",
}

ALLOWED: set[tuple[str, str]] = set()
"""Imports against the law, to be undone."""


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
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


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
            name
            in (
                "codec",
                "codec.entropy",
                "codec.patches",
                "codec.range_coder",
                "codec.replenishment",
            )
            for name in imported(path)
            if name.startswith("codec")
        )


@pytest.mark.parametrize(
    ("package", "places"),
    [
        ("simpy", {"sim/drivers/virtual.py"}),
        ("zmq", {"sim/drivers/curve.py", "sim/drivers/zeromq.py"}),
        ("typer", CLI),
        (
            "rich",
            {
                *CLI,
                "sim/live/terminal.py",
                "sim/progress.py",
            },
        ),
        (
            "matplotlib",
            {
                *(
                    str(p)
                    for p in FILES
                    if p.stem == "figures" or p.parts[:2] == ("sim", "figures")
                ),
                "sim/page/stages.py",
                "sim/studies/codec_bench/bits.py",
                "sim/training/calibration.py",
                "sim/training/report.py",
            },
        ),
        ("nicegui", {"sim/page/layout.py", "sim/page/server.py"}),
        ("pickle", {"codec/lpips.py"}),  # a reader of arrays that executes nothing
    ],
)
def test_only_place(package: str, places: set[str]) -> None:
    assert {str(path) for path in FILES if package in packages(path)} <= places


def test_no_clock_but_the_live_drivers() -> None:
    """Results follow from the scenario and the seed, so nothing that makes them asks the time, but
    for which number format is faster here."""
    allowed = {"sim/drivers/clock.py", "codec/device.py"}
    asking = {str(path) for path in FILES if packages(path) & {"time", "datetime"}}
    assert {path for path in asking if not path.startswith("codec/training/")} <= allowed


def test_light_parts_do_not_load_torch() -> None:
    code = (
        "import sys, channels, codec.entropy, sim.protocol.receiver, sim.protocol.sender, "
        "sim.scenario.loader, sim.stream, sim.results.files, "
        "sim.experiment.tables, sim.experiment.plan, sim.jobs.executor; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "sim"], ids=str)
def test_parts_import_downwards(path: Path) -> None:
    module = module_of(path)
    if module == "sim":  # the face of the package
        return
    home = module.split(".")[1]
    for name in imported(path):
        if name.partition(".")[0] == "sim" and (module, name) not in ALLOWED:
            assert name != "sim", "only scripts and notebooks import the face of the package"
            part = name.split(".")[1]
            assert part == home or LEVEL[part] < LEVEL[home], f"{home} may not import {name}"


def test_no_circles() -> None:
    graph = {
        module: {name for name in imported(path) if name in MODULES and name != module}
        - {name for importer, name in ALLOWED if importer == module}
        for module, path in MODULES.items()
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_sim_is_packages() -> None:
    assert {path.stem for path in FILES if path.parts[:-1] == ("sim",)} == FLAT


def test_what_is_allowed_is_needed() -> None:
    needed = {(module, name) for module, path in MODULES.items() for name in imported(path)}
    assert needed >= ALLOWED


def test_all_that_a_comparison_runs_is_hashed() -> None:
    """Whatever code the kept results come from, a change of it must make them void."""
    studies = "sim.studies"
    waiting = [f"{studies}.{name}" for name in ("compare.runner", "optimise.runner")]
    reached = set[Path]()
    while waiting:
        name = waiting.pop()
        path = MODULES.get(name)
        if path is not None and path not in reached:
            reached.add(path)
            waiting += imported(path)
    assert len(reached) > 50
    assert reached <= {path.relative_to(ROOT) for path in hashed_files(ROOT)}
