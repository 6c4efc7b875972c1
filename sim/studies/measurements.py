"""Studies: many small measurements that can stop at any time, go on, and be shared by processes.

A measurement is a task: a name and a function that returns rows, which are kept in the folder's
`jobs/`. So an interrupted study resumes, and several processes given the same folder share the
work. Tasks are deterministic (but for measured times), on one thread, so that sums round alike
everywhere; each process writes the same table in the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.device import CPU, Device
from codec.model import Model
from codec.threads import one_thread
from sim.errors import UserError, os_errors
from sim.jobs.claims import complete
from sim.jobs.executor import alone
from sim.jobs.store import Files, Record, Store
from sim.media.frames import load_model
from sim.media.images import LoadedImage, load_images
from sim.progress import ProgressCallback, no_progress
from sim.results.files import MANIFEST, Row, read_json, write_json
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
    def key(self) -> str:
        """Its record's key."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:20]


def grouped(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of some columns, in the order of the first of each."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


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
    loaded = load_model(model, device)
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
    store = Store(folder / JOBS)
    finished = 0

    def work(task: StudyTask) -> tuple[Record, Files]:
        progress(finished, len(tasks), task.name)
        with one_thread():
            return {"name": task.name, "rows": task.rows()}, {}

    def done(task: StudyTask) -> None:
        nonlocal finished
        finished += 1

    with os_errors(folder, "cannot write here"):
        _begin(folder, manifest)
    complete(store, tasks, alone(work), done)
    return [row for task in tasks for row in store.get(task.key)["rows"]]


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folder of a new study, or find that of the same study."""
    if (folder / MANIFEST).is_file():
        found = read_json(folder / MANIFEST)
        found.pop("revision", None)
        if found != json.loads(json.dumps(manifest)):
            raise UserError(
                f"{folder}: holds a study of other images, weights or settings; "
                "choose another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()) and not (folder / JOBS).is_dir():
        raise UserError(f"{folder}: is not empty and holds no study; choose another folder")
    (folder / JOBS).mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).is_file():
        write_json(folder / MANIFEST, {**manifest, "revision": revision()})
