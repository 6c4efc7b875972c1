"""Every `sim` command of every page runs, from an installed wheel, in an empty folder.

What would take minutes or a cluster runs smaller: on two small photographs, with untrained
networks, in virtual time, with one repeat and the ends of each swept list (`CHEAP`). What needs
more photographs, or a file that nobody has, must say so in one line (`REFUSED`).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from docs import scenarios
from sim.scenario.library import describe, find_scenario
from sim.scenario.loader import load_scenario

ROOT = Path(__file__).parent.parent
ELSEWHERE = ("architecture.md",)
"""Its recipes change the program: `tests/test_architecture.py` applies and runs them."""
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if path.name not in ELSEWHERE
]

SMALL = ("--images", "photos", "--model", "random")
CHEAP: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run",): ("--set", "transport=virtual", "--set", "repeats=1", "--model", "random"),
    ("compare", "video/equal-bytes"): (
        *("--model", "random", "--set", "video.frames=2", "--set", "video.size=64"),
        *("--set", "strategies=[{name: tokens}]", "--set", "bpp_wire=[9.0]", "--set", "loss=[0.2]"),
        *("--set", "mean_burst=[3]", "--set", "repeats=1", "--set", "stream.slices=4"),
    ),
    ("compare",): (
        *SMALL,
        *("--set", "strategies=[{name: tokens}]", "--set", "bpp_wire=[9.0]", "--set", "loss=[0.2]"),
        *("--set", "mean_burst=[3]", "--set", "repeats=1", "--set", "stream.slices=4"),
    ),
    ("optimise",): (
        *SMALL,
        *("--bpp-wire", "9", "--verify", "1", "--repeats", "1", "--slices", "4"),
    ),
    ("codec", "bits"): ("--levels", "8,64", "--slices", "1,2", "--model", "random"),
    ("codec", "bench"): (
        *("--levels", "8,64", "--rates", "1.5,6", "--codecs", "jpeg", "--model", "random"),
        *("--workers", "1"),
    ),
    ("study",): ("--model", "random", "--limit", "1"),
    ("paper-check",): ("--model", "random", "--levels", "64"),
    ("send",): (*SMALL, "--frames", "2"),
    ("receive",): SMALL,
}
"""Options that are added, by the first words of a command."""

REFUSED = {
    ("train", "pack"): None,
    ("train", "calibrate"): "no such weights file",
    ("train", "inpainter", "--clips"): "my-clips: no video files",
    ("train",): "photos",
    ("model", "import"): "last.ckpt",
}
"""What the message names where a command cannot run here; None: it can."""

PLACES = {
    "PHOTOS": "photos",
    "video.file=my.mp4": "video.file=samples/book",
    "kodak": "photos",
    "WEIGHTS": "weights",
    "/shared/sweep": "shared",
}
"""What stands for something of the reader's own."""

RUNNER = """
import json, sys
from pathlib import Path
import codec, sim
from sim.cli.main import app
from typer.testing import CliRunner
assert {Path(p.__file__).parents[1] for p in (codec, sim)} == {Path(sys.argv[1])}
for words in json.load(sys.stdin):
    result = CliRunner().invoke(app, words)
    print(json.dumps([words, result.exit_code, result.output[-2000:]]), flush=True)
"""


def commands(page: Path) -> list[list[str]]:
    """The `sim` commands of a page's blocks of code, without the word itself."""
    lines = re.findall(r"^(?: {4})?sim (.*)$", page.read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def by_start(words: list[str], table: dict[tuple[str, ...], object]) -> object:
    """The entry of a table that a command starts with; None if there is none."""
    starts = (start for start in table if tuple(words[: len(start)]) == start)
    return next((table[start] for start in starts), None)


def made_cheap(words: list[str], number: int) -> list[str]:
    """A command on small photographs."""
    words = [f"folder-{number}" if word == "FOLDER" else PLACES.get(word, word) for word in words]
    words = [word.replace("PHOTOS", "photos") for word in words]
    more = by_start(words, CHEAP) or ()
    assert isinstance(more, tuple)
    extra = list(more)
    if words[0] == "run":
        scenario = load_scenario(find_scenario(Path(words[1]))).scenario
        ends = {key: [values[0], values[-1]] for key, values in scenario.sweep.items()}
        extra += ["--set", f"sweep={json.dumps(ends)}"]
        if scenario.video is not None:
            extra += ["--set", "video.frames=2", "--set", "video.size=64"]
        elif "--images" not in words:
            extra += ["--images", "photos"]
    return [*words, *extra]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this tree is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    leave = shutil.ignore_patterns(".*", "build", "results", "training-runs")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=leave)  # setuptools leaves files there
    build = (*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(tree))
    subprocess.run(build, check=True, timeout=250)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    install = (*pip, "install", "-q", "--no-deps", "--target", str(target), str(wheel))
    subprocess.run(install, check=True, timeout=250)
    return target


@pytest.fixture
def python(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Another Python, which imports what is installed; the working directory is empty but for two
    photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("LOSSY_STREAM_SIM_CACHE", str(tmp_path / "cache"))
    for folder in ("photos", "my-photos"):
        Path(folder).mkdir()
        for name in ("chelsea", "coffee"):
            picture = Image.radial_gradient("L") if name == "coffee" else Image.linear_gradient("L")
            picture.resize((64, 48)).convert("RGB").save(f"{folder}/{name}.png")
    return (sys.executable, "-P")


def test_pages_are_found() -> None:
    assert len(PAGES) > 15 and sum(len(commands(page)) for page in PAGES) > 60
    for page in PAGES:
        assert "scenarios/" not in " ".join(map(" ".join, commands(page))), "no file is there"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands(page) and page.name != "live.md"],
    ids=lambda page: page.stem,
)
def test_commands_run(page: Path, python: tuple[str, ...], installed: Path) -> None:
    asked = [
        made_cheap(words, number)
        for number, words in enumerate(commands(page))
        if "tcp://scheduler:8786" not in words  # a cluster
    ]
    run = (*python, "-c", RUNNER, str(installed))
    done = subprocess.run(run, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [words for words, _, _ in answers] == asked
    for words, code, output in answers:
        refused = by_start(words, REFUSED)
        if refused is None:
            assert code == 0, f"{words}: {output}"
        else:
            assert code == 2 and str(refused) in output, f"{words}: {output}"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_sender_and_receiver_run(python: tuple[str, ...]) -> None:
    """In two processes, as in two terminals."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    ends = {"receive": "--at", "send": "--to"}
    asked = [made_cheap(words, 0) for words in commands(ROOT / "docs" / "live.md")]
    asked[0].append("--once")
    assert [words[0] for words in asked] == list(ends)
    both = [
        subprocess.Popen((*python, "-m", "sim", *words, ends[words[0]], place)) for words in asked
    ]
    assert [process.wait(timeout=250) for process in both] == [0, 0]


def test_the_page_of_scenarios_is_what_its_program_writes() -> None:
    """Every scenario and its question are those of the files."""
    text = scenarios.PAGE.read_text()
    assert scenarios.page(scenarios.answers(text)) == text
    assert scenarios.NOT_RUN not in text


@pytest.mark.slow
def test_an_answer_is_that_of_a_new_run() -> None:
    """Of the smallest scenario; the program runs them all."""
    quoted = scenarios.answers(scenarios.PAGE.read_text())
    assert scenarios.answered(describe(find_scenario(Path("outage")))) == quoted["outage"]
