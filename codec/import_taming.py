"""Import of published taming-transformers VQGAN checkpoints into a model folder.

A checkpoint is a pickle. It is read by torch's restricted reader, which builds tensors and plain
containers. Whatever else it names (Lightning keeps callbacks, options and optimizers beside the
weights) becomes an inert placeholder of that name: nothing is imported and nothing is executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from codec.checkpoint import ModelError, refuse_not_finite, refuse_text, save_weights
from codec.codebook import Ladder, PatchStatistics
from codec.taming import TamingConfig, TamingDecoder, TamingEncoder, read_config

NOT_NEEDED = ("loss.", "quantize.used", "quantize.re_embed")
"""Tensors of training, and of an option that the published models do not use."""

_PICKLES = 4  # magic number, protocol, system, content
_TORCH_READS = ("torch.", "collections.", "builtins.", "__builtin__.")


@dataclass(frozen=True)
class TamingCheckpoint:
    """A checkpoint's networks and codewords float[K,D], the names of what was not read, and the
    file's name, SHA-256 and training steps."""

    config: TamingConfig
    encoder: TamingEncoder
    decoder: TamingDecoder
    codewords: Tensor
    ignored: tuple[str, ...]
    source: dict[str, Any]


class _Placeholder:
    """A placeholder for objects of unknown classes: accepts anything, does nothing."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def __hash__(self) -> int:
        return 0


def read_checkpoint(path: Path) -> TamingCheckpoint:
    """Read a `.ckpt`, or a `.safetensors` with the same names.

    Raises:
        ModelError: it is missing, not such a checkpoint, or has other tensors than its networks.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    refuse_text(path)
    try:
        content = _read(path)
    except Exception as error:  # the readers raise whatever damaged bytes lead them to
        raise ModelError(
            f"{path}: not a checkpoint that can be read safely ({_reason(error)})"
        ) from None
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise ModelError(f"{path}: its state_dict is no table of tensors")
    beside = (
        sorted(str(key) for key in content if key != "state_dict") if state is not content else []
    )
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    aside = [name for name in tensors if name.startswith(NOT_NEEDED)]
    needed = {k: v.float() for k, v in tensors.items() if k not in set(aside)}
    refuse_not_finite(path, needed)
    try:
        config = read_config(needed)
        encoder, decoder = TamingEncoder(config), TamingDecoder(config)
        codewords = needed.pop("quantize.embedding.weight")
        _fill(needed, (encoder, decoder))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise ModelError(f"{path}: not the tensors of a VQGAN ({_reason(error)})") from None
    if codewords.ndim != 2:
        raise ModelError(f"{path}: quantize.embedding.weight is no table of codewords")
    size = len(codewords)
    if size < 8 or size & (size - 1) or size > 1 << 15:
        raise ModelError(f"{path}: {size} codewords; a power of two from 8 to 32768 is needed")
    ignored = (*beside, *sorted({name.partition(".")[0] + ".*" for name in aside}))
    about = {
        "file": path.name,
        "sha256": _sha256(path),
        "steps": _plain(content.get("global_step")),
    }
    return TamingCheckpoint(config, encoder, decoder, codewords.contiguous(), ignored, about)


def _reason(error: Exception) -> str:
    """Why a reader failed, in one line, without torch's advice on reading unsafely."""
    text = str(error)
    refused = re.search(r"(?:Unsupported (?:global|class|operand)[^\n]*|GLOBAL [\w.]+)", text)
    if refused is None and "weights_only" in text:
        return "damaged, or written by something else than torch.save"
    return (refused[0] if refused else text.strip().partition("\n")[0])[:160]


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    if zipfile.is_zipfile(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    else:
        names = _names_in_pickles(path)
    placeholders: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (type(name.rpartition(".")[2], (_Placeholder,), {}), name) for name in names
    ]
    with torch.serialization.safe_globals(placeholders):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError("it holds no table")
    return content


def _names_in_pickles(path: Path) -> list[str]:
    """What a file of the time before torch 1.6 names beyond torch's own: several pickles in a row
    and the raw tensors after them."""
    names: dict[str, None] = {}
    with (
        path.open("rb") as file,
        contextlib.suppress(ValueError),
    ):  # not a pickle: the reader will say so
        for _ in range(_PICKLES):
            for code, argument, _position in pickletools.genops(file):
                if code.name == "GLOBAL" and isinstance(argument, str):
                    names[argument.replace(" ", ".")] = None
    return [name for name in names if not name.startswith(_TORCH_READS)]


def _fill(tensors: dict[str, Tensor], networks: tuple[torch.nn.Module, ...]) -> None:
    """Load every tensor into its network; raises ModelError naming one that does not fit."""
    shapes = {name: value.shape for net in networks for name, value in net.state_dict().items()}
    missing, foreign = sorted(shapes.keys() - tensors), sorted(tensors.keys() - shapes)
    for names, what in ((missing, "lacks"), (foreign, "has the unknown")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(f"{what} {', '.join(names[:3])}{more}")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name]:
            raise ModelError(f"{name}: {tuple(tensor.shape)} instead of {tuple(shapes[name])}")
    for network in networks:
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})


def save_model(
    checkpoint: TamingCheckpoint, statistics: PatchStatistics | None, folder: Path, images: int
) -> Ladder:
    """Build the K-means ladder and write the tokenizer of a model folder.

    Args:
        checkpoint: what was read.
        statistics: the codewords' use and mean patches on images; None: all count alike, and only
            their vectors are clustered.
        folder: created if it does not exist.
        images: how many images there were; recorded in the file's config.
    """
    from codec.model_files import TOKENIZER_FILE

    usage = torch.ones(len(checkpoint.codewords)) if statistics is None else statistics.counts
    mean_patches = None if statistics is None else statistics.means()
    ladder = Ladder.build(checkpoint.codewords, usage, mean_patches, tries=1)
    tensors = {f"encoder.{k}": v for k, v in checkpoint.encoder.state_dict().items()}
    tensors |= {f"decoder.{k}": v for k, v in checkpoint.decoder.state_dict().items()}
    tensors |= {f"ladder.{k}": v for k, v in ladder.tensors().items()}
    about = {
        "network": checkpoint.config.to_dict(),
        "source": {**checkpoint.source, "usage_images": images},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / TOKENIZER_FILE, about, tensors)
    return ladder


def _plain(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
