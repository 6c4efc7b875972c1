"""The Python interface: run a scenario, and read the results of a run.

    import sim

    result = sim.run("scenarios/burst20.yaml", set={"channel.loss": 0.4, "transport": "virtual"})
    result.points[0].gains["inpaint - none"]["psnr_db"].mean
    result.figures["quality"]                      # a picture in a notebook
    result.table("images")["ssimulacra2"]          # a column, as numpy has it
    result.table("images").to_pandas()             # where pandas is installed
    sim.run("burst20", images=[pixels])            # uint8[H,W,3], of your own

`import sim` itself loads nothing heavy: neither torch nor numpy. In a script (not in a notebook),
several processes, which live streams also are, need the usual ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sim.errors import UserError, user_errors
from sim.metrics import metric as metric_of
from sim.results.files import FIGURES, table_rows
from sim.results.run import Run
from sim.scenario.labels import plain_label

if TYPE_CHECKING:
    from sim.scenario.loader import LoadedScenario

__all__ = ["RunResult", "load", "run"]

Source = str | Path | Mapping[str, Any]
"""A scenario: a file, the name of one that ships, or the keys of one."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure; a notebook shows it. ``svg`` is None for one of photographs."""

    path: Path
    svg: str | None = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


class Table(np.ndarray[Any, np.dtype[np.void]]):
    """A table as a numpy structured array."""

    def to_pandas(self) -> Any:
        """The same as a DataFrame of pandas.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise UserError("a DataFrame needs pandas: pip install pandas") from None
        return DataFrame({name: np.asarray(self[name]) for name in self.dtype.names or ()})


class RunResult(Run):
    """A finished run, with what a notebook shows and calculates with."""

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name."""
        found = {}
        for path in sorted((self.folder / FIGURES).glob("*.png")):
            svg = self.figure(path.stem)
            text = None if svg is None else svg.read_text(encoding="utf-8")
            found[path.stem] = Figure(path, text)
        return found

    def table(self, name: Literal["images", "packets"]) -> Table:
        """A table as a numpy structured array: numbers where a column has only such (NaN where
        it is empty), else text. `Table.to_pandas` makes a DataFrame of it."""
        rows = list(table_rows(self.folder / f"{name}.csv"))
        columns = {key: _column([row[key] for row in rows]) for key in (rows[0] if rows else {})}
        table = np.empty(len(rows), [(key, values.dtype) for key, values in columns.items()])
        for key, values in columns.items():
            table[key] = values
        return table.view(Table)

    def _repr_html_(self) -> str:
        heads = ["", "repair", *(metric_of(name).heading for name in self.metrics)]
        lines = ["".join(f"<th>{html.escape(head)}</th>" for head in heads)]
        for point in self.points:
            setting = ", ".join(f"{key}: {value}" for key, value in point.values.items())
            for concealer, found in point.concealers.items():
                means = [
                    metric_of(name).text(found[name].mean, unit=False) for name in self.metrics
                ]
                cells = [html.escape(setting), plain_label(concealer), *means]
                lines.append("".join(f"<td>{cell}</td>" for cell in cells))
        caption = html.escape(f"{self.name}, seed {self.seed}: {self.folder}")
        rows = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><caption>{caption}</caption>{rows}</table>"


def _column(texts: list[str]) -> NDArray[Any]:
    """A column as numbers where it has only such (NaN where it is empty), else text."""
    for kind in (int, float):
        try:
            return np.array([kind(text or "nan") for text in texts])
        except ValueError:
            continue
    return np.array(texts, np.str_)


def load(folder: str | Path) -> RunResult:
    """A finished run.

    Raises:
        UserError: there is none.
    """
    return RunResult.load(Path(folder))


def run(
    scenario: Source,
    *,
    images: Sequence[NDArray[np.uint8]] | None = None,
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    save_images: bool = False,
    workers: int = 1,
    dask: str | None = None,
    fresh: bool = False,
    progress: bool = False,
    figures: bool = True,
    device: str = "auto",
    dtype: str = "auto",
) -> RunResult:
    """Run a scenario as `sim run` does; cells that are finished already are not computed again.

    Args:
        scenario: a file, the name of a shipped scenario, or a mapping with the keys of one.
        images: photographs to send instead of the scenario's, uint8[H,W,3] or uint8[H,W] each,
            sides of 16 to 8,192 pixels; they are called image-1 and so on.
        set: values by dotted key that replace the scenario's, such as {"channel.loss": 0.4}.
        seed: replaces the scenario's.
        out: the run folder; None: results/<scenario>/<run> in the working directory.
        save_images: also keep every output at original size.
        workers: processes; the results do not depend on it.
        dask: the address of a Dask scheduler, or "local"; None: none.
        fresh: compute everything again, whatever is in the folder.
        progress: show a bar on standard error.
        figures: draw them too.
        device: where the networks run: auto (CUDA if there is one), cpu, cuda or mps.
        dtype: in which number format: auto (float32), float32 or bfloat16.

    Raises:
        UserError: whatever cannot be used, in one line.
    """
    from codec.device import DeviceError, choose_device
    from sim.experiment.runner import RunOptions, run_experiment
    from sim.media.images import images_of

    given = dict(set or {}) | ({} if seed is None else {"seed": seed})
    sent = None if images is None else images_of(images)
    if sent is not None:
        given["images"] = [image.name for image in sent]
    loaded = _load(scenario, given)
    with user_errors("", DeviceError):
        chosen = choose_device(device, dtype)
    folder = None if out is None else Path(out)
    options = RunOptions(folder, save_images, fresh, workers, dask, chosen, figures, sent)
    if not progress:
        return load(run_experiment(loaded, options).folder)
    from sim.progress import progress_bar

    with progress_bar(loaded.scenario.name) as callback:
        return load(run_experiment(loaded, options, callback).folder)


def _load(scenario: Source, given: Mapping[str, Any]) -> LoadedScenario:
    from sim.scenario.loader import load_mapping, load_scenario, override_text

    if isinstance(scenario, Mapping):
        return load_mapping(scenario, given)
    from sim.scenario.library import find_scenario

    overrides = [override_text(key, value) for key, value in given.items()]
    return load_scenario(find_scenario(Path(scenario)), overrides)
