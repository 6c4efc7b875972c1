"""Analysis by synthesis: a search for the tokens whose decode is nearest to the image.

The encoder chooses, for each patch, the codeword nearest to its latent vector. The decoder draws
each patch from its neighbours' codewords too, so another choice may be better. The search descends
the gradient of the reconstruction error (L1 of the pixels, LPIPS with VGG16, and the distance in
EfficientNet's features) with respect to the latents, straight through the choice of codewords (van
den Oord et al., NeurIPS 2017, section 3.2), and keeps the best choice found. Only the sender
searches; the meaning of tokens does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.device import CPU, Device
from codec.lpips import Lpips, check_vgg16
from codec.perceptual import PerceptualDistance, check_features
from codec.tokenizer import STRIDE

Progress = Callable[[float], None]

TILE = 48  # tokens a side that are optimised at once; bounds the memory
MARGIN = 4  # fixed tokens around them


@dataclass(frozen=True)
class Terms:
    """Hyper-parameters of the search.

    Attributes:
        rate: length of an Adam step in the latents (unit vectors), falling linearly to a quarter.
        perceptual: weight of LPIPS beside the pixels.
        blocks: how many of VGG16's five LPIPS uses.
        features: weight of `codec.perceptual.PerceptualDistance`.
        bit: squared distance that saving one bit of the static code is worth.
    """

    rate: float = 0.02
    perceptual: float = 1.0
    blocks: int = 5
    features: float = 0.1
    bit: float = 0.04


def check_search() -> None:
    """Raises FeaturesMissing: the weights of VGG16 or EfficientNet are not installed."""
    check_vgg16()
    check_features()


class Search:
    """The search, for one decoder."""

    def __init__(
        self, decoder: nn.Module, device: Device = CPU, terms: Terms | None = None
    ) -> None:
        """``decoder`` is on ``device``, where all tensors must be. Raises FeaturesMissing if the
        weights of VGG16 or EfficientNet are not installed."""
        self._decoder, self._device, self._terms = decoder, device, terms or Terms()
        self._lpips = Lpips("vgg16", self._terms.blocks).to(device.where)
        self._efficientnet = PerceptualDistance().to(device.where)

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of images float[1,3,H,W], by VGG16 and by EfficientNet: all that `error` compares besides
        pixels."""
        with self._device.autocast():
            return self._lpips.features(images), self._efficientnet.taps(images)

    def error(
        self,
        codewords: Tensor,
        images: Tensor,
        features: tuple[list[Tensor], list[Tensor]] | None = None,
    ) -> Tensor:
        """The error that is minimised, a scalar, of the decoded codewords float[1,D,h,w] against
        images float[1,3,16h,16w]; ``features``: of these images, if already computed."""
        vgg16, efficientnet = features or self.features(images)
        with self._device.autocast():
            decoded = self._decoder(codewords).float()
            found = self.features(decoded)
            lpips = self._lpips.between(found[0], vgg16).float().mean()
            distance = self._efficientnet.between(found[1], efficientnet).float()
            error: Tensor = (decoded - images).abs().mean()
            return error + self._terms.perceptual * lpips + self._terms.features * distance

    def improve(
        self,
        indices: Tensor,
        latents: Tensor,
        pixels: Tensor,
        codewords: Tensor,
        bits: Tensor,
        steps: int,
        progress: Progress = lambda share: None,
    ) -> Tensor:
        """A better choice of tokens, or the same.

        Args:
            indices: int64[h,w], the encoder's own choice.
            latents: float[D,h,w], what it made it from.
            pixels: float[1,3,16h,16w] in [-1, 1].
            codewords: float[K,D].
            bits: float[K], what each token costs.
            steps: how often everything is decoded, at least 1.
            progress: called with the share that is done, up to 1.

        Returns:
            int64[h,w]. Its error is at most that of ``indices`` where one tile is the whole image;
            of more, each is improved with those before it as they are by then.
        """
        found = indices.clone()
        height, width = indices.shape
        corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
        for number, corner in enumerate(corners):

            def report(step: int, number: int = number) -> None:
                progress((number + step / steps) / len(corners))

            self._tile(found, latents, pixels, codewords, bits, steps, corner, report)
        return found

    def _tile(
        self,
        found: Tensor,
        latents: Tensor,
        pixels: Tensor,
        codewords: Tensor,
        bits: Tensor,
        steps: int,
        corner: tuple[int, int],
        report: Callable[[int], None],
    ) -> None:
        """Improve one tile of ``found``, in place."""
        rows, columns = (slice(max(0, at - MARGIN), at + TILE + MARGIN) for at in corner)
        images = pixels[
            :,
            :,
            rows.start * STRIDE : rows.stop * STRIDE,
            columns.start * STRIDE : columns.stop * STRIDE,
        ].contiguous(memory_format=torch.channels_last)
        start = found[rows, columns]
        own = torch.zeros_like(start, dtype=torch.bool)
        top, left = corner[0] - rows.start, corner[1] - columns.start
        own[top : top + TILE, left : left + TILE] = True
        around = codewords[start]
        with torch.no_grad():
            features = self.features(images)

        terms = self._terms
        cost = codewords.square().sum(1) + terms.bit * bits
        moved = latents[:, rows, columns].permute(1, 2, 0)[own].requires_grad_()
        optimizer = torch.optim.Adam([moved], betas=(0.8, 0.95))
        best, least = start[own], float("inf")
        choice = best
        for step in range(steps + 1):
            if step > 0:
                with torch.no_grad():
                    unit = F.normalize(moved, dim=1)
                    choice = (cost - 2 * unit @ codewords.t()).argmin(1)
            straight = moved + (codewords[choice] - moved).detach()
            vectors = around.masked_scatter(own[..., None], straight)
            error = self.error(vectors.permute(2, 0, 1)[None], images, features)
            if error.item() < least:
                best, least = choice, error.item()
            if step < steps:
                optimizer.param_groups[0]["lr"] = terms.rate * (1 - 0.75 * step / steps)
                optimizer.zero_grad()
                error.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            report(step)
        found[corner[0] : corner[0] + TILE, corner[1] : corner[1] + TILE] = best.view(
            min(TILE, found.shape[0] - corner[0]), min(TILE, found.shape[1] - corner[1])
        )
