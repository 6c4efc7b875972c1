"""The first picture: what `sim run scenarios/burst20.yaml` takes, beside its networks and metrics.

    python -m benchmarks.first_picture [--scenario FILE] [--revision FOLDER ...] [--rounds N]

The main job is the command in a process of its own, once into a new folder and once into the
finished one. The parts are what it cannot do without, each alone in one process and on one thread:
imports, networks, metrics, picture files, figures. The job's processor time is to be at most twice
that of networks and metrics. With other source trees given as FOLDERs (`git worktree add`), the job
runs from each in turn, so that one machine in one state is asked about all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def job(tree: Path, scenario: Path, out: Path) -> dict[str, float]:
    """Wall and processor seconds of `sim run` from a source tree."""
    command = [sys.executable, "-m", "sim", "run", str(scenario), "--out", str(out), "--json"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return {"wall_s": wall_s, "cpu_s": spent}


def parts(scenario: Path, run: Path) -> dict[str, float]:
    """Processor seconds of the parts of a finished run, each alone, in this process."""
    found: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        found[name] = found.get(name, 0.0) + time.process_time() - began

    with part("imports"):
        import torch

        from sim.figures.run import draw_figures
        from sim.media.frames import Restorer, decode_lossless, encode_images, load_model
        from sim.media.images import load_images
        from sim.metrics.quality import quality
        from sim.results.files import png
        from sim.results.run import Run
        from sim.scenario.loader import load_scenario
        from sim.stream import CoderTables, StreamSetup, stream_frames

        torch.set_num_threads(1)
    loaded = load_scenario(scenario, ["transport=virtual"])
    _, point = loaded.points[-1]
    with part("loading weights"):
        model = load_model(loaded.model)
    images = load_images(point.images, loaded.images_base)
    with part("networks"):
        frames = list(encode_images(model, images, *point.codec.tokenizer_key))
        clean = [decode_lossless(model, frame, point.codec.codebook) for frame in frames]
    with part("stream in virtual time"):
        record = stream_frames(StreamSetup.of(point, CoderTables.of(model)), frames)
    restorer = Restorer(model, point.concealers, point.decoding_options())
    with part("networks"):
        restored = [restorer.restore(ready) for ready in record.frames]
    for image, lossless, output in zip(images, clean, restored, strict=True):
        pictures = [lossless, *output.images.values()]
        with part("metrics"):
            for pixels in pictures:
                quality(image.pixels, pixels, point.metrics)
        with part("picture files"):
            for pixels in [image.pixels, *pictures]:
                png(pixels)
    with part("figures"):
        draw_figures(run)
    assert Run.load(run).points
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", type=Path, default=ROOT / "scenarios" / "burst20.yaml")
    parser.add_argument("--revision", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    scenario = given.scenario.absolute()
    report: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "jobs": {}}
    with tempfile.TemporaryDirectory(prefix="first-picture-") as scratch:
        for number in range(given.rounds):
            for tree in [ROOT, *(folder.absolute() for folder in given.revision)]:
                out = Path(scratch) / f"{tree.name}-{number}"
                of_tree = report["jobs"].setdefault(tree.name, {"first": [], "again": []})
                for which in ("first", "again"):
                    of_tree[which].append(job(tree, scenario, out))
        report["parts_cpu_s"] = parts(scenario, Path(scratch) / f"{ROOT.name}-0")
    needed = report["parts_cpu_s"]["networks"] + report["parts_cpu_s"]["metrics"]
    spent = min(run["cpu_s"] for run in report["jobs"][ROOT.name]["first"])
    report["cpu_over_networks_and_metrics"] = spent / needed
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
