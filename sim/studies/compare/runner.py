"""Strategies at equal bytes on the wire, on paired losses: `sim compare`.

    manifest.json   what ran: strategies, budgets, channels, seeds, versions, weights
    outcomes.csv    one row per strategy, budget, channel, repeat and image
    means.csv       means with intervals
    winners.csv     the best strategy per budget, channel and metric, and tokens against files
    fec.csv         what parity leaves unrepaired: simulated streams beside exact theory
    panels/         pictures of one cell
    figures/        drawn from all of the above

The loss process of a repeat is the same for every strategy: packet i of any stream with that
repeat meets fate i. Every finished part (one strategy, budget and channel) is kept in the cache
folder, so interrupted work goes on where it was, and processes with the same cache folder share it.
"""

from __future__ import annotations

from pathlib import Path

from codec.device import CPU, Device
from sim.metrics.quality import measurable
from sim.progress import ProgressCallback, no_progress
from sim.results.files import COMPARISON, RESULTS, Outcome, new_folder
from sim.studies.compare.comparison import Comparison
from sim.studies.compare.config import LoadedComparison


def run_comparison(
    loaded: LoadedComparison,
    out: Path | None = None,
    progress: ProgressCallback = no_progress,
    workers: int = 1,
    device: Device = CPU,
) -> Outcome:
    """Compare and write the results folder, figures included.

    Args:
        loaded: the checked comparison.
        out: the folder; None: results/<name>/<hash of what ran>.
        progress: told how far it is.
        workers: processes.
        device: where the networks run.

    Raises:
        UserError: images, weights or settings that cannot be used; nothing is left.
    """
    base = loaded.base
    metrics = base.metrics if "metrics" in base.model_fields_set else measurable()
    comparison = Comparison(loaded, metrics, progress, device)
    target = out or RESULTS / loaded.name / comparison.digest
    with new_folder(target, COMPARISON) as folder:
        return Outcome(target, comparison.run(folder, workers))
