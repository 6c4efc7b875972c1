"""Simulated loss of tokens in training, filled as a receiver would fill them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.codebook import Ladder, log2_sizes
from codec.inpainting import Inpainter
from codec.model_files import INPAINTER_FILE, load_inpainter
from codec.training.tokens import MaskSource


class LossAugmentation:
    """Simulated token loss: lost tokens are filled as a receiver's inpainter fills them."""

    def __init__(
        self, inpainter: Inpainter, ladder: Ladder, masks: MaskSource, temperature: float = 1.0
    ) -> None:
        """``masks`` draws which tokens are received; ``temperature``: of the expected codewords."""
        self.inpainter, self.ladder, self.masks = inpainter, ladder, masks
        self.temperature = temperature

    def to(self, device: torch.device) -> LossAugmentation:
        """A copy on a device; the inpainter itself is moved there."""
        return LossAugmentation(
            self.inpainter.to(device), self.ladder.to(device), self.masks, self.temperature
        )

    def fill(
        self, codewords: Tensor, indices: Tensor, received: Tensor, codebook_size: int
    ) -> tuple[Tensor, Tensor]:
        """Replace the codewords of lost tokens by expected ones.

        Args:
            codewords: float[h,w,D], of the indices.
            indices: int64[h,w].
            received: bool[h,w].
            codebook_size: K.

        Returns:
            The codeword vectors float[h,w,D], and the mean negative log-likelihood of the lost
            tokens as a share of log K, a scalar.
        """
        if received.all():
            return codewords, codewords.new_zeros(())
        codebook = self.ladder.codewords(codebook_size)
        inputs = codewords.detach()[None], received[None], log2_sizes(codebook_size)
        hidden = self.inpainter.hidden(*inputs)[0][~received]
        logits = self.inpainter.logits(
            hidden, codebook, self.ladder.log_share(codebook_size)
        ).float()
        expected = torch.softmax(logits / self.temperature, dim=1) @ codebook
        vectors = codewords.masked_scatter(~received[..., None], expected.to(codewords.dtype))
        return vectors, F.cross_entropy(logits, indices[~received]) / np.log(codebook_size)


def model_augmentation(
    folder: Path, ladder: Ladder, masks: MaskSource, temperature: float = 1.0
) -> LossAugmentation | None:
    """With the inpainter of a model folder; None if it has none. Raises ValueError if that was
    trained for another codebook than the ladder's."""
    if not (folder / INPAINTER_FILE).exists():
        return None
    inpainter, about, _ = load_inpainter(folder)
    if about["codebook"] != ladder.fingerprint():
        raise ValueError(f"{folder / INPAINTER_FILE}: was trained for another codebook")
    return LossAugmentation(inpainter, ladder, masks, temperature)
