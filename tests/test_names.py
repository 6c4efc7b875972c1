"""Names of files and folders that other programs trip over: in `run`, `report` and `page`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.scenario.labels import name_of
from sim.scenario.loader import load_scenario
from tests.page.browser import PATIENCE_MS, browsing, chromium, served, wait_for_image

Cli = Callable[..., Any]

STEMS = ("$5_{", "[red]x[-x]", "a\nb", "\U0001f600日本", "<b>&amp;'\"", os.fsdecode(b"caf\xe9"))
SCENARIO = """\
images: [odd]
codec: {model: random, codebook: 64}
stream: {slices: 4, fps: 2}
channel: {type: uniform, loss: 0.3}
transport: virtual
concealers: [none]
"""


@pytest.fixture
def scenario(photo: Path, tmp_path: Path) -> Path:
    """A scenario with a name that is not UTF-8, and images of all the names."""
    folder = tmp_path / "work"
    (folder / "odd").mkdir(parents=True, exist_ok=True)
    for stem in STEMS:
        shutil.copy(photo, folder / "odd" / f"{stem}.png")
    path = folder / f"{STEMS[-1]}.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_report_compares_runs_in_folders_of_any_name(cli: Cli, scenario: Path) -> None:
    result = cli("run", scenario.name, "--out", STEMS[0])
    assert result.exit_code == 0, result.output
    for stem in STEMS[1:]:
        shutil.copytree(STEMS[0], stem)
    result = cli("report", *STEMS, "--out", f"{STEMS[-1]}.html")
    assert result.exit_code == 0, result.output
    page = Path(f"{STEMS[-1]}.html").read_text("utf-8")
    for told in ("$5_{", "[red]x[-x]", "\U0001f600日本", "caf\\udce9"):
        assert told in page
    assert "<b>&amp;'" not in page  # markup in a name stays text


@pytest.mark.parametrize("stem", [*STEMS, "-x", "a b", "...", "x" * 200])
def test_scenario_files_of_any_name(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text("seed: 1\n")
    assert load_scenario(path).scenario.name == name_of(path)


def test_a_usable_name_is_kept_and_others_are_alike() -> None:
    names = {"burst-20.v2_x": "burst-20.v2_x", "my test": "my_test", "日": "scenario"}
    assert {stem: name_of(Path(f"{stem}.yaml")) for stem in names} == names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_shows_them(scenario: Path) -> None:
    pytest.importorskip("nicegui", reason="needs the extra page")
    pytest.importorskip("playwright", reason="needs the extra browser")
    if chromium() is None:
        pytest.skip("needs Chromium")
    with served([str(scenario), "--side", "64"]) as (address, _), browsing() as browser:
        page = browser.new_page()
        page.goto(address, timeout=PATIENCE_MS, wait_until="domcontentloaded")
        wait_for_image(page, len(STEMS))
        foot = page.locator("footer code")
        foot.wait_for(timeout=PATIENCE_MS)
        assert "caf\\udce9.yaml" in foot.inner_text()
