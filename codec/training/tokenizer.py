"""Training the tokenizer: encoder, codebook and decoder from photographs.

Loss: L1 (pixels and block means) + deep features + commitment. For the first `continuous_steps`
nothing is quantised; then the codebook starts at latents of the current batches and is learnt by
EMA, with gradients passed straight through. From step `ladder_from`, a share of the images is
decoded from a random smaller level of the K-means ladder, which follows the codebook: encoder and
decoder learn all rates together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from codec.codebook import EmaCodebook, Ladder, Looks, log2_sizes, nearest, quantise
from codec.fast import fast_autocast
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import STRIDE, Decoder, Encoder, TokenizerConfig
from codec.training.data import PhotoFolder, random_crops
from codec.training.loop import image_sheet
from codec.training.optimise import Optimised


@dataclass(frozen=True)
class TokenizerTraining:
    """Hyper-parameters of the run. A negative `continuous_steps` quantises from the first step, by
    the codebook the run starts from. `ladder_share` of the images are decoded from a level below
    the base; the ladder is brought up to date every `ladder_every` steps."""

    network: TokenizerConfig
    codebook_size: int = 2048
    batch: int = 8
    crop: int = 192
    rate: float = 6e-4
    weight_decay: float = 0.01
    perceptual_weight: float = 0.5
    commitment_weight: float = 0.25
    continuous_steps: int = 200
    ladder_from: int = 2000
    ladder_every: int = 250
    ladder_share: float = 0.6
    ema_decay: float = 0.998
    seed: int = 0


class TokenizerTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    def __init__(self, images: Path, config: TokenizerTraining) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.photos = PhotoFolder(images, min_side=config.crop)
        side = min(256, 2 * config.crop)
        unseen = PhotoFolder(images, held_out=True, min_side=side)
        self.held_out = random_crops(unseen, 32, side, config.seed, 0)
        networks: dict[str, nn.Module] = {
            "encoder": Encoder(config.network),
            "decoder": Decoder(config.network),
        }
        for network in networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.encoder, self.decoder = networks["encoder"], networks["decoder"]
        self.codebook = EmaCodebook(config.codebook_size, config.network.latent_dim)
        self.ladder: Ladder | None = None
        self.looks = Looks(config.codebook_size, decay=0.998)
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
        self.ladder = ladder

    def _follow_codebook(self) -> Ladder:
        """The ladder of the present codebook."""
        base, usage = self.codebook.codewords.clone(), self.codebook.ema_count.clone()
        return Ladder.build(base, usage, self.looks.means(), iterations=10, start=self.ladder)

    def _shrink(self, words: Tensor, indices: Tensor, step: int) -> Tensor:
        """Base codewords float[N,D] and indices int64[N] of a batch -> codewords float[N,D], those
        of some images from smaller levels."""
        config = self.config
        if config.ladder_share <= 0 or step < config.ladder_from:
            return words
        if self.ladder is None or step % config.ladder_every == 0:
            self.ladder = self._follow_codebook()
        rng = np.random.default_rng([config.seed, step, 1])
        words = words.clone()
        each = len(words) // config.batch
        for number in range(config.batch):
            if rng.random() < config.ladder_share:
                level = int(rng.choice(self.ladder.levels[:-1]))
                part = slice(number * each, (number + 1) * each)
                words[part] = self.ladder.codewords(level)[self.ladder.shrink(indices[part], level)]
        return words

    def _latents(self, images: Tensor) -> Tensor:
        """Unit latents float[B,D,h,w] near the base codewords."""
        bits = log2_sizes(self.config.codebook_size).expand(len(images))
        latents: Tensor = self.encoder(images, bits)
        return latents.float()

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        config = self.config
        images = random_crops(self.photos, config.batch, config.crop, config.seed, step)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        with fast_autocast():
            latents = self._latents(images)
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
                self.looks.add(indices, images)
                words = flat + (self._shrink(words, indices, step) - flat).detach()
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
    def _reconstruct(self, images: Tensor, level: int | None = None) -> tuple[Tensor, Tensor]:
        """Images decoded from a level (default: the base) with the averaged weights, and their base
        indices int64[N]."""
        with self.optimised.averaged(), fast_autocast():
            latents = self._latents(images)
            indices = quantise(latents, self.codebook.codewords).flatten()
            words = self.codebook.codewords[indices]
            if level is not None and self.ladder is not None:
                words = self.ladder.codewords(level)[self.ladder.shrink(indices, level)]
            grid = words.view(latents.shape[0], *latents.shape[2:], -1).permute(0, 3, 1, 2)
            decoded = self.decoder(grid).float().clamp(-1, 1)
        return decoded, indices

    def _quality(self, decoded: Tensor) -> tuple[float, float]:
        """PSNR in dB and feature distance of decoded held-out images."""
        error = (decoded - self.held_out).square().mean((1, 2, 3))
        psnr = float((10 * torch.log10(4 / error)).mean())
        return psnr, float(self.perceptual(decoded, self.held_out))

    def evaluate(self) -> dict[str, float]:
        decoded, indices = self._reconstruct(self.held_out)
        share = torch.bincount(indices, minlength=self.config.codebook_size).float()
        share = share[share > 0] / share.sum()
        psnr, perceptual = self._quality(decoded)
        values = {
            "psnr_db": psnr,
            "perceptual": perceptual,
            "codes_used": float(len(share)),
            "entropy_bits": float(-(share * share.log2()).sum()),
        }
        for level in self.ladder.levels[:-1:3] if self.ladder is not None else ():
            decoded, _ = self._reconstruct(self.held_out, level)
            psnr, perceptual = self._quality(decoded)
            values |= {f"psnr_db_{level}": psnr, f"perceptual_{level}": perceptual}
        return values

    def sample_sheet(self) -> Image.Image:
        originals = self.held_out[:8]
        rows = [originals, self._reconstruct(originals)[0]]
        for level in self.ladder.levels[:-1:3] if self.ladder is not None else ():
            rows.append(self._reconstruct(originals, level)[0])
        return image_sheet(rows)

    def state(self) -> dict[str, Any]:
        ladder = self.ladder.tensors() if self.ladder is not None else None
        saved = {"codebook": self.codebook.state_dict(), "ladder": ladder}
        saved["looks"] = {"sums": self.looks.sums, "counts": self.looks.counts}
        return {**self.optimised.state(), **saved}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimised.load_state(state)
        self.codebook.load_state_dict(state["codebook"])
        self.looks.sums, self.looks.counts = state["looks"]["sums"], state["looks"]["counts"]
        if state["ladder"] is not None:
            self.ladder = Ladder.from_tensors(state["ladder"])

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "tokenizer", "training": asdict(self.config)}
        return about | {"parameters": self.optimised.parameters(), "photos": len(self.photos)}
