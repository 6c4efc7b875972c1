"""A run's folder while it is filled.

The finished pieces in `cells/` outlive whatever happens; everything else is made of them in a
folder aside and moved in when it is whole, `manifest.json` last. A folder with cells and no
manifest is an unfinished run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sim.errors import UserError, os_errors
from sim.jobs.claims import Claims
from sim.results.files import (
    FIGURES,
    IMAGES,
    MANIFEST,
    NO_ROOM,
    OUTPUTS,
    PACKETS,
    PANELS,
    RUN,
    SUMMARY,
    VIDEOS,
    check_target,
    keep_others,
    kind_of,
    list_files,
    listed_files,
    remove_empty,
)

CELLS = "cells"
_ASIDE = ".new-"
_MADE = (PACKETS, IMAGES, SUMMARY, FIGURES, PANELS, VIDEOS, OUTPUTS, MANIFEST)


def check_run(target: Path) -> None:
    """Raise UserError unless a run may be written to a folder: it is not there yet, empty, or
    holds a run, finished or not."""
    if _is_unfinished(target):
        return
    try:
        check_target(target, RUN)
    except UserError:
        if not _is_unfinished(target):  # another process may have begun it meanwhile
            raise


def _is_unfinished(target: Path) -> bool:
    return kind_of(target) is None and (target / CELLS).is_dir()


@contextlib.contextmanager
def open_run(target: Path, fresh: bool = False) -> Iterator[Path]:
    """A run's folder, made if it is not there; without any finished cell, it vanishes again when
    the block fails.

    Args:
        target: the folder.
        fresh: throw away cells that are there.

    Raises:
        UserError: it cannot be written there, or something that is not a run is already there.
    """
    check_run(target)
    target = target.absolute()
    made = [folder for folder in (*reversed(target.parents), target) if not folder.exists()]
    had_cells = (target / CELLS).is_dir()
    try:
        with os_errors(target, "cannot write results here"):
            (target / CELLS).mkdir(parents=True, exist_ok=True)
            if fresh:
                shutil.rmtree(target / CELLS)
                (target / CELLS).mkdir()
        yield target
    except BaseException as error:
        if not had_cells and not any((target / CELLS).glob("[!.]*.json")):
            shutil.rmtree(target / CELLS, ignore_errors=True)
            remove_empty(made)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise UserError(f"{target}: cannot write results here ({error.strerror})") from None
        raise


@contextlib.contextmanager
def made_aside(run: Path) -> Iterator[Path]:
    """An empty folder for everything but the cells; moved into the run when the block ends well.
    Processes that share a run do this one after another."""
    with Claims(run / CELLS) as claims, claims.alone("tables"):
        for leftover in run.glob(f"{_ASIDE}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        aside = run / f"{_ASIDE}{os.getpid()}"
        aside.mkdir()
        try:
            yield aside
            list_files(aside)
            ours = listed_files(run)
            old = aside / "old"
            old.mkdir()
            for name in reversed(_MADE):  # the manifest goes first and comes last
                if (run / name).exists():
                    os.replace(run / name, old / name)
            for name in _MADE:
                if (aside / name).exists():
                    os.replace(aside / name, run / name)
            keep_others(old, run, ours)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
