"""The codebook: unit codewords, nearest-neighbour quantisation, and the K-means ladder.

The ladder shrinks the trained base codebook to K = 1024, 512, ..., 8 codewords by usage-weighted
K-means (Mao et al., DCC 2024, section 2.2). It is nested: each level clusters the codewords of the
level above, so an index at one level determines the index at every smaller level.

Codewords are clustered by their vectors and by the mean image patches that they stand for. The
distance of two vectors says much about neighbours and little about codewords far apart, and a few
large clusters are a choice among codewords far apart.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.tokenizer import STRIDE

SMALLEST_LEVEL = 8
FREQUENCY_BITS = 16
PATCH_WEIGHT = 2.0
"""Variance of the mean patches in K-means, relative to that of the codeword vectors."""


def nearest(latents: Tensor, codewords: Tensor, chunk: int = 16384) -> Tensor:
    """Index of the nearest codeword of each latent: float[N,D], float[K,D] -> int64[N].

    For unit vectors the nearest in Euclidean distance is the one of largest inner product; chunks
    bound the memory to chunk x K scores.
    """
    bias = codewords.square().sum(1) / 2
    parts = [(part @ codewords.t() - bias).argmax(1) for part in torch.split(latents, chunk)]
    return torch.cat(parts) if parts else latents.new_zeros(0, dtype=torch.int64)


def quantise(latents: Tensor, codewords: Tensor) -> Tensor:
    """`nearest` at each position of maps: float[B,D,h,w], float[K,D] -> int64[B,h,w]."""
    rows = latents.permute(0, 2, 3, 1)
    return nearest(rows.flatten(0, 2), codewords).view(rows.shape[:3])


def log2_sizes(*sizes: int) -> Tensor:
    """log2 of codebook sizes, which encoder and inpainter are conditioned on: int64[n]."""
    return torch.tensor([size.bit_length() - 1 for size in sizes])


class EmaCodebook(nn.Module):
    """A codebook learnt by exponential moving averages (van den Oord et al. 2017, appendix A.1).

    Codewords live on the unit sphere. Codewords unused for `patience` steps restart at a random
    latent of the current batch.
    """

    codewords: Tensor
    ema_sum: Tensor
    ema_count: Tensor
    idle_steps: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.98, patience: int = 60) -> None:
        super().__init__()
        self.decay, self.patience = decay, patience
        words = F.normalize(torch.randn(size, dim), dim=1)
        self.register_buffer("codewords", words)
        self.register_buffer("ema_sum", words * (1 - decay))
        self.register_buffer("ema_count", torch.full((size,), 1 - decay))
        self.register_buffer("idle_steps", torch.zeros(size, dtype=torch.int64))

    @torch.no_grad()
    def start_from(self, codewords: Tensor, usage: Tensor, batch: int) -> None:
        """Go on from unit codewords float[K,D] used float[K] times, as if batches of `batch`
        latents had been averaged with that usage."""
        self.codewords.copy_(codewords)
        expected = (usage + 1e-3) / (usage + 1e-3).sum() * batch
        self.ema_sum.copy_(codewords * expected[:, None])
        self.ema_count.copy_(expected)

    @torch.no_grad()
    def restart(self, latents: Tensor, which: Tensor, generator: torch.Generator) -> None:
        """Move the codewords `which` (int64[n]) onto random rows of latents (float[N,D])."""
        if len(which) == 0:
            return
        if len(latents) >= len(which):
            rows = torch.randperm(len(latents), generator=generator)[: len(which)]
        else:
            rows = torch.randint(len(latents), (len(which),), generator=generator)
        rows = rows.to(latents.device)
        self.codewords[which] = latents[rows]
        self.ema_sum[which] = latents[rows] * (1 - self.decay)
        self.ema_count[which] = 1 - self.decay
        self.idle_steps[which] = 0

    @torch.no_grad()
    def update(self, latents: Tensor, indices: Tensor, generator: torch.Generator) -> None:
        """One EMA step from a batch: unit float[N,D] and their int64[N] assignments."""
        counts = torch.bincount(indices, minlength=len(self.codewords))
        sums = torch.zeros_like(self.ema_sum).index_add_(0, indices, latents)
        self.ema_sum.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        self.ema_count.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        moved = counts > 0
        self.codewords[moved] = F.normalize(self.ema_sum[moved], dim=1)
        self.idle_steps.add_(1)
        self.idle_steps[moved] = 0
        self.restart(latents, (self.idle_steps > self.patience).nonzero()[:, 0], generator)


class PatchStatistics(nn.Module):
    """How often each codeword is used, and the mean of the image patches that it stands for,
    averaged down to 4x4 pixels.

    Attributes:
        sums: float[K,48], sums of those patches.
        counts: float[K], how many.
    """

    SIDE = 4
    sums: Tensor
    counts: Tensor

    def __init__(self, size: int, decay: float = 1.0) -> None:
        """Of `size` codewords. At each `add` the sums so far are multiplied by `decay`."""
        super().__init__()
        self.decay = decay
        self.register_buffer("sums", torch.zeros(size, 3 * self.SIDE**2))
        self.register_buffer("counts", torch.zeros(size))

    @torch.no_grad()
    def add(self, indices: Tensor, images: Tensor) -> None:
        """Add images float[B,3,16h,16w] in [-1, 1], whose tokens are int64[B*h*w]."""
        small = F.avg_pool2d(images, STRIDE // self.SIDE)
        patches = F.unfold(small, self.SIDE, stride=self.SIDE).transpose(1, 2).flatten(0, 1)
        self.sums.mul_(self.decay).index_add_(0, indices, patches)
        self.counts.mul_(self.decay).index_add_(0, indices, torch.ones_like(patches[:, 0]))

    def means(self) -> Tensor:
        """Mean patches float[K,48]; of a codeword without any, the mean of all patches."""
        means = self.sums / self.counts.clamp(min=1e-6)[:, None]
        means[self.counts == 0] = self.sums.sum(0) / self.counts.sum().clamp(min=1e-6)
        return means


class Ladder:
    """Nested codebooks K = 8, 16, ..., base, with their usage.

    Level K has codewords float32[K,D], usage counts float32[K], and (but for the base) the parent
    int64[2K] of each codeword of the level above.
    """

    def __init__(
        self, words: dict[int, Tensor], usage: dict[int, Tensor], parents: dict[int, Tensor]
    ) -> None:
        """Levels without a `usage` are used as the level above is, merged."""
        self.levels = tuple(sorted(words))
        self._words, self._parents, self._counted = words, parents, usage
        self._usage = {k: v.float() for k, v in usage.items()}
        for size in reversed(self.levels[:-1]):
            if size not in usage:
                above = self._usage[2 * size]
                self._usage[size] = above.new_zeros(size).index_add_(0, parents[size], above)
        counts = {k: self._usage[k].cpu().numpy() for k in self.levels}
        self._frequencies = {k: integer_frequencies(counts[k]) for k in self.levels}

    @classmethod
    def build(
        cls,
        base: Tensor,
        usage: Tensor,
        mean_patches: Tensor | None = None,
        *,
        iterations: int = 50,
        tries: int = 3,
        start: Ladder | None = None,
    ) -> Ladder:
        """Shrink base codewords float[K,D], used float[K] times, down to the smallest level.

        Args:
            base, usage: see above.
            mean_patches: float[K,F], appearance of each codeword (`PatchStatistics.means`), by
                which clusters are formed besides the codeword vectors; None: by the vectors alone.
            iterations: of Lloyd's algorithm.
            tries: starts of k-means++; the best is taken.
            start: a ladder of the same size, from whose clusters to start instead.
        """
        weights, size = usage.float() + 1e-3, len(base)
        dim = base.shape[1]
        points = base.float()
        if mean_patches is not None:
            share = (
                PATCH_WEIGHT
                * _variance(points, weights)
                / (_variance(mean_patches, weights) + 1e-12)
            )
            points = torch.cat([points, share.sqrt() * mean_patches], dim=1)
        words, parents = {size: points}, {}
        while size > SMALLEST_LEVEL:
            size //= 2
            above = words[2 * size]
            if start is None:
                starts = [spread_centres(above, weights, size, seed) for seed in range(tries)]
            else:
                starts = [_means(above, weights, start._parents[size], size)]
            found = [weighted_kmeans(above, weights, centres, iterations) for centres in starts]
            centres, parent = min(
                found, key=lambda f: float(weights @ (above - f[0][f[1]]).square().sum(1))
            )
            words[size], parents[size] = centres, parent
            weights = torch.zeros(size).index_add_(0, parent, weights)
        words = {k: v[:, :dim].contiguous() for k, v in words.items()}
        return cls(words, {len(base): usage}, parents)

    @classmethod
    def pairs(cls, base: Tensor) -> Ladder:
        """Codewords 2i and 2i + 1 merge at every step: instant, and nested, but no clustering."""
        words, parents, size = {len(base): base.float()}, {}, len(base)
        while size > SMALLEST_LEVEL:
            parents[size // 2] = torch.arange(size) // 2
            words[size // 2] = words[size].view(size // 2, 2, -1).mean(1)
            size //= 2
        return cls(words, {len(base): torch.ones(len(base))}, parents)

    @classmethod
    def base(cls, words: Tensor) -> Ladder:
        """The base codebook alone."""
        return cls({len(words): words.float()}, {len(words): torch.ones(len(words))}, {})

    def counted(self, usage: dict[int, Tensor]) -> Ladder:
        """The same codewords, used float[K] times at each level K."""
        return Ladder(self._words, usage, self._parents)

    def to(self, device: torch.device) -> Ladder:
        """The same ladder on a device."""
        parts = (self._words, self._counted, self._parents)
        return Ladder(*({k: v.to(device) for k, v in part.items()} for part in parts))

    def codewords(self, size: int) -> Tensor:
        """Codewords of a level, float32[K,D]."""
        return self._words[size]

    def usage(self, size: int) -> Tensor:
        """How often each codeword of a level is used, float32[K]."""
        return self._usage[size]

    def shrink(self, base: Tensor, size: int) -> Tensor:
        """Base indices int64[...] -> indices of level `size`, by the chain of parents."""
        for level in reversed(self.levels[:-1]):
            if level < size:
                break
            base = self._parents[level][base]
        return base

    def frequencies(self, size: int) -> NDArray[np.uint32]:
        """Integer frequencies uint32[K] of a level, each >= 1, sum 2^16."""
        return self._frequencies[size]

    def log_share(self, size: int) -> Tensor:
        """Natural logarithms of the level's usage shares, float32[K], from the integer table."""
        table = torch.from_numpy(self._frequencies[size].astype(np.float32))
        return torch.log(table / 2**FREQUENCY_BITS).to(self._words[size].device)

    def tensors(self) -> dict[str, Tensor]:
        """What is saved; `from_tensors` reads it back."""
        saved = {f"words.{k}": v for k, v in self._words.items()}
        saved |= {f"parents.{k}": v for k, v in self._parents.items()}
        saved |= {f"usage.{k}": v for k, v in self._counted.items() if k != self.levels[-1]}
        return saved | {"usage": self._usage[self.levels[-1]]}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Ladder:
        def by_level(name: str) -> dict[int, Tensor]:
            chosen = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
            return {int(k): v for k, v in chosen.items()}

        words = {k: v.float() for k, v in by_level("words.").items()}
        parents = {k: v.long() for k, v in by_level("parents.").items()}
        return cls(words, {max(words): tensors["usage"], **by_level("usage.")}, parents)

    def fingerprint(self) -> str:
        """16 hexadecimal digits over codewords, parents and integer tables."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            if not name.startswith("usage"):
                digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        for size in self.levels:
            digest.update(self._frequencies[size].tobytes())
        return digest.hexdigest()[:16]


def spread_centres(points: Tensor, weights: Tensor, size: int, seed: int) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii 2007): `size` of the points float[N,D], weights float[N],
    each drawn in proportion to its weighted squared distance from those before it."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(weights, 1, generator=generator)
    distance = (points - points[chosen]).square().sum(1)
    for _ in range(size - 1):
        draw = torch.multinomial(weights * distance + 1e-12, 1, generator=generator)
        chosen = torch.cat([chosen, draw])
        distance = distance.minimum((points - points[draw]).square().sum(1))
        distance[draw] = 0
    return points[chosen].clone()


def weighted_kmeans(
    points: Tensor, weights: Tensor, centres: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: points float[N,D], weights float[N], starting centres float[size,D] ->
    centres float[size,D] and assignments int64[N]. No cluster is empty."""
    size = len(centres)
    for _ in range(iterations):
        parent = nearest(points, centres)
        for empty in (torch.bincount(parent, minlength=size) == 0).nonzero()[:, 0]:
            counts = torch.bincount(parent, minlength=size)
            error = (points - centres[parent]).square().sum(1) * weights
            far = torch.where(counts[parent] > 1, error, -1.0).argmax()
            parent[far] = empty
        centres = _means(points, weights, parent, size)
    return centres, parent


def _means(points: Tensor, weights: Tensor, labels: Tensor, size: int) -> Tensor:
    """Weighted means float[size,D] of points float[N,D] by label int64[N]."""
    total = torch.zeros(size).index_add_(0, labels, weights)
    sums = torch.zeros(size, points.shape[1]).index_add_(0, labels, points * weights[:, None])
    return sums / total[:, None]


def _variance(points: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared distance of points float[N,D] from their mean, a scalar."""
    share = weights / weights.sum()
    return share @ (points - share @ points).square().sum(1)


def integer_frequencies(usage: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Usage counts float32[K] -> uint32[K], each >= 1, sum 2^16, by largest remainders.

    Raises:
        ValueError: K exceeds 2^15.
    """
    if len(usage) > 2 ** (FREQUENCY_BITS - 1):
        raise ValueError(f"{len(usage)} codewords do not fit a table of 2^{FREQUENCY_BITS}")
    share = (usage.astype(np.float64) + 0.5) / (usage.astype(np.float64) + 0.5).sum()
    wanted = share * (2**FREQUENCY_BITS - len(usage))
    table = np.floor(wanted).astype(np.int64) + 1
    missing = 2**FREQUENCY_BITS - int(table.sum())
    table[np.argsort(-(wanted % 1), kind="stable")[:missing]] += 1
    frequencies: NDArray[np.uint32] = table.astype(np.uint32)
    return frequencies
