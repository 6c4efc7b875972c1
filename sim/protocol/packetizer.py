"""A frame's tokens <-> packets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from codec.entropy import ENTROPY_MODES, CoderFor, PayloadCoder, Positions
from codec.range_coder import CorruptPayload
from codec.replenishment import ReplenishmentCoder
from sim.protocol.config import StreamConfig
from sim.protocol.events import ReceivedGrid
from sim.protocol.packet import Layout, Packet
from sim.protocol.sequence import SEQUENCES

__all__ = ["CoderFor", "FrameAssembly", "Packetizer", "coder_of"]


def coder_of(layout: Layout, coders: CoderFor) -> PayloadCoder:
    """The coder of a layout's slices; raises LookupError if there is none."""
    coder = coders(ENTROPY_MODES.index(layout.entropy), layout.codebook_size)
    return ReplenishmentCoder(coder, layout.codebook_size) if layout.replenished else coder


class FrameAssembly:
    """One frame on its way to completion: put slices in as they come, take the grid any time.

    Each slice fills its own cells and no others, so losing one never changes the rest.
    """

    def __init__(self, layout: Layout, coders: CoderFor) -> None:
        """Raises LookupError if there is no coder for this layout."""
        self.layout = layout
        self._coder = coder_of(layout, coders)
        self._indices = np.full(layout.tokens, -1, np.int64)

    def holds(self, slice_: int) -> bool:
        """Whether the slice is there."""
        return bool(self._indices[self.layout.positions[slice_][0]] != -1)

    def put(self, slice_: int, payload: bytes) -> None:
        """Decode a slice of this frame into its cells.

        Raises:
            CorruptPayload: the payload does not decode; nothing has changed.
        """
        errors = self.put_all((slice_,), (payload,))
        if errors:
            raise errors[0]

    def put_all(
        self, slices: Sequence[int], payloads: Sequence[bytes]
    ) -> dict[int, CorruptPayload]:
        """`put` for several slices in one pass; of two payloads for one, the first that decodes
        counts.

        Returns:
            By place in `slices`, what is wrong with those that do not decode; for them nothing has
            changed.
        """
        cells = [self.layout.positions[slice_] for slice_ in slices]
        tokens, errors = self._coder.decode_all(payloads, cells, self.layout.grid)
        parts = np.split(tokens, np.cumsum([len(places) for places in cells[:-1]]))
        for number in reversed(range(len(cells))):
            if number not in errors:
                self.place((cells[number],), parts[number])
        return errors

    def place(self, cells: Positions, tokens: NDArray[np.int64]) -> None:
        """Take decoded slices.

        Args:
            cells: each slice's.
            tokens: int64[n], of all of them; `codec.replenishment.KEPT` for those that are not
                sent, -1 for those that did not decode.
        """
        self._indices[np.concatenate(cells)] = tokens

    def grid(self) -> ReceivedGrid:
        """The tokens so far; a copy. Those that are not sent are `KEPT`, and not received."""
        indices = self._indices.reshape(self.layout.grid).copy()
        return ReceivedGrid(indices, indices >= 0)


class Packetizer:
    """Cuts frames into packets and puts them together again."""

    def __init__(self, config: StreamConfig, coder_for: CoderFor) -> None:
        """Raises LookupError if there is no coder for the configured entropy mode and codebook."""
        self._config = config
        self._coders = coder_for
        self._layouts: dict[tuple[int, int], Layout] = {}  # by width and height
        coder_for(ENTROPY_MODES.index(config.entropy), config.codebook_size)

    def split(
        self, index_map: NDArray[np.int64], width: int, height: int, first_sequence: int
    ) -> list[Packet]:
        """The packets of one frame, in sending order.

        Args:
            index_map, width, height: as for `payloads`, whose errors this raises.
            first_sequence: number of slice 0; any integer, taken modulo 2**16.
        """
        layout, payloads = self.payloads(index_map, width, height)
        return [
            Packet((first_sequence + number) % SEQUENCES, number, layout, payload)
            for number, payload in enumerate(payloads)
        ]

    def payloads(
        self, index_map: NDArray[np.int64], width: int, height: int
    ) -> tuple[Layout, list[bytes]]:
        """The payloads of one frame's packets, in sending order, and how it is cut.

        Args:
            index_map: int64[h, w], the grid of its size and patch, values 0..K-1; with
                replenishment also `codec.replenishment.KEPT`, for tokens that are not sent.
            width, height: of the image, in pixels.

        Raises:
            StreamConfigError: a slice could outgrow the mtu.
            ValueError: the map's shape or a value does not fit.
        """
        if (width, height) not in self._layouts:
            self._layouts[width, height] = self._config.layout(width, height)
        layout = self._layouts[width, height]
        if index_map.shape != layout.grid:
            raise ValueError(
                f"a {width}x{height} image has a grid of {layout.grid}, not {index_map.shape}"
            )
        tokens = np.ascontiguousarray(index_map, np.int64).ravel()
        tokens = tokens[layout.order]
        coder = coder_of(layout, self._coders)
        return layout, coder.encode_all(tokens, layout.positions, layout.grid)

    def join(self, packets: Iterable[Packet]) -> ReceivedGrid:
        """What a frame's packets hold, in any order, with any of them missing.

        A payload that does not decode counts as lost; see `FrameAssembly.put_all`.

        Raises:
            ValueError: there is no packet, or they disagree about the frame's layout.
            LookupError: there is no coder for this layout.
        """
        packets = list(packets)
        if len({packet.layout for packet in packets}) != 1:
            raise ValueError("packets of exactly one frame are needed")
        assembly = FrameAssembly(packets[0].layout, self._coders)
        assembly.put_all([p.slice for p in packets], [p.payload for p in packets])
        return assembly.grid()
