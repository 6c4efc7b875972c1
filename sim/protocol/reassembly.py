"""The frames between capture and deadline, as far as they have arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from codec.entropy import CoderFor, CorruptPayload
from sim.protocol.events import ReceivedGrid
from sim.protocol.header_index import Slice
from sim.protocol.packet import Layout
from sim.protocol.packetizer import FrameAssembly, coder_of

ReceivedSlice = tuple[float, Slice, bytes]
"""When a slice came, what it is, and its payload."""


@dataclass(slots=True)
class FrameBuffer:
    """A frame: the slices that have arrived, between which times, and how many parity restored."""

    assembly: FrameAssembly
    first_s: float | None = None
    last_s: float | None = None
    recovered: int = 0

    @property
    def grid(self) -> ReceivedGrid:
        """The tokens so far; a copy."""
        return self.assembly.grid()

    def came(self, first_s: float, last_s: float) -> None:
        """Note that slices have arrived between these times, which never decrease."""
        self.first_s = first_s if self.first_s is None else self.first_s
        self.last_s = last_s


class ReassemblyBuffer:
    """Decodes slices into their frames; memory is bounded by the frames not yet released."""

    def __init__(self, layouts: Sequence[Layout], coders: CoderFor) -> None:
        """``layouts``: of all frames; raises LookupError if there is no coder for one of them."""
        self._layouts, self._coders = layouts, coders
        self._frames: dict[int, FrameBuffer] = {}
        for layout in dict.fromkeys(layouts):
            FrameAssembly(layout, coders)

    def __len__(self) -> int:
        """Frames of which something is there."""
        return len(self._frames)

    def holds(self, frame: int, slice_: int) -> bool:
        """Whether this slice is there."""
        return frame in self._frames and self._frames[frame].assembly.holds(slice_)

    def put(self, frame: int, slice_: int, payload: bytes, now: float, restored: bool) -> None:
        """Decode a slice that is not there.

        Raises:
            CorruptPayload: it does not decode; nothing has changed.
        """
        arriving = self._frames.get(frame) or self._new(frame)
        arriving.assembly.put(slice_, payload)
        arriving.came(now, now)
        arriving.recovered += restored
        self._frames[frame] = arriving

    def put_all(self, taken: Sequence[ReceivedSlice]) -> dict[int, CorruptPayload]:
        """Decode slices that are not there, in the order in which they came, those of frames with
        one layout in one pass.

        Returns:
            By place in ``taken``, what is wrong with those that do not decode; for them nothing
            has changed.
        """
        if len({id(self._layouts[frame]) for frame in {found.frame for _, found, _ in taken}}) == 1:
            return self._put_alike(taken)
        errors: dict[int, CorruptPayload] = {}
        at = 0
        for _, run in groupby(taken, key=lambda one: one[1].frame):
            several = list(run)
            errors |= {at + place: error for place, error in self._put_alike(several).items()}
            at += len(several)
        return errors

    def _put_alike(self, taken: Sequence[ReceivedSlice]) -> dict[int, CorruptPayload]:
        """`put_all` for frames that have the same layout."""
        times_s, slices, payloads = zip(*taken, strict=True)
        layout = self._layouts[slices[0].frame]
        coder = coder_of(layout, self._coders)
        cells = [layout.positions[one.slice] for one in slices]
        tokens, errors = coder.decode_all(payloads, cells, layout.grid)
        at = token = 0
        for frame, run in groupby([one.frame for one in slices]):
            after = at + len(list(run))
            ours = cells[at:after]
            came_s = [times_s[n] for n in range(at, after) if n not in errors]
            size = sum(map(len, ours))
            if came_s:
                if frame not in self._frames:
                    self._frames[frame] = self._new(frame)
                self._frames[frame].assembly.place(ours, tokens[token : token + size])
                self._frames[frame].came(came_s[0], came_s[-1])
            at, token = after, token + size
        return errors

    def release(self, frame: int) -> FrameBuffer:
        """The frame as it is now; it is forgotten."""
        return self._frames.pop(frame, None) or self._new(frame)

    def _new(self, frame: int) -> FrameBuffer:
        return FrameBuffer(FrameAssembly(self._layouts[frame], self._coders))
