"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_LONGEST_ENDING = 16


def rooted(folder: Path, text: str) -> Path:
    """A path as somebody wrote it: ~ is a home, where there is such a user; relative ones start at
    a folder."""
    return folder / os.path.expanduser(text)


def landing(path: Path) -> Path:
    """Where what is written to `path` ends up: links are followed.

    Raises:
        OSError: it is a folder, or a circle of links.
    """
    real = Path(os.path.realpath(path))
    for wrong, number in ((real.is_dir(), errno.EISDIR), (real.is_symlink(), errno.ELOOP)):
        if wrong:
            raise OSError(number, os.strerror(number), str(path))
    return real


def is_special(path: Path) -> bool:
    """Whether something is there that is no plain file, such as a device or a pipe."""
    return path.exists() and not path.is_file()


def beside(path: Path, ending: str = "") -> Path:
    """A hidden name in the same folder that nobody else uses, however long that of `path` is."""
    return path.with_name(f".{secrets.token_hex(8)}{ending}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, of the same ending; it takes the place of `path` when the
    block ends well, and is gone otherwise. Nobody ever reads half of a file, and several processes
    and threads may write the same one.

    Where `path` is a link, what it leads to is replaced; a device or a pipe is written to itself.

    Raises:
        OSError: it cannot be put there.
    """
    target = landing(path)
    if is_special(target):
        yield target
        return
    ending = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_ENDING else ""
    partial = beside(target, ending)
    try:
        yield partial
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
