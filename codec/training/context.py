"""Training the context coder's network (`codec.context`): minimise the bits of a slice's tokens
given those before them, at every codebook size.

The network is trained in floating point, in the units of its fixed-point integers, and rounded at
the end. With 10 to 14 binary places this costs less than a thousandth of a bit per token, so
training need not know of it. All positions of a crop are predicted at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from codec.codebook import Ladder
from codec.context import (
    ACTIVATION_BITS,
    HEAD_BITS,
    WEIGHT_BITS,
    ContextTables,
)
from codec.training import parallel
from codec.training.optimizer import OptimizerWithEma
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.task import Task, image_sheet
from codec.training.tokens import TokenCache
from codec.waves import coding_waves

# (rng, grid shape) -> the raster positions of each slice's tokens, in coding order
SliceSource = Callable[[np.random.Generator, tuple[int, int]], Sequence[NDArray[np.int64]]]


@dataclass(frozen=True)
class ContextConfig:
    """Shape of the network (see `codec.context`): heads, their reach in tokens, and the dimensions
    of embeddings, of hidden layers and of queries."""

    heads: int = 12
    reach: int = 6
    embed: int = 32
    hidden: int = 256
    query: int = 96


@dataclass(frozen=True)
class ContextTraining:
    """Hyper-parameters of the run. Each step draws one codebook size and one way of slicing."""

    network: ContextConfig
    batch: int = 16
    rate: float = 3e-3
    weight_decay: float = 0.01
    ema_decay: float = 0.995
    seed: int = 5


class ContextNetwork(nn.Module):
    """The network of `codec.context` in floating point."""

    def __init__(self, ladder: Ladder, config: ContextConfig) -> None:
        super().__init__()
        self.config, self.codebook_sizes = config, ladder.codebook_sizes
        dim = ladder.codewords(ladder.codebook_sizes[0]).shape[1]
        window = 2 * config.reach + 1
        offset = torch.arange(window) - config.reach
        distance = (offset[:, None].square() + offset.square()).sqrt()
        # Heads start as Gaussians of growing width, each tilted in another direction.
        widths = torch.logspace(-0.4, 0.6, config.heads)[:, None, None]
        angle = torch.arange(config.heads)[:, None, None] * 2.4
        tilt = (torch.cos(angle) * offset[:, None] + torch.sin(angle) * offset) / 4
        self.heads = nn.Parameter((-(distance**2) / (2 * widths**2)).clamp(min=-8) + tilt)
        self.floors = nn.Parameter(torch.full((config.heads + 1,), -2.0))
        self.embed_codewords = _perceptron(dim, 64, config.embed)
        self.key_codewords = _perceptron(dim, 64, config.query + 1)
        self.embed_offset, self.key_offset, self.level_bias = (
            nn.ParameterDict(
                {str(k): nn.Parameter(torch.zeros(*shape(k))) for k in self.codebook_sizes}
            )
            for shape in (
                lambda k: (k, config.embed),
                lambda k: (k, config.query + 1),
                lambda k: (config.hidden,),
            )
        )
        inputs = (config.heads + 1) * (config.embed + 1)
        self.layer1 = nn.Linear(inputs, config.hidden, bias=False)
        self.layer2 = nn.Linear(config.hidden, config.hidden)
        self.query = nn.Linear(config.hidden, config.query)
        for codebook_size in self.codebook_sizes:
            self.register_buffer(
                f"codewords{codebook_size}", ladder.codewords(codebook_size), persistent=False
            )
            self.register_buffer(
                f"share{codebook_size}", ladder.log_share(codebook_size), persistent=False
            )

    def embedding(self, codebook_size: int) -> Tensor:
        """Embeddings of a codebook's tokens: of the codewords, plus learnt offsets; float[K,E]."""
        table: Tensor = self.embed_codewords(self.get_buffer(f"codewords{codebook_size}"))
        free: Tensor = self.embed_offset[str(codebook_size)]
        return table + free

    def keys(self, codebook_size: int) -> tuple[Tensor, Tensor]:
        """Keys float[K,Q] and biases float[K] of a codebook's tokens, made likewise."""
        table = (
            self.key_codewords(self.get_buffer(f"codewords{codebook_size}"))
            + self.key_offset[str(codebook_size)]
        )
        return table[:, :-1], table[:, -1] + self.get_buffer(f"share{codebook_size}")

    def forward(self, indices: Tensor, earlier: Tensor, codebook_size: int) -> Tensor:
        """Logits float[B,n,K] of tokens int64[B,n] in raster order of a square grid, each given
        those coded earlier, bool[n,n]: see `earlier_tokens`."""
        side = math.isqrt(indices.shape[1])
        cells = torch.arange(side * side, device=indices.device)
        dy = cells[None] // side - cells[:, None] // side  # of j from i
        dx = cells[None] % side - cells[:, None] % side
        reach = self.config.reach
        near = earlier & (dy.abs() <= reach) & (dx.abs() <= reach)
        place = (
            (dy.clamp(-reach, reach) + reach) * (2 * reach + 1) + dx.clamp(-reach, reach) + reach
        )
        flat = self.heads.flatten(1)
        tables = torch.exp(flat - flat.amax(1, keepdim=True))
        weights = torch.cat([tables[:, place] * near, earlier[None].float()])  # [heads+1,n,n]
        given = F.pad(self.embedding(codebook_size)[indices], (0, 1), value=1.0)  # [B,n,E+1]
        count, width = len(indices), given.shape[2]
        columns = given.permute(1, 0, 2).reshape(side * side, -1)
        sums = (weights.flatten(0, 1) @ columns).view(len(weights), side * side, count, width)
        means = sums / (sums[..., -1:] + self.floors.exp()[:, None, None, None])
        x = means.permute(2, 1, 0, 3).flatten(2)
        x = F.relu(self.layer1(x) + self.level_bias[str(codebook_size)])
        x = self.query(F.relu(self.layer2(x)))
        keys, bias = self.keys(codebook_size)
        logits: Tensor = x @ keys.t() + bias
        return logits

    @torch.no_grad()
    def start_from(self, tables: ContextTables) -> None:
        """Set the weights to those of integer tables. Embeddings and keys become offsets; what is
        computed from codewords is set to zero.

        Raises:
            ValueError: the tables are of another shape, or for other codebook sizes.
        """
        own = self.tables().arrays
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tables.arrays.items()}:
            raise ValueError("the context coder to start from has another shape")

        def real(name: str, places: float) -> Tensor:
            values = torch.from_numpy(tables.arrays[name] / 2.0**places)
            return values.float().to(self.heads.device)

        wide = ACTIVATION_BITS + WEIGHT_BITS
        self.heads.copy_(real("heads", HEAD_BITS).clamp(min=2e-5).log().view_as(self.heads))
        floors = real("floors", 0)
        floors[:-1] /= 2.0**HEAD_BITS
        self.floors.copy_(floors.log())
        for name, layer in (("1", self.layer1), ("2", self.layer2)):
            layer.weight.copy_(real(f"layer{name}", WEIGHT_BITS).t())
        self.query.weight.copy_(real("query", WEIGHT_BITS).t())
        self.layer2.bias.copy_(real("bias2", wide))
        self.query.bias.copy_(real("query_bias", wide))
        for computed in (self.embed_codewords, self.key_codewords):
            for parameter in computed[-1].parameters():
                parameter.zero_()
        ratio = math.log2(math.e)
        for k in self.codebook_sizes:
            self.embed_offset[str(k)].copy_(real(f"embed.{k}", ACTIVATION_BITS))
            bias = real(f"bias.{k}", wide) / ratio - self.get_buffer(f"share{k}")
            keys = real(f"keys.{k}", WEIGHT_BITS) / ratio
            self.key_offset[str(k)].copy_(torch.cat([keys, bias[:, None]], dim=1))
            self.level_bias[str(k)].copy_(real(f"bias1.{k}", wide))

    @torch.no_grad()
    def tables(self) -> ContextTables:
        """The weights as integers; raises ValueError where one is out of its type's range."""
        flat = self.heads.flatten(1)
        ratio = math.log2(math.e)
        arrays = {
            "heads": _fixed(torch.exp(flat - flat.amax(1, keepdim=True)), HEAD_BITS, np.int16),
            "layer1": _fixed(self.layer1.weight.t(), WEIGHT_BITS, np.int16),
            "layer2": _fixed(self.layer2.weight.t(), WEIGHT_BITS, np.int16),
            "bias2": _fixed(self.layer2.bias, ACTIVATION_BITS + WEIGHT_BITS, np.int32),
            "query": _fixed(self.query.weight.t(), WEIGHT_BITS, np.int16),
            "query_bias": _fixed(self.query.bias, ACTIVATION_BITS + WEIGHT_BITS, np.int32),
        }
        floors = self.floors.exp()  # the mean of all has weights of one, not of 2^HEAD_BITS
        scale = torch.tensor([2.0**HEAD_BITS] * self.config.heads + [1.0]).to(floors.device)
        arrays["floors"] = _fixed((floors * scale).clamp(min=1), 0, np.int32)
        for k in self.codebook_sizes:
            keys, bias = self.keys(k)
            arrays[f"embed.{k}"] = _fixed(self.embedding(k), ACTIVATION_BITS, np.int16)
            arrays[f"keys.{k}"] = _fixed(keys * ratio, WEIGHT_BITS, np.int16)
            places = ACTIVATION_BITS + WEIGHT_BITS
            arrays[f"bias.{k}"] = _fixed(bias * ratio, places, np.int32)
            arrays[f"bias1.{k}"] = _fixed(self.level_bias[str(k)], places, np.int32)
        return ContextTables(arrays)


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _fixed(values: Tensor, places: int, dtype: Any) -> NDArray[Any]:
    whole = (values.cpu().double() * 2.0**places).round().numpy()
    limits = np.iinfo(dtype)
    if whole.min() < limits.min or whole.max() > limits.max:
        raise ValueError("a weight of the context network outgrew its integer; train it again")
    return np.ascontiguousarray(whole.astype(dtype))


def earlier_tokens(slices: Sequence[NDArray[np.int64]], side: int, reach: int) -> Tensor:
    """Of the tokens of a square grid, by raster position, whether token j is in token i's slice and
    in an earlier wave (`codec.waves`): bool[n,n], [i, j]."""
    owner, wave = np.empty(side**2, np.int64), np.empty(side**2, np.int64)
    for number, positions in enumerate(slices):
        owner[positions] = number
        wave[positions] = coding_waves(positions, (side, side), reach)
    return torch.from_numpy((owner[:, None] == owner) & (wave < wave[:, None]))


class ContextTask(Task):
    """See the module docstring."""

    name = "context"
    config: ContextTraining

    def __init__(
        self,
        tokens: TokenCache,
        held_out: TokenCache,
        slices: SliceSource,
        config: ContextTraining,
        options: TrainingOptions = DEFAULT_OPTIONS,
    ) -> None:
        torch.manual_seed(config.seed)
        self.options, self.where = options, options.device.where
        self.config, self.ladder, self.slices = config, tokens.ladder, slices
        self.tokens, self.held_out = tokens, held_out
        self.network = ContextNetwork(self.ladder, config.network).to(self.where)
        self.part = parallel.part(config.batch)
        self.optimizer = OptimizerWithEma(
            {"context": self.network},
            rate=config.rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
        )

    def start_from(self, tables: ContextTables) -> None:
        """Start from trained tables; see `ContextNetwork.start_from`."""
        self.network.start_from(tables)
        self.optimizer.restart_average()

    def train_step(self, step: int, rate: float) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.config.seed, step])
        side = self.tokens.side
        numbers = rng.integers(len(self.tokens), size=self.config.batch)
        codebook_size = int(rng.choice(self.ladder.codebook_sizes))
        slices = self.slices(rng, (side, side))
        earlier = earlier_tokens(slices, side, self.config.network.reach).to(self.where)
        indices = self.tokens.at(numbers[self.part], codebook_size).flatten(1).to(self.where)

        def loss() -> Tensor:
            logits = self.network(indices, earlier, codebook_size)
            nats = F.cross_entropy(logits.flatten(0, 1), indices.flatten())
            # Dividing by log K makes codebook sizes comparable.
            return nats / math.log(codebook_size)

        value = self.optimizer.compute(loss)
        norm = self.optimizer.step(value, step, rate)
        return {"loss": value.detach(), "gradient": norm}

    @torch.no_grad()
    def _bits(self, codebook_size: int, slices: int) -> Tensor:
        """Bits of every held-out token, float[N,n], in a number of dispersed slices; in raster
        order if that is 1."""
        cells = self.held_out.side**2
        places = np.arange(cells)
        if slices > 1:
            places = np.random.default_rng(0).permutation(cells)
        parts = [np.sort(part) for part in np.array_split(places, slices)]
        earlier = earlier_tokens(parts, self.held_out.side, self.config.network.reach)
        earlier = earlier.to(self.where)
        bits = []
        for start in range(0, len(self.held_out), self.config.batch):
            part = slice(start, start + self.config.batch)
            indices = self.held_out.at(part, codebook_size).flatten(1).to(self.where)
            logits = self.network(indices, earlier, codebook_size)
            nats = F.cross_entropy(logits.transpose(1, 2), indices, reduction="none")
            bits.append(nats / math.log(2))
        return torch.cat(bits).cpu()

    def evaluate(self) -> dict[str, float]:
        """Bits per held-out token, of whole crops in raster order and of four dispersed slices."""
        values = {}
        with self.optimizer.averaged():
            for codebook_size in self.ladder.codebook_sizes[1::2]:
                values[f"bits_{codebook_size}"] = float(self._bits(codebook_size, 1).mean())
                values[f"bits_{codebook_size}_dispersed"] = float(
                    self._bits(codebook_size, 4).mean()
                )
        return values

    def sample_sheet(self) -> Image.Image:
        """Crops, and the bits of their tokens at two codebook sizes, from black (0) to white
        (log2 K)."""
        side = self.held_out.side
        count = min(6, len(self.held_out))
        rows = [torch.cat([self.held_out.crops.pixels(number) for number in range(count)])]
        with self.optimizer.averaged():
            for codebook_size in (
                self.ladder.codebook_sizes[-2],
                self.ladder.codebook_sizes[len(self.ladder.codebook_sizes) // 2],
            ):
                share = self._bits(codebook_size, 1)[:count].view(count, 1, side, side) / math.log2(
                    codebook_size
                )
                gray = F.interpolate(share.clamp(0, 1) * 2 - 1, rows[0].shape[2:])
                rows.append(gray.expand(-1, 3, -1, -1))
        return image_sheet(rows)

    def data_size(self) -> dict[str, int]:
        return {"crops": len(self.tokens)}
