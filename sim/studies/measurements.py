"""Studies: many small measurements that can stop at any time, go on, and be shared by processes.

A measurement is a task: a key and a function that returns rows. Each task's rows are written to
`jobs/<key>.json` in one step, and a task whose file is there is not done again. So an interrupted
study resumes, and several processes given the same folder share the work: each claims the task that
it does. Jobs are deterministic (but for measured times), on one thread, so that sums round alike
everywhere: one that two of them do, which the end may bring, comes out the same, and so does the
table, which each of them writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.checkpoint import ModelError
from codec.device import CPU, Device
from codec.files import replacing
from codec.model import Model
from codec.threads import one_thread
from sim.errors import UserError
from sim.media.frames import load_model
from sim.media.images import LoadedImage, load_images
from sim.progress import ProgressCallback, no_progress
from sim.results.files import MANIFEST, read_json, write_json
from sim.results.manifest import revision
from sim.version import __version__

JOBS = "jobs"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class StudyTask:
    """One measurement.

    Attributes:
        name: says what, unique in the study; shown while it runs.
        rows: makes its rows; a pure function of the study's settings, measured times aside.
    """

    name: str
    rows: Callable[[], Rows]

    @property
    def file(self) -> str:
        """Its file's name."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:20] + ".json"


def load(
    images: str,
    model: str | None,
    limit: int,
    side: int,
    levels: Sequence[int],
    device: Device = CPU,
) -> tuple[Model, list[LoadedImage]]:
    """The model and the first `limit` (0: all) images of a file, folder, glob or "samples", cut
    to at most `side` pixels each way around their middle (0: whole).

    Raises:
        UserError: either cannot be used, or the model lacks a level or the inpainter.
    """
    if 0 < side < 16:
        raise UserError(f"--side {side}: at least 16 pixels, or 0 for whole images")
    photos = load_images([images], Path.cwd())[: limit or None]
    if side:
        photos = [replace(photo, pixels=_middle(photo.pixels, side)) for photo in photos]
    try:
        loaded = load_model(model, device)
    except ModelError as error:
        raise UserError(str(error)) from None
    if loaded.inpainter is None:
        raise UserError("this model has no inpainter to study: sim train inpainter")
    for level in levels:
        if level not in loaded.codebook_sizes:
            known = ", ".join(map(str, loaded.codebook_sizes))
            raise UserError(f"codebook {level}: this model has {known}")
    return loaded, photos


def _middle(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def study_manifest(
    kind: str, model: Model, images: Sequence[LoadedImage], settings: dict[str, Any]
) -> dict[str, Any]:
    """What a study measures; two studies with equal ones have equal tables."""
    return {
        "kind": kind,
        "settings": settings,
        "images": [
            {
                "name": image.name,
                "width": image.width,
                "height": image.height,
                "sha256": hashlib.sha256(image.pixels.tobytes()).hexdigest()[:16],
            }
            for image in images
        ],
        "weights_fingerprint": model.fingerprint,
        "device": str(model.device),
        "version": __version__,
    }


def run_tasks(
    folder: Path,
    manifest: dict[str, Any],
    tasks: Sequence[StudyTask],
    progress: ProgressCallback = no_progress,
) -> Rows:
    """Do what is not done yet; returns the rows of all tasks in order.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    place = folder / JOBS
    with _writing(folder):
        if (folder / MANIFEST).is_file():
            found = read_json(folder / MANIFEST)
            found.pop("revision", None)
            if found != json.loads(json.dumps(manifest)):
                raise UserError(
                    f"{folder}: holds a study of other images, weights or settings; "
                    "choose another folder"
                )
        elif folder.is_dir() and any(folder.iterdir()) and not place.is_dir():
            raise UserError(f"{folder}: is not empty and holds no study; choose another folder")
        place.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).is_file():
            write_json(folder / MANIFEST, {**manifest, "revision": revision()})
    while left := [task for task in tasks if not (place / task.file).is_file()]:
        # A claim is a hint, no lock: what another process died over is done in the end.
        with _writing(folder):
            task = next((task for task in left if _claimed(place / task.file)), left[0])
        progress(len(tasks) - len(left), len(tasks), task.name)
        try:
            with one_thread():
                rows = task.rows()
            with _writing(folder), replacing(place / task.file) as partial:
                # NaN stays NaN: Python reads it back.
                partial.write_text(json.dumps({"name": task.name, "rows": rows}))
        finally:
            _claim(place / task.file).unlink(missing_ok=True)
    return [row for task in tasks for row in read_json(place / task.file)["rows"]]


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: cannot write here ({error.strerror})") from None


def _claim(path: Path) -> Path:
    """Stands there while a process makes the file."""
    return path.with_name(f".{path.name}.claim")


def _claimed(path: Path) -> bool:
    """Claim the file for this process, unless another has."""
    try:
        os.close(os.open(_claim(path), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
