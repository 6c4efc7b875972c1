"""A video as the stream of a video codec, over the very protocol that tokens travel over.

A part of a frame (a slice where the codec cuts frames into such, or else all of it) is a frame of
the protocol: its bytes are the tokens. A part of which a packet is missing at its frame's deadline
is not given to the decoder; where that shows nothing, the viewer sees the frame before. The first
frame counts as received: nobody begins to watch before there is a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sim.baselines import BaselineError, RateSearch, find_baselines
from sim.baselines.byte_frames import MAX_FILE_BYTES, byte_frame
from sim.baselines.clip import ClipCodec, CodedFrame, clip_codec
from sim.baselines.coded import largest_setting
from sim.baselines.damage import GREY, Damaged
from sim.drivers.record import StreamRecord
from sim.jobs.store import Store, cache_folder
from sim.media.images import LoadedImage
from sim.scenario.schema import Scenario
from sim.studies.compare.config import TOKENS, LoadedComparison
from sim.studies.compare.sources import (
    BudgetTooSmall,
    FileSource,
    StreamSet,
    Viewed,
    mean_bpp_wire,
    probe,
    stream,
)

_ROUNDING_S = 1e-9


class VideoSource:
    """The frames of a video as one codec codes them."""

    def __init__(self, coder: ClipCodec, images: Sequence[LoadedImage]) -> None:
        """``images``: the frames, of one size."""
        self.coder, self.images = coder, images
        pixels = np.stack([image.pixels for image in images])
        self._search = RateSearch(coder, pixels, Store(cache_folder() / "encodes"))
        self._coded = cache(self._frames)

    def _frames(self, setting: int) -> list[CodedFrame]:
        return self.coder.frames(self._search.coded(setting).file)

    def send(self, scenario: Scenario, budget: float) -> StreamSet | BudgetTooSmall:
        """Stream at the best setting whose streams keep the budget.

        Raises:
            StreamConfigError: the frames do not fit the stream's settings.
        """
        pixels = sum(image.width * image.height for image in self.images)

        @cache
        def wire_bytes(setting: int) -> float:
            parts = (part for frame in self._coded(setting) for part in frame.parts)
            if max(map(len, parts)) > MAX_FILE_BYTES:
                return math.inf
            return self._stream(probe(scenario), setting).bpp_wire * pixels / 8

        try:
            setting = largest_setting(wire_bytes, self.coder.settings, budget * pixels / 8)
        except BaselineError as error:
            return BudgetTooSmall(None, str(error))
        if setting is None:
            return BudgetTooSmall(8 * wire_bytes(0) / pixels, "its smallest stream takes more")
        return self._stream(scenario, setting)

    def _stream(self, scenario: Scenario, setting: int) -> StreamSet:
        if self.coder.slices > 1:  # each a frame of the protocol, in its share of a frame's time
            shorter = {"fps": scenario.stream.fps * self.coder.slices, "slices": 1}
            section = scenario.stream.model_copy(update=shorter)
            scenario = scenario.model_copy(update={"stream": section})
        named = zip(self.images, self._coded(setting), strict=True)
        frames = [byte_frame(image.name, part) for image, found in named for part in found.parts]
        records = stream(scenario, frames, None)
        settings = [setting] * len(self.images)
        return StreamSet(None, settings, records, mean_bpp_wire(records, self.images))

    def viewed(
        self, scenario: Scenario, sent: StreamSet, record: StreamRecord, damaged: Damaged
    ) -> Iterator[Viewed]:
        """See `TokenSource.viewed`."""
        coded, stream_ = self._coded(sent.settings[0]), scenario.stream
        ready = iter(record.frames)
        there, shares, intact = list[bytes](), list[float](), False
        for number, frame in enumerate(coded):
            due_s = number / stream_.fps + stream_.playout_delay_s + _ROUNDING_S
            found = [
                part
                for part, has in zip(frame.parts, ready, strict=False)
                if has.complete and has.last_arrival_s is not None and has.last_arrival_s <= due_s
            ]
            found = found if number else frame.parts
            shares.append(sum(map(len, found)) / sum(map(len, frame.parts)))
            intact = len(found) == len(frame.parts) and (intact or frame.key)
            there.append(b"" if damaged == "freeze" and not intact else b"".join(found))
        yield from zip(self._seen(there), shares, strict=True)

    def lossless(self, scenario: Scenario, sent: StreamSet) -> Iterator[NDArray[np.uint8]]:
        """See `TokenSource.lossless`."""
        return self._seen([b"".join(frame.parts) for frame in self._coded(sent.settings[0])])

    def _seen(self, there: Sequence[bytes]) -> Iterator[NDArray[np.uint8]]:
        """What the viewer sees who is shown the last picture until there is another."""
        height, width = self.images[0].pixels.shape[:2]
        seen = np.full((height, width, 3), GREY, np.uint8)
        for pixels in self.coder.decode(there, height, width):
            seen = seen if pixels is None else pixels
            yield seen


def file_sources(
    loaded: LoadedComparison, images: Sequence[LoadedImage]
) -> tuple[dict[str, FileSource | VideoSource], dict[str, str]]:
    """By strategy, its coder's files, or why this machine has none; without those that send
    tokens. Strategies with the same files share them."""
    strategies = [s for s in loaded.strategies if s.coder != TOKENS]
    if loaded.base.video is None:
        coders, missing = find_baselines(sorted({s.coder for s in strategies}))
        files = {name: FileSource(coder, images) for name, coder in coders.items()}
        notes = {s.name: missing.get(s.coder.removesuffix("-half"), "") for s in strategies}
        found = {s.name: files[s.coder] for s in strategies if s.coder in files}
        return dict(found), {name: why for name, why in notes.items() if name not in found}
    clips: dict[str, VideoSource] = {}
    notes = {}
    for strategy in strategies:
        stream = loaded.scenarios[strategy.name].stream
        codec = clip_codec(strategy.coder, stream.fps, stream.slices)
        if isinstance(codec, str):
            notes[strategy.name] = codec
            continue
        same = (clip for clip in clips.values() if clip.coder == codec)
        clips[strategy.name] = next(same, None) or VideoSource(codec, images)
    return dict(clips), notes
