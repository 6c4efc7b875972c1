"""Photographs from disk: named, checked from their headers before any pixel is decoded."""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from codec.files import rooted
from sim.errors import UserError

MIN_SIDE = 16
MAX_SIDE = 8192
MAX_PIXELS = 64_000_000
_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
"""What Pillow knows by name only, or draws by running another program."""
_LONGEST_NAME = 180  # bytes; files are called after images
SAMPLES = "samples"
"""The word that stands for the photographs that ship."""

_LOG = logging.getLogger(__name__)


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
    for skipped in _skipped(sources, base):
        _LOG.warning("skipped, no image: %s", ascii(str(skipped))[1:-1])
    names = unique_names(paths)
    return [load_image(path, name) for path, name in zip(paths, names, strict=True)]


def image_paths(sources: Sequence[str], base: Path) -> list[Path]:
    """The files that `sources` name, in order; see `load_images`."""
    return [path for source in sources for path in _resolve(source, base)]


def load_image(path: Path, name: str | None = None, content: bytes | None = None) -> LoadedImage:
    """Load one photograph. Transparency is laid over white; EXIF orientation is applied, and
    so is an embedded colour profile.

    Args:
        path: of its file.
        name: for people; None: that of the file.
        content: of the file, where it came over a network and is not here.

    Raises:
        UserError: missing, a folder, not an image, corrupt, of an unusable pixel format, a side
            under 16 or over 8,192 pixels, or over 64 million pixels.
    """
    with _opened(path, content) as image:
        pixels = _rgb(path, image)
    return LoadedImage(name or path.stem, path, pixels)


def images_of(arrays: Sequence[NDArray[np.uint8]]) -> list[LoadedImage]:
    """Photographs that are in memory, uint8[H,W,3] or uint8[H,W] each; they are called image-1 and
    so on.

    Raises:
        UserError: something else, or of a size that cannot be used.
    """
    found = []
    for count, array in enumerate(map(np.asarray, arrays), 1):
        path = Path(f"image-{count}")
        grey = array.ndim == 2
        if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
            shape = ", ".join(map(str, array.shape))
            raise UserError(f"{path}: is {array.dtype}[{shape}]; needed is uint8[H,W,3] or [H,W]")
        _check_size(path, array.shape[1], array.shape[0])
        pixels = np.stack([array] * 3, axis=2) if grey else array.copy()
        found.append(LoadedImage(path.name, path, pixels))
    if not found:
        raise UserError("images: none are given")
    return found


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of a photograph, by its header. Raises UserError as `load_image`."""
    with _opened(path) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """An image whose size is checked; what its decoder raises in the block is a user's mistake."""
    try:
        if content is None and path.is_dir():
            raise UserError(f"{path}: is a folder, not an image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = path if content is None else io.BytesIO(content)
            with Image.open(file, formats=formats()) as image:
                _check_size(path, *image.size)
                yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image in a format that can be read{_hint(path)}") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: too large: each side must be at most {MAX_SIDE:,} pixels, and all of it "
            f"at most {MAX_PIXELS:,}"
        ) from None
    except PermissionError:
        raise UserError(f"{path}: not allowed to read it") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: corrupt image ({reason})") from None


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read; HEIC is among them if pillow-heif is there."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NO_PICTURES))


def _hint(path: Path) -> str:
    heic = path.suffix.lower() in (".heic", ".heif", ".hif") and "HEIF" not in formats()
    return '; pip install "lossy-stream-sim[bench]" reads HEIC' if heic else ""


def _resolve(source: str, base: Path) -> list[Path]:
    if source == SAMPLES:
        return _images_in(samples_folder())
    path = rooted(base, source)
    sample = source.removeprefix(f"{SAMPLES}/")
    if sample != source and not path.parent.exists():
        return [named_sample(sample, _images_in(samples_folder()))]
    if path.is_dir():
        found = _images_in(path)
        if not found:
            raise UserError(f"{path}: no images in this folder")
        return found
    if path.exists() or not glob.has_magic(source):
        return [path]
    matches = glob.glob(os.path.expanduser(source), root_dir=base, recursive=True)
    found = sorted(found for found in (base / match for match in matches) if _is_image(found))
    if not found:
        raise UserError(f"{path}: no image matches this pattern")
    return found


def named_sample(name: str, samples: Iterable[Path]) -> Path:
    """One of the files that ship, by its name; raises UserError if there is none."""
    found = {path.stem: path for path in samples}
    if name not in found:
        raise UserError(f"{SAMPLES}/{name}: no such sample; there are {', '.join(found)}")
    return found[name]


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_image(path))


def _skipped(sources: Sequence[str], base: Path) -> list[Path]:
    """Files in the folders that are named, other than hidden ones, that are no images."""
    folders = [rooted(base, source) for source in sources if source != SAMPLES]
    inside = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [p for p in inside if not p.name.startswith(".") and p.is_file() and not _is_image(p)]


def _is_image(path: Path) -> bool:
    """Whether a file is one by its name; those that systems hide are not."""
    known = formats()  # first: it makes HEIC known
    wanted = Image.registered_extensions().get(path.suffix.lower())
    return wanted in known and not path.name.startswith(".") and path.is_file()


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Stems that can name files and be printed, with -2, -3, ... where one comes again."""
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = safe_stem(path)
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name)
        names.append(name)
    return names


def safe_stem(path: Path) -> str:
    """A file's stem, such that it can name other files and be printed."""
    stem = "".join(c if c.isprintable() else "_" for c in path.stem)
    return stem.encode()[:_LONGEST_NAME].decode(errors="ignore")


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
    profile = image.info.get("icc_profile")
    if upright.has_transparency_data:
        over = upright.convert("RGBA")
        colours = _in_srgb(over.convert("RGB"), profile).convert("RGBA")
        colours.putalpha(over.getchannel("A"))
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), colours)
    else:
        upright = _in_srgb(upright.convert("RGB") if upright.mode == "P" else upright, profile)
    return np.array(upright.convert("RGB"))


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The same colours in sRGB, by the profile that came with the image. A profile that says sRGB
    changes nothing; one that is broken or not of this kind of pixels counts as none."""
    if not profile and image.mode != "LAB":
        return image
    try:
        source = ImageCms.ImageCmsProfile(
            io.BytesIO(profile) if profile else ImageCms.createProfile("LAB")
        )
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert converted is not None  # it is where nothing is converted in place
    return converted
