"""Model folders: what is in them, and how one is made of a published checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from codec.checkpoint import ModelError, load_weights
from codec.model import PRETRAINED, Model
from codec.model_files import CONTEXT_FILE, INPAINTER_FILE, TOKENIZER_FILE
from sim.errors import UserError, os_errors
from sim.progress import ProgressCallback, no_progress

_PIXELS = 16 * 16
"""That a token stands for."""


def describe_model(folder: Path | None = None) -> dict[str, Any]:
    """Everything that is known of a model folder, or of the shipped one.

    Returns:
        "folder", "fingerprint", "kind" ("ours", "taming"), "levels" (of each "codebook",
        "bits_fixed" and "bits_static" per token, "bpp_fixed", "used": the share of codewords with
        more than 5% of their fair share), "files" (of each "name", "bytes", "parameters",
        "fingerprint", "network", "about"), "parts" (those there), "to_train" (those that lack).

    Raises:
        UserError: there is no model that can be read.
    """
    folder = folder or PRETRAINED
    try:
        model = Model.load(folder)
        names = (TOKENIZER_FILE, INPAINTER_FILE, CONTEXT_FILE)
        files = [_describe_file(folder / name) for name in names if (folder / name).exists()]
    except ModelError as error:
        raise UserError(str(error)) from None
    optional = {"inpainter": model.inpainter, "context": model.context}
    return {
        "folder": str(folder),
        "fingerprint": model.fingerprint,
        "kind": str(files[0]["network"].get("kind", "ours")),
        "levels": [_describe_level(model, size) for size in model.codebook_sizes],
        "files": files,
        "parts": ["tokenizer", *(name for name, part in optional.items() if part is not None)],
        "to_train": [name for name, part in optional.items() if part is None],
    }


def list_models(folder: Path) -> list[dict[str, Any]]:
    """The shipped model and those in the folders of a folder, as `describe_model` gives them; of
    one that cannot be read, "folder" and "error"."""
    places = [PRETRAINED]
    if folder.is_dir():
        places += sorted(path.parent for path in folder.glob(f"*/{TOKENIZER_FILE}"))
    found = []
    for place in places:
        try:
            found.append(describe_model(place))
        except UserError as error:
            found.append({"folder": str(place), "error": str(error)})
    return found


def import_model(
    checkpoint: Path,
    out: Path,
    images: str | None,
    force: bool,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Turn a VQGAN checkpoint of taming-transformers into a model folder.

    Args:
        checkpoint: the .ckpt file.
        out: the folder to write.
        images: image, folder or glob whose token usage weighs the K-means ladder; None: all
            codewords count alike.
        force: whether a model that is there is replaced.
        progress: called for each image.

    Returns:
        "folder", "file", "codewords", "dimensions", "levels", "ignored" (what of the checkpoint
        was left aside), "images" (how many weighed the ladder), "to_train" (commands).

    Raises:
        UserError: the folder holds a model or cannot be written, or the checkpoint cannot be read.
    """
    if (out / TOKENIZER_FILE).exists() and not force:
        raise UserError(f"{out}: holds a model already; choose another folder, or --force")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; a model needs a folder")
    from codec.import_taming import read_checkpoint, save_model

    try:
        found = read_checkpoint(checkpoint)
    except ModelError as error:
        raise UserError(str(error)) from None
    usage, count = _usage(found, images, progress) if images else (None, 0)
    with os_errors(out, "cannot write here"):
        ladder = save_model(found, usage, out, count)
    codewords, dimensions = found.codewords.shape
    return {
        "folder": str(out),
        "file": str(out / TOKENIZER_FILE),
        "codewords": codewords,
        "dimensions": dimensions,
        "levels": ladder.codebook_sizes,
        "ignored": found.ignored,
        "images": count,
        "to_train": [
            f"sim train {name} --model {out} --images PHOTOS --out {out}"
            for name, file in (("inpainter", INPAINTER_FILE), ("context", CONTEXT_FILE))
            if not (out / file).exists()
        ],
    }


def _usage(checkpoint: Any, images: str, progress: ProgressCallback) -> tuple[Any, int]:
    """How often each codeword is used on some images, and how many images there are."""
    import torch

    from codec.codebook import PatchStatistics, nearest
    from sim.media.images import load_images

    loaded = load_images([images], Path.cwd())
    usage = PatchStatistics(len(checkpoint.codewords))
    encoder = checkpoint.encoder.eval()
    with torch.inference_mode():
        for number, image in enumerate(loaded):
            progress(number, len(loaded), image.name)
            height, width = (side // 16 * 16 for side in image.pixels.shape[:2])
            pixels = torch.from_numpy(image.pixels[:height, :width].copy()).permute(2, 0, 1)
            scaled = pixels[None].float() / 127.5 - 1
            latents = encoder(scaled)[0].flatten(1).t().contiguous()
            usage.add(nearest(latents, checkpoint.codewords), scaled)
    return usage, len(loaded)


def _describe_file(path: Path) -> dict[str, Any]:
    config, tensors, fingerprint = load_weights(path)
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "fingerprint": fingerprint,
        "network": config.get("network", {}),
        "about": {key: value for key, value in config.items() if key in ("source", "training")},
    }


def _describe_level(model: Model, size: int) -> dict[str, Any]:
    share = model.frequencies(size) / 2**16
    bits = size.bit_length() - 1
    return {
        "codebook": size,
        "bits_fixed": bits,
        "bits_static": float(-(share * np.log2(share)).sum()),
        "bpp_fixed": bits / _PIXELS,
        "used": float(np.mean(share * size > 0.05)),
    }
