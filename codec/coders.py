"""All entropy coders of one model, by mode and codebook size."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from codec.context import ContextCoder, ContextTables
from codec.entropy import ENTROPY_MODES, FixedCoder, SliceCoder, StaticCoder


class CoderBook:
    """The coders of one model, made when they are first needed: ``book(mode, codebook_size)``, the
    mode being an index into `ENTROPY_MODES`, as in a packet's header. Can be pickled."""

    def __init__(
        self, frequencies: Mapping[int, ArrayLike], context: ContextTables | None = None
    ) -> None:
        """``frequencies``: by codebook size, the table uint32[K] of its `StaticCoder`; {}: no such
        coders. ``context``: the model's tables for its `ContextCoder`s; None: no such coders."""
        self._static = {size: StaticCoder(table) for size, table in frequencies.items()}
        self._fixed: dict[int, FixedCoder] = {}
        self._tables = context
        self._context: dict[int, SliceCoder] = {}

    def __call__(self, mode: int, codebook_size: int) -> SliceCoder:
        """The coder; raises LookupError where this model has none."""
        if ENTROPY_MODES[mode] == "fixed":
            if codebook_size not in self._fixed:
                self._fixed[codebook_size] = FixedCoder(codebook_size)
            return self._fixed[codebook_size]
        if ENTROPY_MODES[mode] == "static" and codebook_size in self._static:
            return self._static[codebook_size]
        if ENTROPY_MODES[mode] == "context" and self._tables is not None:
            if codebook_size not in self._context:
                self._context[codebook_size] = ContextCoder(self._tables, codebook_size)
            return self._context[codebook_size]
        raise LookupError(f"no {ENTROPY_MODES[mode]} coder for a codebook of {codebook_size}")
