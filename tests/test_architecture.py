"""docs/architecture.md is true: its picture, its names, and its recipes, which run."""

from __future__ import annotations

import csv
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sim.results.run import Run
from sim.scenario.loader import load_scenario
from sim.stream import make_channel
from tests.test_imports import LAYERS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
NAMES = sorted(set(re.findall(r"`((?:sim|codec|channels)(?:\.\w+)+)`", PAGE)))
PATHS = sorted(set(re.findall(r"`((?:sim|codec|channels|tests)/[\w/]+\.py)`", PAGE)))
PARTS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
RECIPES = dict(
    re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", PARTS["Recipes"], re.DOTALL | re.MULTILINE)
)
CHANNEL, CONCEALER, METRIC, KEY = RECIPES

RUN_ALL = """
import sys
from sim.cli.main import app

for words in sys.stdin.read().splitlines():
    app(words.split("\\t"), standalone_mode=False)
"""


def blocks(text: str, kind: str) -> list[str]:
    """The code blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def changed_files(recipe: str) -> set[str]:
    """The existing files that a recipe changes."""
    (diff,) = blocks(recipe, "diff")
    return set(re.findall(r"^\+\+\+ b/(\S+)", diff, re.MULTILINE))


def test_the_picture_shows_the_layers() -> None:
    (picture,) = blocks(PAGE, "text")
    rows = [set(names.split()) for names in re.findall(r"^│ (.*?) │ ", picture, re.MULTILINE)]
    assert rows == [*reversed(LAYERS), {"codec", "channels"}]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name: str) -> None:
    found: object = importlib.import_module(name.split(".")[0])
    for number, part in enumerate(name.split(".")[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(name.split(".")[:number]))
        found = getattr(found, part)


def test_files_named_exist() -> None:
    new = {path for path in PATHS if f"as `{path}`" in PAGE}
    assert [path for path in PATHS if not (ROOT / path).is_file()] == sorted(new)


@pytest.mark.parametrize("title", [title for title in PARTS if title.startswith("One ")])
def test_each_way_has_ten_steps(title: str) -> None:
    assert [int(n) for n in re.findall(r"^(\d+)\. ", PARTS[title], re.M)] == list(range(1, 11))


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_touches_at_most_two_existing_files(title: str) -> None:
    files = changed_files(RECIPES[title])
    assert 1 <= len(files) <= 2
    assert all((ROOT / file).is_file() for file in files)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with all recipes applied."""
    house = tmp_path_factory.mktemp("house")
    for package in ("channels", "codec", "sim"):
        ignored = shutil.ignore_patterns("__pycache__", "pretrained")
        shutil.copytree(ROOT / package, house / package, ignore=ignored)
    (house / "scenarios").symlink_to(ROOT / "scenarios")
    shutil.copy(ROOT / "pyproject.toml", house)
    for recipe in RECIPES.values():
        for content in blocks(recipe, "python"):
            named = re.search(r"as `(\S+)`:", recipe)
            assert named is not None
            (house / named[1]).write_text(content)
        (diff,) = blocks(recipe, "diff")
        subprocess.run(["git", "apply", "-"], input=diff, text=True, check=True, cwd=house)
    return house


@pytest.fixture(scope="module")
def runs(house: Path) -> dict[str, Path]:
    """By recipe, what its command makes of one photograph, untrained and in virtual time. The
    settings of all commands go into one run; those of the key, which are seen by the losses of a
    channel that is known without the recipes, into a second."""
    Image.radial_gradient("L").resize((96, 64)).save(house / "photo.png")
    small = "images=[photo.png] codec.model=random codec.codebook=64 transport=virtual"
    settings: dict[str, list[str]] = {"all": [], "key": ["--set", "metrics=[psnr_db]"]}
    for title, recipe in RECIPES.items():
        (command,) = blocks(recipe, "sh")
        sim, run, scenario, *words = shlex.split(command)
        assert [sim, run, scenario] == ["sim", "run", "burst20"]
        settings["key" if title == KEY else "all"] += words
    calls = [
        ["run", "burst20", *words, *(w for s in small.split() for w in ("--set", s)), "-o", name]
        for name, words in settings.items()
    ]
    ended = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input="\n".join(map("\t".join, calls)),
        capture_output=True,
        text=True,
        cwd=house,
        env=os.environ | {"PYTHONPATH": str(house)},
    )
    assert ended.returncode == 0 and not ended.stderr, ended.stderr[-2000:]
    return {title: house / ("key" if title == KEY else "all") for title in RECIPES}


def test_what_the_recipes_write_is_in_style(house: Path) -> None:
    for check in (["check"], ["format", "--check"]):
        files = [*set().union(*map(changed_files, RECIPES.values())), "channels/periodic.py"]
        found = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *files], cwd=house, capture_output=True
        )
        assert found.returncode == 0, found.stdout.decode()


def erased(folder: Path) -> list[bool]:
    """Of each packet, whether it was lost."""
    with (folder / "packets.csv").open() as table:
        return [row["fate"] == "erased" for row in csv.DictReader(table)]


def test_the_channel_loses_every_fifth(runs: dict[str, Path]) -> None:
    fates = erased(runs[CHANNEL])
    first = fates.index(True)
    assert first < 5 and len(fates) >= 20
    assert fates == [number % 5 == first for number in range(len(fates))]


def test_the_concealer_repairs(runs: dict[str, Path]) -> None:
    found = Run.load(runs[CONCEALER]).points[0].concealers
    assert set(found) == {"clean", "none", "mean"}
    assert found["mean"]["psnr_db"].mean != found["none"]["psnr_db"].mean


def test_the_metric_is_measured_and_drawn(runs: dict[str, Path]) -> None:
    run = Run.load(runs[METRIC])
    assert run.metrics == ["psnr_db", "mae"]
    for row in run.images:
        assert 0 < row.metric("mae") < 255
    assert "MAE" in (runs[METRIC] / "figures" / "quality.svg").read_text()


def test_the_key_changes_the_losses_alone(runs: dict[str, Path]) -> None:
    scenario = load_scenario(ROOT / "scenarios" / "burst20.yaml").scenario
    fates = erased(runs[KEY])

    def expected(seed: int) -> list[bool]:
        channel = make_channel(scenario.channel, seed, repeat=0)
        return [not channel.transmit(b"", 0.0) for _ in fates]

    assert fates == expected(2) != expected(scenario.seed)
