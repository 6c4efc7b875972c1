"""Laws of tiling: parts make the whole, and the reach is neither too short nor wasteful."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from codec.tiling import apply_tiled, reach_tokens
from codec.tokenizer import Decoder, Encoder, TokenizerConfig

CONFIG = TokenizerConfig(
    latent_dim=4,
    encoder_widths=(8, 8, 16),
    encoder_depths=(1, 1, 1),
    decoder_widths=(8, 8, 16),
    decoder_depths=(1, 1, 1),
)


@pytest.fixture
def networks() -> tuple[Encoder, Decoder]:
    """Every weight drawn, so that every convolution passes something on."""
    torch.manual_seed(0)
    encoder, decoder = Encoder(CONFIG).eval(), Decoder(CONFIG).eval()
    for network in (encoder, decoder):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return encoder, decoder


@pytest.mark.parametrize("shape", [(19, 23), (30, 6), (5, 31)])
@torch.inference_mode()
def test_parts_make_the_whole(networks: tuple[Encoder, Decoder], shape: tuple[int, int]) -> None:
    encoder, decoder = networks
    words = torch.randn(1, 4, *shape)
    reach = reach_tokens(decoder, 16)
    whole = decoder(words)
    torch.testing.assert_close(apply_tiled(decoder, words, 1, 16, reach, 7), whole)
    short = apply_tiled(decoder, words, 1, 16, reach - 2, 7)
    assert not torch.allclose(short, whole, atol=1e-4), "the reach is not longer than needed"
    images = torch.rand(1, 3, 16 * shape[0], 16 * shape[1])
    reach = reach_tokens(encoder.layers, 1)
    torch.testing.assert_close(apply_tiled(encoder, images, 16, 1, reach, 7), encoder(images))


@torch.inference_mode()
def test_parts_of_an_encoder_that_is_told_the_level() -> None:
    torch.manual_seed(0)
    encoder = Encoder(replace(CONFIG, encoder_levels=True)).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images, reach = torch.rand(1, 3, 16 * 19, 16 * 9), reach_tokens(encoder.layers, 1)
    latents = []
    for bits in (3, 6):
        told = partial(encoder, log2_size=torch.tensor([bits]))
        latents.append(told(images))
        torch.testing.assert_close(apply_tiled(told, images, 16, 1, reach, 7), latents[-1])
    assert not torch.allclose(*latents, atol=1e-2)


@torch.inference_mode()
def test_parts_of_a_decoder_with_an_upsampler() -> None:
    torch.manual_seed(0)
    decoder = Decoder(replace(CONFIG, upsampler_depth=3, upsampler_width=8)).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    words = torch.randn(1, 4, 19, 9)
    reach = reach_tokens(decoder, 16)
    whole = decoder(words)
    torch.testing.assert_close(apply_tiled(decoder, words, 1, 16, reach, 7), whole)
    short = apply_tiled(decoder, words, 1, 16, reach - 2, 7)
    assert not torch.allclose(short, whole, atol=1e-4), "the reach is not longer than needed"


def test_reach_of_a_decoder_counted_by_hand() -> None:
    """3x3 convolutions: 1 + 2 at 16 pixels a cell, 2 at 8, 2 + 1 at 4: 48 + 16 + 12 pixels; an
    upsampler of three adds five at 4."""
    assert reach_tokens(Decoder(CONFIG), 16) == -(-76 // 16)
    upsampled = Decoder(replace(CONFIG, upsampler_depth=3))
    assert reach_tokens(upsampled, 16) == -(-(76 + 20) // 16)
    assert reach_tokens(Encoder(CONFIG).layers, 1) == -(-(3 * 4 + 2 * 8 + 2 * 16) // 16)


@torch.inference_mode()
def test_small_grids_are_not_cut(networks: tuple[Encoder, Decoder]) -> None:
    words = torch.randn(1, 4, 9, 5)
    assert torch.equal(apply_tiled(networks[1], words, 1, 16, 5, 7), networks[1](words))
