"""The weights files that training runs start from and end with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codec.checkpoint import save_weights
from codec.codebook import Ladder
from codec.inpainting import Inpainter
from codec.model_files import CONTEXT_FILE, INPAINTER_FILE, TOKENIZER_FILE, load_tokenizer
from codec.taming import TamingConfig
from codec.tokenizer import Decoder, Encoder, TokenizerConfig
from codec.training.context import ContextNetwork


def own_tokenizer(folder: Path) -> tuple[TokenizerConfig, Encoder, Decoder, Ladder]:
    """`load_tokenizer`; raises ValueError for networks of another kind than are trained here."""
    network, encoder, decoder, ladder, _ = load_tokenizer(folder)
    if not isinstance(network, TokenizerConfig):
        raise ValueError(f"{folder}: holds another kind of network than is trained here")
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    return network, encoder, decoder, ladder


def save_inpainter(
    folder: Path,
    inpainter: Inpainter,
    ladder: Ladder,
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Write `inpainter.safetensors`, in half precision, and in its header what was calibrated."""
    weights = {k: v.half() for k, v in inpainter.state_dict().items()}
    about: dict[str, Any] = {"network": asdict(inpainter.config), "codebook": ladder.fingerprint()}
    if calibration:
        about["calibration"] = calibration
    save_weights(folder / INPAINTER_FILE, about, weights)


def save_tokenizer(
    folder: Path,
    network: TokenizerConfig | TamingConfig,
    encoder: nn.Module,
    decoder: nn.Module,
    ladder: Ladder,
) -> None:
    """Write `tokenizer.safetensors`, in half precision."""
    tensors = {f"encoder.{k}": v.half() for k, v in encoder.state_dict().items()}
    tensors |= {f"decoder.{k}": v.half() for k, v in decoder.state_dict().items()}
    tensors |= {f"ladder.{k}": v for k, v in ladder.tensors().items()}
    save_weights(folder / TOKENIZER_FILE, {"network": network.to_dict()}, tensors)


def save_context(folder: Path, network: ContextNetwork, ladder: Ladder) -> None:
    """Write `context.safetensors`: the network rounded to integers."""
    about = {"network": asdict(network.config), "codebook": ladder.fingerprint()}
    arrays = network.tables().arrays
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    save_weights(folder / CONTEXT_FILE, about, tensors)
