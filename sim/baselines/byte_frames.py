"""Any file as a frame of the stream: its bytes are the tokens.

So a classical bitstream travels over the very same protocol, in packets with the same headers,
through the same losses, with the same parity and retransmissions, and the same account of bytes.
With 256 codewords and fixed-length coding a token is a byte, and the raster order gives every
packet a run of neighbouring bytes.

The file's length is in the packet headers: a grid of h rows and w columns has h * w - padding
bytes of file, and the frame's pixel sizes are 16 w - (padding mod 16) and
16 h - (padding div 16), which is what those fields of the header can say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.patches import PATCHES
from sim.drivers.record import MediaFrame
from sim.protocol.packet import MAX_SIDE

_PATCH = PATCHES[0]
BYTE_STREAM = {
    "codec.codebook": 256,
    "codec.entropy": "fixed",
    "codec.patch": _PATCH,
    "stream.interleaver": "raster",
    "stream.refresh": None,
}
"""What a scenario must say for its tokens to be bytes in order, all of them sent."""

MAX_FILE_BYTES = 1 << 17
_MAX_COLUMNS = MAX_SIDE // _PATCH


@dataclass(frozen=True)
class ReceivedFile:
    """What arrived of a file.

    Attributes:
        data: all its bytes, zeros where they are missing.
        received: bool[n], which bytes arrived.
    """

    data: bytes
    received: NDArray[np.bool_]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return bool(self.received.all())


def byte_frame(name: str, file: bytes) -> MediaFrame:
    """The frame that carries a file of 1 to `MAX_FILE_BYTES` bytes.

    Raises:
        ValueError: the file is empty or too long.
    """
    if not 1 <= len(file) <= MAX_FILE_BYTES:
        raise ValueError(f"a file of 1 to {MAX_FILE_BYTES} bytes is needed, got {len(file)}")
    rows = -(-len(file) // _MAX_COLUMNS)
    columns = -(-len(file) // rows)
    padding = rows * columns - len(file)  # < rows <= 256
    tokens = np.zeros(rows * columns, np.int64)
    tokens[: len(file)] = np.frombuffer(file, np.uint8)
    width = _PATCH * columns - padding % _PATCH
    height = _PATCH * rows - padding // _PATCH
    return MediaFrame(name, tokens.reshape(rows, columns), width, height)


def received_file(
    indices: NDArray[np.int64], received: NDArray[np.bool_], width: int, height: int
) -> ReceivedFile:
    """What of a file is in a frame as the receiver has it.

    Args:
        indices: int64[h,w], values where `received` is False are ignored.
        received: bool[h,w].
        width, height: of the frame, in pixels.
    """
    padding = -width % _PATCH + _PATCH * (-height % _PATCH)
    length = indices.size - padding
    there = received.ravel()[:length]
    data = np.where(there, indices.ravel()[:length], 0).astype(np.uint8).tobytes()
    return ReceivedFile(data, there)
