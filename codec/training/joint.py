"""Fine-tuning encoder and decoder together, one set of weights for every codebook size.

Each image of a batch is encoded at a random codebook size, which the encoder is conditioned on;
gradients go straight through the choice of codewords (van den Oord et al., NeurIPS 2017, section
3.2). Either network may be frozen: with the encoder frozen, tokens do not change. Codewords stay
unless they are given a learning rate; then they descend the gradient of the decoder's losses too.

A decoder with an upsampler has two losses (`codec.training.pixel_losses`): of the whole
low-resolution picture, and of the full-size pixels of a window, which cost sixteen times as much
computation per token.

With an inpainter, half of the images lose tokens, which are filled with expected codewords. These
lie between the codewords of the codebook, so the decoder learns to draw uncertain tokens, and the
inpainter, trained at the same time, to give vectors that decode well. Gradients do not reach the
encoder through the inpainter: it would be rewarded for tokens that are easy to guess, which cost
large codebooks more detail than bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.lpips import Lpips
from codec.tokenizer import UPSCALE, Decoder, Encoder
from codec.training import parallel
from codec.training.augmentation import LossAugmentation
from codec.training.data import Batches
from codec.training.losses import random_view
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.pixel_losses import Judged, PixelLossConfig, PixelLosses
from codec.training.task import Task, detached, image_sheet, to_device


@dataclass(frozen=True)
class JointTraining(PixelLossConfig):
    """Hyper-parameters of the run: the losses', and these.

    Attributes:
        batch, crop: images per step, all processes together, and their pixels a side.
        window: pixels a side of the part judged at full size; 0: only low-resolution pictures are
            judged, and the upsampler is frozen.
        small_weight: of the loss of low-resolution pictures, beside that of windows.
        rate, encoder_rate, upsampler_rate, inpainter_rate, codeword_rate: peak learning rates of
            the decoder and the others; what has a rate of 0 is frozen.
        commitment_weight: of the squared distance of latents from their codewords; a quarter of it
            pulls codewords that learn.
        nats_weight: of the inpainter's negative log-likelihood of lost tokens, a share of log K.
        seed: of batches, losses and the discriminators' weights.
    """

    batch: int = 4
    crop: int = 256
    window: int = 0
    small_weight: float = 1.0
    rate: float = 2e-4
    encoder_rate: float = 2e-4
    upsampler_rate: float = 2e-4
    commitment_weight: float = 0.1
    inpainter_rate: float = 1e-4
    codeword_rate: float = 0.0
    nats_weight: float = 0.2
    seed: int = 11


class LearntCodewords(nn.Module):
    """All codebooks of a ladder as parameters: K -> float[K,D]."""

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        sizes = ladder.codebook_sizes
        self.books = nn.ParameterDict({str(k): ladder.codewords(k).clone() for k in sizes})

    def forward(self, codebook_size: int) -> Tensor:
        book: Tensor = self.books[str(codebook_size)]
        return book

    def codewords(self) -> dict[int, Tensor]:
        """Copies by codebook size."""
        return {int(k): book.detach().clone() for k, book in self.books.items()}


class JointTask(Task):
    """See the module docstring."""

    name = "joint"
    config: JointTraining
    MARGIN = 4  # low-resolution pixels around a window, inputs of the upsampler but not judged

    def __init__(
        self,
        batches: Batches,
        held_out: Tensor,
        encoder: Encoder,
        decoder: Decoder,
        ladder: Ladder,
        config: JointTraining,
        augmentation: LossAugmentation | None = None,
        options: TrainingOptions = DEFAULT_OPTIONS,
    ) -> None:
        """`batches` of crops to train on, and held-out crops float[N,3,s,s] in [-1, 1]."""
        torch.manual_seed(config.seed)
        self.options, self.device, where = options, options.device, options.device.where
        self.config, self.batches, self.held_out = config, batches, held_out.to(where)
        self.encoder, self.decoder = encoder.to(where), decoder.to(where)
        self.ladder = ladder.to(where)
        self.augmentation = augmentation.to(where) if augmentation else None
        self.lpips_alexnet = Lpips("alexnet").to(where)
        self._encode = options.compile(encoder)
        self._low_resolution = options.compile(decoder.low_resolution)
        trained: dict[str, tuple[nn.Module, float]] = {
            "decoder": (decoder.layers, config.rate),
            "encoder": (encoder, config.encoder_rate),
        }
        if decoder.upsampler is not None and config.window:
            trained["upsampler"] = (decoder.upsampler, config.upsampler_rate)
        if augmentation is not None:
            trained["inpainter"] = (augmentation.inpainter, config.inpainter_rate)
        for network, rate in trained.values():
            network.requires_grad_(rate > 0)
        self.learnt = LearntCodewords(self.ladder) if config.codeword_rate else None
        if self.learnt is not None:
            trained["codewords"] = (self.learnt, config.codeword_rate)
        networks = {name: network for name, (network, rate) in trained.items() if rate}
        rates = {name: rate for name, (_, rate) in trained.items() if rate}
        for network in (encoder, decoder):
            to_device(network, options)
        self.optimizer = OptimizerWithEma(
            networks, rate=rates, weight_decay=0.0, ema_decay=config.ema_decay
        )
        self.losses = PixelLosses(config, options)

    def present_ladder(self) -> Ladder:
        """With the codewords as they have been learnt."""
        if self.learnt is None:
            return self.ladder
        return self.ladder.with_codewords(self.learnt.codewords())

    def _tokens(self, images: Tensor, sizes: list[int]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Encode each image of float[B,3,H,W] at its own codebook size.

        Returns:
            Codewords float[B,h,w,D], through which gradients reach the encoder if it is trained,
            and the codebook if that is; each image's tokens int64[h,w]; mean squared distance of
            latents from codewords, and a quarter of it again for the codewords that learn.
        """
        trains = self.config.encoder_rate > 0
        books = [(self.learnt or self.ladder.codewords)(size) for size in sizes]
        encode = self._encode if torch.is_grad_enabled() else self.encoder
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            latents: Tensor = encode(images, log2_sizes(*sizes)).float()
        indices = [
            quantise(latent[None].detach(), book.detach())[0]
            for latent, book in zip(latents, books, strict=True)
        ]
        codewords = torch.stack([F.embedding(i, b) for i, b in zip(indices, books, strict=True)])
        latents = latents.permute(0, 2, 3, 1)
        commitment = _mean_square(latents, codewords.detach())
        if self.learnt is not None:
            commitment = commitment + 0.25 * _mean_square(latents.detach(), codewords)
        straight_through = codewords + (latents - latents.detach()) if trains else codewords
        return straight_through, indices, commitment

    def _augment(
        self, codewords: Tensor, indices: list[Tensor], sizes: list[int], step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Simulate losses in every other image of the batch.

        Returns:
            The codeword vectors float[B,h,w,D], and the mean over these images of the lost tokens'
            negative log-likelihood (`LossAugmentation.fill`); None without an inpainter.
        """
        if self.augmentation is None:
            return codewords, None
        vectors, nll, batch = list(codewords), codewords.new_zeros(()), self.config.batch
        for place, number in enumerate(range(batch)[self.batches.part]):
            if number % 2:
                continue
            rng = np.random.default_rng([self.config.seed, step, 1, number])
            height, width = indices[place].shape
            received = torch.from_numpy(self.augmentation.masks(rng, (height, width)))
            vectors[place], image_nll = self.augmentation.fill(
                codewords[place], indices[place], received.to(codewords.device), sizes[place]
            )
            nll = nll + image_nll
        return torch.stack(vectors), nll * parallel.processes() / len(range(0, batch, 2))

    def enlarge_window(
        self, small: Tensor, features: Tensor, step: int
    ) -> tuple[Tensor, list[slice]]:
        """Enlarge a random window of a low-resolution picture float[B,3,h,w].

        Returns:
            Its pixels float[B,3,w,w], and its rows and columns in the images.
        """
        assert self.decoder.upsampler is not None
        rng = np.random.default_rng([self.config.seed, step, 2])
        side, cells = self.config.window // UPSCALE, small.shape[2]
        top, left = (int(at) for at in rng.integers(cells - side + 1, size=2))
        above, before = (min(self.MARGIN, at) for at in (top, left))
        rows, columns = (
            slice(at - margin, min(at + side + self.MARGIN, cells))
            for at, margin in ((top, above), (left, before))
        )
        large = self.decoder.upsampler(small[:, :, rows, columns], features[:, :, rows, columns])
        inner = [slice(UPSCALE * m, UPSCALE * (m + side)) for m in (above, before)]
        outer = [slice(UPSCALE * at, UPSCALE * (at + side)) for at in (top, left)]
        return large[:, :, inner[0], inner[1]], outer

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        images = self.batches.at(step)
        values: dict[str, Tensor] = {}
        with self.device.autocast():
            loss, judged = self.optimizer.compute(lambda: self._loss(images, step, values))
        if judged is not None:
            values["discriminator"] = self.losses.train_discriminators(
                judged, step, rate, self.device
            )
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _loss(
        self, images: Tensor, step: int, values: dict[str, Tensor]
    ) -> tuple[Tensor, Judged | None]:
        """The loss, a scalar, and what the discriminators learn from once they are trained."""
        config, at = self.config, [self.config.seed, step, 3]
        rng = np.random.default_rng([config.seed, step, 1])
        sizes = rng.choice(self.ladder.codebook_sizes, size=config.batch)
        sizes = sizes[self.batches.part].tolist()
        codewords, indices, commitment = self._tokens(images, sizes)
        codewords, nll = self._augment(codewords, indices, sizes, step)
        codewords = codewords.permute(0, 3, 1, 2)
        loss, judged, large = codewords.new_zeros(()), None, None
        if self.decoder.upsampler is None:
            large, where = self.decoder(codewords), [slice(0, config.crop)] * 2
        else:
            small, features = self._low_resolution(codewords)
            small_view = random_view(small, at)
            target = random_view(F.avg_pool2d(images, UPSCALE), at)
            recon_loss = self.losses.reconstruction(small_view, target, values, "_small")
            loss = config.small_weight * recon_loss
            if config.window:
                large, where = self.enlarge_window(small, features, step)
        if large is not None:
            view = random_view(large, at)
            target = random_view(images[:, :, where[0], where[1]], at)
            loss, judged = self.losses.add(loss, view, target, step, values)
        values |= detached(loss=loss, commitment=commitment)
        loss = loss + config.commitment_weight * commitment
        if nll is not None:
            loss, values["nats"] = loss + config.nats_weight * nll, nll.detach()
        return loss, judged

    @torch.no_grad()
    def _decode(
        self, images: Tensor, codebook_size: int, loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Images float[B,3,H,W] encoded and decoded with the averaged weights, a share `loss` of
        their tokens being lost and filled; and the tokens int64[B,h,w]."""
        rng, decoded, tokens = np.random.default_rng(0), [], []
        with self.optimizer.averaged(), self.device.autocast():
            for image in torch.split(images, 1):
                codewords, indices, _ = self._tokens(image, [codebook_size])
                if self.augmentation is not None and loss > 0:
                    received = torch.from_numpy(rng.random(tuple(indices[0].shape)) >= loss)
                    received = received.to(self.device.where)
                    vectors, _ = self.augmentation.fill(
                        codewords[0], indices[0], received, codebook_size
                    )
                    codewords = vectors[None]
                decoded.append(self.decoder(codewords.permute(0, 3, 1, 2)).float().clamp(-1, 1))
                tokens.append(indices[0])
        return torch.cat(decoded), torch.stack(tokens)

    def evaluate(self) -> dict[str, float]:
        """LPIPS (AlexNet), PSNR and bits of entropy per token at three codebook sizes; the first
        two also with 20% of the tokens lost and filled, if there is an inpainter."""
        values = {}
        for size in (16, 64, 1024):
            for loss, suffix in ((0.0, ""), (0.2, "_repaired")):
                if size not in self.ladder.codebook_sizes:
                    continue
                if loss > 0 and self.augmentation is None:
                    continue
                decoded, tokens = self._decode(self.held_out, size, loss)
                with torch.no_grad():
                    pairs = zip(decoded, self.held_out, strict=True)
                    lpips = [self.lpips_alexnet(a[None], b[None]) for a, b in pairs]
                error = (decoded - self.held_out).square().mean((1, 2, 3))
                values[f"lpips_{size}{suffix}"] = float(torch.cat(lpips).mean())
                values[f"psnr_db_{size}{suffix}"] = float((10 * torch.log10(4 / error)).mean())
                if loss == 0:
                    share = torch.bincount(tokens.flatten(), minlength=size).float()
                    share = share[share > 0] / share.sum()
                    values[f"entropy_bits_{size}"] = float(-(share * share.log2()).sum())
        return values

    def sample_sheet(self) -> Image.Image:
        """Held-out crops, and their decodes at three codebook sizes."""
        images = self.held_out[:6]
        sizes = [k for k in (1024, 64, 16) if k in self.ladder.codebook_sizes]
        return image_sheet([images, *(self._decode(images, k)[0] for k in sizes)])

    def state(self) -> dict[str, Any]:
        return {"networks": super().state(), "discriminator": self.losses.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state["networks"])
        self.losses.load_state(state["discriminator"])

    def describe(self) -> dict[str, Any]:
        about = super().describe()
        about["parameters"] |= self.losses.parameters()
        return about

    def data_size(self) -> dict[str, int]:
        return {"photos": len(self.batches.photos)}


def _mean_square(a: Tensor, b: Tensor) -> Tensor:
    """The mean over positions of the squared distance of vectors float[B,h,w,D] each."""
    return (a - b).square().sum(3).mean()
