"""Fine-tuning encoder and decoder together, one set of weights for every codebook size.

The codebooks stay fixed. Each image of a batch is encoded at a random codebook size, which the
encoder is conditioned on; gradients go straight through the choice of codewords (van den Oord et
al., NeurIPS 2017, section 3.2). Either network may be frozen: with the encoder frozen, tokens do
not change.

A decoder with an upsampler has two reconstruction losses: of the whole low-resolution picture, and
of the full-size pixels of a window, which cost sixteen times as much computation per token. Each is
the L1 of pixels plus LPIPS with VGG16. From a given step on, discriminators of pixels and of deep
features add an adversarial loss of the window.

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
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import UPSCALE, Decoder, Encoder
from codec.training import parallel
from codec.training.augmentation import LossAugmentation
from codec.training.data import Batches
from codec.training.losses import (
    MultiDiscriminator,
    hinge_discriminator_loss,
    hinge_generator_loss,
    random_view,
    texture_loss,
)
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.task import Task, detached, image_sheet, to_device


@dataclass(frozen=True)
class JointTraining:
    """Hyper-parameters of the run.

    Attributes:
        batch, crop: images per step, all processes together, and their pixels a side.
        window: pixels a side of the part judged at full size; 0: only low-resolution pictures are
            judged, and the upsampler is frozen.
        small_weight: of the loss of low-resolution pictures, beside that of windows.
        lpips_weight: of LPIPS beside the L1 of pixels.
        texture_weight: of `codec.training.losses.texture_loss` of windows.
        layers: how many of VGG16's five feature layers LPIPS uses.
        features_weight: of `codec.perceptual.PerceptualDistance` of windows.
        rate, encoder_rate, upsampler_rate, inpainter_rate: peak learning rates of the decoder and
            the other networks; what has a rate of 0 is frozen.
        commitment_weight: of the squared distance of latents from their codewords.
        nats_weight: of the inpainter's negative log-likelihood of lost tokens, a share of log K.
        adversarial_from: step from which the adversarial loss counts; -1: never.
        adversarial_share: norm of its gradient at the pixels, as a share of the norm of the other
            losses' (Esser et al., CVPR 2021, eq. 7, who measure at the last layer).
        discriminator_rate, discriminator_width: of the discriminators.
        ema_decay: of the averaged weights.
        seed: of batches, losses and the discriminators' weights.
    """

    batch: int = 4
    crop: int = 256
    window: int = 0
    small_weight: float = 1.0
    lpips_weight: float = 1.0
    layers: int = 4
    features_weight: float = 0.0
    texture_weight: float = 0.0
    rate: float = 2e-4
    encoder_rate: float = 2e-4
    upsampler_rate: float = 2e-4
    commitment_weight: float = 0.1
    inpainter_rate: float = 1e-4
    nats_weight: float = 0.2
    adversarial_from: int = -1
    adversarial_share: float = 0.4
    discriminator_rate: float = 2e-4
    discriminator_width: int = 48
    ema_decay: float = 0.998
    seed: int = 11


@dataclass(frozen=True)
class _Judged:
    """What the discriminators learn from: decoded pixels float[B,3,w,w], their
    `PerceptualDistance.taps`, and the original pixels."""

    decoded: Tensor
    features: list[Tensor]
    target: Tensor


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
        self.lpips_vgg = None
        if config.lpips_weight:
            self.lpips_vgg = options.compile(Lpips("vgg16", config.layers).to(where))
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
        networks = {name: network for name, (network, rate) in trained.items() if rate}
        rates = {name: rate for name, (_, rate) in trained.items() if rate}
        for network in (encoder, decoder):
            to_device(network, options)
        common: Any = {"weight_decay": 0.0, "ema_decay": config.ema_decay}
        self.optimizer = OptimizerWithEma(networks, rate=rates, **common)
        self.discriminator_optimizer: OptimizerWithEma | None = None
        if config.adversarial_from >= 0 or config.features_weight:
            self.perceptual = PerceptualDistance().to(where)
        if config.adversarial_from >= 0:
            self.discriminator = MultiDiscriminator(config.discriminator_width)
            to_device(self.discriminator, options)
            self.discriminator_optimizer = OptimizerWithEma(
                {"discriminator": self.discriminator}, rate=config.discriminator_rate, **common
            )

    def _tokens(self, images: Tensor, sizes: list[int]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Encode each image of float[B,3,H,W] at its own codebook size.

        Returns:
            Codewords float[B,h,w,D], through which gradients reach the encoder if it is trained;
            each image's tokens int64[h,w]; mean squared distance of latents from codewords.
        """
        trains = self.config.encoder_rate > 0
        encode = self._encode if torch.is_grad_enabled() else self.encoder
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            latents: Tensor = encode(images, log2_sizes(*sizes)).float()
        indices = [
            quantise(latent[None].detach(), self.ladder.codewords(size))[0]
            for latent, size in zip(latents, sizes, strict=True)
        ]
        codewords = torch.stack(
            [self.ladder.codewords(k)[i] for k, i in zip(sizes, indices, strict=True)]
        )
        latents = latents.permute(0, 2, 3, 1)
        commitment = (latents - codewords).square().sum(3).mean()
        straight_through = latents + (codewords - latents).detach() if trains else codewords
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

    def _reconstruction_loss(
        self, images: Tensor, targets: Tensor, values: dict[str, Tensor], suffix: str
    ) -> Tensor:
        """L1 of pixels and LPIPS; `values` gets both under names with the suffix."""
        pixels = reconstruction_loss(images, targets)
        values[f"pixels{suffix}"] = pixels.detach()
        if self.lpips_vgg is None:
            return pixels
        lpips: Tensor = self.lpips_vgg(images, targets).mean()
        values[f"lpips_vgg{suffix}"] = lpips.detach()
        return pixels + self.config.lpips_weight * lpips

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
        if self.discriminator_optimizer is not None and judged is not None:
            with self.device.autocast():
                discriminator_loss = self.discriminator_optimizer.compute(
                    lambda: self._discriminator_loss(judged)
                )
            self.discriminator_optimizer.step(discriminator_loss, step, rate)
            values["discriminator"] = discriminator_loss.detach()
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _loss(
        self, images: Tensor, step: int, values: dict[str, Tensor]
    ) -> tuple[Tensor, _Judged | None]:
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
            recon_loss = self._reconstruction_loss(small_view, target, values, "_small")
            loss = config.small_weight * recon_loss
            if config.window:
                large, where = self.enlarge_window(small, features, step)
        if large is not None:
            view = random_view(large, at)
            target = random_view(images[:, :, where[0], where[1]], at)
            loss, judged = self._add_pixel_losses(loss, view, target, step, values)
        values |= detached(loss=loss, commitment=commitment)
        loss = loss + config.commitment_weight * commitment
        if nll is not None:
            loss, values["nats"] = loss + config.nats_weight * nll, nll.detach()
        return loss, judged

    def _add_pixel_losses(
        self, loss: Tensor, large: Tensor, target: Tensor, step: int, values: dict[str, Tensor]
    ) -> tuple[Tensor, _Judged | None]:
        """Add reconstruction and adversarial loss of decoded pixels float[B,3,w,w] to a loss.

        The gradients of both are taken at the pixels, where the adversarial one is scaled. A
        surrogate loss, linear in the pixels, passes their sum on to the networks.
        """
        decoded, judged = large.detach().requires_grad_(), None
        recon_loss = self._reconstruction_loss(decoded, target, values, "")
        if self.config.texture_weight:
            texture = texture_loss(decoded, target)
            recon_loss = recon_loss + self.config.texture_weight * texture
            values["texture"] = texture.detach()
        if self.config.features_weight:
            distance = self.perceptual(decoded, target)
            recon_loss = recon_loss + self.config.features_weight * distance
            values["features"] = distance.detach()
        (gradient,) = torch.autograd.grad(recon_loss, decoded)
        # Discriminators are trained for some steps before their gradient is used.
        start = self.config.adversarial_from
        if self.discriminator_optimizer is not None and step >= start - 50:
            features = self.perceptual.taps(decoded)
            if step >= start:
                gradient = self._add_adversarial_gradient(decoded, features, gradient, values)
            judged = _Judged(decoded.detach(), [tap.detach() for tap in features], target)
        surrogate_loss = (large * gradient).sum()
        offset = (recon_loss - (decoded * gradient).sum()).detach()  # so that values are the loss's
        return loss + surrogate_loss + offset, judged

    def _add_adversarial_gradient(
        self,
        decoded: Tensor,
        features: list[Tensor],
        grad_recon: Tensor,
        values: dict[str, Tensor],
    ) -> Tensor:
        """The gradient at the pixels plus that of the generator's loss, scaled to a share of it."""
        generator_loss = hinge_generator_loss(self.discriminator(decoded, features)).float()
        (grad_adv,) = torch.autograd.grad(generator_loss, decoded)
        squares = torch.stack([grad_recon.square().sum(), grad_adv.square().sum()])
        norms = parallel.summed(squares).sqrt()
        scale = self.config.adversarial_share * norms[0] / (norms[1] + 1e-12)
        values |= {"generator": generator_loss.detach(), "scale": scale}
        return grad_recon + scale * grad_adv

    def _discriminator_loss(self, judged: _Judged) -> Tensor:
        """The discriminators' hinge loss, a scalar."""
        with torch.no_grad():
            target_features = self.perceptual.taps(judged.target)
        real = self.discriminator(judged.target, target_features)
        fake = self.discriminator(judged.decoded, judged.features)
        return hinge_discriminator_loss(real, fake).float()

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
        optimizer = self.discriminator_optimizer
        state = None if optimizer is None else optimizer.state()
        return {"networks": super().state(), "discriminator": state}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state["networks"])
        if self.discriminator_optimizer is not None and state["discriminator"] is not None:
            self.discriminator_optimizer.load_state(state["discriminator"])

    def describe(self) -> dict[str, Any]:
        about = super().describe()
        if self.discriminator_optimizer is not None:
            about["parameters"] |= self.discriminator_optimizer.parameters()
        return about

    def data_size(self) -> dict[str, int]:
        return {"photos": len(self.batches.photos)}
