"""What the receiver makes of the frames, on its way to whoever measures it.

The receiver may be another process, so outputs travel as files, whichever driver runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codec.decoding import Decoding
from codec.files import replacing

if TYPE_CHECKING:  # the sink imports the networks in the process that runs them
    from sim.media.frames import FrameOutput, Restorer
    from sim.protocol.events import FrameReady


@dataclass(frozen=True, slots=True)
class SavedOutput:
    """One frame as restored.

    Attributes:
        received: bool[h,w].
        indices: int64[h,w] by concealer.
        images: uint8[H,W,3] by concealer.
        probability, pixel_error: float32[h,w] by concealer; see `codec.concealment.Concealed`.
    """

    received: NDArray[np.bool_]
    indices: Mapping[str, NDArray[np.int64]]
    images: Mapping[str, NDArray[np.uint8]]
    probability: Mapping[str, NDArray[np.float32]]
    pixel_error: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, output: FrameOutput) -> SavedOutput:
        """The same without a file between."""
        restored = output.restored.items()
        return cls(
            output.received,
            {name: found.concealed.indices for name, found in restored},
            {name: found.image for name, found in restored},
            {name: found.concealed.probability for name, found in restored},
            {name: found.concealed.pixel_error for name, found in restored},
        )


class SavingSink:
    """Restores each frame and saves it in a folder."""

    def __init__(self, restorer: Restorer, folder: Path) -> None:
        self._restorer = restorer
        self._folder = folder

    def __call__(self, ready: FrameReady) -> None:
        """Restore and save one frame; the file appears whole."""
        save_output(self._folder, self._restorer.restore(ready))


def saving_sink(
    model: str | None, concealers: Sequence[str], decoding: Decoding, folder: Path
) -> SavingSink:
    """A sink for another process: loads the model there. See `sim.media.frames.load_model`."""
    from sim.media.frames import Restorer, load_model

    return SavingSink(Restorer(load_model(model), concealers, decoding), folder)


def save_output(folder: Path, output: FrameOutput) -> None:
    """Write one frame's output."""
    arrays: dict[str, NDArray[np.generic]] = {"received": output.received}
    for name, restored in output.restored.items():
        arrays[f"indices.{name}"] = restored.concealed.indices
        arrays[f"probability.{name}"] = restored.concealed.probability
        arrays[f"pixel_error.{name}"] = restored.concealed.pixel_error
        arrays[f"image.{name}"] = restored.image
    with replacing(_path(folder, output.frame)) as partial:
        np.savez(partial, **arrays)  # type: ignore[arg-type]


def read_output(folder: Path, frame: int) -> SavedOutput:
    """Read one frame's output back and remove its file."""
    path = _path(folder, frame)
    with np.load(path) as arrays:
        names = [key.removeprefix("image.") for key in arrays if key.startswith("image.")]
        output = SavedOutput(
            arrays["received"],
            {name: arrays[f"indices.{name}"] for name in names},
            {name: arrays[f"image.{name}"] for name in names},
            {name: arrays[f"probability.{name}"] for name in names},
            {name: arrays[f"pixel_error.{name}"] for name in names},
        )
    path.unlink()
    return output


def _path(folder: Path, frame: int) -> Path:
    return folder / f"frame-{frame:06d}.npz"
