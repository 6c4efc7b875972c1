"""Fine-tuning the encoder, told the level: for each codebook size, the tokens that decode best.

Decoder and codewords stay as they are, so tokens mean what they always mean. The loss is that of
the search (`codec.search`), whose many steps for one image the encoder learns to do in one: pixels
and deep features of what the decoder draws, straight through the choice of codewords.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.fast import fast_autocast
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import Encoder, TokenizerConfig
from codec.training.data import PhotoFolder, random_crops
from codec.training.loop import image_sheet
from codec.training.optimise import Optimised


@dataclass(frozen=True)
class EncoderTraining:
    """Hyper-parameters of the run. Latents are drawn to the codewords chosen for them by
    `commitment_weight`."""

    batch: int = 8
    crop: int = 160
    rate: float = 3e-4
    perceptual_weight: float = 0.5
    commitment_weight: float = 0.1
    ema_decay: float = 0.998
    seed: int = 5


class EncoderTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    def __init__(
        self,
        images: Path,
        network: TokenizerConfig,
        start: Encoder,
        decoder: nn.Module,
        ladder: Ladder,
        config: EncoderTraining,
    ) -> None:
        """The encoder of `network` goes on from `start`, which may lack levels and last blocks."""
        torch.manual_seed(config.seed)
        self.config, self.ladder = config, ladder
        self.photos = PhotoFolder(images, min_side=config.crop)
        side = min(256, 2 * config.crop)
        unseen = PhotoFolder(images, held_out=True, min_side=side)
        self.held_out = random_crops(unseen, 32, side, config.seed, 0)
        self.encoder, self.decoder = Encoder(network), decoder.requires_grad_(False)
        self.encoder.start_from(start)
        for part in (self.encoder, self.decoder):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimised = Optimised(
            {"encoder": self.encoder},
            rate=config.rate,
            weight_decay=0.0,
            ema_decay=config.ema_decay,
        )
        self.perceptual = PerceptualDistance()

    def _choose(self, latents: Tensor, levels: list[int]) -> Tensor:
        """Latents float[B,D,h,w] -> codewords of their images' levels float[B,D,h,w]."""
        words = []
        for latent, level in zip(latents, levels, strict=True):
            codewords = self.ladder.codewords(level)
            chosen = codewords[quantise(latent[None], codewords)]
            words.append(chosen.permute(0, 3, 1, 2))
        return torch.cat(words)

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        config = self.config
        images = random_crops(self.photos, config.batch, config.crop, config.seed, step)
        rng = np.random.default_rng([config.seed, step, 1])
        levels = [int(level) for level in rng.choice(self.ladder.levels, size=config.batch)]
        bits = log2_sizes(*levels)
        with fast_autocast():
            latents = self.encoder(images, bits).float()
            words = self._choose(latents.detach(), levels)
            commitment = (latents - words).square().sum(1).mean()
            decoded = self.decoder(latents + (words - latents).detach()).float()
            perceptual = self.perceptual(decoded, images).float()
        pixels = reconstruction_loss(decoded, images)
        seen = pixels + config.perceptual_weight * perceptual
        norm = self.optimised.step(seen + config.commitment_weight * commitment, step, rate)
        values = {"loss": seen.item(), "pixels": pixels.item(), "perceptual": perceptual.item()}
        return values | {"commitment": commitment.item(), "gradient": norm}

    @torch.no_grad()
    def _reconstruct(self, images: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Images through a level with the averaged weights, and their indices int64[N]."""
        bits = log2_sizes(level).expand(len(images))
        with self.optimised.averaged(), fast_autocast():
            latents = self.encoder(images, bits).float()
            codewords = self.ladder.codewords(level)
            indices = quantise(latents, codewords)
            decoded = self.decoder(codewords[indices].permute(0, 3, 1, 2)).float().clamp(-1, 1)
        return decoded, indices.flatten()

    def evaluate(self) -> dict[str, float]:
        values = {}
        for level in self.ladder.levels[::2]:
            decoded, indices = self._reconstruct(self.held_out, level)
            error = (decoded - self.held_out).square().mean((1, 2, 3))
            values[f"psnr_db_{level}"] = float((10 * torch.log10(4 / error)).mean())
            values[f"perceptual_{level}"] = float(self.perceptual(decoded, self.held_out))
            share = torch.bincount(indices, minlength=level).float()
            share = share[share > 0] / share.sum()
            values[f"entropy_bits_{level}"] = float(-(share * share.log2()).sum())
        return values

    def sample_sheet(self) -> Image.Image:
        originals = self.held_out[:6]
        rows = [self._reconstruct(originals, k)[0] for k in reversed(self.ladder.levels[::2])]
        return image_sheet([originals, *rows])

    def state(self) -> dict[str, Any]:
        return self.optimised.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimised.load_state(state)

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "encoder", "training": asdict(self.config)}
        return about | {"parameters": self.optimised.parameters(), "photos": len(self.photos)}
