"""What a sweep costs beyond what its cells compute, how much memory it takes, what workers add.

    python -m benchmarks.sweep [--workers 2] [--cells 10000] [--inpaint-cells 1000]
                               [--dask-cells 10000] [--inpaint-side 192]

One command, one table; each row is a whole `sim run` in a process of its own, from loading the
weights to the last figure. A cell is one stream of the four sample photographs (128 packets)
through Gilbert-Elliott losses (20%, bursts of 2 to 11) in virtual time: without repairs, or
repaired by inpainting and measured by every metric. With the photographs whole, a thousand
inpainted cells take hours, so ``--inpaint-side`` cuts the middle out of each (0: whole).

Share of bare compute: seconds of the bare work, a loop that streams (restores, measures) the same
cells and keeps nothing, in as many processes at once as there are workers, over those of the run:

- wall: workers times the run's wall time, everything included; the goal is 80% on idle cores
- processor: all processes' processor time, which says something on a busy machine too

The bare loop takes a sample of the cells, evenly spread, before and after the run. Peak memory:
resident, of the process that was started and of its largest worker; it is flat when ten times the
cells take no more. Dask: the goal is that two workers take at most 1/1.7 of the time of one.

``--batch``: instead, one forward pass of four frames against four passes of one, the reason why
cells are not batched.

What was measured: docs/sweeps.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from sim.drivers.record import MediaFrame
from sim.media.images import LoadedImage, load_images
from sim.metrics.quality import quality
from sim.scenario.labels import Cell
from sim.scenario.loader import LoadedScenario, load_mapping
from sim.stream import CoderTables, StreamSetup, stream_frames

if TYPE_CHECKING:  # a pool's processes import this file; `sim run` has them import no torch
    from codec.model import Model
    from sim.media.frames import Restorer

CODEBOOK = 1024
POINTS = 10
BARE_SAMPLE = {"none": 1000, "inpaint": 100}


@dataclass(frozen=True)
class Job:
    """One row of the table.

    Attributes:
        repair: "inpaint", or "none": nothing is restored at all.
        cells: how many.
        workers: processes.
        dask: on a local Dask cluster.
        side: of the images, in pixels; 0: whole.
    """

    repair: str
    cells: int
    workers: int
    dask: bool = False
    side: int = 0

    def scenario(self, images: Path) -> LoadedScenario:
        """A sweep of so many cells: up to ten points, the rest repeats.

        Args:
            images: an empty folder, for cut photographs.
        """
        points = min(POINTS, self.cells)
        raw: dict[str, Any] = {
            "name": "benchmark",
            "images": [str(cut(images, self.side))] if self.side else ["samples"],
            "codec": {"codebook": CODEBOOK} | ({"model": "random"} if self.bare else {}),
            "channel": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5},
            "transport": "virtual",
            "concealers": [] if self.bare else ["inpaint"],
            "repeats": self.cells // points,
            "sweep": {"channel.mean_burst": [2.0 + n for n in range(points)]},
        }
        return load_mapping(raw)

    @property
    def bare(self) -> bool:
        """Whether nothing is restored; weights do not matter then."""
        return self.repair == "none"


@dataclass(frozen=True)
class Cost:
    """What a row took: seconds, seconds of all processors, and peak memory in MB."""

    wall_s: float
    cpu_s: float
    parent_mb: float
    worker_mb: float


def cut(folder: Path, side: int) -> Path:
    """Write the middle of every sample photograph, side x side pixels, into a folder."""
    for image in load_images(["samples"], Path()):
        top, left = (image.height - side) // 2, (image.width - side) // 2
        Image.fromarray(image.pixels[top : top + side, left : left + side]).save(
            folder / f"{image.name}.png"
        )
    return folder


# In the processes that are measured.


def run(job: Job) -> None:
    """The run of a row."""
    from sim.experiment.runner import RunOptions, run_experiment

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        how = RunOptions(
            Path(folder, "run"), workers=job.workers, dask="local" if job.dask else None
        )
        run_experiment(job.scenario(images), how)


def bare(job: Job, share: int) -> dict[str, float]:
    """The bare work of one worker's share of a sample of the cells: seconds and how many cells."""
    from sim.media.frames import Restorer, encode_images, load_model

    with tempfile.TemporaryDirectory() as folder:
        loaded = job.scenario(Path(folder))
        images = load_images(loaded.scenario.images, loaded.images_base)
    model = load_model(loaded.model)
    frames = list(encode_images(model, images, CODEBOOK))
    cells = [
        Cell(0, 0, {}, point, repeat)
        for _, point in loaded.points
        for repeat in range(point.repeats)
    ]
    step = max(1, len(cells) // BARE_SAMPLE[job.repair])
    sample = cells[share * step :: step * job.workers]
    restorer = partial(Restorer, model)
    _stream_and_measure(sample[0], frames, images, model, restorer)  # imports and first calls
    print("ready", flush=True)
    sys.stdin.readline()  # until all are
    start, cpu = time.perf_counter(), time.process_time()
    for cell in sample:
        _stream_and_measure(cell, frames, images, model, restorer)
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
        "cells": len(sample),
    }


def _stream_and_measure(
    cell: Cell,
    frames: list[MediaFrame],
    images: Sequence[LoadedImage],
    model: Model,
    restorer: Callable[[Sequence[str]], Restorer],
) -> None:
    setup = StreamSetup.of(cell.scenario, CoderTables.of(model), cell.repeat)
    record = stream_frames(setup, frames)
    repair = restorer(cell.scenario.concealers)
    for ready, image in zip(record.frames, images, strict=True):
        if cell.scenario.concealers and not ready.complete:
            for restored in repair.restore(ready).restored.values():
                quality(image.pixels, restored.image)


# In the process that measures.


def start(what: str, job: Job, share: int = 0) -> subprocess.Popen[str]:
    """This program again, for one piece of work, on one thread."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--do", what, json.dumps(asdict(job))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, str(share)], stdin=pipe, stdout=pipe, text=True, env=environment
    )


def cost(job: Job) -> Cost:
    """Run a row and watch it."""
    before, begin = os.times(), time.perf_counter()
    process = start("run", job)
    peaks: dict[int, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for pid in family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), peak_mb(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    over.set()
    watcher.join()
    if status:
        raise SystemExit(f"a run failed: {job}")
    after = os.times()
    used = sum(getattr(after, k) - getattr(before, k) for k in ("children_user", "children_system"))
    workers = [peak for pid, peak in peaks.items() if pid != process.pid]
    wall_s = time.perf_counter() - begin
    return Cost(wall_s, used, peaks.get(process.pid, 0.0), max(workers, default=0.0))


def bare_s(job: Job) -> tuple[float, float]:
    """Bare seconds of a row's cells, on its workers' processors: by the wall, and of processor."""
    processes = [start("bare", job, share) for share in range(job.workers)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    found = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        found.append(json.loads(process.communicate()[0]))
    cells = sum(part["cells"] for part in found)
    wall_s, cpu_s = (sum(part[name] for part in found) for name in ("wall_s", "cpu_s"))
    return wall_s * job.cells / cells, cpu_s * job.cells / cells


def family(pid: int) -> Iterator[int]:
    """A process and all that came from it; only where /proc tells."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def peak_mb(pid: int) -> float:
    """The most memory that a process has had resident; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return float(lines[0].split()[1]) / 1024 if lines else 0.0


def row(job: Job, compare: bool) -> Cost:
    """Measure and print a row."""
    shares = ("", "")
    bare = [bare_s(job)] if compare else []
    found = cost(job)
    if compare:
        bare.append(bare_s(job))  # the speed of a processor changes with its heat
        wall_s, cpu_s = (sum(part) / len(bare) for part in zip(*bare, strict=True))
        shares = f"{wall_s / (job.workers * found.wall_s):.0%}", f"{cpu_s / found.cpu_s:.0%}"
    others = job.workers > 1 or job.dask
    who = f"{job.workers} {'Dask' if job.dask else 'pool'}" if others else "alone"
    print(
        f"{job.repair:8} {job.cells:7,} {who:8} {job.cells / found.wall_s:8.1f} "
        f"{1e3 * found.cpu_s / job.cells:9.1f} {shares[0]:>6} {shares[1]:>9} "
        f"{found.parent_mb:9.0f} {f'{found.worker_mb:.0f}' if others else '':>9}",
        flush=True,
    )
    return found


def table(given: argparse.Namespace) -> None:
    """Measure and print everything."""
    print(
        "                          cells/s     ms of   share of bare       peak memory, MB\n"
        "repair     cells workers  by wall processor   wall processor    parent   workers"
    )
    said = []
    for repair, cells in (("none", given.cells), ("inpaint", given.inpaint_cells)):
        side = given.inpaint_side if repair == "inpaint" else 0
        if cells:
            sizes = (max(1, cells // 10), cells)
            few, many = (row(Job(repair, n, given.workers, side=side), n == cells) for n in sizes)
            ratio = max(many.parent_mb, many.worker_mb) / max(few.parent_mb, few.worker_mb)
            said.append(f"{repair}: ten times the cells take {ratio:.2f} times the memory")
    if given.dask_cells:
        one, two = (row(Job("none", given.dask_cells, n, dask=True), False) for n in (1, 2))
        said.append(f"Dask: two workers are {one.wall_s / two.wall_s:.2f} times as fast as one")
    print("\n".join(said))


def batch() -> None:
    """Print what four frames in one pass cost, against four passes."""
    import torch

    from sim.media.frames import encode_images, load_model, one_thread

    torch.set_num_threads(1)
    model = load_model(None)
    frame = next(encode_images(model, load_images(["samples"], Path())[:1], CODEBOOK))
    words = torch.from_numpy(model.codewords(CODEBOOK)[frame.index_map]).permute(2, 0, 1)
    many = words.expand(4, *words.shape).contiguous()
    with torch.inference_mode(), one_thread():
        model.decoder(many[:1])
        begin = time.process_time()
        alone = torch.cat([model.decoder(many[n : n + 1]) for n in range(4)])
        middle = time.process_time()
        together = model.decoder(many)
        end = time.process_time()
    same = "the same bits" if torch.equal(alone, together) else "other bits"
    gain = (middle - begin) / (end - middle)
    print(f"decoding four frames together: {gain:.2f} times the speed, {same}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cells", type=int, default=10_000, help="without repairs; 0: none")
    parser.add_argument("--inpaint-cells", type=int, default=1000, help="with inpainting; 0: none")
    parser.add_argument("--inpaint-side", type=int, default=192, help="pixels; 0: whole images")
    parser.add_argument("--dask-cells", type=int, default=10_000, help="without repairs; 0: none")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--do", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        what, job, share = given.do
        if what == "run":
            run(Job(**json.loads(job)))
        else:
            print(json.dumps(bare(Job(**json.loads(job)), int(share))))
    elif given.batch:
        batch()
    else:
        table(given)


if __name__ == "__main__":
    main()
