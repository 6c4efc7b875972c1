"""The codebook: unit codewords, nearest-neighbour quantisation, and the K-means ladder.

The ladder shrinks the trained base codebook to K = 1024, 512, ..., 8 codewords by usage-weighted
K-means (Mao et al., DCC 2024, section 2.2). It is nested: the K codewords of one codebook are
clusters of the 2K of the next larger one, so an index into a codebook determines those into all
smaller ones.

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

MIN_CODEBOOK_SIZE = 8
FREQUENCY_BITS = 16
PATCH_WEIGHT = 2.0
"""Variance of the mean patches in K-means, relative to that of the codeword vectors."""


def nearest(latents: Tensor, codewords: Tensor, chunk: int = 16384) -> Tensor:
    """Index of the codeword nearest to each latent: float[N,D], float[K,D] -> int64[N].

    For unit vectors the nearest in Euclidean distance is the one of largest inner product; chunks
    bound the memory to chunk x K scores.
    """
    bias = codewords.square().sum(1) / 2
    parts = [(part @ codewords.t() - bias).argmax(1) for part in torch.split(latents, chunk)]
    return torch.cat(parts) if parts else latents.new_zeros(0, dtype=torch.int64)


def near(
    latents: Tensor, codewords: Tensor, margin: float, count: int, chunk: int = 16384
) -> Tensor:
    """The nearest codewords to each latent, float[N,D], float[K,D] -> int64[N,count], the nearest
    first: those whose squared distance is at most `margin` more than its, and it instead of the
    others."""
    bias = codewords.square().sum(1) / 2
    parts = []
    for part in torch.split(latents, chunk):
        scores, indices = (part @ codewords.t() - bias).topk(min(count, len(codewords)), dim=1)
        within = scores[:, :1] - scores <= margin / 2
        parts.append(torch.where(within, indices, indices[:, :1]))
    return torch.cat(parts)


def quantise(latents: Tensor, codewords: Tensor) -> Tensor:
    """`nearest` at each position of maps: float[B,D,h,w], float[K,D] -> int64[B,h,w]."""
    rows = latents.permute(0, 2, 3, 1)
    return nearest(rows.flatten(0, 2), codewords).view(rows.shape[:3])


def log2_sizes(*sizes: int) -> Tensor:
    """log2 of codebook sizes, which encoder and inpainter are conditioned on: int64[n]."""
    return torch.tensor([codebook_size.bit_length() - 1 for codebook_size in sizes])


class EmaCodebook(nn.Module):
    """A codebook learnt by exponential moving averages (van den Oord et al. 2017, appendix A.1).

    Codewords live on the unit sphere. Codewords unused for `patience` steps restart at a random
    latent of the current batch.
    """

    codewords: Tensor
    ema_sum: Tensor
    ema_count: Tensor
    idle_steps: Tensor

    def __init__(
        self, codebook_size: int, dim: int, decay: float = 0.98, patience: int = 60
    ) -> None:
        super().__init__()
        self.decay, self.patience = decay, patience
        codewords = F.normalize(torch.randn(codebook_size, dim), dim=1)
        self.register_buffer("codewords", codewords)
        self.register_buffer("ema_sum", codewords * (1 - decay))
        self.register_buffer("ema_count", torch.full((codebook_size,), 1 - decay))
        self.register_buffer("idle_steps", torch.zeros(codebook_size, dtype=torch.int64))

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

    def __init__(self, codebook_size: int, decay: float = 1.0) -> None:
        """Of `codebook_size` codewords. At each `add` the sums so far are multiplied by `decay`."""
        super().__init__()
        self.decay = decay
        self.register_buffer("sums", torch.zeros(codebook_size, 3 * self.SIDE**2))
        self.register_buffer("counts", torch.zeros(codebook_size))

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
    """Nested codebooks of K = 8, 16, ... codewords up to the base codebook, with their usage.

    For each size K there are codewords float32[K,D], usage counts float32[K] and, except for the
    base, the parents int64[2K]: which of the K each codeword of the next larger codebook merges to.

    Attributes:
        codebook_sizes: all K, ascending.
    """

    def __init__(
        self, codewords: dict[int, Tensor], usage: dict[int, Tensor], parents: dict[int, Tensor]
    ) -> None:
        """By codebook size: see the class. A codebook without `usage` gets that of the next larger
        one, summed over merged codewords; the base needs one."""
        self.codebook_sizes = tuple(sorted(codewords))
        self._codewords, self._parents, self._given_usage = codewords, parents, usage
        self._usage = {k: v.float() for k, v in usage.items()}
        for codebook_size in reversed(self.codebook_sizes[:-1]):
            if codebook_size not in usage:
                above = self._usage[2 * codebook_size]
                self._usage[codebook_size] = above.new_zeros(codebook_size).index_add_(
                    0, parents[codebook_size], above
                )
        counts = {k: self._usage[k].cpu().numpy() for k in self.codebook_sizes}
        self._frequencies = {k: integer_frequencies(counts[k]) for k in self.codebook_sizes}

    @property
    def base_size(self) -> int:
        """K of the base codebook, the largest."""
        return self.codebook_sizes[-1]

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
        """Cluster a base codebook down to the smallest size.

        Args:
            base: float[K,D], K a power of two.
            usage: float[K], how often each codeword is used.
            mean_patches: float[K,F], appearance of each codeword (`PatchStatistics.means`), by
                which clusters are formed besides the codeword vectors; None: by the vectors alone.
            iterations: of Lloyd's algorithm.
            tries: initialisations by k-means++, of which the best is taken.
            start: a ladder of the same base size, from whose clusters to start instead.
        """
        weights, codebook_size = usage.float() + 1e-3, len(base)
        dim = base.shape[1]
        points = base.float()
        if mean_patches is not None:
            share = (
                PATCH_WEIGHT
                * _variance(points, weights)
                / (_variance(mean_patches, weights) + 1e-12)
            )
            points = torch.cat([points, share.sqrt() * mean_patches], dim=1)
        codewords, parents = {codebook_size: points}, {}
        while codebook_size > MIN_CODEBOOK_SIZE:
            codebook_size //= 2
            above = codewords[2 * codebook_size]
            if start is None:
                starts = [
                    spread_centres(above, weights, codebook_size, seed) for seed in range(tries)
                ]
            else:
                starts = [_means(above, weights, start._parents[codebook_size], codebook_size)]
            found = [weighted_kmeans(above, weights, centres, iterations) for centres in starts]
            centres, parent = min(
                found, key=lambda f: float(weights @ (above - f[0][f[1]]).square().sum(1))
            )
            codewords[codebook_size], parents[codebook_size] = centres, parent
            weights = torch.zeros(codebook_size).index_add_(0, parent, weights)
        codewords = {k: v[:, :dim].contiguous() for k, v in codewords.items()}
        return cls(codewords, {len(base): usage}, parents)

    @classmethod
    def pairs(cls, base: Tensor) -> Ladder:
        """A ladder without clustering, for tests: codewords 2i and 2i + 1 merge at every step."""
        codewords, parents, codebook_size = {len(base): base.float()}, {}, len(base)
        while codebook_size > MIN_CODEBOOK_SIZE:
            parents[codebook_size // 2] = torch.arange(codebook_size) // 2
            codewords[codebook_size // 2] = (
                codewords[codebook_size].view(codebook_size // 2, 2, -1).mean(1)
            )
            codebook_size //= 2
        return cls(codewords, {len(base): torch.ones(len(base))}, parents)

    @classmethod
    def base(cls, codewords: Tensor) -> Ladder:
        """A ladder of the base codebook alone, codewords float[K,D], equally used."""
        return cls(
            {len(codewords): codewords.float()}, {len(codewords): torch.ones(len(codewords))}, {}
        )

    def with_usage(self, usage: dict[int, Tensor]) -> Ladder:
        """The same codewords with other usage: by codebook size K, float[K]."""
        return Ladder(self._codewords, usage, self._parents)

    def with_codewords(self, codewords: dict[int, Tensor]) -> Ladder:
        """The same codebook sizes, parents and usage with other codewords: by K, float[K,D]."""
        return Ladder(codewords, self._given_usage, self._parents)

    def to(self, device: torch.device) -> Ladder:
        """A copy on a device."""
        parts = (self._codewords, self._given_usage, self._parents)
        return Ladder(*({k: v.to(device) for k, v in part.items()} for part in parts))

    def codewords(self, codebook_size: int) -> Tensor:
        """The codewords of a codebook, float32[K,D]."""
        return self._codewords[codebook_size]

    def usage(self, codebook_size: int) -> Tensor:
        """How often each codeword of a codebook is used, float32[K]."""
        return self._usage[codebook_size]

    def shrink(self, base: Tensor, codebook_size: int) -> Tensor:
        """Indices int64[...] into the base codebook -> into the one of `codebook_size`."""
        for smaller in reversed(self.codebook_sizes[:-1]):
            if smaller < codebook_size:
                break
            base = self._parents[smaller][base]
        return base

    def frequencies(self, codebook_size: int) -> NDArray[np.uint32]:
        """Integer frequencies of a codebook, uint32[K], each >= 1, their sum 2^16."""
        return self._frequencies[codebook_size]

    def log_share(self, codebook_size: int) -> Tensor:
        """Natural logarithms of the integer frequencies over 2^16, float32[K]."""
        table = torch.from_numpy(self._frequencies[codebook_size].astype(np.float32))
        return torch.log(table / 2**FREQUENCY_BITS).to(self._codewords[codebook_size].device)

    def tensors(self) -> dict[str, Tensor]:
        """Tensors to save, by name; `from_tensors` is the inverse."""
        saved = {f"words.{k}": v for k, v in self._codewords.items()}
        saved |= {f"parents.{k}": v for k, v in self._parents.items()}
        saved |= {f"usage.{k}": v for k, v in self._given_usage.items() if k != self.base_size}
        return saved | {"usage": self._usage[self.base_size]}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Ladder:
        """The ladder of what `tensors` returned."""

        def by_size(name: str) -> dict[int, Tensor]:
            chosen = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
            return {int(k): v for k, v in chosen.items()}

        codewords = {k: v.float() for k, v in by_size("words.").items()}
        parents = {k: v.long() for k, v in by_size("parents.").items()}
        return cls(codewords, {max(codewords): tensors["usage"], **by_size("usage.")}, parents)

    def fingerprint(self) -> str:
        """16 hexadecimal digits over codewords, parents and integer tables."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            if not name.startswith("usage"):
                digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        for codebook_size in self.codebook_sizes:
            digest.update(self._frequencies[codebook_size].tobytes())
        return digest.hexdigest()[:16]


def spread_centres(points: Tensor, weights: Tensor, clusters: int, seed: int) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii 2007): as many of the points float[N,D], weights float[N],
    each drawn in proportion to its weighted squared distance from those before it."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.multinomial(weights, 1, generator=generator)
    distance = (points - points[chosen]).square().sum(1)
    for _ in range(clusters - 1):
        draw = torch.multinomial(weights * distance + 1e-12, 1, generator=generator)
        chosen = torch.cat([chosen, draw])
        distance = distance.minimum((points - points[draw]).square().sum(1))
        distance[draw] = 0
    return points[chosen].clone()


def weighted_kmeans(
    points: Tensor, weights: Tensor, centres: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: points float[N,D], weights float[N], starting centres float[clusters,D] ->
    centres float[clusters,D] and assignments int64[N]. No cluster is empty."""
    clusters = len(centres)
    for _ in range(iterations):
        parent = nearest(points, centres)
        for empty in (torch.bincount(parent, minlength=clusters) == 0).nonzero()[:, 0]:
            counts = torch.bincount(parent, minlength=clusters)
            error = (points - centres[parent]).square().sum(1) * weights
            far = torch.where(counts[parent] > 1, error, -1.0).argmax()
            parent[far] = empty
        centres = _means(points, weights, parent, clusters)
    return centres, parent


def _means(points: Tensor, weights: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Weighted means float[clusters,D] of points float[N,D] by label int64[N]."""
    total = torch.zeros(clusters).index_add_(0, labels, weights)
    sums = torch.zeros(clusters, points.shape[1]).index_add_(0, labels, points * weights[:, None])
    return sums / total[:, None]


def _variance(points: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared distance of points float[N,D] from their mean, a scalar."""
    share = weights / weights.sum()
    return share @ (points - share @ points).square().sum(1)


def integer_frequencies(usage: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Usage counts float32[K] -> frequencies uint32[K], each >= 1, sum 2^16, by largest remainders.

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
