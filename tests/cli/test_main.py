"""The command line: light to start, silent on standard output but for what was asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Another Python, at the root of the project."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_help_imports_only_the_command_line() -> None:
    """Beside what any typer program imports: the time to the first line is theirs."""
    code = (
        "import sys, rich, typer; before = set(sys.modules)\n"
        "from sim.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    result = python("-c", code)
    assert result.returncode == 0
    assert "schema" in result.stdout
    free = sys.stdlib_module_names | {"rich", "typer"}
    ours = {name for name in result.stderr.split() if name.split(".")[0] not in free}
    small = {"sim", "sim.errors", "sim.progress", "sim.version"}
    assert {name for name in ours if not name.startswith("sim.cli")} <= small


def test_no_line_of_help_is_cut(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), ("channel",), ("codec",), ("model",), ("study",), ("train",)):
        commands = cli(*group, "--help").stdout.partition("Commands:")[2]
        assert len(commands.splitlines()) > 2
        assert "..." not in commands


def test_schema_is_json_and_describes_scenarios(cli: Cli) -> None:
    schema = json.loads(cli("schema").stdout)
    assert set(schema["properties"]) >= {"images", "codec", "stream", "channel", "sweep", "seed"}
    kinds = {kind.get("title") for kind in schema["properties"]["channel"]["oneOf"]}
    assert kinds >= {"perfect", "uniform", "gilbert_elliott", "scripted"}
    assert "name" not in schema.get("required", [])


def test_choices_are_those_of_the_parts(random_model: Any) -> None:
    """The scenario spells its choices out for messages and schema; they must not drift."""
    from typing import get_args

    from codec.concealment import CONCEALERS, VIDEO_CONCEALERS
    from codec.entropy import ENTROPY_MODES
    from sim.protocol.interleaver import INTERLEAVERS
    from sim.scenario.schema import CodebookSize, Concealer, Entropy, Interleaver, VideoConcealer

    assert get_args(VideoConcealer) == VIDEO_CONCEALERS
    assert get_args(Concealer) == (*CONCEALERS, *VIDEO_CONCEALERS)
    assert get_args(Interleaver) == INTERLEAVERS
    assert get_args(CodebookSize) == random_model.codebook_sizes
    assert set(get_args(Entropy)) <= set(ENTROPY_MODES)


def test_summary_says_where_the_pictures_are(cli: Cli, photo: Path) -> None:
    Path("s.yaml").write_text(
        "images: [../photo.png]\ncodec: {model: random}\ntransport: virtual\nstream: {fps: 10}\n"
    )
    result = cli("run", "s.yaml", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "pictures: run/figures" in result.stdout
    assert "tables:   run" in result.stdout
    for words in ("none", "neighbour average", "inpaint", "(no loss)", "SSIMULACRA2"):
        assert words in result.stdout
