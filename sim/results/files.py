"""Writing and reading a run folder; it appears complete, or not at all.

    manifest.json   what ran: resolved scenario, seeds, versions, revision, weights, hardware
    packets.csv     one row per packet: when sent, its fate, when it arrived
    images.csv      one row per cell, image and concealer, and one for the decode without loss
    summary.json    means and intervals
    panels/         the pictures that the strips are drawn from
    videos/         of a video: each repair; original, unrepaired and repaired side by side
    images/         every output at original size, if asked for
    figures/        drawn from all of the above; `sim plot` draws them again

Rows hold no wall-clock times: the same scenario and seed give the same tables byte for byte.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.files import beside, replacing
from sim.errors import UserError, os_errors
from sim.progress import finite

RESULTS = Path("results")
"""The default folder for results, in the working directory."""

MANIFEST, PACKETS, IMAGES, SUMMARY = "manifest.json", "packets.csv", "images.csv", "summary.json"
FILES = "files"
"""In a manifest: the files that were made with it."""
FIGURES, PANELS, OUTPUTS, VIDEOS = "figures", "panels", "images", "videos"
ORIGINAL = "original"
"""The name of an image as it was, beside those of its repairs."""
PROBABILITY, PIXEL_ERROR = "probability.inpaint.npy", "pixel_error.inpaint.npy"
"""In a panel folder: float32[h,w] of the inpainted tokens, see `codec.concealment.Concealed`."""
INPAINT = "inpaint"
"""The concealer that has them."""

FAST_PNG = {"compress_level": 1, "compress_type": 3}
"""How Pillow writes PNG files: zlib's Z_RLE, which for photographs takes a fifth of the time of the
default and gives the same sizes."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

Row = Mapping[str, Any]
"""A table row: str, int, float (NaN is written as nothing), bool or None by column."""


# What a folder of results holds, as its manifest says; the studies have kinds of their own.
RUN = "run"
COMPARISON = "comparison"
OPTIMISATION = "optimisation"
CODEC_BENCH = "codec bench"
CODEC_BITS = "codec bits"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run.

    Attributes:
        folder: where it is.
        summary: the content of its summary.json.
        cells: that it consists of.
        found: how many of them were there before, or done by others meanwhile.
    """

    folder: Path
    summary: dict[str, Any]
    cells: int = 1
    found: int = 0


def kind_of(folder: Path) -> object:
    """The kind of finished results in a folder, from its manifest; None if there are none."""
    try:
        return read_json(folder / MANIFEST).get("kind")
    except UserError:
        return None


def check_kind(folder: Path, kind: str) -> None:
    """Raise UserError unless a folder holds finished results of this kind."""
    found = kind_of(folder)
    if found != kind:
        why = f"no {MANIFEST} of one in it" if found is None else f"but: {found}"
        raise UserError(f"{folder}: holds no {kind} ({why})")


def check_target(target: Path, kind: str) -> None:
    """Raise UserError unless results of this kind may be written to a folder: it is not there yet,
    empty, or holds such."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; results need a folder")
    if target.is_dir() and any(target.iterdir()) and kind_of(target) != kind:
        raise UserError(f"{target}: is not empty and holds no {kind}; choose another folder")


@contextlib.contextmanager
def new_folder(target: Path, kind: str = RUN) -> Iterator[Path]:
    """A folder to fill; it becomes `target` when the block ends well, and vanishes when not.

    Earlier results of this kind in `target` are replaced in the same instant.

    Raises:
        UserError: it cannot be written there, or something else is already there.
    """
    check_target(target, kind)
    target = Path(os.path.realpath(target))
    partial = beside(target)
    made = [folder for folder in reversed(target.parents) if not folder.exists()]
    try:
        with os_errors(target, "cannot write results here"):
            partial.mkdir(parents=True)
        yield partial
        list_files(partial)
        _put_in_place(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise UserError(f"{target}: cannot write results here ({error.strerror})") from None
        raise


def _put_in_place(partial: Path, target: Path) -> None:
    if kind_of(target) is None:
        try:
            os.replace(partial, target)  # nothing there, or an empty folder
            return
        except OSError:
            if kind_of(target) is None:
                raise  # else another process that does the same was quicker
    ours = listed_files(target)
    old = beside(target)
    os.replace(target, old)
    os.replace(partial, target)
    keep_others(old, target, ours)
    shutil.rmtree(old, ignore_errors=True)


def list_files(folder: Path) -> None:
    """List in a folder's manifest the files written with it: no others are ever removed."""
    if (folder / MANIFEST).is_file():
        made = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        write_json(folder / MANIFEST, {**read_json(folder / MANIFEST), FILES: made})


def listed_files(folder: Path) -> frozenset[str]:
    """The files that `list_files` listed; empty if there is no list."""
    try:
        return frozenset(map(str, read_json(folder / MANIFEST).get(FILES, ())))
    except (UserError, TypeError):
        return frozenset()


def keep_others(old: Path, new: Path, ours: frozenset[str]) -> None:
    """Move the files in `old` that are not listed in `ours` to the same places in `new`."""
    for path in old.rglob("*"):
        name = path.relative_to(old)
        there = new / name
        foreign = name.as_posix() not in ours and (path.is_symlink() or not path.is_dir())
        if foreign and not os.path.lexists(there):
            with contextlib.suppress(OSError):
                there.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, there)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those that are empty, the last first."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same columns as CSV, atomically. Floats keep nine significant digits."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = list(rows[0]) if rows else []
        writer.writerow(columns)
        for row in rows:
            writer.writerow([cell_text(row[column]) for column in columns])


def cell_text(value: object) -> str:
    """A value as tables show it: floats with nine significant digits, nothing for NaN and None."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.9g}"
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)


def read_table(path: Path, cell: int | None = None) -> list[dict[str, str]]:
    """Rows of a CSV table as text: all, or those of one cell.

    Raises:
        UserError: there is none.
    """
    return list(table_rows(path, cell))


def table_rows(path: Path, cell: int | None = None) -> Iterator[dict[str, str]]:
    """Rows of a CSV table as text, one by one: tables may be larger than the memory. All, or
    those of one cell, which stand together: "cell" is the first column.

    Raises:
        UserError: there is none.
    """
    try:
        with os_errors(path, "cannot be read"), path.open(newline="", encoding="utf-8") as file:
            rows: Iterator[list[str]] = csv.reader(file)
            columns = next(rows, [])
            if cell is not None:
                first = [str(cell)]
                rows = itertools.dropwhile(lambda row: row[:1] != first, rows)
                rows = itertools.takewhile(lambda row: row[:1] == first, rows)
            for row in rows:
                yield dict(zip(columns, row, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a table in CSV ({error})") from None


def number(cell: Any) -> float:
    """A table's cell, text or number, as a float; NaN where it is empty."""
    return math.nan if cell is None or cell == "" else float(cell)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write standard JSON, atomically: NaN and infinities, which it has not, become null."""
    with replacing(path) as partial:
        text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a run folder.

    Raises:
        UserError: there is none.
    """
    try:
        with os_errors(path, "cannot be read"):
            value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not valid JSON") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8[H,W,3] or uint8[H,W] as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(pixels))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8[H,W,3] or uint8[H,W] as the content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", **FAST_PNG)
    return file.getvalue()
