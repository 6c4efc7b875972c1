"""The sink of a receiver in another process, which hands its restored frames over as files.

This module loads no networks; the sink does, in the process that runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codec.decoding import Decoding

if TYPE_CHECKING:
    from codec.device import Device
    from sim.media.frames import Restorer
    from sim.protocol.events import FrameReady


class SavingSink:
    """Restores each frame and saves it in a folder."""

    def __init__(self, restorer: Restorer, folder: Path) -> None:
        self._restorer = restorer
        self._folder = folder

    def __call__(self, ready: FrameReady) -> None:
        """Restore and save one frame."""
        self._restorer.restore(ready).save(self._folder)


def saving_sink(
    model: str | None,
    device: Device | None,
    concealers: Sequence[str],
    decoding: Decoding,
    folder: Path,
) -> SavingSink:
    """A sink for another process: loads the model there. See `sim.media.frames.load_model`;
    without a device, the networks run on the CPU."""
    from codec.device import CPU
    from sim.media.frames import Restorer, load_model

    return SavingSink(Restorer(load_model(model, device or CPU), concealers, decoding), folder)
