"""Training the inpainter: predict hidden tokens of cached index maps, at every codebook size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from codec.codebook import log2_sizes
from codec.inpainting import Inpainter, InpainterConfig
from codec.training import parallel
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.task import Task, detached, image_sheet
from codec.training.tokens import MaskSource, TokenCache


@dataclass(frozen=True)
class InpainterTraining:
    """Hyper-parameters of the run.

    Half of the masks come from the mask source (packets lost on a channel). Half hide each token
    independently, at a rate uniform from 0.02 to a maximum, which rises linearly from 0.3 to
    `max_loss` over `rising_steps`. The loss is the cross-entropy in nats plus `vector_weight` times
    the squared error of the expected codeword at a `temperature`, which is what is decoded.
    """

    network: InpainterConfig
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 0.02
    max_loss: float = 0.5
    rising_steps: int = 500
    vector_weight: float = 1.0
    temperature: float = 2.0
    ema_decay: float = 0.998
    seed: int = 3


class InpainterTask(Task):
    """See the module docstring."""

    name = "inpainter"
    config: InpainterTraining

    def __init__(
        self,
        decoder: nn.Module,
        tokens: TokenCache,
        held_out: TokenCache,
        masks: MaskSource,
        config: InpainterTraining,
        options: TrainingOptions = DEFAULT_OPTIONS,
    ) -> None:
        torch.manual_seed(config.seed)
        self.options, self.device, where = options, options.device, options.device.where
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
        """Copy a trained network of the same width. Layers that it lacks keep their initialisation,
        which adds nothing, so that a deeper network starts as the same function."""
        self.inpainter.load_state_dict(self.inpainter.state_dict() | inpainter.state_dict())
        self.optimizer.restart_average()

    def _mask(self, rng: np.random.Generator, step: int) -> NDArray[np.bool_]:
        """Which tokens of a crop are received, bool[s,s]; at least one is not."""
        shape = (self.tokens.side, self.tokens.side)
        if rng.random() < 0.5:
            mask = self.masks(rng, shape)
        else:
            share = min(1.0, step / self.config.rising_steps)
            max_loss = 0.3 + (self.config.max_loss - 0.3) * share
            mask = rng.random(shape) >= rng.uniform(0.02, max_loss)
        if mask.all():
            mask[rng.integers(shape[0]), rng.integers(shape[1])] = False
        return mask

    def _predict(
        self, indices: Tensor, received: Tensor, codebook_size: int
    ) -> tuple[Tensor, Tensor]:
        """Logits float[N,K] of the N hidden tokens of indices int64[B,h,w], and these, int64[N]."""
        codewords = self.ladder.codewords(codebook_size)
        log2_size = log2_sizes(codebook_size).expand(len(indices))
        hidden = self.inpainter.hidden(codewords[indices], received, log2_size)[~received]
        logits = self.inpainter.logits(hidden, codewords, self.ladder.log_share(codebook_size))
        return logits, indices[~received]

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
        received = torch.from_numpy(masks).to(self.device.where)
        indices = self.tokens.at(numbers, codebook_size).to(self.device.where)
        values: dict[str, Tensor] = {}
        loss = self.optimizer.compute(lambda: self._loss(indices, received, codebook_size, values))
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _loss(
        self, indices: Tensor, received: Tensor, codebook_size: int, values: dict[str, Tensor]
    ) -> Tensor:
        with self.device.autocast():
            logits, truth = self._predict(indices, received, codebook_size)
        logits = logits.float()
        error = self._vector_error(logits, truth, codebook_size)
        nats = F.cross_entropy(logits, truth, reduction="none")
        nats = nats + self.config.vector_weight * error
        # Each map is weighted by the square root of its number of losses: by the number itself,
        # maps with few received tokens would dominate. Dividing by log K makes sizes comparable.
        lost = (~received).flatten(1).sum(1)
        weight = torch.repeat_interleave(lost.float().rsqrt(), lost)
        total = parallel.summed(weight.sum()) / parallel.processes()
        loss: Tensor = (weight * nats).sum() / total / np.log(codebook_size)
        correct = (logits.argmax(1) == truth).float().sum()
        count = parallel.summed(lost.sum()) / parallel.processes()
        values |= detached(accuracy=correct / count, vector=error.sum() / count, loss=loss)
        return loss

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Bits per hidden token, accuracy and squared error of the expected codeword, with 20% of
        the tokens hidden independently, at every second codebook size."""
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
        """Decodes without loss, with 30% of the tokens blacked out, and with them filled; at the
        second largest codebook size."""
        codebook_size = self.ladder.codebook_sizes[-2]
        indices = self.held_out.at(slice(6), codebook_size).to(self.device.where)
        received = torch.from_numpy(np.random.default_rng(0).random(indices.shape) >= 0.3)
        received = received.to(self.device.where)
        codewords = self.ladder.codewords(codebook_size)
        filled = indices.clone()
        with self.optimizer.averaged(), self.device.autocast():
            filled[~received] = self._predict(indices, received, codebook_size)[0].argmax(1)
            lossless = self.decoder(codewords[indices].permute(0, 3, 1, 2))
            repaired = self.decoder(codewords[filled].permute(0, 3, 1, 2))
        visible = F.interpolate(received[:, None].float(), lossless.shape[2:])
        return image_sheet([lossless, lossless * visible, repaired])

    def data_size(self) -> dict[str, int]:
        return {"crops": len(self.tokens)}
