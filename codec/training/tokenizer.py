"""Training the tokenizer: encoder, codebook and decoder from photographs.

Loss: L1 (pixels and block means) + deep features + commitment. For the first `continuous_steps`
nothing is quantised; then the codebook starts at latents of the current batches and is learnt by
EMA, with gradients passed straight through.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from codec.codebook import EmaCodebook, Ladder, nearest
from codec.tokenizer import STRIDE, Decoder, Encoder, TokenizerConfig
from codec.training.data import PhotoFolder, random_crops
from codec.training.loop import fast_autocast, image_sheet
from codec.training.losses import PerceptualDistance, reconstruction_loss
from codec.training.optimise import Optimised


@dataclass(frozen=True)
class TokenizerTraining:
    """Hyper-parameters of the run. A negative `continuous_steps` quantises from the first step, by
    the codebook the run starts from."""

    network: TokenizerConfig
    codebook_size: int = 2048
    batch: int = 16
    crop: int = 128
    rate: float = 6e-4
    weight_decay: float = 0.01
    perceptual_weight: float = 0.5
    commitment_weight: float = 0.25
    continuous_steps: int = 200
    ema_decay: float = 0.998
    seed: int = 0


class TokenizerTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    def __init__(self, images: Path, config: TokenizerTraining) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.photos = PhotoFolder(images, min_side=config.crop)
        unseen = PhotoFolder(images, held_out=True, min_side=2 * config.crop)
        self.held_out = random_crops(unseen, 32, 2 * config.crop, config.seed, 0)
        networks: dict[str, nn.Module] = {
            "encoder": Encoder(config.network),
            "decoder": Decoder(config.network),
        }
        for network in networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder, self.decoder = networks["encoder"], networks["decoder"]
        self.codebook = EmaCodebook(config.codebook_size, config.network.latent_dim)
        self.optimised = Optimised(
            networks,
            rate=config.rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
        )
        self.perceptual = PerceptualDistance()

    def start_from(self, encoder: Encoder, decoder: Decoder, ladder: Ladder) -> None:
        """Go on from trained networks of the same shape and the base codebook of their ladder."""
        self.encoder.load_state_dict(encoder.state_dict())
        self.decoder.load_state_dict(decoder.state_dict())
        self.optimised.restart_average()
        size = ladder.levels[-1]
        tokens = self.config.batch * (self.config.crop // STRIDE) ** 2
        self.codebook.start_from(ladder.codewords(size), ladder.usage(size), tokens)

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        config = self.config
        images = random_crops(self.photos, config.batch, config.crop, config.seed, step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        with fast_autocast():
            latents = self.encoder(images).float()
            flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
            values: dict[str, float] = {}
            words, commitment = flat, flat.new_zeros(())
            if step == config.continuous_steps:
                everyone = torch.arange(config.codebook_size)
                self.codebook.restart(flat.detach(), everyone, generator)
            if step >= config.continuous_steps:
                indices = nearest(flat.detach(), self.codebook.codewords)
                words = self.codebook.codewords[indices]
                commitment = (flat - words).square().sum(1).mean()
                values["codes_per_batch"] = float((torch.bincount(indices) > 0).sum())
                self.codebook.update(flat.detach(), indices, generator)
                words = flat + (words - flat).detach()
            grid = words.view(latents.shape[0], *latents.shape[2:], -1).permute(0, 3, 1, 2)
            decoded = self.decoder(grid)
            perceptual = self.perceptual(decoded, images).float()
        pixels = reconstruction_loss(decoded.float(), images)
        loss = (
            pixels + config.perceptual_weight * perceptual + config.commitment_weight * commitment
        )
        norm = self.optimised.step(loss, step, rate)
        values |= {"loss": loss.item(), "pixels": pixels.item(), "perceptual": perceptual.item()}
        return values | {"commitment": commitment.item(), "gradient": norm}

    @torch.no_grad()
    def _reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded images and indices int64[N] with the averaged weights."""
        with self.optimised.averaged(), fast_autocast():
            latents = self.encoder(images).float()
            indices = nearest(latents.permute(0, 2, 3, 1).flatten(0, 2), self.codebook.codewords)
            words = self.codebook.codewords[indices]
            grid = words.view(latents.shape[0], *latents.shape[2:], -1).permute(0, 3, 1, 2)
            decoded = self.decoder(grid).float().clamp(-1, 1)
        return decoded, indices

    def evaluate(self) -> dict[str, float]:
        decoded, indices = self._reconstruct(self.held_out)
        error = (decoded - self.held_out).square().mean((1, 2, 3))
        share = torch.bincount(indices, minlength=self.config.codebook_size).float()
        share = share[share > 0] / share.sum()
        return {
            "psnr_db": float((10 * torch.log10(4 / error)).mean()),
            "perceptual": float(self.perceptual(decoded, self.held_out)),
            "codes_used": float(len(share)),
            "entropy_bits": float(-(share * share.log2()).sum()),
        }

    def sample_sheet(self) -> Image.Image:
        originals = self.held_out[:8]
        decoded, _ = self._reconstruct(originals)
        return image_sheet([originals, decoded])

    def state(self) -> dict[str, Any]:
        return {**self.optimised.state(), "codebook": self.codebook.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimised.load_state(state)
        self.codebook.load_state_dict(state["codebook"])

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "tokenizer", "training": asdict(self.config)}
        return about | {"parameters": self.optimised.parameters(), "photos": len(self.photos)}
