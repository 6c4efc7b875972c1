"""What a strategy sends in one cell: as much source as the byte budget leaves room for.

The budget is for everything on the wire over the cell's own streams: headers, parity, and the
retransmissions that these very losses cause. Tokens take the largest codebook that fits; a
classical coder gets for each image as many bytes as its share of the pixels, and searches its
settings for the largest file that is no larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from codec.model import Model
from sim.baselines import Baseline, BaselineError, RateSearch
from sim.baselines.byte_frames import byte_frame, received_file
from sim.baselines.damage import Damaged, decode_damaged
from sim.drivers.record import MediaFrame, StreamRecord
from sim.jobs.store import Store, cache_folder
from sim.media.frames import Restorer, decode_lossless, encode_images, with_token_importance
from sim.media.images import LoadedImage
from sim.scenario.schema import CodecSection, Scenario, TokenizerKey
from sim.stream import BYTES, CoderTables, StreamSetup, stream_frames

_MAX_DECODED = 256  # images decoded without loss that are kept
_SOURCE_BYTES_TOLERANCE = 0.002  # bytes of source per pixel are found to this share


@dataclass(frozen=True)
class StreamSet:
    """The streams of one strategy in one cell, one per repeat.

    Attributes:
        level: codebook size; None for files.
        settings: the coder's, by image; empty for tokens.
        records: one per repeat.
        bpp_wire: mean over the repeats, of all bytes on the wire.
    """

    level: int | None
    settings: Sequence[int]
    records: Sequence[StreamRecord]
    bpp_wire: float


@dataclass(frozen=True)
class BudgetTooSmall:
    """The budget is too small for this strategy; `least` is the smallest bpp_wire it can do, or
    None if that is not known; `why` is one line."""

    least: float | None
    why: str


Viewed = tuple[NDArray[np.uint8], float]
"""An image as a viewer sees it, and the share of its tokens or bytes that were there in time."""


class TokenSource:
    """The images as tokens, at any level."""

    def __init__(self, model: Model, images: Sequence[LoadedImage]) -> None:
        self.model = model
        self.images = images
        self._frames = cache(self._encode)
        self._with_importance = cache(self._add_importance)
        self._lossless = lru_cache(_MAX_DECODED)(self._decode)

    def frames(self, codec: CodecSection) -> Sequence[MediaFrame]:
        """The images as the codec's settings have them."""
        return self._frames(codec.tokenizer_key)

    def with_importance(self, codec: CodecSection) -> Sequence[MediaFrame]:
        """The same, with what each token would be missed for."""
        return self._with_importance(codec.tokenizer_key)

    def _encode(self, key: TokenizerKey) -> Sequence[MediaFrame]:
        return list(encode_images(self.model, self.images, *key))

    def _add_importance(self, key: TokenizerKey) -> Sequence[MediaFrame]:
        size = key.codebook_size
        return [with_token_importance(self.model, frame, size) for frame in self._frames(key)]

    def send(
        self, scenario: Scenario, budget: float, fixed: bool = False
    ) -> StreamSet | BudgetTooSmall:
        """Stream at the largest level within the budget, or at the scenario's own if `fixed`.

        Raises:
            StreamConfigError: the images do not fit the stream's settings.
        """
        levels = [scenario.codec.codebook] if fixed else list(self.model.codebook_sizes)
        least: StreamSet | None = None
        found: StreamSet | None = None
        low, high = 0, len(levels)
        while low < high:  # sizes grow with the level
            middle = (low + high) // 2
            sent = self._at(probe(scenario), levels[middle])
            if sent.bpp_wire <= budget:
                found, low = sent, middle + 1
            else:
                least, high = sent, middle
        if found is not None and found.level is not None:
            return self._at(scenario, found.level)
        level = f"{levels[0]} codewords"
        return BudgetTooSmall(least.bpp_wire if least else None, f"{level} take more")

    def _at(self, scenario: Scenario, level: int) -> StreamSet:
        codec = scenario.codec.model_copy(update={"codebook": level})
        chosen = scenario.model_copy(update={"codec": codec})
        needs_importance = chosen.stream_config().needs_importance
        frames = self.with_importance(codec) if needs_importance else self.frames(codec)
        records = stream(chosen, frames, self.model)
        return StreamSet(level, (), records, mean_bpp_wire(records, self.images))

    def viewed(
        self, scenario: Scenario, sent: StreamSet, record: StreamRecord, damaged: Damaged
    ) -> Iterator[Viewed]:
        """What the viewer of one of the streams sees, image by image, repaired by the scenario's
        concealer, which remembers the stream; ``damaged`` is for files."""
        (name,) = scenario.concealers
        restorer = Restorer(self.model, [name], scenario.decoding_options())
        key, enhance = _codec_key(scenario, sent)
        for ready in record.frames:
            if np.array_equal(ready.grid.indices, self._frames(key)[ready.frame].index_map):
                restorer.conceal(ready)  # every repair leaves it as it is, and remembers it
                pixels = self._lossless(ready.frame, key, enhance)
            else:
                pixels = restorer.restore(ready).images[name]
            yield pixels, float(ready.grid.received.mean())

    def lossless(self, scenario: Scenario, sent: StreamSet) -> Iterator[NDArray[np.uint8]]:
        """What a viewer sees where nothing is lost."""
        for at in range(len(self.images)):
            yield self._lossless(at, *_codec_key(scenario, sent))

    def _decode(self, at: int, key: TokenizerKey, enhance: bool) -> NDArray[np.uint8]:
        return decode_lossless(self.model, self._frames(key)[at], key.codebook_size, enhance)


def _codec_key(scenario: Scenario, sent: StreamSet) -> tuple[TokenizerKey, bool]:
    """What the decode of what was sent depends on, besides the image and the weights."""
    assert sent.level is not None
    codec = scenario.codec.model_copy(update={"codebook": sent.level})
    return codec.tokenizer_key, codec.enhance


class FileSource:
    """The images as files of one classical coder."""

    def __init__(self, coder: Baseline, images: Sequence[LoadedImage]) -> None:
        self.coder = coder
        self.images = images
        store = Store(cache_folder() / "encodes")
        self._searches = [RateSearch(coder, image.pixels, store) for image in images]

    def send(self, scenario: Scenario, budget: float) -> StreamSet | BudgetTooSmall:
        """Stream files as large as the budget allows.

        Raises:
            StreamConfigError: the files do not fit the stream's settings.
        """
        try:
            least = self._stream(probe(scenario), [0] * len(self.images))
            if least.bpp_wire > budget:
                return BudgetTooSmall(least.bpp_wire, "its smallest files take more")
            share = self._bytes_per_pixel(scenario, budget)
            settings = []
            for image, search in zip(self.images, self._searches, strict=True):
                allowed = int(share * image.width * image.height)
                setting = search.at_most(allowed)
                if setting is None:
                    size = len(search.coded(0).file)
                    why = f"the smallest file of {image.name} takes {size} bytes of {allowed}"
                    return BudgetTooSmall(least.bpp_wire, why)
                settings.append(setting)
            return self._stream(scenario, settings)
        except BaselineError as error:
            return BudgetTooSmall(None, str(error))

    def viewed(
        self, scenario: Scenario, sent: StreamSet, record: StreamRecord, damaged: Damaged
    ) -> Iterator[Viewed]:
        """See `TokenSource.viewed`."""
        for image, ready in zip(self.images, record.frames, strict=True):
            grid = ready.grid
            file = received_file(grid.indices, grid.received, ready.width, ready.height)
            pixels, _ = decode_damaged(self.coder, file, image.height, image.width, damaged)
            yield pixels, float(file.received.mean())

    def _stream(self, scenario: Scenario, settings: Sequence[int]) -> StreamSet:
        files = [s.coded(k).file for s, k in zip(self._searches, settings, strict=True)]
        records = stream(scenario, self._frames(files), None)
        return StreamSet(None, settings, records, mean_bpp_wire(records, self.images))

    def _frames(self, files: Sequence[bytes]) -> list[MediaFrame]:
        pairs = zip(self.images, files, strict=True)
        return [byte_frame(image.name, file) for image, file in pairs]

    def _bytes_per_pixel(self, scenario: Scenario, budget: float) -> float:
        """The most source that, protected and sent, stays within the budget."""

        def wire(share: float) -> float:
            sizes = [max(1, int(share * i.width * i.height)) for i in self.images]
            records = stream(probe(scenario), self._frames([bytes(size) for size in sizes]), None)
            return mean_bpp_wire(records, self.images)

        return largest(wire, budget, budget / 8)


def largest(cost: Callable[[float], float], budget: float, start: float) -> float:
    """The largest x in (0, start] with cost(x) <= budget, to a share of 1/500; cost grows with x
    about linearly. 0 if even a vanishing x costs more."""
    high, at_high = start, cost(start)
    if at_high <= budget:
        return start
    low, at_low = 0.0, cost(0.0)
    if at_low > budget:
        return 0.0
    while high - low > _SOURCE_BYTES_TOLERANCE * high:
        guess = low + (budget - at_low) / (at_high - at_low) * (high - low)
        guess = min(
            max(guess, low + _SOURCE_BYTES_TOLERANCE / 2 * high),
            high - _SOURCE_BYTES_TOLERANCE / 2 * high,
        )
        found = cost(guess)
        if found <= budget:
            low, at_low = guess, found
        else:
            high, at_high = guess, found
    return low


def stream(
    scenario: Scenario, frames: Sequence[MediaFrame], model: Model | None
) -> list[StreamRecord]:
    """Every repeat's stream, in virtual time; without a model the tokens are bytes."""
    tables = BYTES if model is None else CoderTables.of(model)
    setups = (StreamSetup.of(scenario, tables, repeat) for repeat in range(scenario.repeats))
    return [stream_frames(setup, frames) for setup in setups]


def probe(scenario: Scenario) -> Scenario:
    """The streams by which bytes are counted: without retransmission a single one tells."""
    if scenario.stream.arq is not None:
        return scenario
    return scenario.model_copy(update={"repeats": 1, "channel": {"type": "perfect"}})


def mean_bpp_wire(records: Sequence[StreamRecord], images: Sequence[LoadedImage]) -> float:
    """All bytes on the wire by the ledgers, in bits per pixel of the images."""
    pixels = sum(image.width * image.height for image in images)
    wire = float(np.mean([record.ledger.wire_bytes for record in records]))
    return 8 * wire / pixels
