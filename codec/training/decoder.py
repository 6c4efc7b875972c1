"""Fine-tuning the decoder, one set of weights for every codebook level, with an adversarial loss.

The codebook stays as it is, so tokens mean what they mean. Each image of a batch is decoded from a
random level of the ladder. With an inpainter, half of them have lost tokens first: filled with
expected codewords, which lie between those of the codebook, so that the decoder learns to draw what
is uncertain, and the inpainter, trained along, what draws best.

The encoder stays as it is too, or learns along, by what is sent back from the decoder straight
through the choice of codewords. Nothing is sent back through the inpainter: that would pay the
encoder for tokens that are easy to guess, which cost large codebooks more detail than bits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.fast import fast_autocast
from codec.perceptual import PerceptualDistance, reconstruction_loss
from codec.tokenizer import STRIDE, Encoder
from codec.training.joint import Repair
from codec.training.loop import image_sheet
from codec.training.losses import (
    Critics,
    discriminator_loss,
    generator_loss,
)
from codec.training.optimise import Optimised
from codec.training.tokens import Crops, TokenCache


@dataclass(frozen=True)
class DecoderTraining:
    """Hyper-parameters of the run. The adversarial loss starts after `adversarial_from` steps; its
    gradient in the pixels is scaled to `adversarial_share` of the other losses' (Esser et al. 2021,
    eq. 7, who measure at the last layer). The inpainter keeps learning to predict tokens, too:
    their negative log-likelihood as a share of log K counts `nats_weight`. Latents of an encoder
    that learns along are drawn to the codewords chosen for them by `commitment_weight`. `levels`
    are those trained for; none means all of the ladder."""

    batch: int = 4
    crop: int = 256
    rate: float = 2e-4
    inpainter_rate: float = 1e-4
    nats_weight: float = 0.2
    encoder_rate: float = 2e-4
    commitment_weight: float = 0.1
    discriminator_rate: float = 2e-4
    discriminator_width: int = 48
    perceptual_weight: float = 0.5
    adversarial_share: float = 0.4
    adversarial_from: int = 200
    levels: tuple[int, ...] = ()
    ema_decay: float = 0.995
    seed: int = 2


def _pixels(tokens: slice) -> slice:
    return slice(tokens.start * STRIDE, tokens.stop * STRIDE)


class DecoderTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    def __init__(
        self,
        decoder: nn.Module,
        ladder: Ladder,
        crops: Crops,
        held_out: Crops,
        config: DecoderTraining,
        repair: Repair | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """An `encoder` that is told the level learns along; without one, crops are `TokenCache`s of
        an encoder that stays."""
        torch.manual_seed(config.seed)
        self.config, self.crops, self.held_out = config, crops, held_out
        self.ladder, self.decoder = ladder, decoder
        self.repair, self.encoder = repair, encoder
        self.levels = config.levels or self.ladder.levels
        self.discriminator = Critics(config.discriminator_width)
        options: Any = {"weight_decay": 0.0, "ema_decay": config.ema_decay}
        networks, rates = {"decoder": decoder}, {"decoder": config.rate}
        if encoder is not None:
            networks["encoder"] = encoder
            rates["encoder"] = config.encoder_rate
        for network in (*networks.values(), self.discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if repair is not None:
            networks["inpainter"] = repair.inpainter
            rates["inpainter"] = config.inpainter_rate
        self.optimised = Optimised(networks, rate=rates, **options)
        self.critic = Optimised(
            {"discriminator": self.discriminator}, rate=config.discriminator_rate, **options
        )
        self.perceptual = PerceptualDistance()

    def _tokens(
        self, crops: Crops, number: int, pixels: Tensor, level: int, where: tuple[slice, slice]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Part of a crop's tokens: codewords float[s,s,D], indices int64[s,s], and commitment.

        With an encoder that learns, gradients of the codewords go straight through to its latents.
        """
        codewords = self.ladder.codewords(level)
        if self.encoder is None:
            assert isinstance(crops, TokenCache)
            indices = crops.at(number, level)[where]
            return codewords[indices], indices, codewords.new_zeros(())
        rows, columns = map(_pixels, where)
        pixels = pixels[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
        maps = self.encoder(pixels, log2_sizes(level)).float()
        indices = quantise(maps.detach(), codewords)[0]
        words, latents = codewords[indices], maps[0].permute(1, 2, 0)
        commitment = (latents - words).square().sum(2).mean()
        return latents + (words - latents).detach(), indices, commitment

    def _batch(self, step: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Codewords float[B,D,s,s], their pixels float[B,3,16s,16s], and means: the negative
        log-likelihood of lost tokens as a share of log K, and the commitment of latents."""
        rng = np.random.default_rng([self.config.seed, step])
        whole, side = self.crops.side, self.config.crop // STRIDE
        words, images, nats, commitments = [], [], [], []
        for number in rng.integers(len(self.crops), size=self.config.batch).tolist():
            level = int(rng.choice(self.levels))
            lossy = self.repair is not None and rng.random() < 0.5
            region = whole if lossy else side  # what is lost is told from its surroundings
            top, left = rng.integers(whole - region + 1, size=2).tolist()
            where = slice(top, top + region), slice(left, left + region)
            cut = self.crops.pixels(number)
            drawn, indices, commitment = self._tokens(self.crops, number, cut, level, where)
            if self.repair is not None and lossy:
                known = torch.from_numpy(self.repair.masks(rng, (region, region)))
                drawn, unlikely = self.repair.fill(drawn, indices, known, level)
                nats.append(unlikely)
            y, x = rng.integers(region - side + 1, size=2).tolist()
            words.append(drawn[y : y + side, x : x + side].permute(2, 0, 1))
            rows, columns = (_pixels(slice(at, at + side)) for at in (top + y, left + x))
            images.append(cut[0, :, rows, columns])
            commitments.append(commitment)
        means = {"nats": torch.stack(nats).mean()} if nats else {}
        means["commitment"] = torch.stack(commitments).mean()
        pixels = torch.stack(images).contiguous(memory_format=torch.channels_last)
        return torch.stack(words), pixels, means

    def train_step(self, step: int, rate: float) -> dict[str, float]:
        config = self.config
        with fast_autocast():
            words, images, means = self._batch(step)
            decoded = self.decoder(words).float()
            # The losses' gradients are taken at the pixels, balanced there, and sent on together.
            shown = decoded.detach().requires_grad_()
            taps = self.perceptual.taps(shown)
            with torch.no_grad():
                wanted = self.perceptual.taps(images)
            perceptual = self.perceptual.between(taps, wanted).float()
            pixels = reconstruction_loss(shown, images)
            loss = pixels + config.perceptual_weight * perceptual
            adversarial = step >= config.adversarial_from
            (pull,) = torch.autograd.grad(loss, shown, retain_graph=adversarial)
            values = {"pixels": pixels.item(), "perceptual": perceptual.item()}
            values |= {name: mean.item() for name, mean in means.items()} | {"loss": loss.item()}
            if adversarial:
                self.discriminator.requires_grad_(False)
                fooled = generator_loss(self.discriminator(shown, taps)).float()
                self.discriminator.requires_grad_(True)
                (push,) = torch.autograd.grad(fooled, shown)
                scale = config.adversarial_share * pull.norm() / (push.norm() + 1e-12)
                pull = pull + scale * push
                values |= {"generator": fooled.item(), "scale": scale.item()}
        onward = (decoded * pull).sum()
        weights = {"nats": config.nats_weight, "commitment": config.commitment_weight}
        for name, mean in means.items():
            onward = onward + weights[name] * mean
        values["gradient"] = self.optimised.step(onward, step, rate)
        # The discriminators see a few images before they are listened to.
        if step >= config.adversarial_from - 50:
            with fast_autocast():
                real = self.discriminator(images, wanted)
                fake = self.discriminator(shown.detach(), [tap.detach() for tap in taps])
                judged = discriminator_loss(real, fake).float()
            self.critic.step(judged, step, rate)
            values["discriminator"] = judged.item()
        return values

    @torch.no_grad()
    def _decode(self, count: int, level: int, lost: float = 0.0) -> tuple[Tensor, Tensor]:
        numbers = range(min(count, len(self.held_out)))
        images = torch.cat([self.held_out.pixels(number) for number in numbers])
        rng, everything = np.random.default_rng(0), (slice(0, self.held_out.side),) * 2
        words = []
        with self.optimised.averaged(), fast_autocast():
            for number in numbers:
                cut = images[number : number + 1]
                drawn, indices, _ = self._tokens(self.held_out, number, cut, level, everything)
                if self.repair is not None and lost > 0:
                    known = torch.from_numpy(rng.random(indices.shape) >= lost)
                    drawn, _ = self.repair.fill(drawn, indices, known, level)
                words.append(drawn)
            decoded = self.decoder(torch.stack(words).permute(0, 3, 1, 2))
            return decoded.float().clamp(-1, 1), images

    def evaluate(self) -> dict[str, float]:
        """PSNR and feature distance without loss, and with 20% of the tokens lost and filled, at
        every other level."""
        values = {}
        for level in self.levels[::2]:
            for lost, mark in ((0.0, ""), (0.2, "_repaired")):
                if lost > 0 and self.repair is None:
                    continue
                decoded, images = self._decode(16, level, lost)
                error = (decoded - images).square().mean((1, 2, 3))
                values[f"psnr_db_{level}{mark}"] = float((10 * torch.log10(4 / error)).mean())
                values[f"perceptual_{level}{mark}"] = float(self.perceptual(decoded, images))
        return values

    def sample_sheet(self) -> Image.Image:
        rows = [self._decode(6, level)[0] for level in reversed(self.levels[::2])]
        return image_sheet([self._decode(6, self.levels[-1])[1], *rows])

    def state(self) -> dict[str, Any]:
        return {"decoder": self.optimised.state(), "critic": self.critic.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimised.load_state(state["decoder"])
        self.critic.load_state(state["critic"])

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "decoder", "training": asdict(self.config)}
        return about | {
            "parameters": self.optimised.parameters() | self.critic.parameters(),
            "crops": len(self.crops),
        }
