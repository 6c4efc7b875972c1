"""Fine-tuning encoder and decoder together, one set of weights for every codebook level.

The codebook stays as it is. Each image of a batch is coded at a random level of the ladder, which
the encoder is told; gradients go straight through the choice of codewords (van den Oord et al.,
NeurIPS 2017, section 3.2). Either may stay as it is: with the encoder, tokens stay what they were.

A decoder with an upsampler is judged twice: by the small picture that it draws, all of it, and by
the whole pixels of a window, which cost sixteen times as much a token. Both are compared in pixels
and by LPIPS with VGG16. Discriminators of pixels and features judge the window once they are heard.

With an inpainter, half of the images have lost tokens first: filled with expected codewords, which
lie between those of the codebook, so that the decoder learns to draw what is uncertain, and the
inpainter, trained along, what draws best. Nothing is sent back through the inpainter to the
encoder: that would pay it for tokens that are easy to guess, which cost large codebooks more detail
than bits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.inpainting import Inpainter
from codec.lpips import Lpips
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import UPSCALE, Decoder, Encoder
from codec.training import parallel
from codec.training.data import PLAIN, Batches, Setup
from codec.training.loop import image_sheet
from codec.training.losses import MultiDiscriminator, hinge_discriminator_loss, hinge_generator_loss
from codec.training.optimizer import OptimizerWithEma
from codec.training.tokens import MaskSource


@dataclass(frozen=True)
class JointTraining:
    """Hyper-parameters of the run.

    `window`: pixels a side of what is judged at full size; 0 judges small pictures alone, and
    leaves the upsampler as it is. `small_weight`: of small pictures beside windows. `lpips_weight`:
    beside the L1 of pixels; `layers` of VGG16's five are looked at. What has a rate of 0 stays as
    it is. The discriminators are heard from step `adversarial_from` on (-1: never); their gradient
    in the pixels is scaled to `adversarial_share` of the other losses' (Esser et al. 2021, eq. 7,
    who measure at the last layer). The inpainter's negative log-likelihood of lost tokens, as a
    share of log K, counts `nats_weight`.
    """

    batch: int = 4
    crop: int = 256
    window: int = 0
    small_weight: float = 1.0
    lpips_weight: float = 1.0
    layers: int = 4
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


class Repair:
    """Index maps with losses, filled as a receiver fills them."""

    def __init__(
        self, inpainter: Inpainter, ladder: Ladder, masks: MaskSource, temperature: float = 2.0
    ) -> None:
        self.inpainter, self.ladder, self.masks = inpainter, ladder, masks
        self.temperature = temperature

    def to(self, device: torch.device) -> Repair:
        """The same on a device; the inpainter itself is moved there."""
        return Repair(
            self.inpainter.to(device), self.ladder.to(device), self.masks, self.temperature
        )

    def fill(
        self, words: Tensor, indices: Tensor, known: Tensor, codebook_size: int
    ) -> tuple[Tensor, Tensor]:
        """Codewords float[h,w,D] of indices int64[h,w], known bool[h,w] -> the same, expected ones
        where unknown, and the mean negative log-likelihood of the unknown as a share of log K."""
        if known.all():
            return words, words.new_zeros(())
        codewords = self.ladder.codewords(codebook_size)
        received = words.detach()[None], known[None], log2_sizes(codebook_size)
        hidden = self.inpainter.hidden(*received)[0][~known]
        logits = self.inpainter.logits(
            hidden, codewords, self.ladder.log_share(codebook_size)
        ).float()
        expected = torch.softmax(logits / self.temperature, dim=1) @ codewords
        words = words.masked_scatter(~known[..., None], expected.to(words.dtype))
        return words, F.cross_entropy(logits, indices[~known]) / np.log(codebook_size)


class JointTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    MARGIN = 4  # small pixels around a window, which the upsampler sees and nobody judges

    def __init__(
        self,
        batches: Batches,
        held_out: Tensor,
        encoder: Encoder,
        decoder: Decoder,
        ladder: Ladder,
        config: JointTraining,
        repair: Repair | None = None,
        setup: Setup = PLAIN,
    ) -> None:
        """`batches` of crops, and `held_out` ones, float[N,3,s,s]."""
        torch.manual_seed(config.seed)
        self.setup, self.device, where = setup, setup.device, setup.device.where
        self.config, self.batches, self.held_out = config, batches, held_out.to(where)
        self.encoder, self.decoder = encoder.to(where), decoder.to(where)
        self.ladder, self.repair = ladder.to(where), repair.to(where) if repair else None
        self.judge = Lpips("alexnet").to(where)
        self.vgg = None
        if config.lpips_weight:
            self.vgg = setup.compile(Lpips("vgg16", config.layers).to(where))
        self._encode, self._low_resolution = (
            setup.compile(encoder),
            setup.compile(decoder.low_resolution),
        )
        found: dict[str, tuple[nn.Module, float]] = {
            "decoder": (decoder.layers, config.rate),
            "encoder": (encoder, config.encoder_rate),
        }
        if decoder.upsampler is not None and config.window:
            found["upsampler"] = (decoder.upsampler, config.upsampler_rate)
        if repair is not None:
            found["inpainter"] = (repair.inpainter, config.inpainter_rate)
        for network, rate in found.values():
            network.requires_grad_(rate > 0)
        networks = {name: network for name, (network, rate) in found.items() if rate}
        rates = {name: rate for name, (_, rate) in found.items() if rate}
        for network in (encoder, decoder):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        options: Any = {"weight_decay": 0.0, "ema_decay": config.ema_decay}
        self.optimizer = OptimizerWithEma(networks, rate=rates, **options)
        self.critic: OptimizerWithEma | None = None
        if config.adversarial_from >= 0:
            self.perceptual = PerceptualDistance().to(where)
            self.discriminator = MultiDiscriminator(config.discriminator_width).to(where)
            self.discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.critic = OptimizerWithEma(
                {"discriminator": self.discriminator}, rate=config.discriminator_rate, **options
            )

    def _tokens(self, images: Tensor, levels: list[int]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Codewords float[B,h,w,D] of images' tokens at their levels, straight through to the
        encoder where it learns; the tokens int64[h,w]; and the latents' distance from them."""
        learns = self.config.encoder_rate > 0
        encode = self._encode if torch.is_grad_enabled() else self.encoder
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            latents: Tensor = encode(images, log2_sizes(*levels)).float()
        indices = [
            quantise(latent[None].detach(), self.ladder.codewords(codebook_size))[0]
            for latent, codebook_size in zip(latents, levels, strict=True)
        ]
        words = torch.stack(
            [self.ladder.codewords(k)[i] for k, i in zip(levels, indices, strict=True)]
        )
        latents = latents.permute(0, 2, 3, 1)
        commitment = (latents - words).square().sum(3).mean()
        return latents + (words - latents).detach() if learns else words, indices, commitment

    def _lose(
        self, words: Tensor, indices: list[Tensor], levels: list[int], step: int
    ) -> tuple[Tensor, Tensor | None]:
        """The index maps of every other image of the batch lose tokens and have them filled; with
        the mean negative log-likelihood of those lost."""
        if self.repair is None:
            return words, None
        filled, nats, batch = list(words), words.new_zeros(()), self.config.batch
        for place, number in enumerate(range(batch)[self.batches.part]):
            if number % 2:
                continue
            rng = np.random.default_rng([self.config.seed, step, 1, number])
            shape = tuple(indices[place].shape)
            known = torch.from_numpy(self.repair.masks(rng, (shape[0], shape[1])))
            filled[place], unlikely = self.repair.fill(
                words[place], indices[place], known.to(words.device), levels[place]
            )
            nats = nats + unlikely
        return torch.stack(filled), nats * parallel.processes() / len(range(0, batch, 2))

    def _distance(
        self, images: Tensor, targets: Tensor, values: dict[str, Tensor], of: str
    ) -> Tensor:
        pixels = reconstruction_loss(images, targets)
        values[f"pixels{of}"] = pixels.detach()
        if self.vgg is None:
            return pixels
        lpips: Tensor = self.vgg(images, targets).mean()
        values[f"lpips_vgg{of}"] = lpips.detach()
        return pixels + self.config.lpips_weight * lpips

    def _window(self, small: Tensor, features: Tensor, step: int) -> Any:
        """Whole pixels float[B,3,w,w] of a window, and where it lies in the images."""
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
        if self.critic is not None and judged is not None:
            with self.device.autocast():
                unsure = self.critic.compute(lambda: self._unsure(*judged))
            self.critic.step(unsure, step, rate)
            values["discriminator"] = unsure.detach()
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _loss(
        self, images: Tensor, step: int, values: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, list[Tensor], Tensor] | None]:
        """What is minimised; and what the discriminators learn from: pixels float[B,3,w,w] that
        were drawn, their features, and those wanted."""
        config = self.config
        rng = np.random.default_rng([config.seed, step, 1])
        levels = rng.choice(self.ladder.codebook_sizes, size=config.batch)[
            self.batches.part
        ].tolist()
        words, indices, commitment = self._tokens(images, levels)
        words, nats = self._lose(words, indices, levels, step)
        codewords = words.permute(0, 3, 1, 2)
        judged = None
        if self.decoder.upsampler is None:
            large, where = self.decoder(codewords), [slice(0, config.crop)] * 2
            loss = words.new_zeros(())
        else:
            small, features = self._low_resolution(codewords)
            target = F.avg_pool2d(images, UPSCALE)
            loss = config.small_weight * self._distance(small.float(), target, values, "_small")
            large = None
            if config.window:
                large, where = self._window(small, features, step)
        if large is not None:
            large = large.float()
            wanted = images[:, :, where[0], where[1]]
            wanted = wanted.contiguous(memory_format=torch.channels_last)
            # Gradients of this loss are taken at the pixels, balanced there, and sent on.
            shown = large.detach().requires_grad_()
            seen = self._distance(shown, wanted, values, "")
            (pull,) = torch.autograd.grad(seen, shown)
            # They see a few images before they are heard.
            if self.critic is not None and step >= config.adversarial_from - 50:
                taps = self.perceptual.taps(shown)
                if step >= config.adversarial_from:
                    pull = self._hear(shown, taps, pull, values)
                judged = shown.detach(), [tap.detach() for tap in taps], wanted
            loss = loss + (large * pull).sum() + (seen - (shown * pull).sum()).detach()
        values |= {"loss": loss.detach(), "commitment": commitment.detach()}
        loss = loss + config.commitment_weight * commitment
        if nats is not None:
            loss, values["nats"] = loss + config.nats_weight * nats, nats.detach()
        return loss, judged

    def _hear(
        self, shown: Tensor, taps: list[Tensor], pull: Tensor, values: dict[str, Tensor]
    ) -> Tensor:
        """The gradient in the pixels with that of the discriminators."""
        fooled = hinge_generator_loss(self.discriminator(shown, taps)).float()
        (push,) = torch.autograd.grad(fooled, shown)
        squares = torch.stack([pull.square().sum(), push.square().sum()])
        lengths = parallel.summed(squares).sqrt()
        scale = self.config.adversarial_share * lengths[0] / (lengths[1] + 1e-12)
        values |= {"generator": fooled.detach(), "scale": scale}
        return pull + scale * push

    def _unsure(self, shown: Tensor, taps: list[Tensor], wanted: Tensor) -> Tensor:
        """What the discriminators minimise."""
        with torch.no_grad():
            real_taps = self.perceptual.taps(wanted)
        real, fake = self.discriminator(wanted, real_taps), self.discriminator(shown, taps)
        return hinge_discriminator_loss(real, fake).float()

    @torch.no_grad()
    def _decode(
        self, images: Tensor, codebook_size: int, lost: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Images through a level with the averaged weights, and their tokens int64[B,h,w]."""
        rng, decoded, tokens = np.random.default_rng(0), [], []
        with self.optimizer.averaged(), self.device.autocast():
            for image in torch.split(images, 1):
                words, indices, _ = self._tokens(image, [codebook_size])
                if self.repair is not None and lost > 0:
                    known = torch.from_numpy(rng.random(tuple(indices[0].shape)) >= lost)
                    known = known.to(self.device.where)
                    words = self.repair.fill(words[0], indices[0], known, codebook_size)[0][None]
                decoded.append(self.decoder(words.permute(0, 3, 1, 2)).float().clamp(-1, 1))
                tokens.append(indices[0])
        return torch.cat(decoded), torch.stack(tokens)

    def evaluate(self) -> dict[str, float]:
        """LPIPS (AlexNet), PSNR and bits of entropy a token, and with 20% of the tokens lost and
        filled, at three levels; of small pictures too where those are trained."""
        values = {}
        for codebook_size in (16, 64, 1024):
            for lost, mark in ((0.0, ""), (0.2, "_repaired")):
                if codebook_size not in self.ladder.codebook_sizes or (
                    lost > 0 and self.repair is None
                ):
                    continue
                decoded, tokens = self._decode(self.held_out, codebook_size, lost)
                with torch.no_grad():
                    pairs = zip(decoded, self.held_out, strict=True)
                    lpips = [self.judge(a[None], b[None]) for a, b in pairs]
                error = (decoded - self.held_out).square().mean((1, 2, 3))
                values[f"lpips_{codebook_size}{mark}"] = float(torch.cat(lpips).mean())
                values[f"psnr_db_{codebook_size}{mark}"] = float(
                    (10 * torch.log10(4 / error)).mean()
                )
                if lost == 0:
                    share = torch.bincount(tokens.flatten(), minlength=codebook_size).float()
                    share = share[share > 0] / share.sum()
                    values[f"entropy_bits_{codebook_size}"] = float(-(share * share.log2()).sum())
        return values

    def sample_sheet(self) -> Image.Image:
        few = self.held_out[:6]
        rows = [self._decode(few, k)[0] for k in (1024, 64, 16) if k in self.ladder.codebook_sizes]
        return image_sheet([few, *rows])

    def state(self) -> dict[str, Any]:
        critic = None if self.critic is None else self.critic.state()
        return {"networks": self.optimizer.state(), "critic": critic}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state(state["networks"])
        if self.critic is not None and state["critic"] is not None:
            self.critic.load_state(state["critic"])

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "joint", "training": asdict(self.config)}
        parameters = self.optimizer.parameters()
        if self.critic is not None:
            parameters |= self.critic.parameters()
        about |= self.setup.describe()
        return about | {"parameters": parameters, "photos": len(self.batches.photos)}
