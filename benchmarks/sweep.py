"""What a sweep costs beyond what its cells compute: journal, tables, intervals, figures.

    python -m benchmarks.sweep [--cells 1000] [--inpaint-cells 6] [--memory] [--dask]

A cell is one stream of the four sample photographs (128 packets) through Gilbert-Elliott losses
(20%, bursts of 5) in virtual time: without repairs, or repaired by inpainting and measured by every
metric. Efficiency is the processor time of the bare work, a loop that streams (restores, measures)
the same cells and keeps nothing, divided by that of the whole `run_experiment` in one process, all
tables and figures written; loading weights and tokenizing, done once however many cells there are,
are in neither. Processor time, because other processes can only add to the wall's. The goal is 80%.

``--memory``: peak memory of a process that runs so many cells, and ten times as many.
``--dask``: wall time of the cells on a local cluster of one worker and of two; the goal is 1.7
times the speed, and means something only where two cores are idle.
``--batch``: one forward pass of four frames against four passes of one, the reason why cells are
not batched.

What was measured: docs/sweeps.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from codec.model import Model
from sim.cell import Clean
from sim.drivers.record import MediaFrame
from sim.experiment import How, run_experiment
from sim.images import LoadedImage, load_images
from sim.journal import Journal
from sim.media import Restorer, encode_images, load_model, one_thread
from sim.metrics import quality
from sim.plan import ImageAbout, Plan
from sim.scenario import Cell
from sim.scenario_file import LoadedScenario, load_mapping
from sim.streaming import stream_cell

CODEBOOK = 1024


def scenario(cells: int, concealers: list[str], model: str | None) -> LoadedScenario:
    """A sweep of so many cells: up to ten points, the rest repeats."""
    points = min(10, cells)
    raw: dict[str, Any] = {
        "name": "benchmark",
        "codec": {"codebook": CODEBOOK} | ({"model": model} if model else {}),
        "channel": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5},
        "transport": "virtual",
        "concealers": concealers,
        "repeats": cells // points,
        "sweep": {"channel.mean_burst": [2.0 + n for n in range(points)]},
    }
    return load_mapping(raw)


def bare_s(loaded: LoadedScenario, images: list[LoadedImage], model: Model) -> float:
    """Processor seconds of the cells' own work."""
    frames = list(encode_images(model, images, CODEBOOK))
    start = time.process_time()
    for _, point in loaded.points:
        for repeat in range(point.repeats):
            _stream_and_measure(Cell(0, 0, {}, point, repeat), frames, images, model)
    return time.process_time() - start


def _stream_and_measure(
    cell: Cell, frames: list[MediaFrame], images: list[LoadedImage], model: Model
) -> None:
    record = stream_cell(
        cell,
        frames,
        model.fingerprint,
        {CODEBOOK: model.frequencies(CODEBOOK)},
        lambda frame: None,
        _nobody,
        lambda out, total: None,
    )
    if cell.scenario.concealers:
        restorer = Restorer(model, cell.scenario.concealers)
        for ready, image in zip(record.frames, images, strict=True):
            for restored in restorer.restore(ready).restored.values():
                quality(image.pixels, restored.image)


def _nobody() -> Any:
    raise RuntimeError("virtual streams need no receiver elsewhere")


def whole_s(loaded: LoadedScenario, images: list[LoadedImage], folder: Path) -> float:
    """Processor seconds of the run, but for loading and tokenizing."""
    start = time.process_time()
    model = load_model(loaded.model)
    Plan(loaded, [ImageAbout.of(image) for image in images], model.fingerprint)
    once = time.process_time() - start
    start = time.process_time()
    for image, frame in zip(images, encode_images(model, images, CODEBOOK), strict=True):
        with one_thread():
            decoded = model.decode(frame.index_map, CODEBOOK, frame.height, frame.width)
        Clean(frame.index_map, quality(image.pixels, decoded))
    once += time.process_time() - start
    start = time.process_time()
    run_experiment(loaded, How(folder, workers=1))
    return time.process_time() - start - once


def efficiency(cells: int, concealers: list[str], model_name: str | None) -> None:
    """Print how much of a run's time its cells take."""
    loaded = scenario(cells, concealers, model_name)
    images = load_images(["samples"], Path())
    model = load_model(loaded.model)
    for image in images:
        quality(image.pixels, image.pixels)  # imports and first calls
    _stream_and_measure(
        Cell(0, 0, {}, loaded.points[0][1], 0),
        list(encode_images(model, images, CODEBOOK)),
        images,
        model,
    )
    bare = bare_s(loaded, images, model)
    with tempfile.TemporaryDirectory() as folder:
        whole = whole_s(loaded, images, Path(folder, "run"))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jsonl"))
        records = len(Journal(Path(folder, "run", "cells")))
    what = "+".join(concealers) or "no repair"
    print(
        f"{cells} cells, {what}: {cells / whole:.2f} cells/s of processor time, bare "
        f"{cells / bare:.2f}: efficiency {bare / whole:.0%}; journal {size / records / 1e3:.1f} kB "
        "a cell"
    )


def memory_mb(cells: int) -> float:
    """Peak memory of a fresh process that runs so many cells."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--peak", str(cells)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(found.stdout))


def peak_mb(cells: int) -> float:
    """Run so many cells here; the highest this process has been."""
    with tempfile.TemporaryDirectory() as folder:
        run_experiment(scenario(cells, [], "random"), How(Path(folder, "run"), workers=1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def dask_s(cells: int, workers: int) -> float:
    """Wall seconds of a run on a local cluster."""
    with tempfile.TemporaryDirectory() as folder:
        how = How(Path(folder, "run"), workers=workers, dask="local")
        start = time.perf_counter()
        run_experiment(scenario(cells, [], "random"), how)
        return time.perf_counter() - start


def batch() -> None:
    """Print what four frames in one pass cost, against four passes."""
    import torch

    torch.set_num_threads(1)
    model = load_model(None)
    frame = next(encode_images(model, load_images(["samples"], Path())[:1], CODEBOOK))
    words = torch.from_numpy(model.codewords(CODEBOOK)[frame.index_map]).permute(2, 0, 1)
    many = words.expand(4, *words.shape).contiguous()
    with torch.inference_mode():
        model.decoder(many[:1])
        start = time.process_time()
        alone = torch.cat([model.decoder(many[n : n + 1]) for n in range(4)])
        middle = time.process_time()
        together = model.decoder(many)
        end = time.process_time()
    same = "the same bits" if torch.equal(alone, together) else "other bits"
    gain = (middle - start) / (end - middle)
    print(f"decoding four frames together: {gain:.2f} times the speed, {same}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000, help="cells without repairs")
    parser.add_argument("--inpaint-cells", type=int, default=6, help="cells with inpainting")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print(peak_mb(given.peak))
        return
    if given.cells:
        efficiency(given.cells, [], "random")
    if given.inpaint_cells:
        efficiency(given.inpaint_cells, ["inpaint"], None)
    if given.memory:
        few, many = (memory_mb(count) for count in (given.cells // 10, given.cells))
        print(f"peak memory: {few:.0f} MB, and {many:.0f} MB for ten times the cells")
    if given.dask:
        one, two = (dask_s(given.cells, workers) for workers in (1, 2))
        print(f"Dask: two workers {one / two:.2f} times as fast as one ({one:.0f} s, {two:.0f} s)")
    if given.batch:
        batch()


if __name__ == "__main__":
    main()
