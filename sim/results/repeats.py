"""How many repeats a run would need to be as certain as one wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sim.errors import UserError
from sim.results.finished import load


def repeats_wanted(run: Path, half_width: float, metric: str) -> list[dict[str, Any]]:
    """For every point and repair of a run.

    Args:
        run: its folder.
        half_width: wanted, of the 95% interval of the mean over repeats, for the run's images.
        metric: a column of its summary.

    Returns:
        {"point", "values", "repair", "repeats" (so far), "half_width" (so far; NaN below two
        repeats), "needed" (None below two repeats)} of each.

    Raises:
        UserError: no run there, no such metric, no repairs, or a half width not above 0.
    """
    result = load(run)
    if not half_width > 0:
        raise UserError(f"--within {half_width:g}: must be above 0")
    metrics = [*result.summary["metrics"], "token_accuracy"]
    if metric not in metrics:
        raise UserError(f"--metric {metric}: choose one of {', '.join(metrics)}")
    needed = result.repeats_needed(half_width, metric)
    if not needed:
        raise UserError(f"{run}: repairs nothing, so there is no {metric} to be certain of")
    return [
        {
            "point": number,
            "values": dict(result.points[number].values),
            "repair": name,
            "repeats": result.points[number].precision[name][metric].repeats,
            "half_width": result.points[number].precision[name][metric].half_width,
            "needed": count,
        }
        for (number, name), count in needed.items()
    ]
