"""A scenario, run: images -> frames -> stream -> repaired images -> tables -> run folder.

Every cell (one point of the sweep, one repeat) is one stream of all images. Everything that does
not depend on the channel (tokens, the decode without loss, its quality) is computed once for each
codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.checkpoint import ModelError
from codec.model import Model
from sim.drivers.live import PeerError
from sim.drivers.record import MediaFrame, PacketRecord, StreamRecord
from sim.errors import UserError
from sim.images import LoadedImage, load_images
from sim.manifest import manifest, run_id
from sim.media import Restorer, check_model, encode_images, load_model
from sim.metrics import METRICS, Quality, quality, token_accuracy
from sim.outputs import SavedOutput, SavingSink, read_output, saving_sink
from sim.protocol.config import StreamConfigError
from sim.protocol.packet import HEADER_BYTES
from sim.results import (
    IMAGES,
    INPAINT,
    MANIFEST,
    OUTPUTS,
    PACKETS,
    PANELS,
    PROBABILITY,
    SPREAD,
    SUMMARY,
    new_run_folder,
    write_json,
    write_table,
)
from sim.scenario import CLEAN, Cell, cells, nominal_loss, value_label, values_label
from sim.scenario_file import LoadedScenario
from sim.streaming import stream_cell
from sim.summary import summarize

RESULTS = Path("results")
MAX_PANELS = 24
"""Images of the pictured cell that get a strip; more would fill the disk."""


class Steps(Protocol):
    """Told how far the run is."""

    def __call__(self, done: int, total: int, doing: str, /) -> object:
        """`done` of `total` steps are finished; `doing` says what comes now."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: its folder, and the content of its summary.json."""

    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GivenStream:
    """A stream that ran elsewhere: its pictures, what became of them, and how it went."""

    pictures: Sequence[LoadedImage]
    record: StreamRecord
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clean:
    """One image at one codebook size, before any loss."""

    frame: MediaFrame
    decoded: NDArray[np.uint8]
    quality: Quality


def run_experiment(
    loaded: LoadedScenario,
    out: Path | None = None,
    save_images: bool = False,
    steps: Steps = lambda done, total, doing: None,
    given: GivenStream | None = None,
) -> Outcome:
    """Run a scenario and write its run folder, figures included.

    Args:
        loaded: the checked scenario.
        out: the run folder; None: results/<scenario>/<run id> in the working directory.
        save_images: also write every output at original size.
        steps: told about progress.
        given: measure this stream instead of running one.

    Raises:
        UserError: images or weights that cannot be used, an output folder that cannot be written,
            a stream that does not fit its settings or whose processes failed. Nothing is left.
    """
    scenario = loaded.scenario
    images = given.pictures if given else load_images(scenario.images, loaded.images_base)
    try:
        model = load_model(loaded.model)
    except ModelError as error:
        raise UserError(str(error)) from None
    for _, point in loaded.points:
        check_model(model, point)
    target = out or RESULTS / scenario.name / run_id(scenario, model.fingerprint)
    with new_run_folder(target) as folder:
        try:
            summary = _Run(loaded, images, model, folder, save_images, steps, given).run()
        except StreamConfigError as error:
            raise UserError(f"{scenario.name}: stream.{error}") from None
        except PeerError as error:
            raise UserError(f"{scenario.name}: {error}") from None
    return Outcome(target, summary)


class _Run:
    """The state of one run while it fills its folder."""

    def __init__(
        self,
        loaded: LoadedScenario,
        images: Sequence[LoadedImage],
        model: Model,
        folder: Path,
        save_images: bool,
        steps: Steps,
        given: GivenStream | None = None,
    ) -> None:
        self.given = given
        self.loaded, self.scenario = loaded, loaded.scenario
        self.images, self.model = images, model
        self.folder, self.save_images = folder, save_images
        self.cells = cells(loaded.points)
        self.pictured = _pictured_cell(self.cells)
        self.clean: dict[int, list[Clean]] = {}
        self.image_rows: list[dict[str, Any]] = []
        self.packet_rows: list[dict[str, Any]] = []
        self.counters: dict[str, int] = {}
        self._steps, self._done = steps, 0
        levels = {point.codec.codebook for _, point in loaded.points}
        self._total = len(images) * (len(levels) + 2 * len(self.cells))

    def run(self) -> dict[str, Any]:
        """Stream and measure every cell, write everything, return the summary."""
        for cell in self.cells:
            clean = self._clean_of(cell.scenario.codec.codebook)
            record = self._stream(cell, clean)
            packets: list[list[PacketRecord]] = [[] for _ in clean]
            for packet in record.packets:
                packets[packet.frame].append(packet)
                self.packet_rows.append(_packet_row(cell, packet, clean))
            for name, count in record.counters.items():
                self.counters[name] = self.counters.get(name, 0) + count
            for number, known in enumerate(clean):
                self._measure(cell, number, known, packets[number])
        return self._write()

    def _step(self, doing: str, steps: int = 1) -> None:
        self._done += steps
        self._steps(self._done, self._total, doing)

    def _clean_of(self, codebook: int) -> list[Clean]:
        """Tokens and clean decode of every image; computed when first asked for."""
        if codebook not in self.clean:
            self.clean[codebook] = []
            self._step("tokenizing", 0)
            frames = encode_images(self.model, self.images, codebook)
            for image, frame in zip(self.images, frames, strict=True):
                decoded = self.model.decode(frame.index_map, codebook, frame.height, frame.width)
                self.clean[codebook].append(Clean(frame, decoded, quality(image.pixels, decoded)))
                self._step("tokenizing")
        return self.clean[codebook]

    def _stream(self, cell: Cell, clean: Sequence[Clean]) -> StreamRecord:
        folder = self.folder / "outputs"
        folder.mkdir(exist_ok=True)
        names, decoding = cell.scenario.concealers, cell.scenario.decoding.schedule()
        codebook = cell.scenario.codec.codebook
        doing = f"streaming {values_label(cell.values)}".strip()
        before = self._done
        self._step(doing, 0)

        def progress(out: int, total: int) -> None:
            self._step(doing, before + out - self._done)

        if self.given is not None:
            sink = SavingSink(Restorer(self.model, names), folder)
            for ready in self.given.record.frames:
                sink(ready)
            return self.given.record
        record = stream_cell(
            cell,
            [known.frame for known in clean],
            self.model.fingerprint,
            {codebook: self.model.frequencies(codebook)},
            SavingSink(Restorer(self.model, names, decoding), folder),
            partial(saving_sink, self.loaded.model, tuple(names), decoding, folder),
            progress,
            self.model.context,
        )
        progress(len(clean), len(clean))
        return record

    def _measure(self, cell: Cell, number: int, known: Clean, sent: Sequence[PacketRecord]) -> None:
        """Rows and pictures of one frame."""
        image = self.images[number]
        output = read_output(self.folder / "outputs", number)
        about = _frame_columns(cell, number, known.frame, output, sent)
        self.image_rows.append(
            {**about, "concealer": CLEAN, **asdict(known.quality), "token_accuracy": float("nan")}
        )
        for name, pixels in output.images.items():
            truth = known.frame.index_map
            accuracy = token_accuracy(truth, output.indices[name], output.received)
            measured = asdict(quality(image.pixels, pixels))
            self.image_rows.append(
                {**about, "concealer": name, **measured, "token_accuracy": accuracy}
            )
        if self.save_images:
            self._save_outputs(cell, known, output)
        if cell is self.pictured and number < MAX_PANELS:
            self._save_panels(image, known, output)
        self._step("measuring")

    def _save_outputs(self, cell: Cell, known: Clean, output: SavedOutput) -> None:
        folder = self.folder / OUTPUTS
        if len(self.cells) > 1:
            folder /= f"cell-{cell.index:04d}"
        for name, pixels in {CLEAN: known.decoded, **output.images}.items():
            save_png(folder / name / f"{known.frame.name}.png", pixels)

    def _save_panels(self, image: LoadedImage, known: Clean, output: SavedOutput) -> None:
        folder = self.folder / PANELS / known.frame.name
        pictures = {"original": image.pixels, CLEAN: known.decoded, **output.images}
        for name, pixels in pictures.items():
            save_png(folder / f"{name}.png", pixels)
        save_png(folder / "received.png", output.received.astype(np.uint8) * 255)
        if INPAINT in output.images:
            np.save(folder / PROBABILITY, output.probability[INPAINT])
            np.save(folder / SPREAD, output.spread[INPAINT])

    def _write(self) -> dict[str, Any]:
        from sim.plots import draw_figures

        (self.folder / "outputs").rmdir()
        points = {n: point.channel for n, (_, point) in enumerate(self.loaded.points)}
        summary = {
            "scenario": self.scenario.name,
            "seed": self.scenario.seed,
            "transport": self.scenario.transport,
            "repeats": self.scenario.repeats,
            "metrics": list(METRICS),
            "receiver": self.counters,
            **summarize(self.image_rows, points),
        }
        for point, (values, resolved) in zip(summary["points"], self.loaded.points, strict=True):
            point |= {"values": dict(values), "channel": resolved.channel}
        about = [
            {"name": i.name, "file": str(i.path), "width": i.width, "height": i.height}
            for i in self.images
        ]
        write_table(self.folder / PACKETS, self.packet_rows)
        write_table(self.folder / IMAGES, self.image_rows)
        write_json(self.folder / SUMMARY, summary)
        what_ran = manifest(self.scenario, about, self.model.fingerprint)
        what_ran["pictured_cell"] = self.pictured.index
        if self.given is not None:
            what_ran["live"] = self.given.about
        write_json(self.folder / MANIFEST, what_ran)
        self._step("drawing", 0)
        draw_figures(self.folder)
        return summary


def _pictured_cell(run: Sequence[Cell]) -> Cell:
    """The cell whose pictures are kept: a first repeat, the last of those nearest to 20% loss."""
    firsts = [cell for cell in reversed(run) if cell.repeat == 0]
    return min(firsts, key=lambda cell: abs(nominal_loss(cell.scenario.channel) - 0.2))


def _packet_row(cell: Cell, packet: PacketRecord, clean: Sequence[Clean]) -> dict[str, Any]:
    image = clean[packet.frame].frame.name
    return {"cell": cell.index, "repeat": cell.repeat, "image": image, **asdict(packet)}


def _frame_columns(
    cell: Cell,
    number: int,
    frame: MediaFrame,
    output: SavedOutput,
    sent: Sequence[PacketRecord],
) -> dict[str, Any]:
    """The columns that all rows of one frame share. A packet is lost when its tokens were not
    there at the deadline: erased, corrupted or late."""
    used = [packet for packet in sent if packet.fate == "delivered" and not packet.late]
    wire = sum(packet.size_bytes for packet in sent)
    pixels = frame.width * frame.height
    return {
        "cell": cell.index,
        "point": cell.point,
        "repeat": cell.repeat,
        **{key: value_label(value) for key, value in cell.values.items()},
        "frame": number,
        "image": frame.name,
        "width": frame.width,
        "height": frame.height,
        "codebook": cell.scenario.codec.codebook,
        "tokens": output.received.size,
        "tokens_lost": int(np.count_nonzero(~output.received)),
        "packets_sent": len(sent),
        "packets_lost": len(sent) - len(used),
        "bpp": 8 * (wire - HEADER_BYTES * len(sent)) / pixels,
        "bpp_wire": 8 * wire / pixels,
    }


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8[H,W,3] or uint8[H,W] as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
