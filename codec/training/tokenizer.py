"""Training the tokenizer: encoder, codebook and decoder from photographs.

Loss: L1 (pixels and block means) + deep features + commitment. For the first `continuous_steps`
latents are not quantised. Then the codebook is initialised with latents of the current batch and
learnt by exponential moving averages; gradients go straight through (van den Oord et al., NeurIPS
2017, section 3.2). From step `ladder_from` on, a share of the images is decoded from a smaller
codebook of the K-means ladder, which is rebuilt as the codebook changes: encoder and decoder learn
all codebook sizes together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from codec.codebook import EmaCodebook, Ladder, PatchStatistics, log2_sizes, nearest, quantise
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import STRIDE, Decoder, Encoder, TokenizerConfig
from codec.training import parallel
from codec.training.data import Batches, PhotoDataset, random_crops
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.task import Task, detached, image_sheet, to_device


@dataclass(frozen=True)
class TokenizerTraining:
    """Hyper-parameters of the run.

    A negative `continuous_steps` quantises from the first step, with the codebook that the run
    starts from. From step `ladder_from` on, `ladder_share` of the images are decoded from a
    codebook smaller than the base; the ladder is rebuilt every `ladder_every` steps.
    """

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


class TokenizerTask(Task):
    """See the module docstring."""

    name = "tokenizer"
    config: TokenizerTraining

    def __init__(
        self, images: Path, config: TokenizerTraining, options: TrainingOptions = DEFAULT_OPTIONS
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.options, self.device = config, options, options.device
        where, share = options.device.where, options.held_out
        photos = PhotoDataset(images, min_side=config.crop, share=share)
        self.batches = Batches(photos, config.batch, config.crop, config.seed, options)
        side = min(256, 2 * config.crop)
        unseen = PhotoDataset(images, held_out=True, min_side=side, share=share)
        self.held_out = random_crops(unseen, 32, side, config.seed, 0, options.device)
        networks: dict[str, nn.Module] = {
            "encoder": Encoder(config.network),
            "decoder": Decoder(config.network),
        }
        for network in networks.values():
            to_device(network, options)
        self.encoder, self.decoder = networks["encoder"], networks["decoder"]
        self.codebook = EmaCodebook(config.codebook_size, config.network.latent_dim).to(where)
        self.ladder: Ladder | None = None
        self.patch_statistics = PatchStatistics(config.codebook_size, decay=0.998).to(where)
        self.optimizer = OptimizerWithEma(
            networks,
            rate=config.rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
        )
        self.perceptual = PerceptualDistance().to(where)

    def start_from(self, encoder: Encoder, decoder: Decoder, ladder: Ladder) -> None:
        """Start from trained networks of the same shape and the base codebook of their ladder."""
        self.encoder.load_state_dict(encoder.state_dict())
        self.decoder.load_state_dict(decoder.state_dict())
        self.optimizer.restart_average()
        size = ladder.base_size
        tokens = self.config.batch * (self.config.crop // STRIDE) ** 2
        self.codebook.start_from(ladder.codewords(size), ladder.usage(size), tokens)
        self.ladder = ladder.to(self.device.where)

    def _build_ladder(self) -> Ladder:
        """The ladder of the present codebook, with the clusters of the previous one as start."""
        parts = self.codebook.codewords, self.codebook.ema_count, self.patch_statistics.means()
        base, usage, mean_patches = (part.to("cpu", copy=True) for part in parts)
        start = self.ladder and self.ladder.to(torch.device("cpu"))
        ladder = Ladder.build(base, usage, mean_patches, iterations=10, start=start)
        return ladder.to(self.device.where)

    def _shrink(self, codewords: Tensor, indices: Tensor, step: int) -> Tensor:
        """Base codewords float[N,D] and indices int64[N] of a batch -> codewords float[N,D], for
        some of the images those of a smaller codebook."""
        config = self.config
        if config.ladder_share <= 0 or step < config.ladder_from:
            return codewords
        if self.ladder is None or step % config.ladder_every == 0:
            self.ladder = self._build_ladder()
        rng = np.random.default_rng([config.seed, step, 1])
        codewords = codewords.clone()
        own = range(config.batch)[self.batches.part]
        tokens = len(codewords) // len(own)
        for number in range(config.batch):
            if rng.random() < config.ladder_share:
                codebook_size = int(rng.choice(self.ladder.codebook_sizes[:-1]))
                if number in own:
                    start = own.index(number) * tokens
                    part = slice(start, start + tokens)
                    shrunk = self.ladder.shrink(indices[part], codebook_size)
                    codewords[part] = self.ladder.codewords(codebook_size)[shrunk]
        return codewords

    def _latents(self, images: Tensor) -> Tensor:
        """Unit latents float[B,D,h,w], conditioned on the base codebook's size."""
        log2_size = log2_sizes(self.config.codebook_size).expand(len(images))
        latents: Tensor = self.encoder(images, log2_size)
        return latents.float()

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        images = self.batches.at(step)
        values: dict[str, Tensor] = {}
        with self.device.autocast():
            loss = self.optimizer.compute(lambda: self._loss(images, step, values))
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _loss(self, images: Tensor, step: int, values: dict[str, Tensor]) -> Tensor:
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        latents = self._latents(images)
        flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
        codewords, commitment = flat, flat.new_zeros(())
        gathered = parallel.gathered(flat.detach())  # all processes update the same codebook
        if step == config.continuous_steps:
            all_codewords = torch.arange(config.codebook_size, device=flat.device)
            self.codebook.restart(gathered, all_codewords, generator)
        if step >= config.continuous_steps:
            indices = nearest(flat.detach(), self.codebook.codewords)
            codewords = self.codebook.codewords[indices]
            commitment = (flat - codewords).square().sum(1).mean()
            chosen = parallel.gathered(indices)
            used = torch.bincount(chosen, minlength=config.codebook_size) > 0
            values["codes_per_batch"] = used.sum()
            self.codebook.update(gathered, chosen, generator)
            self.patch_statistics.add(chosen, parallel.gathered(images))
            codewords = flat + (self._shrink(codewords, indices, step) - flat).detach()
        grid = codewords.view(latents.shape[0], *latents.shape[2:], -1).permute(0, 3, 1, 2)
        decoded = self.decoder(grid)
        perceptual = self.perceptual(decoded, images).float()
        pixels = reconstruction_loss(decoded.float(), images)
        loss: Tensor = (
            pixels + config.perceptual_weight * perceptual + config.commitment_weight * commitment
        )
        values |= detached(loss=loss, pixels=pixels, perceptual=perceptual, commitment=commitment)
        return loss

    @torch.no_grad()
    def _reconstruct(
        self, images: Tensor, codebook_size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images decoded from a codebook (default: the base) with the averaged weights, and their
        base indices int64[N]."""
        with self.optimizer.averaged(), self.device.autocast():
            latents = self._latents(images)
            indices = quantise(latents, self.codebook.codewords).flatten()
            codewords = self.codebook.codewords[indices]
            if codebook_size is not None and self.ladder is not None:
                codewords = self.ladder.codewords(codebook_size)[
                    self.ladder.shrink(indices, codebook_size)
                ]
            grid = codewords.view(latents.shape[0], *latents.shape[2:], -1).permute(0, 3, 1, 2)
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
        for codebook_size in self.ladder.codebook_sizes[:-1:3] if self.ladder is not None else ():
            decoded, _ = self._reconstruct(self.held_out, codebook_size)
            psnr, perceptual = self._quality(decoded)
            values |= {f"psnr_db_{codebook_size}": psnr, f"perceptual_{codebook_size}": perceptual}
        return values

    def sample_sheet(self) -> Image.Image:
        images = self.held_out[:8]
        rows = [images, self._reconstruct(images)[0]]
        for codebook_size in self.ladder.codebook_sizes[:-1:3] if self.ladder is not None else ():
            rows.append(self._reconstruct(images, codebook_size)[0])
        return image_sheet(rows)

    def state(self) -> dict[str, Any]:
        ladder = self.ladder.tensors() if self.ladder is not None else None
        saved = {"codebook": self.codebook.state_dict(), "ladder": ladder}
        saved["patch_statistics"] = self.patch_statistics.state_dict()
        return {**super().state(), **saved}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.codebook.load_state_dict(state["codebook"])
        self.patch_statistics.load_state_dict(state["patch_statistics"])
        if state["ladder"] is not None:
            self.ladder = Ladder.from_tensors(state["ladder"]).to(self.device.where)

    def data_size(self) -> dict[str, int]:
        return {"photos": len(self.batches.photos)}
