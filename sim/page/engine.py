"""The stream behind the page: the real protocol in virtual time, one frame at a time.

The law: frame n under a scenario is what `sim run` of that scenario in virtual time gives, however
one came to it. The endless stream is cut into segments; segment r is repeat r of the scenario, its
photographs taken in turn, or its clip from the beginning. So a frame depends on its number, the
scenario and the photographs, and on nothing that was set before: a changed setting restarts the
segment's stream and lets it run, without decoding anything, to the frame that is wanted, and a
repair that remembers fills the frames before that. Settings therefore act on the very next frame,
and two settings tried on one frame are compared under the same random numbers, a camera's frame
too, which `sim run` could not have again.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.concealment import VIDEO_CONCEALERS
from sim.drivers.record import PacketRecord
from sim.drivers.virtual import VirtualStream
from sim.media.frames import Restorer
from sim.media.images import LoadedImage
from sim.media.outputs import RestoredFrame
from sim.metrics.quality import psnr_db, token_accuracy
from sim.page.photos import CodedPhoto, CodedPhotos
from sim.protocol.events import FrameReady
from sim.scenario.schema import Scenario
from sim.stream import CoderTables, StreamSetup

UNREPAIRED = "none"


@dataclass(frozen=True)
class Snapshot:
    """Everything about one frame, from photograph to repaired image.

    Attributes:
        number: of the frame, from 0.
        scenario: that it was streamed under.
        concealer: that repaired it.
        photo: the photograph sent.
        coded: its tokens and what they decode to.
        slice_of: int64[h,w], the packet that carries each token.
        ready: what the receiver had at the deadline.
        packets: what became of each packet that serves this frame, in sending order; parity and
            retransmissions among them.
        sent: what became of each packet sent between this frame's capture and the next's; those
            of successive frames are the channel's packets, each once and in order.
        indices, probability: [h,w], the filled grid; see `codec.concealment.Concealed`.
        unrepaired, repaired: uint8[H,W,3].
    """

    number: int
    scenario: Scenario
    concealer: str
    photo: LoadedImage
    coded: CodedPhoto
    slice_of: NDArray[np.int64]
    ready: FrameReady
    packets: tuple[PacketRecord, ...]
    sent: tuple[PacketRecord, ...]
    indices: NDArray[np.int64]
    probability: NDArray[np.float32]
    unrepaired: NDArray[np.uint8]
    repaired: NDArray[np.uint8]

    @property
    def received(self) -> NDArray[np.bool_]:
        """bool[h,w], the tokens that were there at the deadline."""
        return self.ready.grid.received

    @property
    def psnr_db(self) -> tuple[float, float, float]:
        """Without loss, repaired, unrepaired; against the photograph, dB."""
        original = self.photo.pixels
        repaired, unrepaired = psnr_db(original, self.repaired), psnr_db(original, self.unrepaired)
        return self.coded.psnr_db, repaired, unrepaired

    @property
    def token_accuracy(self) -> float:
        """Share of the lost tokens that were guessed exactly; NaN if none was lost."""
        sent = self.coded.frame.index_map
        return token_accuracy(sent, self.indices, self.received)

    @property
    def wire_bytes(self) -> int:
        """Bytes of this frame's packets, headers included; of shared packets its share."""
        return round(sum(p.size_bytes / (p.last_frame + 1 - p.frame) for p in self.packets))


class Engine:
    """Makes frames on demand; keeps the stream of one segment.

    Attributes:
        photos: that are streamed.
    """

    def __init__(self, photos: CodedPhotos) -> None:
        self.photos = photos
        self._segment: _Segment | None = None

    def frame(self, number: int, scenario: Scenario, concealer: str) -> Snapshot:
        """Stream up to frame ``number`` and repair it. Slow: networks run.

        Raises:
            StreamConfigError: a photograph does not fit the settings.
            UserError: the repair needs something that is not installed, or a camera is gone.
        """
        at = number % self.photos.segment_frames
        segment, self._segment = self._segment_of(number, scenario), None  # if something fails
        ready, restored = segment.frame(at), segment.restored(at, concealer)
        self._segment = segment
        coded = self.photos.coded(number, scenario.codec)
        frame = coded.frame
        layout = scenario.stream_config().layout(frame.width, frame.height)
        slice_of = np.empty(layout.tokens, np.int64)
        for slice_, positions in enumerate(layout.positions):
            slice_of[positions] = slice_
        return Snapshot(
            number=number,
            scenario=scenario,
            concealer=concealer,
            photo=self.photos.image(number),
            coded=coded,
            slice_of=slice_of.reshape(layout.grid),
            ready=ready,
            packets=segment.packets(at),
            sent=segment.sent(at),
            indices=restored.indices[concealer],
            probability=restored.probability[concealer],
            unrepaired=restored.images[UNREPAIRED],
            repaired=restored.images[concealer],
        )

    def _segment_of(self, number: int, scenario: Scenario) -> _Segment:
        segment, (repeat, at) = self._segment, divmod(number, self.photos.segment_frames)
        fits = segment is not None and (segment.scenario, segment.repeat) == (scenario, repeat)
        if segment is None or not fits or segment.last > at:
            segment = _Segment(self.photos, scenario, repeat)
        return segment


class _Segment:
    """One stream, run and repaired as far as was asked for."""

    def __init__(self, photos: CodedPhotos, scenario: Scenario, repeat: int) -> None:
        self.scenario, self.repeat = scenario, repeat
        codec, model = scenario.codec, photos.model
        self._model = model
        numbers = range(repeat * photos.segment_frames, (repeat + 1) * photos.segment_frames)
        sizes = [photos.size(number) for number in numbers]
        setup = StreamSetup.of(scenario, CoderTables.of(model), repeat)
        take = photos.with_importance if setup.config.needs_importance else photos.frame
        frames = (take(number, codec) for number in numbers)  # tokenized when it is captured
        parts = setup.config, setup.channel(), setup.key, setup.coders(), setup.feedback()
        self._stream = VirtualStream(frames, *parts, sizes)
        self._ready: list[FrameReady] = []
        self._repairs: dict[str, tuple[Restorer, RestoredFrame]] = {}  # and what it showed last

    @property
    def last(self) -> int:
        """The number of the latest frame; -1 before the first."""
        return len(self._ready) - 1

    def frame(self, number: int) -> FrameReady:
        """Frame ``number`` of the segment, at least ``last``."""
        while self.last < number:
            ready = self._stream.next_frame()
            if ready is None:
                raise RuntimeError(f"a stream ended before its frame {number}")
            self._ready.append(ready)
        return self._ready[number]

    def restored(self, number: int, concealer: str) -> RestoredFrame:
        """Frame ``number``, which is ``last``, unrepaired and repaired. A repair that remembers
        first fills what it has not seen, back to a complete frame: nothing before that matters."""
        if concealer in self._repairs:
            restorer, shown = self._repairs[concealer]
            if shown.number == number:
                return shown
            unseen = self._ready[shown.number + 1 : number]
        else:
            names = dict.fromkeys((UNREPAIRED, concealer))
            restorer = Restorer(self._model, names, self.scenario.decoding_options())
            unseen = self._ready[:number]
        if concealer in VIDEO_CONCEALERS:
            complete = [n for n, ready in enumerate(unseen) if ready.complete]
            for ready in unseen[complete[-1] if complete else 0 :]:
                restorer.conceal(ready)
        shown = restorer.restore(self._ready[number])
        self._repairs[concealer] = restorer, shown
        return shown

    def packets(self, number: int) -> tuple[PacketRecord, ...]:
        """The records of the packets that serve one frame, those sent after its deadline too."""
        stream = self.scenario.stream
        self._stream.run_until((number + stream.packing) / stream.fps)
        return tuple(p for p in self._stream.packets if p.frame <= number <= p.last_frame)

    def sent(self, number: int) -> tuple[PacketRecord, ...]:
        """The records of the packets sent from one frame's capture to the next's."""
        fps = self.scenario.stream.fps
        self._stream.run_until((number + 1) / fps)
        edges = [
            bisect_left(self._stream.packets, time, key=lambda packet: packet.sent_s)
            for time in (number / fps, (number + 1) / fps)
        ]
        return tuple(self._stream.packets[edges[0] : edges[1]])
