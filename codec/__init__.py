"""Images to index maps to bytes and back: tokenizer, codebook ladder, entropy coder, inpainting.

    tokens = codec.encode(pixels, 256)              # uint8[H,W,3] -> int64[h,w]
    pixels = codec.decode(tokens, pixels.shape, 256)

with the weights that ship, on the CPU; `codec.model.Model` has the rest. Importing this loads no
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from codec.model import Model


def encode(
    image: NDArray[np.uint8], codebook_size: int = 1024, patch: int = 16
) -> NDArray[np.int64]:
    """An image's tokens.

    Args:
        image: uint8[H,W,3], sRGB.
        codebook_size: codewords K, a power of 2 from 8 to 2048.
        patch: pixels that a token stands for, each way: 16, 20, 24 or 32.

    Returns:
        int64[h,w] in [0, K), h = ceil(H/patch), w = ceil(W/patch).

    Raises:
        ValueError: another kind of array, codebook or patch.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != "uint8":
        raise ValueError(f"image: is {image.dtype}{list(image.shape)}; needed is uint8[H,W,3]")
    return _shipped(codebook_size, patch).encode(image, codebook_size, patch)


def decode(
    tokens: NDArray[np.int64], shape: Sequence[int], codebook_size: int = 1024
) -> NDArray[np.uint8]:
    """The image of tokens.

    Args:
        tokens: int64[h,w] in [0, codebook_size), as `encode` returns them.
        shape: (H, W) of the image, or more: what follows does not count.
        codebook_size: as for `encode`.

    Returns:
        uint8[H,W,3].

    Raises:
        ValueError: another codebook, or a token that it does not have.
    """
    model = _shipped(codebook_size)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < codebook_size:
        raise ValueError(f"tokens: from 0 to {codebook_size - 1}, as the codebook has them")
    return model.decode(tokens, codebook_size, shape[0], shape[1])


@cache
def _loaded() -> Model:
    from codec.model import Model

    return Model.load()


def _shipped(codebook_size: int, patch: int = 16) -> Model:
    from codec.patches import PATCHES

    model = _loaded()
    if codebook_size not in model.codebook_sizes:
        known = ", ".join(map(str, model.codebook_sizes))
        raise ValueError(f"codebook_size {codebook_size}: choose one of {known}")
    if patch not in PATCHES:
        raise ValueError(f"patch {patch}: choose one of {', '.join(map(str, PATCHES))}")
    return model
