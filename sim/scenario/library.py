"""The scenarios that ship: where they are, what each asks, and how large it is.

A shipped scenario opens with two paragraphs of comment: "Question: ...?", then "Look at ...". Its
group is the folder it lies in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.files import rooted
from sim.errors import UserError
from sim.media.images import image_paths
from sim.scenario.loader import LoadedScenario, load_scenario
from sim.scenario.pictures import picture_sizes
from sim.scenario.schema import NAME, NAME_RULE
from sim.scenario.template import template
from sim.scenario.yaml_lines import parse_mapping

GROUPS = {
    "start": "begin here",
    "codec": "images, tokens and bits",
    "loss": "what loss does, and what packets do about it",
    "repair": "filling the holes",
    "protection": "parity, retransmission, packing",
    "video": "streams that remember",
    "links": "real links, as presets",
    "compare": "strategies against each other, for sim compare",
}
"""Folders under the library in the order they are read; "start" is the library itself, "compare"
the files that compare strategies, wherever they lie."""

_SECONDS_START = 8.0
_SECONDS_PER_MEGAPIXEL = 4.0
_CLASSES = (("seconds", 20.0), ("under a minute", 60.0), ("a minute or two", 150.0))


@dataclass(frozen=True, slots=True)
class ShippedScenario:
    """One scenario of the library.

    Attributes:
        name: as in the file and of the file; of a comparison, after its folder.
        group: a key of `GROUPS`.
        path: the file.
        question: one sentence or two, ending with "?".
        look: what to look at in the answer.
        points, repeats, images: its size: so many streams of so many images each.
        repairs: the concealers it compares.
        size: the same in words.
        time: a class of run time on one core of a laptop; a guess from the size.
    """

    name: str
    group: str
    path: Path
    question: str
    look: str
    points: int
    repeats: int
    images: int
    repairs: tuple[str, ...]
    size: str
    time: str


def library_folder() -> Path:
    """The folder of the scenarios that ship: in an installed package, or in the source tree."""
    package = Path(__file__).parents[1]
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent / "scenarios"


def library_files() -> list[Path]:
    """Every shipped scenario file, by group in the order of `GROUPS`, then by name; without those
    that compare strategies, which are for another command."""
    return [path for path in _all_files() if not compares(path)]


def _all_files() -> list[Path]:
    folder = library_folder()
    return [
        path
        for group in GROUPS
        for path in sorted((folder if group == "start" else folder / group).glob("*.yaml"))
    ]


def compares(path: Path) -> bool:
    """Whether a file compares strategies, by its key `strategies`.

    Raises:
        UserError: it is no mapping of keys to values.
    """
    return "strategies" in parse_mapping(path, "scenario", "seed: 1")


def shipped() -> list[ShippedScenario]:
    """Every shipped scenario and comparison, described; in the order of `GROUPS`."""
    found = [describe(path) for path in _all_files()]
    return sorted(found, key=lambda one: list(GROUPS).index(one.group))


def find_scenario(given: Path) -> Path:
    """The file that was meant: a path as it is, or else the name of a shipped scenario, also where
    a folder, such as that of its results, has the same name.

    Raises:
        UserError: neither; told with the closest names.
    """
    given = rooted(Path(), str(given))
    if given.is_file() or given.suffix or len(given.parts) > 2:
        return given
    every = _all_files()
    files = {path.stem: path for path in reversed(every)}  # of two of a name, the first
    named = files | {f"{_group(path)}/{path.stem}": path for path in every}
    if given.as_posix() in named:
        return named[given.as_posix()]
    if given.exists():
        return given
    close = difflib.get_close_matches(given.name, files, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else "sim scenarios lists those that ship"
    raise UserError(f"{given}: no such scenario; {hint}")


def describe(path: Path) -> ShippedScenario:
    """What a scenario file asks, and its size.

    Raises:
        UserError: it is not a valid scenario.
    """
    paragraphs = opening_paragraphs(path.read_text(encoding="utf-8"))
    question = question_of(paragraphs)
    if compares(path):
        return _comparison(path, question, " ".join(paragraphs[1:]))
    loaded = load_scenario(path)
    scenario = loaded.scenario
    sizes = _sizes(loaded)
    return ShippedScenario(
        name=scenario.name,
        group=_group(path),
        path=path,
        question=question,
        look=" ".join(paragraphs[1:]),
        points=len(loaded.points),
        repeats=scenario.repeats,
        images=len(sizes),
        repairs=tuple(scenario.concealers),
        size=_size(len(loaded.points), scenario.repeats, len(sizes)),
        time=_time_class(_expected_seconds(loaded, sizes)),
    )


def _comparison(path: Path, question: str, look: str) -> ShippedScenario:
    """What a comparison asks, and its size; `sim.studies.compare.config` checks such files."""
    keys = parse_mapping(path, "comparison", "seed: 1")
    losses = len(keys["loss"]) - (0 in keys["loss"])  # without loss, bursts do not matter
    points = len(keys["bpp_wire"]) * (losses * len(keys["mean_burst"]) + (0 in keys["loss"]))
    video = keys.get("video")
    images = int(video["frames"]) if video else len(image_paths(keys["images"], path.parent))
    size = f"{len(keys['strategies'])} strategies x {_size(points, keys['repeats'], images)}"
    name = path.stem if _group(path) == "start" else f"{_group(path)}/{path.stem}"
    repeats, time = int(keys["repeats"]), "half an hour" if video else "hours"
    return ShippedScenario(
        name, "compare", path, question, look, points, repeats, images, (), size, time
    )


def write_new(target: Path, like: str | None = None) -> Path:
    """Write a new scenario: the commented template, or a copy of another under a new name.

    Args:
        target: where; ".yaml" is added if left out. The file's stem names the scenario.
        like: a file, or the name of a shipped scenario, to copy instead.

    Raises:
        UserError: the name cannot be one, the file exists or cannot be written, or nothing to copy.
    """
    path = target if target.suffix in (".yaml", ".yml") else target.with_name(f"{target.name}.yaml")
    if not NAME.fullmatch(path.stem):
        raise UserError(f"{path.stem}: a scenario's name {NAME_RULE}")
    text = template(path.stem) if like is None else _renamed(find_scenario(Path(like)), path.stem)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path}: is there already; choose another name") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return path


def _renamed(source: Path, name: str) -> str:
    load_scenario(source)
    text = source.read_text(encoding="utf-8")
    renamed, count = re.subn(r"^name:.*$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    return renamed if count else f"{text.rstrip()}\nname: {name}\n"


def opening_paragraphs(text: str) -> list[str]:
    """The paragraphs of the comment that a scenario's text opens with, each on one line.

    >>> opening_paragraphs("# Question: why?\\n#\\n# Look at\\n# it.\\n\\nseed: 1\\n")
    ['Question: why?', 'Look at it.']
    """
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.lstrip("#").strip()
        if words:
            found[-1].append(words)
        elif found[-1]:
            found.append([])
    return [" ".join(lines) for lines in found if lines]


def question_of(paragraphs: Sequence[str]) -> str:
    """The question that a scenario opens with, as a sentence; "" without one."""
    text = paragraphs[0].removeprefix("Question: ") if paragraphs else ""
    return text[:1].upper() + text[1:]


def _group(path: Path) -> str:
    return path.parent.name if path.parent.name in GROUPS else "start"


def _size(points: int, repeats: int, images: int) -> str:
    parts = [(points, "point"), (repeats, "stream"), (images, "image")]
    shown = [f"{n} {word}{'s' * (n > 1)}" for n, word in parts if n > 1 or word == "image"]
    return " x ".join(shown)


def _sizes(loaded: LoadedScenario) -> list[tuple[int, int]]:
    """(width, height) of the pictures; of a video that PyAV is missing for, at most."""
    video = loaded.scenario.video
    try:
        return picture_sizes(loaded)
    except UserError:
        if video is None or video.frames is None:
            raise
        return [(video.size, video.size)] * video.frames


def _expected_seconds(loaded: LoadedScenario, sizes: Sequence[tuple[int, int]]) -> float:
    """Decoding and measuring dominate: so many outputs of so many pixels."""
    megapixels = sum(width * height for width, height in sizes) / 1e6
    levels = len({point.codec.codebook for _, point in loaded.points})
    scenario = loaded.scenario
    outputs = levels + len(scenario.concealers) * len(loaded.points) * scenario.repeats
    return _SECONDS_START + _SECONDS_PER_MEGAPIXEL * megapixels * outputs


def _time_class(seconds: float) -> str:
    return next((name for name, most in _CLASSES if seconds <= most), "minutes")
