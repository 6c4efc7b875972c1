"""Packets in, fates out: loss models, links and their theory. Needs numpy only."""

from channels.base import (
    Channel,
    ChannelParameterError,
    ConstantDelay,
    Delivery,
    LinkModel,
    LossModel,
    LossSampler,
    LossyChannel,
    Perfect,
    build,
    loss_mask,
)
from channels.erasure import PerfectLoss, Scripted, UniformErasure
from channels.gilbert_elliott import GilbertElliott
from channels.registry import LOSS_TYPES, loss_model, parse_inline

__all__ = [
    "LOSS_TYPES",
    "Channel",
    "ChannelParameterError",
    "ConstantDelay",
    "Delivery",
    "GilbertElliott",
    "LinkModel",
    "LossModel",
    "LossSampler",
    "LossyChannel",
    "Perfect",
    "PerfectLoss",
    "Scripted",
    "UniformErasure",
    "build",
    "loss_mask",
    "loss_model",
    "parse_inline",
]
