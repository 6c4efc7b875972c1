"""Laws of packs: the same photos, the same crops, and one line for what is none."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from codec.training.data import Batches, PhotoDataset, PhotoFolder, crop_bytes, photo_source
from codec.training.options import TrainingOptions
from codec.training.pack import PhotoPack, write_pack
from tests.reachable import reachable


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Photos of several kinds, one of them turned by its camera, one large."""
    folder = tmp_path / "mixed"
    (folder / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, kind in enumerate(("png", "jpg", "webp", "bmp", "jpg")):
        pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((90, 70 + number), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 4 else 1
        image.save(folder / "below" / f"{number}.{kind}", exif=exif)
    Image.fromarray(pixels).resize((400, 300)).save(folder / "large.png")
    return folder


def test_a_pack_holds_the_pixels_of_its_folder(mixed: Path, tmp_path: Path) -> None:
    path = tmp_path / "photos.bin"
    assert write_pack(PhotoFolder(mixed), path, short_side=100) == 6
    folder, pack = (PhotoDataset(place, min_side=60) for place in (mixed, path))
    assert pack.names == folder.names
    for number, name in enumerate(pack.names):
        if name == "large.png":
            assert pack.photo(number).shape == (100, 133, 3)
        else:
            assert np.array_equal(pack.photo(number), folder.photo(number)), name
    assert write_pack(photo_source(path), tmp_path / "again.bin", short_side=100) == 6
    assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()


def test_crops_are_those_of_the_folder(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "photos.bin"
    write_pack(PhotoFolder(photos), path)
    folder, pack = (PhotoDataset(place, min_side=32) for place in (photos, path))
    assert pack.fingerprint == folder.fingerprint
    for step in (0, 7):
        assert torch.equal(crop_bytes(folder, 3, 32, 1, step), crop_bytes(pack, 3, 32, 1, step))


def test_the_command_line_packs(photos: Path, cli: Callable[..., Any]) -> None:
    result = cli("train", "pack", photos, "-o", "photos.bin", "--json")
    assert json.loads(result.stdout)["photos"] == len(PhotoPack(Path("photos.bin")).names()) == 80
    assert "no such folder" in cli("train", "pack", "nowhere", "-o", "y.bin").stderr
    assert cli("train", "pack", photos, "-o", "no/where.bin").exit_code == 2


def test_parts_of_a_batch_are_the_batch(photos: Path) -> None:
    """Made in this process or ahead in others, whatever is cached."""
    found = PhotoDataset(photos, min_side=32)
    whole = Batches(found, 6, 32, 3, TrainingOptions(workers=0))
    part = Batches(found, 6, 32, 3, TrainingOptions(workers=2), part=slice(2, 5))
    found.cache_bytes = 40_000  # two photos
    for step in (4, 5, 9):
        assert torch.equal(whole.at(step)[2:5], part.at(step))
    kept = [one for one in reachable(found) if isinstance(one, np.ndarray) and one.ndim == 3]
    assert 0 < sum(one.nbytes for one in kept) <= 40_000
    copy: PhotoDataset = pickle.loads(pickle.dumps(found))
    assert torch.equal(crop_bytes(copy, 2, 32, 3, 4), crop_bytes(found, 2, 32, 3, 4))


def test_the_share_held_out_is_chosen(photos: Path) -> None:
    parts = [PhotoDataset(photos, held_out=h, min_side=32, share=0.3) for h in (False, True)]
    assert 12 <= len(parts[1]) <= 36
    assert sorted(parts[0].names + parts[1].names) == sorted(PhotoFolder(photos).names())
    with pytest.raises(ValueError, match=r"of 80 photos none to train on"):
        PhotoDataset(photos, min_side=32, share=1.0)
    with pytest.raises(ValueError, match=r"held out \(0.0001 of all.*some 30000 photos are needed"):
        PhotoDataset(photos, held_out=True, min_side=32, share=1e-4)


def test_of_few_photos_a_share_that_holds_one_out_is_told(photos: Path, tmp_path: Path) -> None:
    for path in sorted(photos.glob("*.png"))[:4]:
        shutil.copy(path, tmp_path)
    with pytest.raises(ValueError, match=r"larger share: .* holds out one of these") as told:
        PhotoDataset(tmp_path, held_out=True, min_side=32, share=1e-4)
    share = float(str(told.value).split("share: ")[1].split()[0])
    kept = [
        len(PhotoDataset(tmp_path, held_out=h, min_side=32, share=share)) for h in (True, False)
    ]
    assert kept == [1, 3]


@pytest.mark.parametrize("cut", [0, 10, 16, -1])
def test_what_is_no_pack_is_told(photos: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "photos.bin"
    write_pack(PhotoFolder(photos), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"photos\.bin: not a pack of sim train pack \("):
        PhotoPack(path)
    with pytest.raises(ValueError, match="no photos in it"):
        write_pack(PhotoFolder(tmp_path / "nothing"), tmp_path / "x.bin")
    assert not (tmp_path / "x.bin").exists()


def test_a_photo_that_a_worker_cannot_read_is_told_in_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) - 20])
    batches = Batches(
        PhotoDataset(tmp_path, min_side=32, share=0.0), 1, 32, 0, TrainingOptions(workers=1)
    )
    with pytest.raises(ValueError, match=r"^\S+a\.png: cannot be read"):
        batches.at(0)
