"""`sim scenarios` and `sim new`: what ships is explained, what is written is valid."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.scenario.library import GROUPS, find_scenario, library_files, library_folder
from sim.scenario.lint import lint_scenario
from sim.scenario.loader import load_scenario
from sim.scenario.schema import Scenario

Cli = Callable[..., Any]


def test_every_file_is_listed_once_and_has_a_group(cli: Cli) -> None:
    listed = json.loads(cli("scenarios", "--json").stdout)["scenarios"]
    names = [one["name"] for one in listed]
    assert len(names) >= 15 and len(set(names)) == len(names)
    assert {one["group"] for one in listed} <= set(GROUPS)
    there = set(library_folder().rglob("*.yaml"))
    assert {Path(one["path"]) for one in listed} == there
    compare = {path for path in there if "strategies:" in path.read_text()}
    assert {Path(one["path"]) for one in listed if one["group"] == "compare"} == compare
    assert set(library_files()) == there - compare
    for one in listed:
        assert one["question"].endswith("?") and one["look"].startswith("Look at"), one["name"]
        assert one["time"] != "minutes", f"{one['name']} takes too long for a library"


def test_the_list_and_one_of_it(cli: Cli) -> None:
    listed = cli("scenarios").stdout
    assert "burst20" in listed and "begin here" in listed
    one = cli("scenarios", "lora").stdout
    compared = cli("scenarios", "equal-bytes").stdout
    assert "sim compare equal-bytes" in compared and "strategies x 39 points" in compared
    refused = cli("run", "equal-bytes")
    assert refused.exit_code == 2 and "run it by: sim compare equal-bytes" in refused.stderr
    assert "5,470 bits per second" in one and "sim run lora" in one


def test_the_list_needs_no_pyav(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cli("scenarios", "--json").stdout
    monkeypatch.setitem(sys.modules, "av", None)
    assert cli("scenarios", "--json").stdout == whole


def test_names_stand_for_files(cli: Cli) -> None:
    Path("lora").mkdir()  # of results
    assert find_scenario(Path("lora")) == library_folder() / "links" / "lora.yaml"
    assert find_scenario(Path("links/lora")) == find_scenario(Path("lora"))
    assert find_scenario(Path("mine.yaml")) == Path("mine.yaml")
    assert find_scenario(Path("equal-bytes")) == library_folder() / "equal-bytes.yaml"
    assert find_scenario(Path("video/equal-bytes")) == library_folder() / "video/equal-bytes.yaml"
    result = cli("scenarios", "brust20")
    assert result.exit_code == 2 and "did you mean burst20" in result.stderr


def test_a_new_scenario_is_what_leaving_everything_out_is(cli: Cli) -> None:
    assert cli("new", "mine").exit_code == 0
    written = load_scenario(Path("mine.yaml")).scenario
    bare = Scenario(name="mine", channel=written.channel)
    assert written == bare
    text = Path("mine.yaml").read_text()
    for key in Scenario.model_fields:
        assert f"{key}:" in text, key


def test_the_commented_parts_of_a_new_scenario_are_valid_too(cli: Cli) -> None:
    assert cli("new", "mine").exit_code == 0
    text = Path("mine.yaml").read_text()
    head, sweep = text.split("# sweep:")
    Path("mine.yaml").write_text(head + ("sweep:" + sweep.replace("\n#", "\n")))
    assert len(load_scenario(Path("mine.yaml")).points) == 6


def test_a_copy_keeps_everything_but_the_name(cli: Cli) -> None:
    assert cli("new", "mine", "--from", "lora").exit_code == 0
    written = load_scenario(Path("mine.yaml")).scenario
    original = load_scenario(find_scenario(Path("lora"))).scenario
    assert written.model_copy(update={"name": "lora"}) == original
    assert "# Question:" in Path("mine.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("-x",), "must start with a letter"),
        (("no/such/folder",), "cannot be written"),
        (("mine", "--from", "nothing"), "no such scenario"),
    ],
)
def test_what_cannot_be_written(cli: Cli, arguments: tuple[str, ...], problem: str) -> None:
    result = cli("new", "--", *arguments) if arguments[0] == "-x" else cli("new", *arguments)
    assert result.exit_code == 2 and problem in result.stderr
    assert list(Path().iterdir()) == []


def test_nothing_is_overwritten(cli: Cli) -> None:
    Path("mine.yaml").write_text("seed: 1\n")
    result = cli("new", "mine")
    assert result.exit_code == 2 and "is there already" in result.stderr
    assert Path("mine.yaml").read_text() == "seed: 1\n"


def test_one_sample_by_its_name(tmp_path: Path) -> None:
    from sim.errors import UserError
    from sim.media.images import image_paths

    assert [path.stem for path in image_paths(["samples/coffee"], tmp_path)] == ["coffee"]
    with pytest.raises(UserError, match="there are astronaut"):
        image_paths(["samples/nobody"], tmp_path)
    (tmp_path / "samples").mkdir()
    assert image_paths(["samples/mine.png"], tmp_path) == [tmp_path / "samples" / "mine.png"]


INTENDED = {
    ("cellular", "deadline"): "its question is how much later the deadline must be",
    ("congested", "rate_bps"): "its question is what a link that is too slow does",
    ("loss-models", "loss"): "the heavy tail is one of those compared",
    ("wifi", "loss"): "the heavy tail is its question",
}


def test_shipped_scenarios_fit_their_channels() -> None:
    """Nothing that ships loses for another reason than the one it is about."""
    found = {
        (path.stem, finding.where): finding.message
        for path in library_files()
        for finding in lint_scenario(load_scenario(path))
        if finding.level != "note"
    }
    assert set(found) == set(INTENDED), found


def test_a_run_warns_in_one_line_of_what_lint_finds(cli: Cli, photo: Path) -> None:
    text = "stream: {fps: 1, playout_delay_s: 0.3, slices: 8}\nchannel: {link: {rate_bps: 500}}\n"
    Path("s.yaml").write_text(
        f"{text}images: ['{photo}']\ncodec: {{model: random, codebook: 64}}\n"
        "transport: virtual\nconcealers: []\nname: s\n"
    )
    linted = cli("channel", "lint", "s.yaml").stdout
    assert "a link of 500" in linted and "beyond the deadline of 0.3 s" in linted
    result = cli("run", "s.yaml", "--out", "run", "--json")
    warning = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warning) == 1 and "and 1 more" in warning[0]
    json.loads(result.stdout)
    told = cli("run", "s.yaml", "--out", "run", "--set", "channel={type: perfect}")
    assert "warning" in told.stderr, "the deadline is still too early"
    told = cli("run", "s.yaml", "--out", "r", "--set", "channel={}", "--set", "stream.fps=4")
    assert "warning" not in told.stderr
