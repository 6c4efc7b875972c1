"""What many tests need: small photographs, a small model, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

if TYPE_CHECKING:
    from typer.testing import Result

    from codec.model import Model

ROOT = Path(__file__).parent.parent

Cli = Callable[..., "Result"]


def drawn_again(folder: Path, draw: Callable[[Path], object]) -> bool:
    """Whether a program draws the very bytes of the figures in a folder when they are gone."""

    def drawn() -> dict[Path, bytes]:
        files = (path for path in (folder / "figures").rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files}

    before = drawn()
    for path in before:
        path.unlink()
    draw(folder)
    return bool(before) and before == drawn()


@pytest.fixture
def vgg16() -> None:
    """What a search looks with; without its weights, the test is skipped."""
    from codec.perceptual import FeaturesMissing
    from codec.search import check_search

    try:
        check_search()
    except FeaturesMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redrawn() -> Callable[[Path, Callable[[Path], object]], bool]:
    """`redrawn(folder, draw)`: see `drawn_again`."""
    return drawn_again


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A smooth picture with some noise, 56 x 40 pixels: no multiple of 16 either way."""
    rows, columns = np.mgrid[:40, :56]
    noise = np.random.default_rng(5).normal(0, 8, (40, 56, 3))
    colours = np.stack([rows * 5, columns * 4, rows + columns], axis=2)
    path = tmp_path / "photo.png"
    Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def random_model() -> Model:
    """The tiny untrained model, made once."""
    from codec.model import Model

    return Model.random()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli("run", path, ...)` in an empty working directory, in this process."""
    from sim.cli.main import app

    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
