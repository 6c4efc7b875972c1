"""Runs to report on, and their pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sim.report.html import render

SCENARIO = """\
# Question: what do holes cost?
#
# Look at them.

name: small
images: [{image}, {image}]
codec: {{codebook: 64, model: random}}
stream: {{slices: 6, fps: 10}}
channel: {{type: uniform, loss: 0.3}}
transport: virtual
concealers: [none, neighbour_average, inpaint]
repeats: 2
seed: 3
"""
SWEEP = "sweep:\n  stream.interleaver: [raster, random]\n  codec.codebook: [8, 64]\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """A run of one point, and a sweep over two keys; made once."""
    from sim.experiment.runner import RunOptions, run_experiment
    from sim.scenario.loader import load_scenario

    folder = tmp_path_factory.mktemp("runs")
    rows, columns = np.mgrid[:96, :128]
    from PIL import Image

    picture = np.stack([rows * 2, columns, rows + columns], axis=2).astype(np.uint8)
    Image.fromarray(picture).save(folder / "photo.png")
    made = []
    for name, more in (("one", ""), ("swept", SWEEP)):
        path = folder / f"{name}.yaml"
        path.write_text(SCENARIO.format(image="photo.png") + more)
        how = RunOptions(out=folder / name, workers=1)
        made.append(run_experiment(load_scenario(path), how).folder)
    yield made


@pytest.fixture(scope="module")
def pages(runs: list[Path]) -> dict[str, str]:
    """The pages of the one, of the sweep, and of both compared."""
    return {
        "one": render(runs[:1]),
        "swept": render(runs[1:]),
        "both": render(runs),
    }
