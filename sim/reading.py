"""Files that users name: read whole, up to a limit, every mistake told in one line."""

from __future__ import annotations

from pathlib import Path

from sim.errors import UserError


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
