"""Laws of pruning: what is left out was never active, and results stay the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from codec.checkpoint import load_weights
from codec.codebook import log2_sizes
from codec.inpainting import Inpainter, InpainterConfig
from codec.model_files import TOKENIZER_FILE, load_tokenizer
from codec.tokenizer import Decoder, Encoder, TokenizerConfig
from codec.training.augmentation import LossAugmentation
from codec.training.data import PhotoDataset
from codec.training.joint import JointTraining
from codec.training.loop import LoopConfig
from codec.training.pruning import (
    active_channels,
    keep_channels,
    prune_tokenizer,
    recorded_peaks,
    residual_blocks,
)
from codec.training.runs import CacheConfig, TrainingRun, train_joint
from codec.training.tokens import Crops
from codec.training.weights import own_tokenizer, save_tokenizer
from sim.cli.main import app
from sim.training.masks import packet_mask

CONFIG = TokenizerConfig(
    latent_dim=4,
    encoder_widths=(8, 8, 16),
    encoder_depths=(1, 0, 2),
    decoder_widths=(8, 8, 16),
    decoder_depths=(1, 1, 2),
    encoder_levels=True,
    upsampler_depth=1,
    upsampler_width=8,
)


def networks(silent: int) -> tuple[Encoder, Decoder]:
    """Random networks; the first `silent` hidden channels of each residual block never act."""
    torch.manual_seed(1)
    encoder, decoder = Encoder(CONFIG), Decoder(CONFIG)
    with torch.no_grad():
        for block in residual_blocks(encoder) + residual_blocks(decoder):
            assert block.conv1.bias is not None
            block.conv2.weight.normal_(0, 0.1)
            block.conv1.bias[silent:] += 0.5
            block.conv1.bias[:silent] = -100
    return encoder, decoder


def pictures(encoder: Encoder, decoder: Decoder, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        latents = encoder(images, log2_sizes(*[16] * len(images)))
        return latents, decoder(latents)


@pytest.fixture
def silent_model(tmp_path: Path, tiny_model: Path) -> Path:
    """A model folder with silent channels, of 16 codewords, without an inpainter."""
    ladder = load_tokenizer(tiny_model)[3]
    (tmp_path / "silent").mkdir()
    save_tokenizer(tmp_path / "silent", CONFIG, *networks(3), ladder)
    return tmp_path / "silent"


def pruned(photos: Path, model: Path, folder: Path) -> tuple[int, int]:
    run = TrainingRun(photos, folder, LoopConfig(1, 1), CacheConfig(crops=3, side=64))
    return prune_tokenizer(run, packet_mask, model)


def test_results_stay_the_same_without_silent_channels() -> None:
    images = torch.rand(2, 3, 64, 48) * 2 - 1
    encoder, decoder = networks(3)
    with recorded_peaks(encoder) as own, recorded_peaks(decoder) as decoders:
        before = pictures(encoder, decoder, images)
    for network, peaks in ((encoder, own), (decoder, decoders)):
        assert all((peak[:3] < -50).all() and (peak[3:] > 0).any() for peak in peaks)
        hidden = keep_channels(network, [peak > 0 for peak in peaks])
        assert hidden == tuple(int((peak > 0).sum()) for peak in peaks)
    after = pictures(encoder, decoder, images)
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(old, new, atol=1e-5)


def test_an_active_channel_is_missed() -> None:
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    encoder, decoder = networks(3)
    before = pictures(encoder, decoder, images)[0]
    keep_channels(
        encoder, [torch.arange(len(b.conv1.weight)) < 4 for b in residual_blocks(encoder)]
    )
    assert not torch.allclose(before, pictures(encoder, decoder, images)[0], atol=1e-3)


def test_a_block_that_is_never_active_keeps_one_channel() -> None:
    encoder, decoder = networks(16)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    before = pictures(encoder, decoder, images)
    for network in (encoder, decoder):
        with recorded_peaks(network) as peaks:
            pictures(encoder, decoder, images)
        assert set(keep_channels(network, [peak > 0 for peak in peaks])) == {1}
    assert torch.allclose(before[1], pictures(encoder, decoder, images)[1], atol=1e-5)


def test_a_pruned_model_is_smaller_and_decodes_the_same(
    photos: Path, silent_model: Path, tmp_path: Path
) -> None:
    before, after = pruned(photos, silent_model, tmp_path / "pruned")
    network, encoder, decoder, ladder = own_tokenizer(tmp_path / "pruned")
    parts = [p for part in (encoder, decoder) for p in part.parameters()]
    assert sum(p.numel() for p in parts) == after < before
    assert max(network.encoder_hidden) <= 13 and len(network.decoder_hidden) == 4
    _, old_encoder, old_decoder, old_ladder = own_tokenizer(silent_model)
    assert ladder.fingerprint() == old_ladder.fingerprint()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    latents, decoded = pictures(old_encoder, old_decoder, images)
    with torch.no_grad():
        assert torch.allclose(encoder(images, log2_sizes(16, 16)), latents, atol=1e-4)
        assert torch.allclose(decoder(latents), decoded, atol=1e-4)
    assert pruned(photos, tmp_path / "pruned", tmp_path / "again") == (after, after)


def test_filled_tokens_are_drawn_too(photos: Path, tiny_model: Path) -> None:
    class NotANumber(LossAugmentation):
        """Fills with what shows in every channel of the decoder that it reaches."""

        def fill(self, codewords: Tensor, *_: object) -> tuple[Tensor, Tensor]:
            return torch.full_like(codewords, torch.nan), torch.zeros(())

    ladder = load_tokenizer(tiny_model)[3]
    crops = Crops(PhotoDataset(photos, min_side=64), 4, 2, 0)
    filled = NotANumber(Inpainter(InpainterConfig(latent_dim=4)), ladder, packet_mask)
    encoder, decoder = networks(3)
    without = active_channels(encoder, decoder, ladder, crops)
    given = active_channels(encoder, decoder, ladder, crops, filled)
    assert all(active.any() for active in without[1])
    assert not any(active.any() for active in given[1])
    for own, same in zip(without[0], given[0], strict=True):
        assert torch.equal(own, same)


def test_a_pruned_model_can_be_trained_and_deepened(
    photos: Path, silent_model: Path, tmp_path: Path
) -> None:
    pruned(photos, silent_model, tmp_path / "pruned")
    config = JointTraining(batch=2, crop=32, lpips_weight=0)
    loop = LoopConfig(steps=1, decay_steps=1, warmup_steps=1)
    run = TrainingRun(photos, tmp_path / "deep", loop, CacheConfig(crops=3, held_out=2, side=64))
    depths = {"encoder_depth": 3, "decoder_depth": 4}
    train_joint(run, packet_mask, tmp_path / "pruned", config, **depths)
    start, deep = own_tokenizer(tmp_path / "pruned")[0], own_tokenizer(tmp_path / "deep")[0]
    assert deep.encoder_hidden == (*start.encoder_hidden, 16)
    inserted = (*start.decoder_hidden[:2], 16, 16, *start.decoder_hidden[2:])
    assert deep.decoder_hidden == inserted
    assert replace(deep, encoder_hidden=(), decoder_hidden=()).decoder_depths == (1, 1, 4)


def test_an_inpainter_that_is_fixed_stays_and_is_not_written(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    fixed = JointTraining(batch=2, crop=32, lpips_weight=0, encoder_rate=0, inpainter_rate=0)
    loop = LoopConfig(steps=1, decay_steps=1, warmup_steps=1)
    for config, writes in ((fixed, False), (replace(fixed, inpainter_rate=1e-3), True)):
        out = tmp_path / str(writes)
        run = TrainingRun(photos, out, loop, CacheConfig(crops=3, held_out=2, side=64))
        evaluation = train_joint(run, packet_mask, tiny_model, config)
        assert "lpips_16_repaired" in evaluation
        assert (out / "inpainter.safetensors").exists() == writes


def test_prune_by_command(photos: Path, silent_model: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((300, 280)).save(big / path.name)
    out = tmp_path / "out"
    arguments = ["train", "prune", "--images", str(big), "--model", str(silent_model)]
    result = CliRunner().invoke(app, [*arguments, "-o", str(out), "--crops", "1"])
    assert result.exit_code == 0, result.output
    assert "million parameters left" in result.output
    assert load_weights(out / TOKENIZER_FILE)[0]["network"]["decoder_hidden"]
