"""Packets in, fates out: loss models, links and their theory. Needs numpy only.

Start with `read_channel` (plain data -> models) and `build` (models + seed -> a `Channel`).
"""

from channels.base import (
    Channel,
    ChannelParameterError,
    ConstantDelay,
    Deliveries,
    Delivery,
    LinkModel,
    LossModel,
    LossSampler,
    LossyChannel,
    Perfect,
    build,
    loss_mask,
)
from channels.composite import AnyLoss
from channels.erasure import PerfectLoss, Scripted, UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.jitter import EmpiricalJitter, NormalJitter, ParetoJitter
from channels.link import DelayLoss, Link
from channels.markov import FourState, OrderN
from channels.presets import PRESETS
from channels.registry import LOSS_TYPES, loss_model, parse_inline
from channels.renewal import SemiMarkov
from channels.spec import LINK_PARAMETERS, link_model, loss_spec, read_channel
from channels.trace import CapacityTrace, LossTrace

__all__ = [
    "LINK_PARAMETERS",
    "LOSS_TYPES",
    "PRESETS",
    "AnyLoss",
    "CapacityTrace",
    "Channel",
    "ChannelParameterError",
    "ConstantDelay",
    "DelayLoss",
    "Deliveries",
    "Delivery",
    "EmpiricalJitter",
    "FourState",
    "GilbertElliott",
    "Link",
    "LinkModel",
    "LossModel",
    "LossSampler",
    "LossTrace",
    "LossyChannel",
    "NormalJitter",
    "OrderN",
    "ParetoJitter",
    "Perfect",
    "PerfectLoss",
    "Scripted",
    "SemiMarkov",
    "UniformErasure",
    "build",
    "link_model",
    "loss_mask",
    "loss_model",
    "loss_spec",
    "parse_inline",
    "read_channel",
]
