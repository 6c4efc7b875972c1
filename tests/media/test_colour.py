"""Pictures are sRGB, whatever they come in."""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sim.errors import UserError
from sim.media.images import load_image, load_images

SRGB = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
ADOBE = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7448]])
"""Primaries in columns, XYZ beneath D50, as profiles have them."""


def profile(matrix: np.ndarray, gamma: float, name: bytes = b"test") -> bytes:
    """A display profile of the plainest kind (ICC.1:2001-04): three primaries and a gamma."""

    def fixed(values: np.ndarray) -> bytes:
        return struct.pack(">3i", *(round(float(v) * 65536) for v in values))

    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(79)}
    tags |= {key: b"XYZ \0\0\0\0" + fixed(matrix[:, i]) for i, key in enumerate(COLOURS)}
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + fixed(np.array([0.9642, 1.0, 0.8249]))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"cprt"] = b"text\0\0\0\0free\0"
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        table += key + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + fixed(np.array([0.9642, 1.0, 0.8249]))
    return head.ljust(128, b"\0") + table + body


COLOURS = (b"rXYZ", b"gXYZ", b"bXYZ")


def expected(pixels: np.ndarray, matrix: np.ndarray, gamma: float) -> np.ndarray:
    """The colours in sRGB (IEC 61966-2-1), by hand."""
    linear = (pixels / 255.0) ** gamma @ (np.linalg.inv(SRGB) @ matrix).T
    linear = linear.clip(0, 1)
    curved = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curved


@pytest.fixture
def pixels() -> np.ndarray:
    """Colours that all of these spaces have: uint8[24,32,3]."""
    return np.random.default_rng(3).integers(70, 180, (24, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("matrix", "gamma", "shift"), [(P3, 2.2, 3), (ADOBE, 2.19921875, 5), (SRGB, 1.0, 40)]
)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_profiles_are_honoured(
    tmp_path: Path, pixels: np.ndarray, matrix: np.ndarray, gamma: float, shift: int, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, lossless=True, icc_profile=profile(matrix, gamma))
    found = load_image(path).pixels.astype(float)
    assert np.abs(found - pixels).mean() > shift
    assert np.abs(found - expected(pixels, matrix, gamma)).max() < 2.5


def test_a_profile_of_srgb_changes_nothing(tmp_path: Path, pixels: np.ndarray) -> None:
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, one in enumerate((built_in, profile(SRGB, 1.0, b"sRGB IEC61966-2.1"))):
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path, icc_profile=one)
        assert np.array_equal(load_image(path).pixels, pixels)


@pytest.mark.parametrize("broken", [b"no profile", profile(P3, 2.2)[:300], b"\0" * 4000])
def test_a_broken_profile_counts_as_none(tmp_path: Path, pixels: np.ndarray, broken: bytes) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, icc_profile=broken)
    assert np.array_equal(load_image(path).pixels, pixels)


def test_colours_under_transparency_are_converted_too(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.png"
    seen = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    seen[:4, :, 3] = 0
    Image.fromarray(seen).save(path, icc_profile=profile(P3, 2.2))
    found = load_image(path).pixels
    assert (found[:4] == 255).all()
    assert np.abs(found[4:] - expected(pixels[4:], P3, 2.2)).max() < 2.5


def test_lab(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("LAB", (20, 20), (53 * 255 // 100, 128, 128)).save(path)
    assert np.abs(load_image(path).pixels.astype(int) - 126).max() < 4


def test_folders_take_what_single_files_take(
    tmp_path: Path, pixels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.avif", "b.JP2", "c.tiff", "d.heic"):
        if name == "d.heic":
            pytest.importorskip("pillow_heif").register_heif_opener()
        Image.fromarray(pixels).save(tmp_path / name)
    for name in (".hidden.png", "._a.png", "notes.txt", "paper.pdf"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    with caplog.at_level(logging.WARNING):
        loaded = load_images([str(tmp_path)], Path())
    assert [image.path.name for image in loaded] == ["a.avif", "b.JP2", "c.tiff", "d.heic"]
    said = [record.getMessage() for record in caplog.records]
    assert [Path(line).name for line in said] == ["notes.txt", "paper.pdf"]


def test_names_of_images_can_name_files(tmp_path: Path) -> None:
    folder = tmp_path / "day [1]"
    folder.mkdir()
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, "png")
    names = ["a\nb.png", "日本語🎉.png", "x" * 251 + ".png", "$5_{.png", "[red]hot.png"]
    for name in names:
        (folder / name).write_bytes(data.getvalue())
    loaded = load_images(["*"], folder)
    assert len(loaded) == len(names)
    assert all(image.name.isprintable() and len(image.name.encode()) < 200 for image in loaded)
    assert {"a_b", "日本語🎉", "$5_{", "[red]hot"} < {image.name for image in loaded}


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = Path(str(tmp_path / "caf") + "\udce9.png")
    Image.new("RGB", (16, 16)).save(path)
    (image,) = load_images([str(tmp_path)], Path())
    assert (image.name, image.path) == ("caf_", path)


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x.png", "y" * 300, "a/" * 3000])
def test_paths_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises((UserError, OSError)):
        load_images([name], tmp_path)
