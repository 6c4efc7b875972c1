"""The three weights files of a model folder, read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from codec.checkpoint import ModelError, load_weights
from codec.codebook import Ladder
from codec.context import ContextTables
from codec.fingerprint import WEIGHT_FILES
from codec.inpainting import Inpainter, InpainterConfig
from codec.taming import TamingConfig, TamingDecoder, TamingEncoder
from codec.tokenizer import Decoder, Encoder, TokenizerConfig

TOKENIZER_FILE, INPAINTER_FILE, CONTEXT_FILE = WEIGHT_FILES

_RENAMED = {"decoder.upsampler.seen.weight": "decoder.upsampler.feature_projection.weight"}
"""Parameters that older files hold under another name."""


def load_tokenizer(
    folder: Path,
) -> tuple[TokenizerConfig | TamingConfig, nn.Module, nn.Module, Ladder, str]:
    """The tokenizer of a model folder, in float32, and its file's fingerprint. In the file's
    config, networks other than this project's have a "kind".

    Raises:
        ModelError: the file is missing, unreadable or altered, or has an unknown kind of network.
    """
    config, tensors, fingerprint = load_weights(folder / TOKENIZER_FILE)
    tensors = {_RENAMED.get(name, name): tensor for name, tensor in tensors.items()}
    shape = _tuples(config["network"])
    kind = shape.pop("kind", None)
    network: TokenizerConfig | TamingConfig
    encoder: nn.Module
    decoder: nn.Module
    if kind is None:
        network = TokenizerConfig(**shape)
        encoder, decoder = Encoder(network), Decoder(network)
    elif kind == "taming":
        network = TamingConfig(**shape)
        encoder, decoder = TamingEncoder(network), TamingDecoder(network)
    else:
        raise ModelError(f"{folder / TOKENIZER_FILE}: unknown kind of network {kind!r}")
    encoder.load_state_dict(_part(tensors, "encoder."))
    decoder.load_state_dict(_part(tensors, "decoder."))
    return network, encoder, decoder, Ladder.from_tensors(_part(tensors, "ladder.")), fingerprint


def load_inpainter(folder: Path) -> tuple[Inpainter, dict[str, Any], str]:
    """The inpainter of a model folder, in float32, its config ("codebook" is the fingerprint of the
    ladder it was trained for) and its file's fingerprint.

    Raises:
        ModelError: the file is missing, unreadable or altered.
    """
    config, weights, fingerprint = load_weights(folder / INPAINTER_FILE)
    inpainter = Inpainter(InpainterConfig(**config["network"]))
    inpainter.load_state_dict({k: v.float() for k, v in weights.items()})
    return inpainter, config, fingerprint


def load_context(folder: Path) -> tuple[ContextTables, dict[str, Any], str]:
    """The context coder's tables of a model folder, their file's config and fingerprint, as
    `load_inpainter`.

    Raises:
        ModelError: the file is missing, unreadable or altered, or holds something else.
    """
    config, tables, fingerprint = load_weights(folder / CONTEXT_FILE)
    try:
        found = ContextTables({name: table.numpy() for name, table in tables.items()})
    except ValueError as error:
        raise ModelError(f"{folder / CONTEXT_FILE}: {error}") from None
    return found, config, fingerprint


def check_codebook(path: Path, config: dict[str, Any], ladder: Ladder) -> None:
    """Raise ModelError unless a file was trained for this codebook."""
    if config.get("codebook") != ladder.fingerprint():
        raise ModelError(
            f"{path}: fingerprint mismatch: trained for codebook {config.get('codebook')}, the "
            f"tokenizer beside it has {ladder.fingerprint()}; use files of the same model"
        )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    chosen = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {k: v.float() if v.is_floating_point() else v for k, v in chosen.items()}


def _tuples(network: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in network.items()}
