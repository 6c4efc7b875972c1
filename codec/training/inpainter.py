"""Training the inpainter: predict hidden tokens of cached index maps, at every codebook level."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from codec.codebook import log2_sizes
from codec.inpainting import Inpainter, InpainterConfig
from codec.training import parallel
from codec.training.data import PLAIN, Setup
from codec.training.loop import image_sheet
from codec.training.optimizer import OptimizerWithEma
from codec.training.tokens import MaskSource, TokenCache


@dataclass(frozen=True)
class InpainterTraining:
    """Hyper-parameters of the run. Half of the masks come from the mask source (packets lost on a
    channel), half hide each token alone with a rate that widens from 0.3 to `widest` in
    `widening_steps`. What is decoded is the expected codeword at a `temperature`: its squared error
    counts `vector_weight` nats."""

    network: InpainterConfig
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 0.02
    widest: float = 0.5
    widening_steps: int = 500
    vector_weight: float = 1.0
    temperature: float = 2.0
    ema_decay: float = 0.998
    seed: int = 3


class InpainterTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    def __init__(
        self,
        decoder: nn.Module,
        tokens: TokenCache,
        held_out: TokenCache,
        masks: MaskSource,
        config: InpainterTraining,
        setup: Setup = PLAIN,
    ) -> None:
        torch.manual_seed(config.seed)
        self.setup, self.device, where = setup, setup.device, setup.device.where
        self.config, self.tokens, self.held_out = config, tokens, held_out
        self.ladder, self.decoder, self.masks = tokens.ladder.to(where), decoder.to(where), masks
        self.inpainter = Inpainter(config.network).to(where)
        self.part = parallel.part(config.batch)
        self.optimizer = OptimizerWithEma(
            {"inpainter": self.inpainter},
            rate=config.rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
        )

    def start_from(self, inpainter: Inpainter) -> None:
        """Go on from a trained network of the same width; layers that it lacks stay as they were
        made, adding nothing yet, so that the deeper network starts as the same function."""
        self.inpainter.load_state_dict(self.inpainter.state_dict() | inpainter.state_dict())
        self.optimizer.restart_average()

    def _mask(self, rng: np.random.Generator, step: int) -> NDArray[np.bool_]:
        shape = (self.tokens.side, self.tokens.side)
        if rng.random() < 0.5:
            mask = self.masks(rng, shape)
        else:
            share = min(1.0, step / self.config.widening_steps)
            widest = 0.3 + (self.config.widest - 0.3) * share
            mask = rng.random(shape) >= rng.uniform(0.02, widest)
        if mask.all():
            mask[rng.integers(shape[0]), rng.integers(shape[1])] = False
        return mask

    def _predict(self, indices: Tensor, known: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
        """Logits float[N,K] and the truth int64[N] of the hidden tokens of indices int64[B,h,w]."""
        codewords = self.ladder.codewords(codebook_size)
        log2_size = log2_sizes(codebook_size).expand(len(indices))
        hidden = self.inpainter.hidden(codewords[indices], known, log2_size)[~known]
        logits = self.inpainter.logits(hidden, codewords, self.ladder.log_share(codebook_size))
        return logits, indices[~known]

    def _vector_error(self, logits: Tensor, truth: Tensor, codebook_size: int) -> Tensor:
        """Squared distance float[N] of the expected codewords to the true ones."""
        codewords = self.ladder.codewords(codebook_size)
        expected = torch.softmax(logits / self.config.temperature, dim=1) @ codewords
        return (expected - codewords[truth]).square().sum(1)

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.config.seed, step])
        numbers = rng.integers(len(self.tokens), size=self.config.batch)[self.part]
        masks = np.stack([self._mask(rng, step) for _ in range(self.config.batch)])[self.part]
        codebook_size = int(rng.choice(self.ladder.codebook_sizes))
        known = torch.from_numpy(masks).to(self.device.where)
        indices = self.tokens.at(numbers, codebook_size).to(self.device.where)
        values: dict[str, Tensor] = {}
        loss = self.optimizer.compute(lambda: self._loss(indices, known, codebook_size, values))
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _loss(
        self, indices: Tensor, known: Tensor, codebook_size: int, values: dict[str, Tensor]
    ) -> Tensor:
        with self.device.autocast():
            logits, truth = self._predict(indices, known, codebook_size)
        logits = logits.float()
        error = self._vector_error(logits, truth, codebook_size)
        nats = F.cross_entropy(logits, truth, reduction="none")
        nats = nats + self.config.vector_weight * error
        # Each map counts by the root of its losses, or those with little left to see would drown
        # the others. Levels differ in entropy: a nat is worth the same share of log K at each.
        lost = (~known).flatten(1).sum(1)
        weight = torch.repeat_interleave(lost.float().rsqrt(), lost)
        whole = parallel.summed(weight.sum()) / parallel.processes()
        loss: Tensor = (weight * nats).sum() / whole / np.log(codebook_size)
        right = (logits.argmax(1) == truth).float()
        seen = parallel.summed(lost.sum()) / parallel.processes()
        means = {"accuracy": right.sum() / seen, "vector": error.sum() / seen}
        values |= {name: value.detach() for name, value in (means | {"loss": loss}).items()}
        return loss

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Bits per hidden token and accuracy at 20% dispersed loss, for some levels."""
        shape = (len(self.held_out), self.held_out.side, self.held_out.side)
        hidden = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.2)
        hidden = hidden.to(self.device.where)
        values = {}
        with self.optimizer.averaged(), self.device.autocast():
            for codebook_size in self.ladder.codebook_sizes[1::2]:
                indices = self.held_out.at(slice(None), codebook_size).to(self.device.where)
                logits, truth = self._predict(indices, ~hidden, codebook_size)
                bits = F.cross_entropy(logits.float(), truth) / np.log(2)
                values[f"bits_{codebook_size}"] = float(bits)
                values[f"accuracy_{codebook_size}"] = float(
                    (logits.argmax(1) == truth).float().mean()
                )
                error = self._vector_error(logits.float(), truth, codebook_size)
                values[f"vector_{codebook_size}"] = float(error.mean())
        return values

    @torch.no_grad()
    def sample_sheet(self) -> Image.Image:
        """Clean decode, 30% lost shown as holes, and filled; at the level below the largest."""
        codebook_size = self.ladder.codebook_sizes[-2]
        indices = self.held_out.at(slice(6), codebook_size).to(self.device.where)
        known = torch.from_numpy(np.random.default_rng(0).random(indices.shape) >= 0.3)
        known = known.to(self.device.where)
        words = self.ladder.codewords(codebook_size)
        filled = indices.clone()
        with self.optimizer.averaged(), self.device.autocast():
            filled[~known] = self._predict(indices, known, codebook_size)[0].argmax(1)
            clean = self.decoder(words[indices].permute(0, 3, 1, 2))
            healed = self.decoder(words[filled].permute(0, 3, 1, 2))
        kept = F.interpolate(known[:, None].float(), clean.shape[2:])
        return image_sheet([clean, clean * kept, healed])

    def state(self) -> dict[str, Any]:
        return self.optimizer.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state(state)

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "inpainter", "training": asdict(self.config)}
        return about | {
            **self.setup.describe(),
            "parameters": self.optimizer.parameters(),
            "crops": len(self.tokens),
        }
