"""Finished work on disk: what has been computed once is never lost and never computed again.

Every process that computes appends to a file of its own, one line of JSON for each finished piece,
in one write. A process may be killed at any moment: a line that was cut short has no end and is
not read, and nobody appends to another's file. Pictures of a piece are there before its line is.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codec.files import replacing
from sim.errors import UserError

CELLS = "cells"
_PICTURES = "pictures"
_HEAD = re.compile(rb'\{"key": "([0-9a-f]{32})", "pictures": (\d+), ')

Record = dict[str, Any]
"""One finished piece: "key", "pictures" (how many images have some), and what was found."""


class RecordWriter:
    """Appends records to a file of this process."""

    def __init__(self, folder: Path) -> None:
        """``folder`` need not be there yet; it is made with the first record."""
        self.folder = folder
        self._file: int | None = None  # descriptor

    def append(self, record: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        """Keep a finished piece.

        Args:
            record: "key" (32 hexadecimal digits) and "pictures" first; the rest is anything JSON.
            pictures: content by path below the piece's folder.

        Raises:
            OSError: the disk is full, or not to be written.
        """
        for name, content in pictures.items():
            path = pictures_folder(self.folder, record["key"]) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                partial.write_bytes(content)
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        if not _HEAD.match(line):
            raise ValueError(f"a record starts with key and pictures, not {line[:60]!r}")
        if self._file is None:
            self._file = new_file(self.folder)
        if os.write(self._file, line) != len(line):
            os.close(self._file)
            self._file = None  # what comes next must not follow half a line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class RecordStore:
    """The records of everybody in one folder."""

    def __init__(self, folder: Path) -> None:
        """``folder`` need not be there yet."""
        self.folder = folder
        self._places: dict[str, tuple[Path, int, int]] = {}  # file, offset, pictures
        self._read: dict[Path, int] = {}  # how far each file is known
        self.refresh()

    def refresh(self) -> None:
        """Find what others have appended."""
        for path in sorted(self.folder.glob("*.jsonl")):
            offset = self._read.get(path, 0)
            if path.stat().st_size == offset:
                continue
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    if head := _HEAD.match(line):
                        self._note(head[1].decode(), path, offset, int(head[2]))
                    offset += len(line)
            self._read[path] = offset

    def _note(self, key: str, path: Path, offset: int, pictures: int) -> None:
        known = self._places.get(key)
        if known is None or known[2] < pictures:
            self._places[key] = path, offset, pictures

    def __len__(self) -> int:
        return len(self._places)

    def has(self, key: str, pictures: int = 0) -> bool:
        """Whether a piece is there, with the pictures of at least so many images."""
        return key in self._places and self._places[key][2] >= pictures

    def get(self, key: str) -> Record:
        """A record that is there.

        Raises:
            KeyError: it is not.
            UserError: its line is damaged.
        """
        path, offset, _ = self._places[key]
        with path.open("rb") as file:
            file.seek(offset)
            line = file.readline()
        try:
            record: Record = json.loads(line)
        except ValueError:
            raise UserError(f"{path}: damaged at byte {offset}; remove it and run again") from None
        return record

    def take(self, other: Path) -> int:
        """Copy the records and pictures of another folder's files; returns how many files. There
        may be none: a shard may have had nothing to do.

        Raises:
            UserError: they cannot be copied.
        """
        files = sorted(other.glob("*.jsonl"))
        try:
            if (other / _PICTURES).is_dir():
                shutil.copytree(other / _PICTURES, self.folder / _PICTURES, dirs_exist_ok=True)
            for path in files:
                content = path.read_bytes()
                with os.fdopen(new_file(self.folder), "wb") as copy:
                    copy.write(content[: content.rfind(b"\n") + 1])
        except OSError as error:
            raise UserError(f"{other}: cannot be copied ({error.strerror})") from None
        self.refresh()
        return len(files)


def pictures_folder(folder: Path, key: str) -> Path:
    """Where in a store's folder the pictures of a piece are."""
    return folder / _PICTURES / key


def new_file(folder: Path) -> int:
    """The descriptor of a new file of records that nobody else writes to."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        path = folder / f"{os.getpid()}-{number}.jsonl"
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except FileExistsError:
            number += 1
