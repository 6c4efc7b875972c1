"""One stream: the parts that every sender and receiver is made of, and the choice of a driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from channels import Channel, UniformErasure, build, read_channel
from channels.base import ConstantDelay
from channels.composite import ReceiveDiversity
from codec.coders import CoderBook
from codec.context import ContextTables
from sim.drivers.record import MediaFrame, StreamRecord
from sim.errors import UserError, user_errors
from sim.protocol.config import StreamConfig, StreamKey
from sim.protocol.events import FrameReady
from sim.protocol.protection import ArqConfig

if TYPE_CHECKING:
    from codec.model import Model
    from sim.scenario.schema import Scenario

_FEEDBACK = 0xFEED  # keeps the way back's randomness apart from the channels'


def make_channel(spec: Mapping[str, Any], seed: int, repeat: int, receivers: int = 1) -> Channel:
    """The channel of one repeat, at its start. Points with equal seeds and repeats are paired.

    Several receivers have losses of their own; the first has those that it has alone.
    """
    loss, link = read_channel(spec)
    keys = [(repeat,), *((repeat, number) for number in range(1, receivers))]
    channels = [
        build(loss, seed=np.random.SeedSequence(seed, spawn_key=key), link=link) for key in keys
    ]
    return channels[0] if receivers == 1 else ReceiveDiversity(channels)


def make_feedback(arq: ArqConfig | None, seed: int, repeat: int) -> Channel | None:
    """The way back of one repeat; None if nothing is sent back."""
    if arq is None:
        return None
    key = np.random.SeedSequence(seed, spawn_key=(repeat, _FEEDBACK))
    return build(UniformErasure(arq.loss), seed=key, link=ConstantDelay(arq.delay_s))


@dataclass(frozen=True)
class CoderTables:
    """The integer tables of a model's coders: all that streams need of it, without its networks.

    Attributes:
        fingerprint: of the weights; 16 hexadecimal digits.
        frequencies: of the static coder, uint32[K] by codebook size.
        context: of the context coder, if the model has one.
    """

    fingerprint: str
    frequencies: Mapping[int, NDArray[np.uint32]]
    context: ContextTables | None = None

    @classmethod
    def of(cls, model: Model) -> CoderTables:
        """Of all codebook sizes of a model."""
        tables = {size: model.frequencies(size) for size in model.codebook_sizes}
        return cls(model.fingerprint, tables, model.context)


BYTES = CoderTables("0" * 16, {})
"""Of no model: tokens are the bytes of a file."""


@dataclass(frozen=True)
class StreamSetup:
    """What sender and receiver of one stream are made of; can be sent to other processes.

    Attributes:
        scenario: of one point.
        tables: of the model.
        config: how to packetize and pace.
        key: of the stream; its id follows from seed and repeat.
        repeat: from 0.
    """

    scenario: Scenario
    tables: CoderTables
    config: StreamConfig
    key: StreamKey
    repeat: int

    @classmethod
    def of(cls, scenario: Scenario, tables: CoderTables, repeat: int = 0) -> StreamSetup:
        """One repeat's stream."""
        state = np.random.SeedSequence((scenario.seed, repeat)).generate_state(1)
        key = StreamKey(tables.fingerprint, int(state[0]))
        return cls(scenario, tables, scenario.stream_config(), key, repeat)

    # Each is a call that another process can make, which then needs to know no scenarios.

    @property
    def coders(self) -> Callable[[], CoderBook]:
        """Makes the coders for the scenario's codebook size."""
        size, known = self.scenario.codec.codebook, self.tables.frequencies
        tables: dict[int, ArrayLike] = {size: known[size]} if size in known else {}
        return partial(CoderBook, tables, self.tables.context)

    @property
    def channel(self) -> Callable[[], Channel]:
        """Makes the channel at its start."""
        scenario, receivers = self.scenario, self.scenario.stream.receivers
        return partial(make_channel, scenario.channel, scenario.seed, self.repeat, receivers)

    @property
    def feedback(self) -> Callable[[], Channel | None]:
        """Makes the way back at its start; None if nothing is sent back."""
        return partial(make_feedback, self.config.arq, self.scenario.seed, self.repeat)


def check_model(model: Model, scenario: Scenario) -> None:
    """Raise UserError unless the model has all that a scenario needs of it."""
    from codec.enhance import check_enhancer
    from codec.perceptual import FeaturesMissing
    from codec.search import check_search

    size, entropy = scenario.codec.codebook, scenario.codec.entropy
    if size not in model.codebook_sizes:
        levels = ", ".join(map(str, model.codebook_sizes))
        raise UserError(f"codec.codebook: {size}: this model has {levels}")
    if scenario.codec.search:
        with user_errors("codec.search: ", FeaturesMissing):
            check_search()
    if scenario.codec.enhance:
        with user_errors("codec.enhance: ", FeaturesMissing):
            check_enhancer()
    if entropy == "context" and model.context is None:
        raise UserError(
            "codec.entropy: context: this model has no context coder; train one, sim train context"
        )
    if "inpaint" in scenario.concealers and model.inpainter is None:
        raise UserError(
            "concealers: inpaint: this model has no inpainter; train one, sim train inpainter"
        )
    if "inpaint_memory" in scenario.concealers and not model.has_memory:
        raise UserError(
            "concealers: inpaint_memory: this model has no inpainter with a memory; train one, "
            "sim train inpainter --clips"
        )


def stream_frames(
    setup: StreamSetup,
    frames: Sequence[MediaFrame],
    on_frame: Callable[[FrameReady], object] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> StreamRecord:
    """Stream frames by the driver that the scenario names.

    Args:
        setup: of the stream.
        frames: every image, tokenized.
        on_frame: called with each frame as it comes out.
        progress: called with (frames out, frames in all).

    Raises:
        StreamConfigError: a frame does not fit the settings.
        PeerError: a sender or receiver process failed.
    """
    if setup.scenario.transport == "virtual":
        from sim.drivers.virtual import run_virtual

        parts = setup.config, setup.channel(), setup.key, setup.coders()
        return run_virtual(frames, *parts, on_frame, progress, setup.feedback())

    from sim.drivers.live import run_live

    return run_live(
        partial(list, frames),
        setup.config,
        setup.channel,
        setup.key,
        setup.coders,
        on_frame,
        progress,
        pace=setup.scenario.pace,
        transport=setup.scenario.transport,
        make_feedback=setup.feedback,
    )
