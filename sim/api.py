"""Scenarios from Python: run one, and look at what it found.

    import sim

    result = sim.run("scenarios/burst20.yaml", set={"channel.loss": 0.4, "transport": "virtual"})
    result.points[0].gains["inpaint - none"]["psnr_db"].mean
    result.figures["quality"]                      # a picture in a notebook
    result.table("images")["ssimulacra2"]          # a column, as numpy has it

`import sim` itself loads nothing heavy: neither torch nor numpy. In a script (not in a notebook),
several processes, which live streams also are, need the usual ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.results.finished import RunResult, load

if TYPE_CHECKING:
    from sim.scenario.loader import LoadedScenario

__all__ = ["RunResult", "load", "run"]

Source = str | Path | Mapping[str, Any]
"""A scenario: a file, the name of one that ships, or the keys of one."""


def run(
    scenario: Source,
    *,
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    save_images: bool = False,
    workers: int = 1,
    dask: str | None = None,
    fresh: bool = False,
    progress: bool = False,
    device: str = "auto",
    dtype: str = "auto",
) -> RunResult:
    """Run a scenario, or what of it is not there yet, as `sim run` does.

    Args:
        scenario: a file, the name of a shipped scenario, or a mapping with the keys of one.
        set: values by dotted key that replace the scenario's, such as {"channel.loss": 0.4}.
        seed: replaces the scenario's.
        out: the run folder; None: results/<scenario>/<run> in the working directory.
        save_images: also keep every output at original size.
        workers: processes; the results do not depend on it.
        dask: the address of a Dask scheduler, or "local"; None: none.
        fresh: do everything again, whatever is in the folder.
        progress: show a bar on standard error.
        device: where the networks run: auto (CUDA if there is one), cpu, cuda or mps.
        dtype: in which number format: auto (float32), float32 or bfloat16.

    Raises:
        UserError: whatever cannot be used, in one line.
    """
    from codec.device import DeviceError, choose_device
    from sim.errors import UserError
    from sim.experiment.runner import RunOptions, run_experiment

    given = dict(set or {}) | ({} if seed is None else {"seed": seed})
    loaded = _load(scenario, given)
    try:
        chosen = choose_device(device, dtype)
    except DeviceError as error:
        raise UserError(str(error)) from None
    folder = None if out is None else Path(out)
    options = RunOptions(folder, save_images, fresh, workers, dask, chosen)
    if not progress:
        return load(run_experiment(loaded, options).folder)
    from sim.progress import progress_bar

    with progress_bar(loaded.scenario.name) as callback:
        return load(run_experiment(loaded, options, callback).folder)


def _load(scenario: Source, given: Mapping[str, Any]) -> LoadedScenario:
    from sim.scenario.loader import load_mapping, load_scenario

    if isinstance(scenario, Mapping):
        return load_mapping(scenario, given)
    from sim.scenario.library import find_scenario

    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]  # JSON is YAML
    return load_scenario(find_scenario(Path(scenario)), overrides)
