"""Photographs from disk: named, checked from their headers before any pixel is decoded."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sim.errors import UserError

MIN_SIDE = 16
MAX_SIDE = 8192
MAX_PIXELS = 64_000_000
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"})
SAMPLES = "samples"
"""The word that stands for the photographs that ship."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One photograph.

    Attributes:
        name: unique among those loaded together; safe as a file name.
        path: where it came from.
        pixels: uint8[H,W,3], sRGB, H and W at least 16, in viewing orientation.
    """

    name: str
    path: Path
    pixels: NDArray[np.uint8]

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])


def samples_folder() -> Path:
    """The folder of the photographs that ship: in an installed package, or in the source tree."""
    package = Path(__file__).parents[1]
    installed = package / "samples"
    return installed if installed.is_dir() else package.parent / "scenarios" / "images"


def load_images(sources: Sequence[str], base: Path) -> list[LoadedImage]:
    """Load every photograph that `sources` name, in order.

    Args:
        sources: each the word "samples", "samples/NAME" for one of them, a file, a folder (its
            image files, by name, not recursive) or a glob; relative paths start at `base`.
        base: the folder of the scenario file.

    Raises:
        UserError: nothing there, or an image that cannot be used; see `load_image`.
    """
    paths = image_paths(sources, base)
    names = _unique_names(paths)
    return [load_image(path, name) for path, name in zip(paths, names, strict=True)]


def image_paths(sources: Sequence[str], base: Path) -> list[Path]:
    """The files that `sources` name, in order; see `load_images`."""
    return [path for source in sources for path in _resolve(source, base)]


def load_image(path: Path, name: str | None = None) -> LoadedImage:
    """Load one photograph. Transparency is laid over white; EXIF orientation is applied.

    Raises:
        UserError: missing, a folder, not an image, corrupt, of an unusable pixel format, a side
            under 16 or over 8,192 pixels, or over 64 million pixels.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not an image")
    if not path.exists():
        raise UserError(f"{path}: no such image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check_size(path, *image.size)
                pixels = _rgb(path, image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image in a format that can be read") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: too large: each side must be at most {MAX_SIDE:,} pixels, and all of it "
            f"at most {MAX_PIXELS:,}"
        ) from None
    except PermissionError:
        raise UserError(f"{path}: not allowed to read it") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UserError(f"{path}: corrupt image ({error})") from None
    return LoadedImage(name or path.stem, path, pixels)


def _resolve(source: str, base: Path) -> list[Path]:
    if source == SAMPLES:
        return _images_in(samples_folder())
    path = base / Path(source).expanduser()
    sample = source.removeprefix(f"{SAMPLES}/")
    if sample != source and not path.parent.exists():
        return [_sample(sample)]
    if path.is_dir():
        found = _images_in(path)
        if not found:
            raise UserError(f"{path}: no images in this folder")
        return found
    if path.exists() or not glob.has_magic(source):
        return [path]
    found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if _is_image(p))
    if not found:
        raise UserError(f"{path}: no image matches this pattern")
    return found


def _sample(name: str) -> Path:
    """One of the photographs that ship, by its name."""
    found = {path.stem: path for path in _images_in(samples_folder())}
    if name not in found:
        raise UserError(f"{SAMPLES}/{name}: no such sample; there are {', '.join(found)}")
    return found[name]


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Stems, with -2, -3, ... where a stem comes again."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, count = path.stem, 1
        while name in taken:
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(name)
        names.append(name)
    return names


def _check_size(path: Path, width: int, height: int) -> None:
    size = f"{path}: {width} x {height} pixels is too"
    if min(width, height) < MIN_SIDE:
        raise UserError(f"{size} small: each side must be at least {MIN_SIDE}")
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{size} large: each side must be at most {MAX_SIDE:,}")
    if width * height > MAX_PIXELS:
        raise UserError(f"{size} large: at most {MAX_PIXELS:,} pixels in all")


def _rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    """Decoded pixels, uint8[H,W,3]."""
    if image.mode[0] in "IF":  # 16 or 32 bits a sample: converting would clip without a word
        raise UserError(f"{path}: pixel format {image.mode} is not supported; save it with 8 bits")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.array(upright.convert("RGB"))
