"""What stands already is not drawn again, and what changed is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.figures.run import draw_figures

Cli = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
FIGURES = Path("run/figures")


@pytest.fixture
def ran(cli: Cli, photo: Path) -> Callable[..., None]:
    """Runs a scenario in the folder `run`, with options."""
    Path("s.yaml").write_text(
        f"images: [{photo}]\ncodec: {{codebook: 64, model: random}}\n"
        "channel: {type: uniform, loss: 0.5}\nmetrics: [psnr_db]\n"
        "stream: {slices: 6}\ntransport: virtual\nconcealers: [none, inpaint]\nseed: 3\n"
    )

    def run(*options: object) -> None:
        found = cli("run", "s.yaml", "--out", "run", *options)
        assert found.exit_code == 0, found.output

    return run


def drawn() -> dict[str, bytes]:
    """The figures, by name; slides, by path."""
    files = (path for path in FIGURES.rglob("*") if path.is_file())
    return {path.relative_to(FIGURES).as_posix(): path.read_bytes() for path in files}


def test_a_finished_run_is_not_drawn_again(ran: Callable[..., None]) -> None:
    ran()
    first = drawn()
    assert {name.partition(".")[0] for name in first} == {
        "quality", "packets", "strip-photo", "invented-photo",
        "slides/quality-psnr_db", "slides/quality-token_accuracy",
    }  # fmt: skip
    (FIGURES / "quality.svg").write_text("not touched")
    (FIGURES / "packets.svg").unlink()
    (FIGURES / "slides/quality-psnr_db.png").unlink()
    (FIGURES / "strip-photo.png").write_bytes(first["quality.png"])
    ran()
    assert drawn() == first | {"quality.svg": b"not touched"}
    draw_figures(Path("run"))
    assert drawn() == first


def test_a_figure_of_other_numbers_is_drawn(ran: Callable[..., None]) -> None:
    ran()
    first = drawn()
    ran("--seed", 5)
    second = drawn()
    assert all(second[name] != content for name, content in first.items())


def test_a_finished_run_loads_neither_networks_nor_figures(ran: Callable[..., None]) -> None:
    ran()
    command = ["run", f"{Path('s.yaml').absolute()}", "--out", f"{Path('run').absolute()}"]
    code = (
        "import sys\nfrom sim.cli.main import app\n"
        f"app({command!r}, standalone_mode=False)\n"
        "print({'torch', 'matplotlib', 'scipy', 'simpy', 'zmq'} & set(sys.modules))"
    )
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=here)
    assert found.stdout.splitlines()[-1] == "set()", found.stderr
