"""The processes of a live stream: this one, which may be told to stop, and a sender beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from sim.errors import UserError

_GRACE_S = 1.0


class SenderProcess:
    """The sender of a demo: a process of its own that is gone when the block ends."""

    def __init__(self, command: Sequence[str], scratch: Path) -> None:
        self._command = command
        self._errors = scratch / "sender.txt"

    def __enter__(self) -> SenderProcess:
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_surroundings(),
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self._process.terminate()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raises UserError if the sender has failed."""
        if self._process.poll():
            lines = self._errors.read_text(errors="replace").strip().splitlines()
            raise UserError(f"sender: {lines[-1] if lines else 'ended'}")


def _surroundings() -> dict[str, str]:
    """Those of this process, in which Python takes these very modules and none that lie around."""
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


@contextlib.contextmanager
def interruptible(stop: Callable[[], object]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) asks to stop; the second ends at once."""

    if threading.current_thread() is not threading.main_thread():  # signals are not ours there
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        stop()

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for which, how in previous.items():
            signal.signal(which, how)

    try:
        yield
    finally:
        restore()
