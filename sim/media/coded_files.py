"""Folders of images <-> folders of token files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.files import replacing
from sim.errors import UserError, os_errors
from sim.media.container import MAX_FILE_BYTES
from sim.media.images import load_images
from sim.media.token_file import EXTENSION, ImageCodec
from sim.progress import ProgressCallback, no_progress

T = TypeVar("T")
Row = dict[str, Any]


def encode_files(
    codec: ImageCodec,
    source: Path,
    out: Path,
    *,
    codebook_size: int,
    entropy: str,
    slices: int,
    patch: int,
    search: int,
    progress: ProgressCallback = no_progress,
    written: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Write each image as a token file.

    Args:
        codec: with the model.
        source: an image, or a folder of images.
        out: the file to write, or a folder.
        codebook_size, entropy, slices, patch, search: as `ImageCodec.encode` takes them.
        progress: called as the search goes on.
        written: called with each row as soon as its file is there.

    Returns:
        {"image", "file", "file_bytes", "payload_bytes", "bpp"} of each.

    Raises:
        UserError: an image cannot be read, the model cannot do that, or a file cannot be written.
    """
    images = load_images([str(source.absolute())], Path())
    codec.check(codebook_size, entropy, patch, search)
    targets = _targets(source, out, [image.name for image in images], EXTENSION)
    rows = []
    for number, (image, target) in enumerate(zip(images, targets, strict=True)):

        def searched(share: float, number: int = number, name: str = image.name) -> None:
            progress(100 * number + int(100 * share), 100 * len(images), name)

        searched(0.0)
        settings = codebook_size, entropy, slices, patch, search
        done = codec.encode(image.pixels, *settings, progress=searched)
        _write(target, done.file)
        rows.append(
            {
                "image": str(image.path),
                "file": str(target),
                "file_bytes": len(done.file),
                "payload_bytes": done.payload_bytes,
                "bpp": 8 * len(done.file) / (image.width * image.height),
            }
        )
        written(rows[-1])
    return rows


def decode_files(
    codec: ImageCodec,
    source: Path,
    out: Path,
    concealer: str,
    written: Callable[[Row], object] = lambda row: None,
    enhance: bool = False,
) -> list[Row]:
    """Write the image of each token file; nothing is written if one of them cannot be read.

    Args:
        codec: with the model.
        source: a token file, or a folder of them.
        out: the image to write, in the format of its ending, or a folder, for PNG.
        concealer: fills in the tokens of damaged packets.
        written: called with each row as soon as its image is there.
        enhance: whether Real-ESRGAN enlarges what is decoded.

    Returns:
        {"file", "image", "packets", "packets_lost", "concealer", "enhanced"} of each.

    Raises:
        UserError: a file cannot be decoded, or an image cannot be written.
    """
    files = _token_files(source)
    targets = _targets(source, out, [path.stem for path in files], ".png")
    for path, target in zip(files, targets, strict=True):
        _format(target)
        _about(path, codec.read, _read(path))
    rows = []
    for path, target in zip(files, targets, strict=True):
        done = _about(path, lambda data: codec.decode(data, concealer, enhance), _read(path))
        _save(target, done.image)
        rows.append(
            {
                "file": str(path),
                "image": str(target),
                "packets": done.packets,
                "packets_lost": done.lost,
                "concealer": done.concealer,
                "enhanced": enhance,
            }
        )
        written(rows[-1])
    return rows


def _token_files(source: Path) -> list[Path]:
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"{source}: no such file")
        return [source]
    files = sorted(path for path in source.iterdir() if path.suffix == EXTENSION and path.is_file())
    if not files:
        raise UserError(f"{source}: no {EXTENSION} files in this folder")
    return files


def _targets(source: Path, out: Path, names: Iterable[str], extension: str) -> list[Path]:
    """Where each result goes."""
    folder = source.is_dir() or out.is_dir()
    if source.is_dir() and out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; a folder of images needs a folder")
    targets = [out / f"{name}{extension}" for name in names] if folder else [out]
    for target in targets:
        if target.is_dir():
            raise UserError(f"{target}: is a folder")
        if target.exists() and source.exists() and target.samefile(source):
            raise UserError(f"{target}: would overwrite the input")
    return targets


def _about(path: Path, read: Callable[[bytes], T], data: bytes) -> T:
    """What `read` makes of a file's bytes; its errors name the file."""
    try:
        return read(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    with os_errors(path, "cannot be read"), path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _write(path: Path, data: bytes) -> None:
    """All of the file or nothing of it."""
    with os_errors(path, "cannot write here"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(data)


def _format(path: Path) -> str:
    """Pillow's name of the format that a file's ending asks for."""
    wanted = Image.registered_extensions().get(path.suffix.lower())
    if wanted not in Image.SAVE:
        raise UserError(f"{path}: no image format that can be written; .png is one")
    return wanted


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, _format(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written in this format ({error})") from None
    _write(path, buffer.getvalue())
