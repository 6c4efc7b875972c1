"""The frames between capture and deadline, as far as they have arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from codec.entropy import CoderFor
from codec.range_coder import CorruptPayload
from sim.protocol.events import ReceivedGrid
from sim.protocol.header_index import ReceivedSlices
from sim.protocol.packet import Layout
from sim.protocol.packetizer import FrameAssembly, coder_of


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

    def put_all(self, taken: ReceivedSlices) -> dict[int, CorruptPayload]:
        """Decode slices that are not there, in the order in which they came, those of frames with
        one layout in one pass.

        Returns:
            By place in ``taken``, what is wrong with those that do not decode; for them nothing
            has changed.
        """
        frames, numbers = zip(*taken.slices, strict=True)
        ends = list(accumulate(len(list(run)) for _, run in groupby(frames)))
        runs = list(zip([0, *ends], ends, strict=False))  # of one frame each
        if len({id(self._layouts[frames[start]]) for start, _ in runs}) == 1:
            return self._put_alike(taken, frames, numbers, runs)
        errors: dict[int, CorruptPayload] = {}
        for run in runs:
            errors |= self._put_alike(taken, frames, numbers, [run])
        return errors

    def _put_alike(
        self,
        taken: ReceivedSlices,
        frames: Sequence[int],
        numbers: Sequence[int],
        runs: Sequence[tuple[int, int]],
    ) -> dict[int, CorruptPayload]:
        """`put_all` for runs one after the other, whose frames have the same layout."""
        begin, end = runs[0][0], runs[-1][1]
        layout = self._layouts[frames[begin]]
        coder = coder_of(layout, self._coders)
        positions = layout.positions
        cells = [positions[number] for number in numbers[begin:end]]
        tokens, wrong = coder.decode_all(taken.payloads[begin:end], cells, layout.grid)
        errors = {begin + place: error for place, error in wrong.items()}
        token = 0
        for start, stop in runs:
            ours = cells[start - begin : stop - begin]
            size = sum(map(len, ours))
            came_s = taken.times_s[start:stop]
            if errors:
                came_s = [taken.times_s[n] for n in range(start, stop) if n not in errors]
            if came_s:
                frame = frames[start]
                if frame not in self._frames:
                    self._frames[frame] = self._new(frame)
                self._frames[frame].assembly.place(ours, tokens[token : token + size])
                self._frames[frame].came(came_s[0], came_s[-1])
            token += size
        return errors

    def release(self, frame: int) -> FrameBuffer:
        """The frame as it is now; it is forgotten."""
        return self._frames.pop(frame, None) or self._new(frame)

    def _new(self, frame: int) -> FrameBuffer:
        return FrameBuffer(FrameAssembly(self._layouts[frame], self._coders))
