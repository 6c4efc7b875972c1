"""A pack: photographs in one file, quick to open and to copy.

    8 bytes     magic and version
    8 bytes     where the index begins, from the start of the file, little endian
    ...         the photos' bytes, one after the other
    the rest    the index, JSON: {"photos": [[name, width, height, start, length], ...]}

JPEG and WebP files are copied and others become lossless WebP, so a pack has the same pixels as its
folder, except that photos whose short side is longer than a limit are shrunk to it and become WebP
of quality 95. Names are paths relative to the folder, so the same photos are held out.
"""

from __future__ import annotations

import io
import json
import mmap
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageOps

from codec.files import replacing

MAGIC = b"PHOTOS\x00\x01"
_HEAD = len(MAGIC) + 8
_ORIENTATION = 0x0112  # of EXIF
_LARGEST = 16_383  # pixels a side of a WebP picture


class PhotoSource(Protocol):
    """Where photos are read from, by name."""

    path: Path

    def names(self) -> list[str]:
        """The names of all photos, sorted."""
        ...

    def size(self, name: str) -> tuple[int, int]:
        """Width and height in pixels after the EXIF rotation; raises ValueError if it cannot be
        used."""
        ...

    def read(self, name: str) -> bytes:
        """The content of the image file."""
        ...


class PhotoPack:
    """The photos of a pack; a `PhotoSource`.

    Raises:
        ValueError: the file is not a pack, or is truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
                start = int.from_bytes(head[len(MAGIC) :], "little")
                if head[: len(MAGIC)] != MAGIC or start < _HEAD:
                    raise ValueError("no pack of photos")
                file.seek(start)
                rows = json.loads(file.read())["photos"]
            self._rows = {str(name): (int(w), int(h), int(a), int(n)) for name, w, h, a, n in rows}
            if any(a < _HEAD or n < 0 or a + n > start for _, _, a, n in self._rows.values()):
                raise ValueError("its index is damaged")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a pack of sim train pack ({error})") from None

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self) -> dict[str, Any]:
        """Without the memory map, which every process makes for itself."""
        return {k: v for k, v in self.__dict__.items() if k != "_bytes"}

    def names(self) -> list[str]:
        return list(self._rows)

    def size(self, name: str) -> tuple[int, int]:
        width, height, _, _ = self._rows[name]
        return width, height

    def read(self, name: str) -> bytes:
        _, _, start, length = self._rows[name]
        return self._bytes[start : start + length]


def write_pack(
    source: PhotoSource,
    path: Path,
    short_side: int = 1024,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Write all photos of a source into a pack.

    Args:
        source: the photos.
        path: the file, which is replaced only when the pack is complete.
        short_side: pixels; photos with a longer short side are shrunk to it.
        progress: called with (photos done, photos in all).

    Returns:
        How many photos there are.

    Raises:
        ValueError: there is none, or one cannot be read.
        OSError: the file cannot be written.
    """
    names = source.names()
    if not names:
        raise ValueError(f"{source.path}: no photos in it")
    rows = []
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(MAGIC + bytes(8))
        for number, name in enumerate(names):
            progress(number, len(names))
            source.size(name)  # raises if it cannot be used
            try:
                content, size = _packed(source.read(name), short_side)
            except OSError as error:
                raise ValueError(f"{source.path / name}: cannot be read ({error})") from None
            rows.append([name, *size, file.tell(), len(content)])
            file.write(content)
        start = file.tell()
        file.write(json.dumps({"photos": rows}).encode())
        file.seek(len(MAGIC))
        file.write(start.to_bytes(8, "little"))
    return len(names)


def _packed(content: bytes, short_side: int) -> tuple[bytes, tuple[int, int]]:
    """The content that a pack stores for an image file, and the image's width and height."""
    with Image.open(io.BytesIO(content)) as image:
        kind, turned = image.format, Image.Image.getexif(image).get(_ORIENTATION, 1) != 1
        small = min(image.size) <= short_side and max(image.size) <= _LARGEST
        whole = ImageOps.exif_transpose(image).convert("RGB")
    if kind in ("JPEG", "WEBP") and small and not turned:
        return content, whole.size
    if not small:
        scale = min(short_side / min(whole.size), _LARGEST / max(whole.size))
        width, height = (max(1, round(side * scale)) for side in whole.size)
        whole = whole.resize((width, height), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    whole.save(packed, "WEBP", lossless=small, quality=75 if small else 95)
    return packed.getvalue(), whole.size
