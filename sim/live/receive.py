"""An incoming stream: its images are repaired as they fall due, and kept for the tables.

The networks run in a thread of their own; when they fall behind, the stream waits (the sender
sees that), and nothing piles up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.model import Model
from sim.drivers.endpoints import ReceiverEndpoint
from sim.drivers.record import PacketRecord, StreamRecord
from sim.experiment.measured import MeasuredFrame
from sim.jobs.store import Record
from sim.live.measure import StreamMeasurer
from sim.live.monitor import StreamMonitor
from sim.live.sidecar import SidecarMetadata, read_ledger
from sim.media.capture import digest
from sim.media.frames import Restorer, coders_of
from sim.media.images import LoadedImage, load_image
from sim.media.outputs import RestoredFrame
from sim.metrics.quality import psnr_db
from sim.protocol.events import FrameReady
from sim.protocol.handshake import StreamStart
from sim.protocol.ledger import Ledger
from sim.scenario.labels import shown_repairs
from sim.scenario.schema import Scenario
from sim.stream import CoderTables, StreamSetup

_WAITING_IMAGES = 1  # for the networks
_MAX_KEPT = 10_000  # images of one stream that tables are made of

UNKNOWN = "unknown: the originals are not here"


class ReferenceImages:
    """The originals that this machine has, found by fingerprint, whatever their names."""

    def __init__(self, images: list[LoadedImage], folder: Path | None = None) -> None:
        """``folder``: where else to look, for NAME.png."""
        self._by_digest = {digest(image.pixels): image for image in images}
        self._folder = folder

    def picture(self, name: str, digest_: str) -> LoadedImage | None:
        """The picture with this fingerprint, under a name; None if it is not here."""
        found = self._by_digest.get(digest_)
        if found is None and self._folder is not None and Path(name).name == name:
            path = self._folder / f"{name}.png"
            if path.is_file():
                read = load_image(path)
                found = read if digest(read.pixels) == digest_ else None
        return None if found is None else LoadedImage(name, found.path, found.pixels)


@dataclass
class Received:
    """A stream as it was received.

    Attributes:
        record: packets and frames of the images that were seen whole, numbered from 0.
        pictures: their originals; None if one is missing.
        first: number in the stream of the first of them.
        total: images that the sender meant to send.
        ended: "complete", "interrupted" (the sender was told to stop), "stopped" (the receiver
            was) or "sender gone".
        references, measured: see `sim.experiment.runner.RecordedStream`, if no original is missing.
    """

    record: StreamRecord
    pictures: list[LoadedImage] | None
    references: Sequence[Record]
    measured: Sequence[MeasuredFrame]
    first: int
    total: int
    ended: str


class IncomingStream:
    """One stream being received; see `sim.drivers.live_receiver.Incoming`."""

    def __init__(
        self,
        start: bytes,
        about: dict[str, Any],
        *,
        scenario: Scenario,
        model: Model,
        originals: ReferenceImages,
        monitor: StreamMonitor,
        finished: Callable[[Received], object],
        on_image: Callable[[int], object] = lambda frame: None,
        save_images: bool = False,
    ) -> None:
        """Raises ValueError or LookupError if the stream cannot be received."""
        key = StreamSetup.of(scenario, CoderTables.of(model)).key
        self._terms = StreamStart.parse(start)
        self._end = ReceiverEndpoint(start, key, coders_of(model, model.codebook_sizes), self._due)
        self._about, self._originals, self._monitor = about, originals, monitor
        self._finished, self._on_image = finished, on_image
        self._metadata = SidecarMetadata()
        self._frames: list[FrameReady] = []
        self._quality_news: dict[str, Any] | None = None
        self._kept: dict[int, LoadedImage] = {}
        self._measurer = StreamMeasurer(scenario, model, save_images, len(self._terms.sizes))
        self._repairs = _Repairs(
            Restorer(model, scenario.concealers, scenario.decoding_options()), self._repaired
        )
        self.next_time, self.replies = self._end.next_time, self._end.replies
        monitor.total, monitor.config = len(self._terms.sizes), self._terms.config
        monitor.quality_is = "PSNR"

    @property
    def counters(self) -> dict[str, int]:
        """The receiver's counters."""
        return self._end.counters

    def datagrams(self, times_s: Sequence[float], data: Sequence[bytes]) -> None:
        """See `Incoming`."""
        self._end.datagrams(times_s, data)

    def watermark(self, when: float) -> None:
        """See `Incoming`."""
        self._end.watermark(when)

    def note(self, when: float, data: bytes) -> None:
        """See `Incoming`."""
        try:
            for record in self._metadata.add(data):
                self._monitor.packet(record)
        except ValueError:
            self._monitor.anomalies["bad_note"] = self._monitor.anomalies.get("bad_note", 0) + 1

    def news(self) -> Mapping[str, Any] | None:
        """See `Incoming`."""
        news, self._quality_news = self._quality_news, None
        return news

    def close(self, account: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """See `Incoming`; images that were sent whole and are not due yet fall due now."""
        if account is None and self._metadata.packets:
            last = max(record.frame for record in self._metadata.packets)
            if last:
                self._end.watermark(self._terms.config.due_s(last - 1))
        self._repairs.finish()
        ledger = Ledger()
        ended = "sender gone"
        if account is not None:
            ended = "interrupted" if account.get("interrupted") else "complete"
            try:
                ledger = read_ledger(account)
            except ValueError:
                ended = "sender gone"
        self._finished(self._received(ledger, ended))
        return {"counters": self.counters, "images": len(self._frames)}

    def _due(self, ready: FrameReady) -> None:
        """An image falls due. One that was captured before this receiver joined does not count."""
        if ready.frame not in self._metadata.digests or len(self._frames) >= _MAX_KEPT:
            return
        self._frames.append(ready)
        self._monitor.image(ready)
        self._monitor.waiting = {"images for the networks": self._repairs.waiting}
        self._repairs.put(ready)

    def _picture(self, frame: int) -> LoadedImage | None:
        if frame not in self._kept:
            names = self._about.get("names") or []
            name = str(names[frame]) if frame < len(names) else f"image-{frame:05}"
            fingerprint = self._metadata.digests.get(frame, "")
            found = self._originals.picture(name, fingerprint) if fingerprint else None
            if found is None:
                return None
            self._kept[frame] = found
        return self._kept[frame]

    def _repaired(self, ready: FrameReady, output: RestoredFrame) -> None:
        """Show and measure a repaired image; called in the networks' thread."""
        original, images = self._picture(ready.frame), output.images
        shown: dict[str, NDArray[np.uint8]] = {}
        if original is not None:
            shown[f"sent: {original.name}"] = original.pixels
        for name in dict.fromkeys(shown_repairs(list(images))):
            shown["unrepaired" if name == "none" else name.replace("_", " ")] = images[name]
        self._monitor.pictures = shown
        self._measure(original, images)
        self._on_image(ready.frame)
        if original is not None:
            self._measurer.add(original, output, self._metadata.maps.get(ready.frame))

    def _measure(
        self, original: LoadedImage | None, images: Mapping[str, NDArray[np.uint8]]
    ) -> None:
        if original is None:
            self._monitor.quality_is = UNKNOWN
            return
        self._monitor.measured(
            {name: psnr_db(original.pixels, image) for name, image in images.items()}
        )
        self._quality_news = {
            "quality": dict(self._monitor.quality),
            "quality_is": "PSNR",
            "images": self._monitor.images_due,
            "complete": self._monitor.images_complete,
            "pixels": self._monitor.pixels,
        }

    def _received(self, ledger: Ledger, ended: str) -> Received:
        first = self._frames[0].frame if self._frames else 0
        count = len(self._frames)
        pictures = [self._picture(first + number) for number in range(count)]
        whole = [picture for picture in pictures if picture is not None]
        references, measured = self._measurer.results()
        packets = renumbered(self._metadata.packets, first, count)
        frames = [replace(ready, frame=ready.frame - first) for ready in self._frames]
        record = StreamRecord(packets, frames, dict(self.counters), ledger)
        known, total = whole if len(whole) == count else None, len(self._terms.sizes)
        return Received(record, known, references, measured, first, total, ended)


def renumbered(records: list[PacketRecord], first: int, count: int) -> list[PacketRecord]:
    """The packets of frames first .. first + count - 1, numbered from 0."""
    return [
        record._replace(frame=record.frame - first, last_frame=record.last_frame - first)
        for record in records
        if first <= record.frame and record.last_frame < first + count
    ]


class _Repairs:
    """Restores images one by one in a thread; `put` waits when too many wait already."""

    def __init__(
        self, restorer: Restorer, done: Callable[[FrameReady, RestoredFrame], object]
    ) -> None:
        self._restorer, self._done = restorer, done
        self._thread = ThreadPoolExecutor(1)
        self._begun: deque[Future[object]] = deque()

    @property
    def waiting(self) -> int:
        """Images not begun."""
        return max(0, sum(not image.done() for image in self._begun) - 1)

    def put(self, ready: FrameReady) -> None:
        """Raises what went wrong in the thread."""
        work = self._thread.submit(lambda: self._done(ready, self._restorer.restore(ready)))
        self._begun.append(work)
        while len(self._begun) > _WAITING_IMAGES + 1:
            self._begun.popleft().result()

    def finish(self) -> None:
        """Wait until all is done; raises what went wrong in the thread."""
        with self._thread:
            for image in self._begun:
                image.result()
