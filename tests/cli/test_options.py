"""The options that commands share: one name and one help text everywhere."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sim.cli.main import app
from sim.version import __version__

Cli = Callable[..., Any]

SHARED = ("out", "images", "codebook", "json", "seed", "model", "device", "dtype", "workers", "set")
"""Without their hyphens."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_shared_options_have_one_name_and_one_help_text() -> None:
    helps: dict[str, set[str]] = defaultdict(set)
    for words, command in COMMANDS.items():
        for parameter in command.params:
            name = next((o[2:] for o in parameter.opts if o[2:] in SHARED), None)
            if name is None:
                continue
            assert ("-o" in parameter.opts) == (name == "out"), words
            if words[0] != "train":  # there, images are for training, a folder is a run
                helps[name].add(parameter.help)
    assert set(helps) == set(SHARED)
    assert helps["out"] == {
        "The folder to write.",
        "The file to write.",
        "The file to write; of a folder, the folder.",
    }
    codebooks = helps.pop("codebook")
    assert codebooks == {
        "Codebook size: more is better and larger.",
        "Codebook sizes, with commas between them.",
        "Codebook sizes, with patch: 8,64,512@24. Default: all, at 16.",
    }
    del helps["out"]
    assert all(len(texts) == 1 for texts in helps.values()), helps


def test_who_names_a_model_names_a_device() -> None:
    """Wherever networks are chosen, one can say where they run."""
    for words, command in COMMANDS.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--model" not in options or {"--device", "--dtype"} <= options, words


def test_version_and_completion(cli: Cli) -> None:
    assert cli("--version").stdout == f"sim {__version__}\n"
    assert "--install-completion" in cli("--help").stdout


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_the_same_style(cli: Cli, words: tuple[str, ...]) -> None:
    lines = cli(*words, "--help").stdout.splitlines()
    assert lines[0].startswith("Usage: ")
    assert not any("\u2500" in line for line in lines)  # no frames


def test_scenario_options_are_overrides(cli: Cli, photo: Path) -> None:
    Path("s.yaml").write_text("codec: {model: random}\nstream: {slices: 2}\ntransport: virtual\n")
    options = ("--images", photo, "--codebook", 64, "--seed", 7, "--out", "run")
    result = cli("run", "s.yaml", *options)
    assert result.exit_code == 0, result.output
    scenario = json.loads(Path("run/manifest.json").read_text())["scenario"]
    assert scenario["images"] == [str(photo)]
    assert (scenario["codec"]["codebook"], scenario["seed"]) == (64, 7)


def test_images_may_be_one_name(cli: Cli, photo: Path) -> None:
    Path("s.yaml").write_text("codec: {model: random}\nstream: {slices: 2}\ntransport: virtual\n")
    result = cli("run", "s.yaml", "--set", f"images={photo}", "--out", "run")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("run/manifest.json").read_text())["scenario"]["images"] == [str(photo)]


def test_where_to_write_is_checked_before_anything_is_done(cli: Cli, tmp_path: Path) -> None:
    Path("file").touch()
    for words, problem in (
        (("run", "burst20", "--out", "file"), "file: is a file; --out needs a folder"),
        (("channel", "plot", "good-wifi", "-o", "."), ".: is a folder; --out needs a file"),
    ):
        result = cli(*words)
        assert (result.exit_code, result.stderr) == (2, f"{problem}\n")
