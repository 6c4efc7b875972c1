"""The one error a user sees: a mistake in what they gave us, told in one line."""

from __future__ import annotations

_LONGEST = 380
_HEAD = 240


class UserError(Exception):
    """Input that cannot be used: a file, a key, a value, a place to write.

    ``str(error)`` is one line of at most 380 printable characters that says where, what is wrong
    and how to mend it. The command line prints it on standard error and exits with code 2; nothing
    has been written by then.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
        if len(line) > _LONGEST:
            line = f"{line[:_HEAD]} ... {line[len(line) + _HEAD + 5 - _LONGEST :]}"
        super().__init__(line)
