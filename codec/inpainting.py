"""The masked transformer that predicts lost tokens from received ones (Chang et al., MaskGIT,
CVPR 2022), for every codebook size and any grid size.

Tokens enter as their codeword vectors and leave as scores against projected codewords, so no weight
depends on the codebook size. A lost token enters as the distance-weighted mean of its received
neighbours' codewords, and the network predicts what that estimate misses: untrained, it scores
codewords by how near they are to it. Attention runs in 8x8 windows, shifted by half a window in
every other layer (Liu et al., Swin, ICCV 2021), with 2-D rotary positions (Su et al. 2021; Heo et
al., ECCV 2024); cost and memory grow linearly with the grid.

A network with a memory may be given, beside a frame of a video, what was shown before: the codeword
vector at each position and how sure it was. It is told as well how well this agrees with the tokens
that were received around, and may start its estimate from it. Untrained, it ignores it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 8
MAX_LOG2_K = 16
ESTIMATE_REACH = 4
MEMORY_PARTS = ("embed_memory", "compare", "recall", "trust")
"""Of an `Inpainter`: what only a memory goes through."""


@dataclass(frozen=True)
class InpainterConfig:
    """Shape of the transformer: dimensions of codewords, channels, layers, attention heads, the
    hidden channels of its MLPs as a multiple of `width`, and whether it has a memory."""

    latent_dim: int = 16
    width: int = 192
    depth: int = 6
    heads: int = 6
    expansion: int = 4
    memory: bool = False

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def rotary_table(head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float[64, head_dim/2]: the first half of the angles turn with the row in the
    window, the second with the column, wavelengths from 2 pi to about 4 windows."""
    pairs = head_dim // 4
    speed = torch.logspace(0, math.log10(2 * math.pi / (4 * WINDOW)), pairs)
    place = torch.arange(WINDOW, dtype=torch.float32)
    angles = place[:, None] * speed
    rows = angles[:, None].expand(WINDOW, WINDOW, pairs)
    columns = angles[None].expand(WINDOW, WINDOW, pairs)
    table = torch.cat([rows, columns], dim=-1).reshape(WINDOW * WINDOW, 2 * pairs)
    return table.cos(), table.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: float[...,64,head_dim] turned pairwise by the table's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def neighbour_estimate(codewords: Tensor, received: Tensor) -> Tensor:
    """Mean of the received codewords within 4 tokens, with Gaussian weights of standard deviation
    one token: float[B,h,w,D], received bool[B,h,w] -> float[B,h,w,D]; zero where none is near."""
    place = torch.arange(
        -ESTIMATE_REACH, ESTIMATE_REACH + 1, dtype=torch.float32, device=codewords.device
    )
    bell = torch.exp(-place.square() / 2)
    kernel = (bell[:, None] * bell).expand(codewords.shape[-1] + 1, 1, -1, -1)
    mask = received[:, None].float()
    stack = torch.cat([codewords.permute(0, 3, 1, 2) * mask, mask], dim=1)
    sums = F.conv2d(stack, kernel, padding=ESTIMATE_REACH, groups=len(kernel))
    return (sums[:, :-1] / (sums[:, -1:] + 1e-6)).permute(0, 2, 3, 1)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention (Vaswani et al. 2017, eq. 1): float[N,H,T,d] each and bool[N,1,1,T], False
    where nothing is attended to -> float[N,H,T,d]."""
    count, heads, size, dim = q.shape
    bias = torch.where(mask, 0.0, -1e4).to(q.dtype).expand(count, heads, size, size)
    scores = torch.baddbmm(
        bias.reshape(-1, size, size),
        q.reshape(-1, size, dim),
        k.reshape(-1, size, dim).transpose(1, 2),
        alpha=1 / math.sqrt(dim),
    )
    y: Tensor = torch.softmax(scores, -1) @ v.reshape(-1, size, dim)
    return y.view(q.shape)


class WindowAttention(nn.Module):
    """Self-attention inside 8x8 windows of a [B,h,w,C] grid, h and w multiples of 8."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        cos, sin = rotary_table(width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        tiles = (height // WINDOW, width // WINDOW)
        grid = (batch, tiles[0], WINDOW, tiles[1], WINDOW)
        count, size = batch * tiles[0] * tiles[1], WINDOW * WINDOW
        qkv = self.qkv(x).view(*grid, 3, self.heads, channels // self.heads)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, count, self.heads, size, -1)
        cos, sin = (self.get_buffer(name).to(qkv.dtype) for name in ("cos", "sin"))
        q, k, v = rotate(qkv[0], cos, sin), rotate(qkv[1], cos, sin), qkv[2]
        mask = valid.view(valid.shape[0], *grid[1:]).permute(0, 1, 3, 2, 4)
        mask = mask.expand(batch, *mask.shape[1:]).reshape(count, 1, 1, size)
        # The fused kernel is the fastest forward, but its backward costs six times this one's.
        fused = not torch.is_grad_enabled()
        attend = F.scaled_dot_product_attention if fused else plain_attention
        y = attend(q, k, v, mask)
        y = y.view(batch, *tiles, self.heads, WINDOW, WINDOW, -1).permute(0, 1, 4, 2, 5, 3, 6)
        out: Tensor = self.out(y.reshape(x.shape))
        return out


class Layer(nn.Module):
    """Pre-norm attention and MLP; a 3x3 depthwise convolution before the MLP connects neighbouring
    tokens across window borders."""

    def __init__(self, config: InpainterConfig, shift: int) -> None:
        super().__init__()
        width, hidden = config.width, config.expansion * config.width
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, config.heads)
        self.local = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for last in (self.attention.out, self.down, self.local):
            nn.init.zeros_(last.weight)
        nn.init.zeros_(self.down.bias)  # a new layer adds nothing

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        bottom = -(height + self.shift) % WINDOW
        right = -(width + self.shift) % WINDOW
        pads = (0, 0, self.shift, right, self.shift, bottom)
        valid = F.pad(x.new_ones(1, height, width, 1), pads)[..., 0] > 0
        padded = F.pad(self.norm1(x), pads)
        y = self.attention(padded, valid)  # every window holds at least one real position
        x = x + y[:, self.shift : self.shift + height, self.shift : self.shift + width]
        y = self.norm2(x)
        y = y + self.local(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = x + self.down(F.relu(self.up(y)))
        return out


class Inpainter(nn.Module):
    """The transformer: hidden states of all positions, and scores of codewords at chosen ones."""

    def __init__(self, config: InpainterConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.embed = nn.Linear(config.latent_dim, width)
        self.guess = nn.Linear(config.latent_dim, width)
        self.level = nn.Embedding(MAX_LOG2_K + 1, width)
        nn.init.normal_(self.level.weight, std=0.02)
        shifts = [0 if i % 2 == 0 else WINDOW // 2 for i in range(config.depth)]
        self.layers = nn.ModuleList(Layer(config, shift) for shift in shifts)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Sequential(
            nn.Linear(config.latent_dim, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.correct = nn.Linear(width, config.latent_dim)
        for start in (self.correct, self.query):
            nn.init.zeros_(start.weight)
            nn.init.zeros_(start.bias)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(8.0)))
        self.prior = nn.Parameter(torch.ones(()))
        if config.memory:
            self.embed_memory = nn.Linear(2 * config.latent_dim + 3, width)
            self.compare = nn.ModuleList(Layer(config, shift) for shift in (0, WINDOW // 2))
            self.recall = nn.Linear(width, 2 * width)
            self.trust = nn.Linear(2 * width + 2, 2 + config.latent_dim)
            for start in (self.recall, self.trust):
                nn.init.zeros_(start.weight)
                nn.init.zeros_(start.bias)

    def hidden(
        self, codewords: Tensor, received: Tensor, log2_size: Tensor, memory: Tensor | None = None
    ) -> Tensor:
        """The transformer's states, its estimate of each codeword vector, and with a memory the
        logarithm by which that estimate is sharper than usual.

        Args:
            codewords: float[B,h,w,D].
            received: bool[B,h,w].
            log2_size: log2 K, int64[B].
            memory: float[B,h,w,D+1], only for a network that has one: what was shown before, the
                codeword vector and its probability; where that is 0, nothing.

        Returns:
            float[B,h,w,C+D], or with a memory float[B,h,w,C+D+1].
        """
        estimate = neighbour_estimate(codewords, received)
        x = torch.where(received[..., None], self.embed(codewords), self.guess(estimate))
        x = x + self.level(log2_size.to(codewords.device))[:, None, None]
        if memory is not None:
            shown, sure = memory[..., :-1], memory[..., -1:]
            known = (sure > 0).to(x.dtype)
            here = received[..., None].to(x.dtype)
            moved = here * (codewords - shown)
            agreement = neighbour_estimate(
                2 * torch.exp(-moved.square().sum(-1, keepdim=True)) - 1, received
            )
            compared = self.embed_memory(torch.cat([memory, moved, here, agreement], dim=-1))
            compared = known * compared
            for layer in self.compare:
                compared = layer(compared)
            entering, recalled = (known * self.recall(compared)).chunk(2, dim=-1)
            x = x + entering
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        if memory is None:
            return torch.cat([x, estimate + self.correct(x)], dim=-1)
        trust = known * self.trust(torch.cat([x, compared, sure, agreement], dim=-1))
        share, sharper, change = trust.tensor_split([1, 2], dim=-1)
        estimate = estimate + share * (shown - estimate) + change + self.correct(x)
        return torch.cat([x + recalled, estimate, sharper], dim=-1)

    def logits(self, hidden: Tensor, codewords: Tensor, log_share: Tensor) -> Tensor:
        """Scores float[N,K] of N positions, of which `hidden` has made float[N,C+D] or
        float[N,C+D+1], against codewords float[K,D]: a learnt match, minus the squared distance to
        the estimate, plus a multiple of the logarithms of the usage shares float[K]; all three
        weights are learnt."""
        width, dim = self.config.width, self.config.latent_dim
        states, estimate, sharper = hidden.tensor_split([width, width + dim], dim=-1)
        match = self.query(states) @ self.key(codewords).t() / math.sqrt(width)
        near = estimate @ codewords.t() - codewords.square().sum(1) / 2
        sharpness = self.log_sharpness.exp() * sharper.sum(-1, keepdim=True).exp()
        scores: Tensor = match + sharpness * near + self.prior * log_share
        return scores
