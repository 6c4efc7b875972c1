"""What a run consists of, and what each piece of it is called.

A piece's name is the hash of all that its result follows from: the resolved scenario, the weights,
the pixels of the images, the traces its channel replays, the version of this program, and the
repeat. Neither its place in the sweep nor the other pieces take part, so adding or removing points
leaves the others' names, and their results, as they were. All randomness of a cell is seeded by
the scenario's seed and the repeat alone: repairs and codecs, and channels too, are compared on
equal draws.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sim.errors import UserError
from sim.media.images import LoadedImage
from sim.results.files import read_json, write_json
from sim.scenario.labels import Cell, cells
from sim.scenario.loader import LoadedScenario, load_mapping
from sim.scenario.schema import Scenario, nominal_loss
from sim.scenario.yaml_lines import TRACE_KEYS
from sim.version import __version__

PLAN = "plan.json"

_ELSEWHERE = {"name", "sweep", "repeats", "until", "images"}
"""Keys of a scenario that do not say what one cell is, or are hashed by content instead."""

_JSON = json.JSONEncoder(sort_keys=True, allow_nan=False)  # `json.dumps` makes one in every call


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
        digest = hashlib.sha256(repr(image.pixels.shape).encode() + image.pixels.tobytes())
        return cls(image.name, str(image.path), image.width, image.height, digest.hexdigest())


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
            _digest(_resolved(scenario), shown, self.networks, __version__)
            for _, scenario in loaded.points
        ]

    @property
    def networks(self) -> str:
        """What identifies results: the weights, and the device if it is not the CPU."""
        return self.fingerprint if self.device == "cpu" else f"{self.fingerprint} {self.device}"

    @property
    def scenario(self) -> Scenario:
        """With the overrides in place."""
        return self.loaded.scenario

    def cells(self, repeats: Sequence[int]) -> Iterator[Cell]:
        """Every cell, given the number of repeats of each point."""
        return cells(self.loaded.points, repeats)

    def cell_key(self, cell: Cell) -> str:
        """The name of a cell."""
        return _digest(self._points[cell.point], cell.repeat)

    def reference_key(self, image: int, codebook: int, patch: int, search: int) -> str:
        """The name of one image's tokens and quality without loss."""
        about = self.images[image]
        settings = codebook, patch, search, self.scenario.metrics
        return _digest(about.name, about.digest, *settings, self.networks, __version__)

    def share(self, cell: Cell, of: int) -> int:
        """Which of so many shards computes a cell, from 0. Where repeats depend on what is found,
        a point stays in one shard, which can then decide alone."""
        whole = self._points[cell.point] if self.scenario.until else self.cell_key(cell)
        return int(whole, 16) % of

    def pictured(self) -> tuple[int, int]:
        """Point and repeat whose pictures and packets are shown: the first repeat of the last
        point of those nearest to 20% loss that protect least; others may have nothing to show."""
        points = [scenario for _, scenario in self.loaded.points]
        ranks = [(abs(nominal_loss(p.channel) - 0.2), _protection(p)) for p in points]
        return min(reversed(range(len(points))), key=ranks.__getitem__), 0

    def same_as(self, other: Plan) -> bool:
        """Whether the other consists of the same cells."""
        ours, theirs = self.scenario, other.scenario
        rule = (ours.repeats, ours.until) == (theirs.repeats, theirs.until)
        return rule and self._points == other._points

    def save(self, folder: Path) -> None:
        """Write what `read` needs into the store's folder."""
        content = {
            "version": __version__,
            "scenario": self.loaded.raw,
            "source": self.loaded.source,
            "images": [asdict(image) for image in self.images],
            "weights_fingerprint": self.fingerprint,
            "device": self.device,
        }
        if not (folder / PLAN).is_file() or read_json(folder / PLAN) != content:
            write_json(folder / PLAN, content)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan whose cells a store's folder holds.

        Raises:
            UserError: there is none, it cannot be read, or it was made by another version.
        """
        content = read_json(folder / PLAN)
        if content.get("version") != __version__:
            raise UserError(
                f"{folder / PLAN}: made by version {content.get('version')}, this is "
                f"{__version__}; run the scenario again"
            )
        loaded = load_mapping(content["scenario"], source=content["source"])
        images = [ImageAbout(**about) for about in content["images"]]
        return cls(loaded, images, content["weights_fingerprint"], content.get("device", "cpu"))


def _protection(scenario: Scenario) -> int:
    """How many times over a packet is protected, roughly."""
    stream = scenario.stream
    parity = 0 if stream.fec is None else stream.fec.parity
    retries = 0 if stream.arq is None else stream.arq.retries
    return parity + retries + stream.passes + stream.receivers


def _resolved(scenario: Scenario) -> dict[str, Any]:
    content = scenario.model_dump(mode="json", exclude=_ELSEWHERE)
    content["codec"].pop("model")
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
    try:
        about = Path(path).stat()
        return _digest_of(path, about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


@lru_cache(maxsize=64)
def _digest_of(path: str, changed_ns: int, size_bytes: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _digest(*parts: object) -> str:
    """128 bits of the SHA-256 of anything JSON: 32 hexadecimal digits."""
    return hashlib.sha256(_JSON.encode(parts).encode()).hexdigest()[:32]
