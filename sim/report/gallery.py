"""`sim gallery`: some shipped scenarios run, and shown on one page of small pictures.

It is the one folder of results/ that is kept with the source: when weights or scenarios change, one
command makes it anew.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from codec.files import beside
from sim.errors import UserError
from sim.experiment.runner import run_experiment
from sim.report.about import question
from sim.report.answer import answer
from sim.results.files import FIGURES, Outcome
from sim.results.run import Run
from sim.scenario.library import find_scenario
from sim.scenario.loader import LoadedScenario, load_scenario

FOLDER = Path("results/gallery")
INDEX = "README.md"


@dataclass(frozen=True, slots=True)
class GalleryEntry:
    """A scenario to run, what to override in it, and which of its figures to show."""

    scenario: str
    figures: tuple[str, ...]
    overrides: tuple[str, ...] = ()


ENTRIES = (
    GalleryEntry("burst20", ("strip-coffee", "strip-chelsea", "packets")),
    GalleryEntry("outage", ("strip-chelsea",)),
    GalleryEntry("outage", ("strip-chelsea",), ("stream.interleaver=low_discrepancy",)),
    GalleryEntry("half-lost", ("strip-rocket",)),
    GalleryEntry("invention", ("strip-coffee",)),
    GalleryEntry("loss-sweep", ("quality",)),
    GalleryEntry("call", ("time",)),
)

_HEAD = (
    "# Gallery\n\nWhat some of the shipped scenarios come to with the weights that ship. "
    "`sim gallery` makes this page anew; `sim scenarios` lists all scenarios."
)
_MAX_BYTES = 60_000
_WIDTHS = (1400, 1200, 1000, 800)


def make_gallery(
    target: Path = FOLDER,
    entries: Sequence[GalleryEntry] = ENTRIES,
    doing: Callable[[str], object] = lambda name: None,
    run: Callable[[LoadedScenario], Outcome] = run_experiment,
) -> Path:
    """Run some scenarios and write the gallery; an earlier one is replaced when all is done.

    Args:
        target: the folder of the gallery.
        entries: what to run and show.
        doing: called with the name of each scenario before it runs.
        run: runs a scenario.

    Returns:
        The page.

    Raises:
        UserError: a run failed, or the folder cannot be written or holds something else.
    """
    if target.exists() and not _is_gallery(target):
        raise UserError(f"{target}: is not empty and holds no gallery; choose another folder")
    target = Path(os.path.realpath(target))
    partial = beside(target)
    parts = [_HEAD]
    try:
        partial.mkdir(parents=True)
        for one in entries:
            doing(" ".join((one.scenario, *one.overrides)))
            overrides = (*one.overrides, "transport=virtual")  # the same results, no processes
            loaded = load_scenario(find_scenario(Path(one.scenario)), overrides)
            parts.append(_entry(Run.load(run(loaded).folder), one, partial))
        (partial / INDEX).write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target / INDEX


def _is_gallery(folder: Path) -> bool:
    """Whether a folder holds a gallery and nothing else, so that it may be replaced."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    page = folder / INDEX
    text = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    return text.startswith(_HEAD) and all(f"({name})" in text for name in names - {INDEX})


def _entry(run: Run, entry: GalleryEntry, folder: Path) -> str:
    """One scenario's part of the page; copies its figures."""
    changed = [text.partition("=")[2] for text in entry.overrides]
    lines = [f"## {', '.join([run.name, *changed])}"]
    lines += [] if changed else [question(run)]
    lines.append(f"**{answer(run, 'psnr_db')}**")
    for figure in entry.figures:
        name = "-".join([run.name, *changed, figure.removeprefix("strip-")]) + ".webp"
        shrink(run.folder / FIGURES / f"{figure}.png", folder / name)
        lines.append(f"![{_alt_text(figure, run.name)}]({name})")
    settings = (word for text in entry.overrides for word in ("--set", text))
    lines.append(f"```sh\n{shlex.join(['sim', 'run', run.name, *settings])}\n```")
    return "\n\n".join(line for line in lines if line)


def _alt_text(figure: str, scenario: str) -> str:
    """What a figure shows, for those who cannot see it."""
    kind, _, image = figure.partition("-")
    return {
        "strip": f"{image} in {scenario}: original, decoded without loss, lost tokens, and what "
        "each repair makes of them",
        "packets": f"{scenario}: every packet in time, and which of them were lost",
        "quality": f"{scenario}: the quality of every repair against the loss rate",
        "time": f"{scenario}: every frame's quality by every repair, and the packets it lost",
    }[kind]


def shrink(source: Path, target: Path) -> None:
    """A figure as WebP of less than 60 kB: as wide and as good as that allows."""
    with Image.open(source) as image:
        figure = image.convert("RGB")
    for width, quality in (*((width, 78) for width in _WIDTHS), (_WIDTHS[-1], 55)):
        small = figure
        if figure.width > width:
            height = round(figure.height * width / figure.width)
            small = figure.resize((width, height), Image.Resampling.LANCZOS)
        small.save(target, "webp", quality=quality, method=6)
        if target.stat().st_size < _MAX_BYTES:
            return
