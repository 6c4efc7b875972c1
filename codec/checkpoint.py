"""Weights on disk: safetensors with a config and a fingerprint, never pickle.

The fingerprint is the SHA-256 of the config and of every tensor's name, dtype, shape and bytes. It
is stored in the file and checked at loading: both ends of an entropy coder need identical
probabilities, so altered weights are refused rather than decoded to garbage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from codec.files import replacing

_POINTER = b"version https://git-lfs"
_PRINTABLE = set(range(32, 127)) | {9, 10, 13}


class ModelError(ValueError):
    """Weights that cannot be used; the message is one line: which file, what, how to fix it."""


def fingerprint(config: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 over config and tensors, as 64 hexadecimal digits."""
    sha = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_weights(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Write a weights file atomically, tensors in their own dtype; returns the fingerprint."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = fingerprint(config, plain)
    about = {"config": json.dumps(config, sort_keys=True), "fingerprint": digest}
    with replacing(path) as partial:
        partial.write_bytes(save(plain, about))  # save_file makes files that others cannot read
    return digest


def load_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Config, tensors and fingerprint of a weights file.

    Raises:
        ModelError: no such file, not a weights file of `save_weights`, or altered.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file; train one or restore the shipped weights")
    refuse_text(path)
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
    try:
        config: dict[str, Any] = json.loads(about["config"])
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: its config is not JSON; restore the file") from None
    digest = fingerprint(config, tensors)
    if digest != about["fingerprint"]:
        raise ModelError(
            f"{path}: fingerprint mismatch (stored {about['fingerprint'][:16]}, computed "
            f"{digest[:16]}); the file was altered: restore it or save it again with sim train"
        )
    refuse_not_finite(path, tensors)
    return config, tensors, digest


def refuse_text(path: Path) -> None:
    """Raise ModelError if a file is text, such as a Git LFS pointer, instead of weights."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_POINTER):
        raise ModelError(f"{path}: a Git LFS pointer, not the weights; run git lfs pull")
    if start and not set(start) - _PRINTABLE:
        first = start.split(b"\n")[0][:40].decode("ascii")
        raise ModelError(f"{path}: a text file, not weights; it begins with {first!r}")


def refuse_not_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError naming a tensor with NaN or infinite values, if there is one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(
                f"{path}: {name} holds values that are not finite; the training diverged or the "
                "file is damaged: use an earlier checkpoint"
            )
