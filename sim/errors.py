"""The one error a user sees: a mistake in what they gave us, told in one line. And the files that
they name: read whole, up to a limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

_LONGEST = 380
_HEAD = 240


class UserError(Exception):
    """Input that cannot be used: a file, a key, a value, a place to write.

    ``str(error)`` is one line of at most 380 printable characters that says where, what is wrong
    and how to mend it. The command line prints it on standard error and exits with code 2; nothing
    has been written by then.

    Attributes:
        others: further mistakes in the same file, each a line of its own.
    """

    def __init__(self, message: str, others: Sequence[UserError] = ()) -> None:
        line = " ".join(message.split())
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
        if len(line) > _LONGEST:
            line = f"{line[:_HEAD]} ... {line[len(line) + _HEAD + 5 - _LONGEST :]}"
        super().__init__(line)
        self.others = tuple(others)


@contextlib.contextmanager
def os_errors(path: object, problem: str) -> Iterator[None]:
    """What the operating system refuses in this block becomes a user's mistake: path, problem, and
    its reason in brackets."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {problem} ({error.strerror})") from None


@contextlib.contextmanager
def user_errors(where: str, *kinds: type[Exception]) -> Iterator[None]:
    """An error of these kinds in this block becomes a user's mistake: what it says, behind where
    that is ("" where it says so itself)."""
    try:
        yield
    except kinds as error:
        raise UserError(f"{where}{error}") from None


def read_bytes(path: Path, kind: str, most: int) -> bytes:
    """A file's content.

    Args:
        path: the file.
        kind: what it is to be, in words, such as "scenario file".
        most: bytes.

    Raises:
        UserError: not there, a folder, not to be read, or larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such {kind}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a {kind}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # a zero byte in its name
        raise UserError(f"{path}: is not the name of a file") from None
    if len(data) > most:
        raise UserError(f"{path}: too large for a {kind}")
    return data


def read_text(path: Path, kind: str, most: int) -> str:
    """A file's content as text, without a byte order mark; see `read_bytes`.

    Raises:
        UserError: as there, or not in UTF-8.
    """
    try:
        return read_bytes(path, kind, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
