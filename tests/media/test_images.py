"""Photographs as loaded: sources, names, orientation, transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sim.errors import UserError
from sim.media.images import load_image, load_images, samples_folder


def test_samples_are_those_whose_licence_is_stated() -> None:
    images = load_images(["samples"], Path("/"))
    licences = (samples_folder() / "LICENSES.md").read_text()
    assert [image.name for image in images] == ["astronaut", "chelsea", "coffee", "rocket"]
    for image in images:
        row = next(line for line in licences.splitlines() if f"`{image.path.name}`" in line)
        assert f"{image.width} x {image.height}" in row
        assert "public domain" in row or "CC0" in row


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "deep/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 30)).save(path)
    (tmp_path / "notes.txt").write_text("not an image")

    def names(*sources: str) -> list[str]:
        return [image.name for image in load_images(sources, tmp_path)]

    assert names(".") == ["a", "b"]
    assert names("*.png", "a.jpg") == ["b", "a"]
    assert names("**/*.png") == ["b", "c"]
    assert names(str(tmp_path / "deep")) == ["c"]
    assert names("b.png", "b.png", "b.png") == ["b", "b-2", "b-3"]


def test_a_file_with_a_pattern_in_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "photo[1].png")
    assert [image.name for image in load_images(["photo[1].png"], tmp_path)] == ["photo[1]"]


def test_orientation_and_transparency(tmp_path: Path) -> None:
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    turned.save(tmp_path / "turned.jpg", exif=exif)
    image = load_image(tmp_path / "turned.jpg")
    assert (image.width, image.height) == (20, 40)

    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.all(load_image(tmp_path / "clear.png").pixels == 255)

    Image.new("L", (16, 16), 7).save(tmp_path / "grey.png")
    assert np.all(load_image(tmp_path / "grey.png").pixels == 7)


def test_what_came_over_a_network_is_checked_as_files_are(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8))
    image.save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    image.resize((8, 8)).save(tmp_path / "small.png")
    (tmp_path / "words.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    np.testing.assert_array_equal(load_image(Path("x"), None, good).pixels, np.array(image))
    for name in ("small.png", "words.txt", "cut.png"):
        told = []
        for path, content in (
            (tmp_path / name, None),
            (Path(name), (tmp_path / name).read_bytes()),
        ):
            with pytest.raises(UserError) as refused:
                load_image(path, None, content)
            told.append(str(refused.value))
        assert told[0] == f"{tmp_path}/{told[1]}" and "\n" not in told[1]
