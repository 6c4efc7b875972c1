"""Erasure codes by name: their interface, and which are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Protocol

from sim.protocol.erasure_codes import ReedSolomon, Xor
from sim.protocol.fec_extras import IsalReedSolomon, RaptorQ


class ErasureCode(Protocol):
    """Makes parity and restores what is lost. Stateless; symbols of a block have one length."""

    def encode(self, symbols: Sequence[bytes], parity: int) -> list[bytes]:
        """Parity of a block.

        Args:
            symbols: k >= 1 symbols of equal length >= 1, a multiple of `alignment`.
            parity: m >= 1, k + m <= 255.

        Returns:
            m symbols of that length.
        """
        ...

    def decode(self, k: int, parity: int, held: Mapping[int, bytes]) -> dict[int, bytes]:
        """Restore lost symbols of a block.

        Args:
            k, parity: as in `encode`.
            held: symbols of equal length by number: 0..k-1 from the block, then its parity.

        Returns:
            Symbols of 0..k-1 that are not held, by number: as many as can be restored, which may
            be none. Right if everything held is; the caller checks.
        """
        ...

    @property
    def alignment(self) -> int:
        """Symbol lengths must be a multiple of this many bytes."""
        ...


def erasure_code(name: str) -> ErasureCode:
    """The code of that name, one of `protection.FEC_CODES`; the fastest that is installed."""
    if name == "xor":
        return Xor()
    if name == "raptorq":
        return RaptorQ()
    if find_spec("pyeclib") is not None:
        return IsalReedSolomon()
    return ReedSolomon()
