"""Training the inpainter: predict hidden tokens of cached index maps, at every codebook size.

With sequences of frames it learns to use a memory as well: half of the maps of a step are crops
without one, half are frames of sequences. Their memory is what the network itself makes of the one
to three frames before, under losses that run through all of them; no gradients go through it. It
also learns when not to trust it: at times the memory is of another sequence, as after a cut, or all
of a frame is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from codec.codebook import log2_sizes
from codec.inpainting import MEMORY_PARTS, Inpainter, InpainterConfig
from codec.training import parallel
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.sequences import FRAMES
from codec.training.task import Task, detached, image_sheet
from codec.training.tokens import MaskSource, TokenCache


@dataclass(frozen=True)
class InpainterTraining:
    """Hyper-parameters of the run.

    Half of the masks come from the mask source (packets lost on a channel). Half hide each token
    independently, at a rate uniform from 0.02 to a maximum, which rises linearly from 0.3 to
    `max_loss` over `rising_steps`. The loss is the cross-entropy in nats plus `vector_weight` times
    the squared error of the expected codeword at a `temperature`, which is what is decoded. Of the
    sequences, a share of `cuts` has the memory of another one, and a share of `outages` loses all
    of its last frame; as many lose all of each frame before. With `freeze` only what a memory needs
    is trained, by sequences alone: without a memory the network stays what it was.
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
    cuts: float = 0.1
    outages: float = 0.15
    freeze: bool = False
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
        sequences: tuple[TokenCache, TokenCache] | None = None,
    ) -> None:
        """``sequences``: their frames (`codec.training.sequences`), to train on and held out; None:
        nothing is learnt of a memory.

        Raises:
            ValueError: the processes cannot divide the batch, or with sequences each half of it.
        """
        torch.manual_seed(config.seed)
        self.options, self.device, where = options, options.device, options.device.where
        self.config, self.tokens, self.held_out = config, tokens, held_out
        self.ladder, self.decoder, self.masks = tokens.ladder.to(where), decoder.to(where), masks
        self.inpainter = Inpainter(config.network).to(where)
        self.sequences = sequences
        self.remembering = config.batch // (1 if config.freeze else 2) if sequences else 0
        if config.freeze:
            for name, weights in self.inpainter.named_parameters():
                weights.requires_grad_(name.split(".")[0] in MEMORY_PARTS)
        self.parts = [parallel.part(n) for n in (config.batch - self.remembering, self.remembering)]
        self.optimizer = OptimizerWithEma(
            {"inpainter": self.inpainter},
            rate=config.rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
        )

    def start_from(self, inpainter: Inpainter) -> None:
        """Copy a trained network of the same width. Layers and a memory that it lacks keep their
        initialisation, which adds nothing, so that the network starts as the same function."""
        self.inpainter.load_state_dict(self.inpainter.state_dict() | inpainter.state_dict())
        self.optimizer.restart_average()

    def _mask(self, rng: np.random.Generator, step: int, *frames: int) -> NDArray[np.bool_]:
        """Which tokens of a crop are received, bool[s,s], or of so many frames in a row,
        bool[frames,s,s]; at least one of the last is not."""
        shape = (*frames, self.tokens.side, self.tokens.side)
        if rng.random() < 0.5:
            mask = self.masks(rng, shape)
        else:
            share = min(1.0, step / self.config.rising_steps)
            max_loss = 0.3 + (self.config.max_loss - 0.3) * share
            mask = rng.random(shape) >= rng.uniform(0.02, max_loss)
        last = mask[-1] if frames else mask
        if last.all():
            last[rng.integers(shape[-2]), rng.integers(shape[-1])] = False
        return mask

    def _predict(
        self, indices: Tensor, received: Tensor, codebook_size: int, memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits float[N,K] of the N hidden tokens of indices int64[B,h,w], and these, int64[N]."""
        codewords = self.ladder.codewords(codebook_size)
        log2_size = log2_sizes(codebook_size).expand(len(indices))
        hidden = self.inpainter.hidden(codewords[indices], received, log2_size, memory)[~received]
        logits = self.inpainter.logits(hidden, codewords, self.ladder.log_share(codebook_size))
        return logits, indices[~received]

    @torch.no_grad()
    def _memory(self, indices: Tensor, received: Tensor, codebook_size: int) -> Tensor:
        """What a receiver shows after frames int64[B,T,h,w] and losses bool[B,T,h,w], T >= 1:
        float[B,h,w,D+1], see `Inpainter.hidden`."""
        codewords = self.ladder.codewords(codebook_size)
        memory = None
        for tokens, there in zip(indices.unbind(1), received.unbind(1), strict=True):
            logits = self._predict(tokens, there, codebook_size, memory)[0].float()
            expected = torch.softmax(logits / self.config.temperature, dim=1) @ codewords
            surest = torch.softmax(logits, dim=1).amax(1)
            memory = F.pad(codewords[tokens], (0, 1), value=1.0)
            memory[~there] = torch.cat([expected, surest[:, None]], dim=1).to(memory.dtype)
        assert memory is not None
        return memory

    def _vector_error(self, logits: Tensor, truth: Tensor, codebook_size: int) -> Tensor:
        """Squared distance float[N] of the expected codewords to the true ones."""
        codewords = self.ladder.codewords(codebook_size)
        expected = torch.softmax(logits / self.config.temperature, dim=1) @ codewords
        return (expected - codewords[truth]).square().sum(1)

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.config.seed, step])
        crops, side = self.config.batch - self.remembering, self.tokens.side
        numbers = rng.integers(len(self.tokens), size=crops)[self.parts[0]]
        masks = np.empty((crops, side, side), np.bool_)
        for mask in masks:
            mask[:] = self._mask(rng, step)
        masks = masks[self.parts[0]]
        codebook_size = int(rng.choice(self.ladder.codebook_sizes))
        received = torch.from_numpy(masks).to(self.device.where)
        indices = self.tokens.at(numbers, codebook_size).to(self.device.where)
        memory = None
        if self.sequences is not None:
            frames, there, memory = self._remembered(rng, step, codebook_size)
            memory = torch.cat([memory.new_zeros(len(indices), *memory.shape[1:]), memory])
            indices, received = torch.cat([indices, frames]), torch.cat([received, there])
        values: dict[str, Tensor] = {}
        loss = self.optimizer.compute(
            lambda: self._loss(indices, received, codebook_size, memory, values)
        )
        values["gradient"] = self.optimizer.step(loss, step, rate)
        return values

    def _remembered(
        self, rng: np.random.Generator, step: int, codebook_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Frames of sequences, indices int64[n,s,s] and what is received of them, and the memory
        float[n,s,s,D+1] of each."""
        assert self.sequences is not None
        config, count, frames = self.config, self.remembering, int(rng.integers(2, FRAMES + 1))
        order = np.arange(FRAMES) if rng.random() < 0.5 else np.arange(FRAMES)[::-1]
        starts = FRAMES * rng.integers(len(self.sequences[0]) // FRAMES, size=(2, count, 1))
        numbers, others = starts + order[:frames]
        cut = rng.random(count) < config.cuts
        numbers[cut, :-1] = others[cut, :-1]
        masks = np.stack([self._mask(rng, step, frames) for _ in range(count)])
        masks[rng.random((count, frames)) < config.outages] = False
        part, where = self.parts[1], self.device.where
        indices = self.sequences[0].at(numbers[part], codebook_size).to(where)
        received = torch.from_numpy(masks[part]).to(where)
        with self.device.autocast():
            memory = self._memory(indices[:, :-1], received[:, :-1], codebook_size)
        return indices[:, -1], received[:, -1], memory

    def _loss(
        self,
        indices: Tensor,
        received: Tensor,
        codebook_size: int,
        memory: Tensor | None,
        values: dict[str, Tensor],
    ) -> Tensor:
        with self.device.autocast():
            logits, truth = self._predict(indices, received, codebook_size, memory)
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
        the tokens hidden independently, at every second codebook size. Of sequences as well, where
        there are such: the last frame "alone", "remembering" those before, after the same losses,
        and with the memory of another sequence, as after a "cut"."""
        rng, side = np.random.default_rng(0), self.held_out.side
        values: dict[str, float] = {}

        def received(*shape: int) -> Tensor:
            return torch.from_numpy(rng.random((*shape, side, side)) >= 0.2).to(self.device.where)

        def measure(
            name: str, size: int, indices: Tensor, there: Tensor, memory: Tensor | None
        ) -> None:
            logits, truth = self._predict(indices, there, size, memory)
            logits = logits.float()
            bits = F.cross_entropy(logits, truth) / np.log(2)
            error = self._vector_error(logits, truth, size)
            values[f"bits_{name}"] = float(bits)
            values[f"accuracy_{name}"] = float((logits.argmax(1) == truth).float().mean())
            values[f"vector_{name}"] = float(error.mean())

        with self.optimizer.averaged(), self.device.autocast():
            there = received(len(self.held_out))
            for size in self.ladder.codebook_sizes[1::2]:
                indices = self.held_out.at(slice(None), size).to(self.device.where)
                measure(f"{size}", size, indices, there, None)
            if self.sequences is None:
                return values
            held_out = self.sequences[1]
            numbers = np.arange(len(held_out)).reshape(-1, FRAMES)
            there = received(*numbers.shape)
            for size in self.ladder.codebook_sizes[1::2]:
                frames = held_out.at(numbers, size).to(self.device.where)
                memory = self._memory(frames[:, :-1], there[:, :-1], size)
                last = frames[:, -1], there[:, -1]
                measure(f"{size}_alone", size, *last, None)
                measure(f"{size}_remembering", size, *last, memory)
                measure(f"{size}_cut", size, *last, memory.roll(len(memory) // 2, 0))
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
        frames = {} if self.sequences is None else {"frames": len(self.sequences[0])}
        return {"crops": len(self.tokens)} | frames
