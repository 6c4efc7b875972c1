"""Laws of the codebook and its ladder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from codec.codebook import (
    EmaCodebook,
    Ladder,
    integer_frequencies,
    near,
    nearest,
    spread_centres,
    weighted_kmeans,
)


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    generator = torch.Generator().manual_seed(3)
    words = F.normalize(torch.randn(256, 8, generator=generator), dim=1)
    usage = torch.randint(0, 1000, (256,), generator=generator).float()
    return Ladder.build(words, usage)


def test_nearest_is_the_euclidean_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(300, 5, generator=generator)
    words = torch.randn(40, 5, generator=generator)
    brute = torch.cdist(latents, words).argmin(1)
    assert torch.equal(nearest(latents, words, chunk=7), brute)
    assert nearest(latents[:0], words).shape == (0,)


@pytest.mark.parametrize("margin", [0.01, 0.3, 2.0])
def test_near_codewords_are_all_within_the_margin(margin: float) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = F.normalize(torch.randn(300, 5, generator=generator), dim=1)
    words = F.normalize(torch.randn(40, 5, generator=generator), dim=1)
    squared = torch.cdist(latents, words).square()
    found = near(latents, words, margin, 6, chunk=7)
    assert found.shape == (300, 6) and torch.equal(found[:, 0], nearest(latents, words))
    limits = squared.min(1, keepdim=True).values + margin
    assert (squared.gather(1, found) <= limits + 1e-5).all()
    expected = (squared < limits - 1e-5).sum(1).clamp(max=6)  # and those on the border
    assert all(len(set(row.tolist())) >= n for row, n in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["clustered", "pairs"])
def test_ladder_is_nested(ladder: Ladder, kind: str) -> None:
    """Two base indices that share a codeword at one level share it at every smaller level."""
    ladder = ladder if kind == "clustered" else Ladder.pairs(ladder.codewords(256))
    base = torch.arange(256)
    for small, large in zip(ladder.codebook_sizes, ladder.codebook_sizes[1:], strict=False):
        fine, coarse = ladder.shrink(base, large), ladder.shrink(base, small)
        owner = torch.full((large,), -1)
        owner[fine] = coarse
        assert torch.equal(owner[fine], coarse)
        assert set(coarse.tolist()) == set(range(small)), "every codeword is reachable"


def test_ladder_conserves_usage(ladder: Ladder) -> None:
    total = ladder.usage(256).sum()
    for level in ladder.codebook_sizes:
        assert ladder.usage(level).sum() == total
        counts = torch.zeros(level).index_add_(
            0, ladder.shrink(torch.arange(256), level), ladder.usage(256)
        )
        assert torch.equal(counts, ladder.usage(level))


def test_codewords_are_usage_weighted_centroids(ladder: Ladder) -> None:
    """Each codeword is the weighted mean of its children (Lloyd's centroid condition)."""
    weights = ladder.usage(256) + 1e-3
    parent = ladder.shrink(torch.arange(256), 128)
    sums = torch.zeros(128, 8).index_add_(0, parent, ladder.codewords(256) * weights[:, None])
    total = torch.zeros(128).index_add_(0, parent, weights)
    torch.testing.assert_close(ladder.codewords(128), sums / total[:, None])


def test_codewords_that_look_alike_merge(ladder: Ladder) -> None:
    """With mean patches in the clustering, clusters differ less in them at every level; constant
    ones change nothing."""
    words, usage = ladder.codewords(256), ladder.usage(256)
    mean_patches = torch.randn(256, 3, generator=torch.Generator().manual_seed(4))
    seeing = Ladder.build(words, usage, mean_patches)

    def spread(ladder: Ladder, level: int) -> float:
        labels = ladder.shrink(torch.arange(256), level)
        onehot = F.one_hot(labels, level).float()
        means = (onehot.t() @ (mean_patches * usage[:, None])) / (onehot.t() @ usage[:, None])
        return float(usage @ (mean_patches - means[labels]).square().sum(1))

    for level in ladder.codebook_sizes[:-1]:
        assert spread(seeing, level) < 0.8 * spread(ladder, level)
        assert seeing.codewords(level).shape == (level, 8)
    blank = Ladder.build(words, usage, torch.zeros(256, 3))
    assert blank.fingerprint() == ladder.fingerprint()


def test_a_ladder_stays_where_it_has_settled(ladder: Ladder) -> None:
    again = Ladder.build(ladder.codewords(256), ladder.usage(256), start=ladder)
    for level in ladder.codebook_sizes:
        assert torch.equal(
            again.shrink(torch.arange(256), level), ladder.shrink(torch.arange(256), level)
        )


def test_ladder_survives_saving(ladder: Ladder) -> None:
    again = Ladder.from_tensors(ladder.tensors())
    assert again.fingerprint() == ladder.fingerprint()
    assert again.codebook_sizes == ladder.codebook_sizes
    for level in ladder.codebook_sizes:
        assert np.array_equal(again.frequencies(level), ladder.frequencies(level))


def test_kmeans_weights_pull_centres() -> None:
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0])
    centres, parent = weighted_kmeans(points, weights, spread_centres(points, weights, 2, 0), 20)
    assert sorted(centres[:, 0].tolist()) == pytest.approx([0.25, 10.5])
    assert parent[0] == parent[1] != parent[2] == parent[3]


def test_kmeans_never_leaves_a_cluster_empty() -> None:
    points = torch.cat([torch.zeros(50, 2), torch.ones(3, 2)])
    weights = torch.ones(53)
    _, parent = weighted_kmeans(points, weights, spread_centres(points, weights, 16, 0), 10)
    assert (torch.bincount(parent, minlength=16) > 0).all()


@pytest.mark.parametrize("usage", [np.zeros(8), np.array([1e9] + [0] * 2047), np.arange(64.0)])
def test_integer_frequencies(usage: np.ndarray) -> None:
    table = integer_frequencies(usage.astype(np.float32))
    assert table.dtype == np.uint32
    assert table.sum() == 2**16
    assert table.min() >= 1
    assert (np.diff(table[np.argsort(usage, kind="stable")].astype(int)) >= -1).all()


def test_integer_frequencies_refuse_too_many_codewords() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        integer_frequencies(np.ones(2**15 + 1, np.float32))


def test_dead_codewords_restart() -> None:
    book = EmaCodebook(4, 2, patience=3)
    latents = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1]]), dim=1)
    book.codewords[:] = F.normalize(torch.tensor([[1.0, 0], [-1, 0], [-1, 0.1], [-1, -0.1]]), dim=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        book.update(latents, nearest(latents, book.codewords), generator)
    assert (book.codewords[:, 0] > 0.9).all(), "unused codewords moved onto latents"
