"""Results and words do not depend on terminals, locales, fonts and files that lie around."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from sim.errors import UserError
from sim.figures.channel import draw_channel
from sim.figures.style import drawing
from sim.live.process import SenderProcess
from sim.progress import screen
from sim.scenario.loader import load_scenario

SIM = (sys.executable, "-m", "sim")


def called(*command: str, folder: Path, **surroundings: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    environment = {**os.environ, **surroundings}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=200)


@pytest.mark.parametrize("text", ["$5_{", r"a $\frac$ b", "50% {x} $$", "日本語🎉"])
def test_figures_take_titles_as_text(tmp_path: Path, text: str, recwarn) -> None:
    mask = np.arange(500) % 7 == 0
    draw_channel(mask, None, tmp_path / "a.svg", ".svg", text, f"small {text}")
    assert text in (tmp_path / "a.svg").read_text("utf-8")
    assert not recwarn.list


def test_figures_look_alike_whatever_the_user_likes(tmp_path: Path) -> None:
    drawn = []
    for theirs in ({}, {"text.usetex": True, "font.size": 20, "figure.dpi": 30, "axes.grid": True}):
        with matplotlib.rc_context(theirs):
            before = theirs | {"svg.fonttype": matplotlib.rcParams["svg.fonttype"]}
            with drawing():
                figure = Figure((3, 2))
                figure.subplots().set_title("title")
                figure.savefig(tmp_path / "a.png", metadata={"Software": None})
            assert all(matplotlib.rcParams[key] == value for key, value in before.items())
        drawn.append((tmp_path / "a.png").read_bytes())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("columns", ["0", "20", "x"])
def test_nothing_is_cut_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    screen().print("[red] " + "x" * 500 + " :smile: [/x]")
    assert capsys.readouterr().out == "[red] " + "x" * 500 + " :smile: [/x]\n"


def test_errors_are_one_line_of_what_can_be_printed() -> None:
    told = str(UserError("a\nb \x1b[31m caf\udce9 " + "x" * 10_000 + " the end"))
    assert len(told) <= 380
    assert told.isprintable() and told.startswith(r"a b \x1b[31m caf\udce9")
    assert told.endswith("x the end")


def test_a_demo_runs_no_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sim.py", "codec.py", "random.py"):
        (tmp_path / name).write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text("codec: {model: random}\nstream: {slices: 1}\n")
    demo = (*SIM, "demo", "s.yaml", "--frames", "1")
    done = called(*demo, folder=tmp_path, PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_sender_that_fails_is_told() -> None:
    with (
        SenderProcess(load_scenario, Path("missing.yaml")) as sender,
        pytest.raises(UserError, match=r"sender: missing\.yaml"),
    ):
        for _ in range(1000):
            sender.check()
            time.sleep(0.1)


def test_output_in_any_encoding(tmp_path: Path) -> None:
    made = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "MPLBACKEND": "module://none.such"}
    text = called(
        *SIM, "channel", "plot", "uniform:loss=0.5", "-o", "日.svg", folder=tmp_path, **made
    )
    assert text.returncode == 0, text.stderr
    assert text.stdout.decode("cp1252").strip() == r"\u65e5.svg"
    arguments = ("channel", "sample", "uniform:loss=0.5", "-n", "9", "-o", "🎉.npy", "--json")
    found = called(*SIM, *arguments, folder=tmp_path, **made)
    assert json.loads(found.stdout.decode("ascii"))["mask"] == "🎉.npy"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_is_full_or_closed(tmp_path: Path) -> None:
    command = f"{sys.executable} -m sim channel lint good-wifi"
    command = command.replace("good-wifi", "uniform:loss=0.1")
    full = called("sh", "-c", f"{command} >/dev/full", folder=tmp_path)
    assert full.returncode == 2
    assert full.stderr.decode().splitlines() == ["cannot write or read: No space left on device"]
    closed = called("sh", "-c", f"{command} >&-", folder=tmp_path)
    assert (closed.returncode, closed.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "a.yaml", "--shard", "²/3"), "--shard ²/3: write I/N"),
        (("run", "a.yaml", "--shard", "1/" + "9" * 5000), "--shard"),
        (("channel", "describe", "script:" + "01" * 400), "File name too long"),
        (("codec", "encode", "~/no-such-picture.png", "-o", "x.tok"), "/home-of-mine/no-such-pic"),
        (("codec", "decode", "a" * 300, "-o", "x.png"), "File name too long"),
        (("run", "burst20", "--sed", "1"), "--sed"),
        (("channel", "describe", "uniform:loss=0.1", "-n", "many"), "string as an integer; see"),
    ],
)
def test_mistakes_on_the_command_line(
    cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.setenv("HOME", "/home-of-mine")
    Path("a.yaml").write_text("images: [samples]\n")
    result = cli(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert says in line and len(line) <= 380
    assert [path.name for path in Path().iterdir()] == ["a.yaml"]
