"""One cell on the wire: picks the driver, and makes the parts that each process needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from channels import Channel, UniformErasure, build, read_channel
from channels.base import ConstantDelay
from channels.composite import ReceiveDiversity
from codec.coders import CoderBook
from codec.context import ContextTables
from sim.drivers.record import MediaFrame, StreamRecord
from sim.errors import UserError
from sim.media.sink import SavingSink
from sim.protocol.config import StreamKey
from sim.protocol.events import FrameReady
from sim.protocol.protection import ArqConfig
from sim.scenario.labels import Cell

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


def make_feedback(arq: ArqConfig, seed: int, repeat: int) -> Channel:
    """The way back of one repeat."""
    key = np.random.SeedSequence(seed, spawn_key=(repeat, _FEEDBACK))
    return build(UniformErasure(arq.loss), seed=key, link=ConstantDelay(arq.delay_s))


def stream_key(fingerprint: str, seed: int, repeat: int) -> StreamKey:
    """The key of one repeat's stream; its id follows from the seed."""
    state = np.random.SeedSequence((seed, repeat)).generate_state(1)
    return StreamKey(fingerprint, int(state[0]))


def check_model(model: Model, scenario: Scenario) -> None:
    """Raise UserError unless the model has all that a scenario needs of it."""
    from codec.lpips import check_vgg16
    from codec.perceptual import FeaturesMissing

    size, entropy = scenario.codec.codebook, scenario.codec.entropy
    if size not in model.codebook_sizes:
        levels = ", ".join(map(str, model.codebook_sizes))
        raise UserError(f"codec.codebook: {size}: this model has {levels}")
    if scenario.codec.search:
        try:
            check_vgg16()
        except FeaturesMissing as error:
            raise UserError(f"codec.search: {error}") from None
    if entropy == "context" and model.context is None:
        raise UserError(
            "codec.entropy: context: this model has no context coder; train one, sim train context"
        )
    if "inpaint" in scenario.concealers and model.inpainter is None:
        raise UserError(
            "concealers: inpaint: this model has no inpainter; train one, sim train inpainter"
        )


def stream_cell(
    cell: Cell,
    frames: Sequence[MediaFrame],
    fingerprint: str,
    frequencies: Mapping[int, Any],
    sink: Callable[[FrameReady], object],
    sink_elsewhere: Callable[[], SavingSink],
    progress: Callable[[int, int], object],
    context: ContextTables | None = None,
) -> StreamRecord:
    """Stream a cell's frames by the driver that its scenario names.

    Args:
        cell: what to stream and through which channel.
        frames: every image, tokenized.
        fingerprint: of the model.
        frequencies: integer tables of the static coder, uint32[K] by codebook size.
        sink: takes the frames, when the receiver is in this process.
        sink_elsewhere: makes the sink, when the receiver is in another.
        progress: called with (frames out, frames in all).
        context: integer tables of the context coder, if the model has them.

    Raises:
        StreamConfigError: a frame does not fit the settings.
        PeerError: a sender or receiver process failed.
    """
    scenario = cell.scenario
    config = scenario.stream_config()
    key = stream_key(fingerprint, scenario.seed, cell.repeat)
    receivers = scenario.stream.receivers
    channel = partial(make_channel, scenario.channel, scenario.seed, cell.repeat, receivers)
    feedback = None
    if config.arq is not None:
        feedback = partial(make_feedback, config.arq, scenario.seed, cell.repeat)
    if scenario.transport == "virtual":
        from sim.drivers.virtual import run_virtual

        book = CoderBook(frequencies, context)
        back = feedback() if feedback is not None else None
        return run_virtual(frames, config, channel(), key, book, sink, progress, back)

    from sim.drivers.live import run_live

    return run_live(
        partial(list, frames),
        config,
        channel,
        key,
        partial(CoderBook, frequencies, context),
        sink_elsewhere,
        progress,
        pace=scenario.pace,
        transport=scenario.transport,
        make_feedback=feedback,
    )
