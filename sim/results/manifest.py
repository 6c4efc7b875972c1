"""What ran, on what: everything needed to run it again and to know whether it should agree."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.results.files import RUN
from sim.scenario.schema import Scenario
from sim.version import __version__

_LIBRARIES = ("torch", "numpy", "scipy", "constriction", "pillow", "ssimulacra2", "simpy", "pyzmq")


def manifest(
    scenario: Scenario, images: Sequence[Mapping[str, Any]], fingerprint: str
) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        scenario: resolved, with its overrides in place.
        images: name, file, width and height of each.
        fingerprint: of the weights and the coder's integer tables.
    """
    return {
        "kind": RUN,
        "scenario": scenario.model_dump(),
        "images": list(images),
        "seeds": {
            "channel": "SeedSequence(seed, spawn_key=(repeat,))",
            "seed": scenario.seed,
            "repeats": scenario.repeats,
        },
        "weights_fingerprint": fingerprint,
        "version": __version__,
        "revision": revision(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}",
        },
    }


def run_id(scenario: Scenario, fingerprint: str) -> str:
    """The name of a run's folder: the same scenario, weights and version give the same one."""
    content = [scenario.model_dump(exclude={"pace", "transport"}), fingerprint, __version__]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"seed{scenario.seed}-{digest[:8]}"


def revision() -> str | None:
    """The git revision of this source tree, "-dirty" if changed since; None outside one."""
    tree = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tree), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != tree.resolve():
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def version_of(library: str) -> str | None:
    """The version of an installed library; None if it is not there."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
