"""Stream images through lossy channels: scenarios, protocol, drivers, results, command line.

``sim.run`` and ``sim.load`` are the Python side of it (`sim.api`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.version import __version__

if TYPE_CHECKING:
    from sim.api import RunResult, load, run
    from sim.errors import UserError

__all__ = ["RunResult", "UserError", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    """Imports on first use: most of the package does without."""
    if name == "UserError":
        from sim.errors import UserError

        return UserError
    if name in __all__:
        from sim import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
