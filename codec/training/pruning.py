"""Hidden channels of residual blocks that are never active, found and left out.

A rectified channel that is zero at every position of every picture adds nothing to the convolution
that follows it. Without it the network computes the same, with fewer operations and weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.model import PRETRAINED
from codec.tokenizer import STRIDE, Decoder, Encoder, ResidualBlock
from codec.training.augmentation import LossAugmentation, model_augmentation
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.runs import TrainingRun
from codec.training.tokens import Crops, MaskSource, SquareSource
from codec.training.weights import own_tokenizer, save_tokenizer


def residual_blocks(network: Encoder | Decoder) -> list[ResidualBlock]:
    """In the order of their computation."""
    return [layer for layer in network.layers if isinstance(layer, ResidualBlock)]


@contextmanager
def recorded_peaks(network: Encoder | Decoder) -> Iterator[list[Tensor]]:
    """Within the block, the largest value of each hidden channel of each residual block, before the
    rectifier, in all that the network computes: float[hidden] per residual block."""
    blocks = residual_blocks(network)
    peaks = [torch.full_like(block.conv1.weight[:, 0, 0, 0], -torch.inf) for block in blocks]

    def record(place: int, output: Tensor) -> None:
        torch.maximum(peaks[place], output.amax((0, 2, 3)), out=peaks[place])

    hooks = [
        block.conv1.register_forward_hook(lambda _m, _i, output, at=at: record(at, output))
        for at, block in enumerate(blocks)
    ]
    try:
        yield peaks
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def active_channels(
    encoder: Encoder,
    decoder: Decoder,
    ladder: Ladder,
    crops: SquareSource,
    augmentation: LossAugmentation | None = None,
    options: TrainingOptions = DEFAULT_OPTIONS,
) -> tuple[list[Tensor], list[Tensor]]:
    """Which hidden channels are active somewhere, when crops are coded at every codebook size.

    Args:
        encoder, decoder, ladder: of a tokenizer, on the device of the options.
        crops: pictures to code.
        augmentation: None, or what loses and fills tokens; the decoder then draws each picture a
            second time, with its losses.
        options: how it is carried out.

    Returns:
        bool[hidden] of each residual block of the encoder, and of the decoder.
    """
    pixels = crops.reader(options)
    with recorded_peaks(encoder) as encoder_peaks, recorded_peaks(decoder) as decoder_peaks:
        for number in options.track(range(len(crops)), "recording activity"):
            features = encoder.trunk(pixels(number))
            for size in ladder.codebook_sizes:
                latents = encoder.head(features, log2_sizes(size))
                indices = quantise(latents, ladder.codewords(size))[0]
                vectors = [ladder.codewords(size)[indices]]
                if augmentation is not None:
                    rng = np.random.default_rng([number, size])
                    received = torch.from_numpy(augmentation.masks(rng, tuple(indices.shape)))
                    given = vectors[0], indices, received.to(indices.device), size
                    vectors.append(augmentation.fill(*given)[0])
                decoder.low_resolution(torch.stack(vectors).permute(0, 3, 1, 2))
    return [peak > 0 for peak in encoder_peaks], [peak > 0 for peak in decoder_peaks]


def keep_channels(network: Encoder | Decoder, active: list[Tensor]) -> tuple[int, ...]:
    """Leave out the hidden channels that are not active, in place, but for one of a block.

    Args:
        network: to be changed.
        active: bool[hidden] of each residual block.

    Returns:
        How many hidden channels each residual block has now.
    """
    hidden = []
    for block, chosen in zip(residual_blocks(network), active, strict=True):
        channels = chosen.nonzero()[:, 0] if chosen.any() else torch.zeros(1, dtype=torch.int64)
        inner, outer = block.conv1, block.conv2
        assert inner.bias is not None
        inner.weight = nn.Parameter(inner.weight.detach()[channels])
        inner.bias = nn.Parameter(inner.bias.detach()[channels])
        outer.weight = nn.Parameter(outer.weight.detach()[:, channels])
        inner.out_channels = outer.in_channels = len(channels)
        hidden.append(len(channels))
    return tuple(hidden)


def prune_tokenizer(
    run: TrainingRun, masks: MaskSource, model: Path | None = None
) -> tuple[int, int]:
    """Leave out the hidden channels of the tokenizer in `model` (default: the shipped one) that no
    crop activates, at no codebook size, and write `tokenizer.safetensors`. The results are the
    same, so inpainter and context coder stay as they are.

    Args:
        run: see `TrainingRun`; nothing is trained, `run.cache` says on how many crops.
        masks: draws which tokens are received, if there is an inpainter in `model` to fill them.
        model: a model folder.

    Returns:
        Encoder's and decoder's parameters before, and now.

    Raises:
        ValueError: another kind of network.
    """
    source, options = model or PRETRAINED, run.options
    network, encoder, decoder, ladder = own_tokenizer(source)
    augmentation = model_augmentation(source, ladder, masks)
    before = _parameters(encoder, decoder)
    side, where = run.cache.side, options.device.where
    crops = Crops(run.photos(side), side // STRIDE, run.cache.crops, seed=6)
    active = active_channels(
        encoder.to(where),
        decoder.to(where),
        ladder.to(where),
        crops,
        augmentation and augmentation.to(where),
        options,
    )
    smaller = replace(
        network,
        encoder_hidden=keep_channels(encoder, active[0]),
        decoder_hidden=keep_channels(decoder, active[1]),
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(run.folder, smaller, encoder, decoder, ladder)
    return before, _parameters(encoder, decoder)


def _parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())
