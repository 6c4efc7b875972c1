"""Large images in tiles: a convolutional network on tiles that overlap by its reach, so that the
result equals that of the whole image (up to the rounding of float sums) in bounded memory.

A network's reach is the radius of its receptive field. Where a tile ends inside the image, that
much of its surroundings is added as a margin, whose output is discarded; where it ends at the
image's edge, it is padded as the whole image would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from codec.tokenizer import STRIDE

TILE = 128
"""Tokens a side; 128 = 2,048 pixels."""


def reach_tokens(layers: nn.Module, pixels_per_cell: int) -> int:
    """The radius of the receptive field, in tokens beyond an output's own, rounded up.

    Args:
        layers: convolutions of odd kernels, pixel shuffles and operations on single positions, in
            the order of their modules.
        pixels_per_cell: of the input: 16 where it is a grid of tokens, 1 where it is an image.
    """
    scale, reach = float(pixels_per_cell), 0.0
    for layer in layers.modules():
        match layer:
            case nn.PixelShuffle():
                scale /= layer.upscale_factor
            case nn.PixelUnshuffle():
                scale *= layer.downscale_factor
            case nn.Conv2d():
                reach += scale * (layer.kernel_size[0] // 2)
    return math.ceil(reach / STRIDE)


def apply_tiled(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    into: int,
    out_of: int,
    reach: int,
    tile: int = TILE,
) -> Tensor:
    """`network(x)`, tile by tile where x is larger than one tile.

    Args:
        network: float[1,C,into*h,into*w] -> float[1,D,out_of*h,out_of*w] for a grid of h x w
            tokens.
        x: its input.
        into, out_of: cells of its input and output per token, each way.
        reach: of the network, in tokens; see `reach_tokens`.
        tile: tokens a side.
    """
    height, width = x.shape[2] // into, x.shape[3] // into
    if height * width <= tile * tile:
        whole: Tensor = network(x)
        return whole
    parts: list[Tensor] = []
    for top in range(0, height, tile):
        line = []
        for left in range(0, width, tile):
            above, before = min(reach, top), min(reach, left)
            down, right = min(top + tile, height), min(left + tile, width)
            rows = slice(into * (top - above), into * min(down + reach, height))
            columns = slice(into * (left - before), into * min(right + reach, width))
            output = network(x[:, :, rows, columns])
            rows = slice(out_of * above, out_of * (above + down - top))
            columns = slice(out_of * before, out_of * (before + right - left))
            line.append(output[:, :, rows, columns].clone())  # frees the margin
        parts.append(torch.cat(line, dim=3))
    return torch.cat(parts, dim=2)
