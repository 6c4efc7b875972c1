"""Fine-tuning encoder and decoder together, one set of weights for every codebook level.

The codebook stays as it is. Each image of a batch is coded at a random level of the ladder, which
the encoder is told; gradients go straight through the choice of codewords (van den Oord et al.,
NeurIPS 2017, section 3.2). The encoder may stay as it is, too; then tokens mean what they meant.

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
from codec.fast import fast_autocast
from codec.inpainting import Inpainter
from codec.lpips import Lpips
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import SMALL, Decoder, Encoder
from codec.training.data import PhotoFolder, random_crops
from codec.training.loop import image_sheet
from codec.training.losses import Critics, discriminator_loss, generator_loss
from codec.training.optimise import Optimised
from codec.training.tokens import MaskSource


@dataclass(frozen=True)
class JointTraining:
    """Hyper-parameters of the run.

    `window`: pixels a side of what is judged at full size; 0 judges small pictures alone, and
    leaves the upsampler as it is. `small_weight`: of small pictures beside windows. `lpips_weight`:
    beside the L1 of pixels; `layers` of VGG16's five are looked at. An `encoder_rate` of 0 leaves
    the encoder as it is. The discriminators are heard from step `adversarial_from` on (-1: never);
    their gradient in the pixels is scaled to `adversarial_share` of the other losses' (Esser et al.
    2021, eq. 7, who measure at the last layer). The inpainter's negative log-likelihood of lost
    tokens, as a share of log K, counts `nats_weight`.
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

    def fill(
        self, words: Tensor, indices: Tensor, known: Tensor, level: int
    ) -> tuple[Tensor, Tensor]:
        """Codewords float[h,w,D] of indices int64[h,w], known bool[h,w] -> the same, expected ones
        where unknown, and the mean negative log-likelihood of the unknown as a share of log K."""
        if known.all():
            return words, words.new_zeros(())
        codewords = self.ladder.codewords(level)
        received = words.detach()[None], known[None], log2_sizes(level)
        hidden = self.inpainter.hidden(*received)[0][~known]
        logits = self.inpainter.logits(hidden, codewords, self.ladder.log_share(level)).float()
        expected = torch.softmax(logits / self.temperature, dim=1) @ codewords
        words = words.masked_scatter(~known[..., None], expected.to(words.dtype))
        return words, F.cross_entropy(logits, indices[~known]) / np.log(level)


class JointTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    MARGIN = 4  # small pixels around a window, which the upsampler sees and nobody judges

    def __init__(
        self,
        photos: PhotoFolder,
        held_out: Tensor,
        encoder: Encoder,
        decoder: Decoder,
        ladder: Ladder,
        config: JointTraining,
        repair: Repair | None = None,
    ) -> None:
        """`held_out`: float[N,3,256,256]."""
        torch.manual_seed(config.seed)
        self.config, self.photos, self.held_out = config, photos, held_out
        self.encoder, self.decoder, self.ladder, self.repair = encoder, decoder, ladder, repair
        self.vgg = Lpips("vgg16", config.layers)
        self.judge = Lpips("alexnet")
        networks: dict[str, nn.Module] = {"decoder": decoder.layers}
        rates = {"decoder": config.rate}
        if decoder.upsampler is not None and config.window:
            networks["upsampler"] = decoder.upsampler
            rates["upsampler"] = config.upsampler_rate
        if config.encoder_rate:
            networks["encoder"] = encoder
            rates["encoder"] = config.encoder_rate
        if repair is not None:
            networks["inpainter"] = repair.inpainter
            rates["inpainter"] = config.inpainter_rate
        for network in (encoder, decoder):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        options: Any = {"weight_decay": 0.0, "ema_decay": config.ema_decay}
        self.optimised = Optimised(networks, rate=rates, **options)
        self.critic: Optimised | None = None
        if config.adversarial_from >= 0:
            self.perceptual = PerceptualDistance()
            self.discriminator = Critics(config.discriminator_width)
            self.discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.critic = Optimised(
                {"discriminator": self.discriminator}, rate=config.discriminator_rate, **options
            )

    def _tokens(self, images: Tensor, levels: list[int]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Codewords float[B,h,w,D] of images' tokens at their levels, straight through to the
        encoder where it learns; the tokens int64[h,w]; and the latents' distance from them."""
        learns = self.config.encoder_rate > 0
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            latents: Tensor = self.encoder(images, log2_sizes(*levels)).float()
        indices = [
            quantise(latent[None].detach(), self.ladder.codewords(level))[0]
            for latent, level in zip(latents, levels, strict=True)
        ]
        words = torch.stack(
            [self.ladder.codewords(k)[i] for k, i in zip(levels, indices, strict=True)]
        )
        latents = latents.permute(0, 2, 3, 1)
        commitment = (latents - words).square().sum(3).mean()
        return latents + (words - latents).detach() if learns else words, indices, commitment

    def _lose(
        self, words: Tensor, indices: list[Tensor], levels: list[int], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Half of the index maps lose tokens and have them filled; with the mean negative
        log-likelihood of those lost."""
        if self.repair is None:
            return words, None
        filled, nats = list(words), []
        for number in range(0, len(filled), 2):
            shape = tuple(indices[number].shape)
            known = torch.from_numpy(self.repair.masks(rng, (shape[0], shape[1])))
            filled[number], unlikely = self.repair.fill(
                words[number], indices[number], known, levels[number]
            )
            nats.append(unlikely)
        return torch.stack(filled), torch.stack(nats).mean()

    def _distance(
        self, images: Tensor, targets: Tensor, values: dict[str, float], of: str
    ) -> Tensor:
        pixels = reconstruction_loss(images, targets)
        lpips: Tensor = self.vgg(images, targets).mean()
        values |= {f"pixels{of}": pixels.item(), f"lpips_vgg{of}": lpips.item()}
        return pixels + self.config.lpips_weight * lpips

    def _window(self, small: Tensor, features: Tensor, rng: np.random.Generator) -> Any:
        """Whole pixels float[B,3,w,w] of a window, and where it lies in the images."""
        assert self.decoder.upsampler is not None
        side, cells = self.config.window // SMALL, small.shape[2]
        top, left = (int(at) for at in rng.integers(cells - side + 1, size=2))
        above, before = (min(self.MARGIN, at) for at in (top, left))
        rows, columns = (
            slice(at - margin, min(at + side + self.MARGIN, cells))
            for at, margin in ((top, above), (left, before))
        )
        large = self.decoder.upsampler(small[:, :, rows, columns], features[:, :, rows, columns])
        inner = [slice(SMALL * m, SMALL * (m + side)) for m in (above, before)]
        outer = [slice(SMALL * at, SMALL * (at + side)) for at in (top, left)]
        return large[:, :, inner[0], inner[1]], outer

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        config = self.config
        images = random_crops(self.photos, config.batch, config.crop, config.seed, step)
        rng = np.random.default_rng([config.seed, step, 1])
        levels = [int(level) for level in rng.choice(self.ladder.levels, size=config.batch)]
        values: dict[str, float] = {}
        with fast_autocast():
            words, indices, commitment = self._tokens(images, levels)
            words, nats = self._lose(words, indices, levels, rng)
            codewords = words.permute(0, 3, 1, 2)
            if self.decoder.upsampler is None:
                large, where = self.decoder(codewords).float(), [slice(0, config.crop)] * 2
                loss = large.new_zeros(())
            else:
                small, features = self.decoder.draw(codewords)
                target = F.avg_pool2d(images, SMALL)
                loss = config.small_weight * self._distance(small.float(), target, values, "_small")
                large = None
                if config.window:
                    large, where = self._window(small, features, rng)
            if large is not None:
                wanted = images[:, :, where[0], where[1]]
                wanted = wanted.contiguous(memory_format=torch.channels_last)
                # Gradients of this loss are taken at the pixels, balanced there, and sent on.
                shown = large.detach().requires_grad_()
                seen = self._distance(shown, wanted, values, "")
                (pull,) = torch.autograd.grad(seen, shown)
                pull = self._hear(shown, wanted, pull, step, rate, values)
                loss = loss + (large * pull).sum() + (seen - (shown * pull).sum()).detach()
        values["loss"] = loss.item()
        values["commitment"] = commitment.item()
        loss = loss + config.commitment_weight * commitment
        if nats is not None:
            loss, values["nats"] = loss + config.nats_weight * nats, nats.item()
        values["gradient"] = self.optimised.step(loss, step, rate)
        return values

    def _hear(
        self,
        shown: Tensor,
        wanted: Tensor,
        pull: Tensor,
        step: int,
        rate: float,
        values: dict[str, float],
    ) -> Tensor:
        """The gradient in the pixels with that of the discriminators, which learn here."""
        config = self.config
        # They see a few images before they are heard.
        if self.critic is None or step < config.adversarial_from - 50:
            return pull
        taps = self.perceptual.taps(shown)
        if step >= config.adversarial_from:
            self.discriminator.requires_grad_(False)
            fooled = generator_loss(self.discriminator(shown, taps)).float()
            self.discriminator.requires_grad_(True)
            (push,) = torch.autograd.grad(fooled, shown)
            scale = config.adversarial_share * pull.norm() / (push.norm() + 1e-12)
            pull = pull + scale * push
            values |= {"generator": fooled.item(), "scale": scale.item()}
        with torch.no_grad():
            real_taps = self.perceptual.taps(wanted)
        real = self.discriminator(wanted, real_taps)
        fake = self.discriminator(shown.detach(), [tap.detach() for tap in taps])
        judged = discriminator_loss(real, fake).float()
        self.critic.step(judged, step, rate)
        values["discriminator"] = judged.item()
        return pull

    @torch.no_grad()
    def _decode(self, images: Tensor, level: int, lost: float = 0.0) -> tuple[Tensor, Tensor]:
        """Images through a level with the averaged weights, and their tokens int64[B,h,w]."""
        rng, decoded, tokens = np.random.default_rng(0), [], []
        with self.optimised.averaged(), fast_autocast():
            for image in torch.split(images, 1):
                words, indices, _ = self._tokens(image, [level])
                if self.repair is not None and lost > 0:
                    known = torch.from_numpy(rng.random(indices[0].shape) >= lost)
                    words = self.repair.fill(words[0], indices[0], known, level)[0][None]
                decoded.append(self.decoder(words.permute(0, 3, 1, 2)).float().clamp(-1, 1))
                tokens.append(indices[0])
        return torch.cat(decoded), torch.stack(tokens)

    def evaluate(self) -> dict[str, float]:
        """LPIPS (AlexNet), PSNR and bits of entropy a token, and with 20% of the tokens lost and
        filled, at three levels; of small pictures too where those are trained."""
        values = {}
        for level in (16, 64, 1024):
            for lost, mark in ((0.0, ""), (0.2, "_repaired")):
                if level not in self.ladder.levels or (lost > 0 and self.repair is None):
                    continue
                decoded, tokens = self._decode(self.held_out, level, lost)
                with torch.no_grad():
                    pairs = zip(decoded, self.held_out, strict=True)
                    lpips = [self.judge(a[None], b[None]) for a, b in pairs]
                error = (decoded - self.held_out).square().mean((1, 2, 3))
                values[f"lpips_{level}{mark}"] = float(torch.cat(lpips).mean())
                values[f"psnr_db_{level}{mark}"] = float((10 * torch.log10(4 / error)).mean())
                if lost == 0:
                    share = torch.bincount(tokens.flatten(), minlength=level).float()
                    share = share[share > 0] / share.sum()
                    values[f"entropy_bits_{level}"] = float(-(share * share.log2()).sum())
        return values

    def sample_sheet(self) -> Image.Image:
        few = self.held_out[:6]
        rows = [self._decode(few, k)[0] for k in (1024, 64, 16) if k in self.ladder.levels]
        return image_sheet([few, *rows])

    def state(self) -> dict[str, Any]:
        critic = None if self.critic is None else self.critic.state()
        return {"networks": self.optimised.state(), "critic": critic}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimised.load_state(state["networks"])
        if self.critic is not None and state["critic"] is not None:
            self.critic.load_state(state["critic"])

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "joint", "training": asdict(self.config)}
        parameters = self.optimised.parameters()
        if self.critic is not None:
            parameters |= self.critic.parameters()
        return about | {"parameters": parameters, "photos": len(self.photos)}
