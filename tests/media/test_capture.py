"""What is streamed: photographs again and again, the frames of a video, a camera's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sim.errors import UserError
from sim.media.capture import Camera, Photographs, Video, video_path
from sim.media.images import LoadedImage, load_image
from tests.media.films import film


def test_photographs_start_over(photo: Path) -> None:
    source = Photographs([load_image(photo)], 3)
    assert source.names == ["photo", "photo-2", "photo-3"]
    assert [image.name for image in source.pictures()] == source.names
    assert source.sizes == [(56, 40)] * 3
    assert len(set(source.digests)) == 1
    image = load_image(photo)
    second = LoadedImage("photo-2", image.path, image.pixels)
    names = Photographs([image, second], 5).names
    assert names == ["photo", "photo-2", "photo-3", "photo-2-2", "photo-4"]


def blues(path: Path, fps: float) -> list[int]:
    """Of the middle of each picture that is streamed."""
    pictures = list(Video(path, fps).pictures())
    return [int(picture.pixels[20:, 20:, 2].mean()) for picture in pictures]


def test_a_video_file_is_a_source_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    film(path, range(20))
    source = Video(path, 5)
    pictures = list(source.pictures())
    assert len(pictures) == len(source.names) == 10
    assert source.sizes == [(64, 48)] * 10
    assert blues(path, 5) == pytest.approx([20 * n for n in range(10)], abs=6)
    assert pictures[5].pixels[20:, 20:, 0].mean() < 10
    assert len(Video(path, 5, frames=3).names) == 3
    (tmp_path / "no.avi").write_bytes(b"no video")
    with pytest.raises(UserError, match="not a video"):
        Video(tmp_path / "no.avi", 5)
    with pytest.raises(UserError, match="none found"):
        Camera(97)


def test_a_part_of_a_video_and_smaller(tmp_path: Path) -> None:
    """The part is what the whole shows there, and says so in its names."""
    path = tmp_path / "v.mkv"
    film(path, range(20))
    whole, part = Video(path, 5), Video(path, 5, longer_side=32, first=6, frames=9)
    assert part.names == whole.names[6:]
    assert part.sizes == [(32, 24)] * 4
    shown = list(part.pictures())
    for picture, original in zip(shown, list(whole.pictures())[6:], strict=True):
        assert picture.pixels[12:].mean() == pytest.approx(original.pixels[24:].mean(), abs=2)
    with pytest.raises(UserError, match="no frame 10; at 5 a second, there are 10"):
        Video(path, 5, first=10)


def test_the_clip_that_ships_has_a_name(tmp_path: Path) -> None:
    assert video_path("samples/book", tmp_path).is_file()
    assert video_path("book.mp4", tmp_path) == tmp_path / "book.mp4"
    with pytest.raises(UserError, match="there are book"):
        video_path("samples/nobody", tmp_path)


def test_pictures_are_taken_when_they_are_shown(tmp_path: Path) -> None:
    """The rate of a video may vary."""
    path = tmp_path / "v.mkv"
    film(path, [0, 1, 2, 9, 10, 16])
    shown = [0, 10, 20, 20, 20, 20, 20, 20, 20, 30, 40, 40, 40, 40, 40, 40, 50]
    assert blues(path, 10) == pytest.approx(shown, abs=6)
    assert blues(path, 2)[:4] == pytest.approx([0, 20, 40, 40], abs=6)


def test_a_video_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    film(path, range(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = blues(path, 10)
    assert 5 <= len(found) <= 20 and found[:5] == pytest.approx([0, 10, 20, 30, 40], abs=6)


def test_ten_bits_and_a_turned_camera(tmp_path: Path) -> None:
    film(tmp_path / "ten.mkv", range(4), "ffv1", "yuv420p10le")
    assert blues(tmp_path / "ten.mkv", 10) == pytest.approx([0, 10, 20, 30], abs=6)
    path = tmp_path / "turned.mov"
    film(path, range(3), turned=90)
    source = Video(path, 10)
    assert source.sizes == [(48, 64)] * 3
    corners = {
        place: next(iter(source.pictures())).pixels[place].mean() > 200
        for place in ((5, 5), (5, 43), (59, 5), (59, 43))
    }
    assert [place for place, bright in corners.items() if bright] == [(59, 5)]


def test_without_pyav_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install .*video"):
        Camera(0)
