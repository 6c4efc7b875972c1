"""Weights on disk: safetensors with a config and a fingerprint, never pickle.

The fingerprint is the SHA-256 of the config and of every tensor's name, dtype, shape and bytes. It
is stored in the file and checked at loading: probabilities that drive an entropy coder must be the
very ones the other side has, so altered weights are refused rather than decoded to garbage.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from codec.files import replacing


class ModelError(ValueError):
    """Weights that cannot be used; the message is one line: which file, what, how to fix it."""


def fingerprint(config: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 over config and tensors, as 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_weights(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Write atomically; returns the fingerprint. Floating-point tensors are stored as given."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    mark = fingerprint(config, plain)
    about = {"config": json.dumps(config, sort_keys=True), "fingerprint": mark}
    with replacing(path) as partial:
        partial.write_bytes(save(plain, about))  # save_file makes files that others cannot read
    return mark


def load_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Config, tensors and fingerprint of a weights file.

    Raises:
        ModelError: no such file, not a safetensors file of ours, or the fingerprint does not match.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file; train one or restore the shipped weights")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error})") from None
    if "config" not in about or "fingerprint" not in about:
        raise ModelError(
            f"{path}: no config and fingerprint in it; it was not written by sim train"
        )
    config: dict[str, Any] = json.loads(about["config"])
    mark = fingerprint(config, tensors)
    if mark != about["fingerprint"]:
        raise ModelError(
            f"{path}: fingerprint mismatch (stored {about['fingerprint'][:16]}, computed "
            f"{mark[:16]}); the file was altered: restore it or save it again with sim train"
        )
    return config, tensors, mark
