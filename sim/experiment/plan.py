"""What a run consists of, and what each piece of it is called.

A piece's name is the hash of all that its result follows from: the resolved scenario, the weights,
the pixels of the images, the traces its channel replays, the version of this program, and the
repeat. Neither its place in the sweep nor the other pieces take part, so adding or removing points
leaves the others' names, and their results, as they were. All randomness of a cell is seeded by
the scenario's seed and the repeat alone: repairs and codecs, and channels too, are compared on
equal draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sim.drivers.record import LOST
from sim.errors import os_errors
from sim.experiment.cell import CellTask, ReferenceTask, Task
from sim.jobs.executor import usable_cores
from sim.jobs.store import digest, file_digest, networks_key, pixel_digest
from sim.media.images import LoadedImage
from sim.scenario.labels import Cell, cells
from sim.scenario.loader import LoadedScenario
from sim.scenario.schema import Scenario, TokenizerKey, nominal_loss
from sim.scenario.yaml_lines import TRACE_KEYS
from sim.version import __version__

_ELSEWHERE = {"name", "sweep", "repeats", "until", "images"}
"""Keys of a scenario that do not say what one cell is, or are hashed by content instead."""

MAX_PANELS = 24
"""Images of the pictured cell that get a strip; more would fill the disk."""
MAX_FRAMES = 6
"""The same of a video's frames, which are alike."""


def panels(scenario: Scenario, images: int) -> int:
    """See `Plan.panels`, of so many images."""
    return min(images, MAX_PANELS if scenario.video is None else MAX_FRAMES)


_WORTH_PROCESSES_S = 15.0  # below, starting them and loading networks costs more than it saves
_ENHANCE_S = 3e-5  # a pixel, on one core


@dataclass(frozen=True, slots=True)
class ImageAbout:
    """One image of a run: ``digest`` is the SHA-256 of its pixels and shape."""

    name: str
    file: str
    width: int
    height: int
    digest: str

    @classmethod
    def of(cls, image: LoadedImage) -> ImageAbout:
        """Of a loaded image."""
        about = image.name, str(image.path), image.width, image.height
        return cls(*about, pixel_digest(image.pixels))


class Plan:
    """Points, images and weights of a run.

    Attributes:
        loaded: the scenario.
        images: in order.
        fingerprint: of the weights.
        device: where the networks run. Devices add up in different orders, so another one than the
            CPU, where all results were made at first, is part of each piece's name.
    """

    def __init__(
        self,
        loaded: LoadedScenario,
        images: Sequence[ImageAbout],
        fingerprint: str,
        device: str = "cpu",
    ) -> None:
        """Raises UserError if a trace that a channel replays cannot be read."""
        self.loaded, self.images, self.fingerprint = loaded, tuple(images), fingerprint
        self.device = device
        shown = [[image.name, image.digest] for image in images]
        self._points = [
            digest(_resolved(scenario), shown, self.networks, __version__, LOST)
            for _, scenario in loaded.points
        ]

    @property
    def networks(self) -> str:
        """What identifies results: the weights, and the device if it is not the CPU."""
        return networks_key(self.fingerprint, self.device)

    @property
    def scenario(self) -> Scenario:
        """With the overrides in place."""
        return self.loaded.scenario

    def cells(self, repeats: Sequence[int]) -> Iterator[Cell]:
        """Every cell, given the number of repeats of each point."""
        return cells(self.loaded.points, repeats)

    def cell_key(self, cell: Cell) -> str:
        """The name of a cell."""
        return digest(self._points[cell.point], cell.repeat)

    def reference_key(self, image: int, tokenizer: TokenizerKey, enhance: bool) -> str:
        """The name of one image's tokens and quality without loss."""
        about = self.images[image]
        settings = *tokenizer, enhance, self.scenario.metrics
        return digest(about.name, about.digest, *settings, self.networks, __version__)

    @property
    def panels(self) -> int:
        """Of how many images pictures of the pictured cell are kept; see `CellTask`."""
        return panels(self.scenario, len(self.images))

    def pictured(self) -> tuple[int, int]:
        """Point and repeat whose pictures and packets are shown: the first repeat of the last
        point of those nearest to 20% loss that protect least; others may have nothing to show."""
        points = [scenario for _, scenario in self.loaded.points]
        ranks = [(abs(nominal_loss(p.channel) - 0.2), _protection(p)) for p in points]
        return min(reversed(range(len(points))), key=ranks.__getitem__), 0


def cost_s(piece: Cell | Task, pixels: Sequence[int]) -> float:
    """About how many seconds of one core a piece takes; only who works, and how much is handed out
    at once, follow from it.

    Args:
        piece: a cell to stream, an image to tokenize.
        pixels: of every image.
    """
    if isinstance(piece, ReferenceTask):
        each = 6e-6 * (1 + piece.tokenizer.search) + _ENHANCE_S * piece.enhance
        return each * pixels[piece.image]
    scenario = piece.cell.scenario if isinstance(piece, CellTask) else piece.scenario
    packets = scenario.stream.slices * len(pixels)
    each = 6e-6 + _ENHANCE_S * scenario.codec.enhance
    decodes = len(scenario.concealers) + (scenario.video is not None)
    return 1e-4 * packets + each * sum(pixels) * decodes


def worthwhile(pieces: Sequence[Cell | ReferenceTask], pixels: Sequence[int]) -> int:
    """How many processes to use for these when nobody says; live streams have their own."""
    virtual = [
        p for p in pieces if isinstance(p, ReferenceTask) or p.scenario.transport == "virtual"
    ]
    if sum(cost_s(piece, pixels) for piece in virtual) < _WORTH_PROCESSES_S:
        return 1
    return min(usable_cores(), len(virtual))


def _protection(scenario: Scenario) -> int:
    """How many times over a packet is protected, roughly."""
    stream = scenario.stream
    parity = 0 if stream.fec is None else stream.fec.parity
    retries = 0 if stream.arq is None else stream.arq.retries
    return parity + retries + stream.passes + stream.receivers


def _resolved(scenario: Scenario) -> dict[str, Any]:
    content = scenario.model_dump(mode="json", exclude=_ELSEWHERE)
    content["codec"].pop("model")
    content["video"] = scenario.video is not None  # its frames are hashed by content
    content["channel"] = _traces_by_content(content["channel"])
    return content


def _traces_by_content(node: Any) -> Any:
    if isinstance(node, list):
        return [_traces_by_content(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _file_digest(value)
        if key in TRACE_KEYS and isinstance(value, str)
        else _traces_by_content(value)
        for key, value in node.items()
    }


def _file_digest(path: str) -> str:
    with os_errors(path, "cannot be read"):
        about = Path(path).stat()
        return _digest_of(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=64)
def _digest_of(path: str, changed_ns: int, size_bytes: int) -> str:
    return file_digest(Path(path))
