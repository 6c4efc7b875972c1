"""Still-image codecs from Pillow and pillow-heif, each as small as its format allows."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from sim.baselines.coded import BaselineError, Coded

_FEATURES = {"JPEG": "jpg", "WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes and reads.

    Attributes:
        name: in tables.
        format: Pillow's name of the format.
        by_setting: for each quality setting, the options of `Image.save` that vary.
        options: those that do not.
        payload: bytes of coded picture in a file.
    """

    name: str
    format: str
    by_setting: tuple[Mapping[str, Any], ...]
    payload: Callable[[bytes], int]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> int:
        """How many quality settings there are."""
        return len(self.by_setting)

    @property
    def identity(self) -> str:
        """What makes the bytes: see `Baseline.identity`."""
        library = _FEATURES[self.format]
        return (
            f"pillow {PIL.__version__} {features.version(library)} {self.options} {self.by_setting}"
        )

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """See `Baseline.encode`."""
        buffer = io.BytesIO()
        try:
            Image.fromarray(pixels).save(
                buffer, self.format, **{**self.options, **self.by_setting[setting]}
            )
        except (OSError, ValueError) as error:
            raise BaselineError(f"{self.name}: {error}") from None
        return Coded(buffer.getvalue(), self.payload(buffer.getvalue()))

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        try:
            with Image.open(io.BytesIO(file), formats=[self.format]) as image:
                pixels = np.array(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise BaselineError(f"{self.name}: {error}") from None
        return _of_size(self.name, pixels, height, width)


@dataclass(frozen=True)
class HeifCodec:
    """HEIC: an HEVC intra picture in the HEIF container, by libheif and x265."""

    library: Any
    name: str = "heic"
    settings: int = 101

    @property
    def identity(self) -> str:
        """What makes the bytes: see `Baseline.identity`."""
        return f"pillow-heif {self.library.__version__} {self.library.libheif_info()}"

    def encode(self, pixels: NDArray[np.uint8], setting: int) -> Coded:
        """See `Baseline.encode`."""
        height, width = pixels.shape[:2]
        buffer = io.BytesIO()
        try:
            heif = self.library.from_bytes("RGB", (width, height), pixels.tobytes())
            heif.save(buffer, quality=setting)
        except (OSError, ValueError, RuntimeError) as error:
            raise BaselineError(f"heic: {error}") from None
        return Coded(buffer.getvalue(), box_payload(buffer.getvalue()))

    def decode(self, file: bytes, height: int, width: int) -> NDArray[np.uint8]:
        """See `Baseline.decode`."""
        try:
            image = self.library.open_heif(io.BytesIO(file), convert_hdr_to_8bit=True)
            pixels = np.array(image.to_pillow().convert("RGB"))
        except (OSError, ValueError, RuntimeError) as error:
            raise BaselineError(f"heic: {error}") from None
        return _of_size("heic", pixels, height, width)


def pillow_codecs() -> tuple[list[PillowCodec], dict[str, str]]:
    """Those that this Pillow can write, and why the others are missing."""
    quality = tuple({"quality": q} for q in range(101))
    # 160 rates between 1/4000 and 1/8 of 24 bits a pixel, 4% apart
    rates = tuple({"quality_layers": [4000 * 500 ** (-i / 159)]} for i in range(160))
    jpeg, options = (quality[1:96], jpeg_payload), {"optimize": True}
    lossy = {"quality_mode": "rates", "no_jp2": True, "irreversible": True}
    tuned = {"speed": 4, "advanced": {"tune": "ssim"}}
    wanted = [
        PillowCodec("jpeg", "JPEG", *jpeg, options),
        PillowCodec("jpeg-restart", "JPEG", *jpeg, {**options, "restart_marker_rows": 1}),
        PillowCodec("jpeg-progressive", "JPEG", *jpeg, {**options, "progressive": True}),
        PillowCodec("webp", "WEBP", quality, webp_payload, {"method": 6}),
        PillowCodec("jpeg2000", "JPEG2000", rates, jpeg2000_payload, lossy),
        PillowCodec("avif", "AVIF", quality, box_payload, tuned),
    ]
    found = [codec for codec in wanted if features.check(_FEATURES[codec.format])]
    missing = {c.name: "this Pillow was built without it" for c in wanted if c not in found}
    return found, missing


def heif_codec() -> HeifCodec | str:
    """HEIC, or why it is missing."""
    try:
        import pillow_heif
    except ImportError:
        return "needs pillow-heif (pip install 'lossy-stream-sim[bench]')"
    if not pillow_heif.libheif_info().get("HEIF"):
        return "this pillow-heif has no encoder"
    return HeifCodec(pillow_heif)


def jpeg_payload(file: bytes) -> int:
    """Bytes of entropy-coded data in a JPEG of one scan (ISO 10918-1): after the SOS header, up
    to EOI. Of a progressive one: everything after the first SOS header, later tables included."""
    offset = 2
    while offset + 4 <= len(file):
        marker = file[offset + 1]
        offset += 2 + int.from_bytes(file[offset + 2 : offset + 4], "big")
        if marker == 0xDA:
            return len(file) - offset - 2
    return 0


def jpeg2000_payload(file: bytes) -> int:
    """Bytes between the first SOD marker and EOC of a bare codestream (ISO 15444-1)."""
    start = file.find(b"\xff\x93")
    return max(0, len(file) - start - 4) if start >= 0 else 0


def webp_payload(file: bytes) -> int:
    """Bytes in the VP8 chunks of a RIFF file."""
    return sum(size for kind, size in _chunks(file[12:], 4, "little") if kind.startswith(b"VP8"))


def box_payload(file: bytes) -> int:
    """Bytes in the `mdat` boxes of an ISO base media file (ISO 14496-12)."""
    total = offset = 0
    while offset + 8 <= len(file):
        size = int.from_bytes(file[offset : offset + 4], "big") or len(file) - offset
        if size < 8:
            break
        total += size - 8 if file[offset + 4 : offset + 8] == b"mdat" else 0
        offset += size
    return total


def _chunks(data: bytes, name_bytes: int, order: Any) -> list[tuple[bytes, int]]:
    found, offset = [], 0
    while offset + name_bytes + 4 <= len(data):
        size = int.from_bytes(data[offset + name_bytes : offset + name_bytes + 4], order)
        found.append((data[offset : offset + name_bytes], size))
        offset += name_bytes + 4 + size + size % 2
    return found


def _of_size(name: str, pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.shape != (height, width, 3):
        raise BaselineError(f"{name}: decoded to {pixels.shape}, not {(height, width, 3)}")
    return pixels
