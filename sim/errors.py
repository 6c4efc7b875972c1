"""The one error a user sees: a mistake in what they gave us, told in one line."""

from __future__ import annotations


class UserError(Exception):
    """Input that cannot be used: a file, a key, a value, a place to write.

    ``str(error)`` is one line that says where, what is wrong and how to mend it. The command line
    prints it on standard error and exits with code 2; nothing has been written by then.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
