"""Atomic replacement of files, and paths as users write them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_MAX_SUFFIX_BYTES = 16


def rooted(folder: Path, text: str) -> Path:
    """A path as a user wrote it: ~ is expanded where there is such a user; a relative path is
    relative to `folder`."""
    return folder / os.path.expanduser(text)


def landing(path: Path) -> Path:
    """The file that writing to `path` would change: symbolic links are followed.

    Raises:
        OSError: it is a folder, or the links form a loop.
    """
    real = Path(os.path.realpath(path))
    for wrong, number in ((real.is_dir(), errno.EISDIR), (real.is_symlink(), errno.ELOOP)):
        if wrong:
            raise OSError(number, os.strerror(number), str(path))
    return real


def is_special(path: Path) -> bool:
    """Whether `path` exists and is not a regular file, such as a device or a pipe."""
    return path.exists() and not path.is_file()


def beside(path: Path, ending: str = "") -> Path:
    """A random hidden name in the folder of `path`, of bounded length."""
    return path.with_name(f".{secrets.token_hex(8)}{ending}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`, of the same suffix, which replaces `path` when the
    block ends without an error and is removed otherwise. Readers never see half of a file; several
    processes and threads may write the same one.

    Where `path` is a symbolic link, its target is replaced; a device or a pipe is written directly.

    Raises:
        OSError: the file cannot be replaced.
    """
    target = landing(path)
    if is_special(target):
        yield target
        return
    ending = path.suffix if len(os.fsencode(path.suffix)) <= _MAX_SUFFIX_BYTES else ""
    partial = beside(target, ending)
    try:
        yield partial
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
