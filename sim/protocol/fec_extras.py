"""Erasure codes from compiled libraries, each an extra of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sim.protocol.erasure_codes import ReedSolomon

_HEADER_BYTES = 80  # that liberasurecode puts before every fragment
_MAX_FRAGMENTS = 32  # of liberasurecode; larger blocks go the way without it
_PAYLOAD_ID_BYTES = 4  # RFC 6330, section 3.2


class IsalReedSolomon:
    """The Cauchy code by Intel's ISA-L, through pyeclib: the bytes of `ReedSolomon`."""

    alignment = 1

    def __init__(self) -> None:
        self._plain = ReedSolomon()

    def encode(self, symbols: Sequence[bytes], parity: int) -> list[bytes]:
        """See `fec.ErasureCode.encode`."""
        k = len(symbols)
        if k + parity > _MAX_FRAGMENTS:
            return self._plain.encode(symbols, parity)
        fragments = _driver(k, parity).encode(b"".join(symbols))
        return [fragment[_HEADER_BYTES:] for fragment in fragments[k:]]

    def decode(self, k: int, parity: int, held: Mapping[int, bytes]) -> dict[int, bytes]:
        """See `fec.ErasureCode.decode`."""
        lost = [i for i in range(k) if i not in held]
        if k + parity > _MAX_FRAGMENTS or len(held) < k or not lost:
            return self._plain.decode(k, parity, held)
        length = len(next(iter(held.values())))
        headers = _headers(k, parity, length)
        numbers = sorted(held)[:k]
        data = _driver(k, parity).decode([headers[i] + held[i] for i in numbers])
        return {i: data[i * length : (i + 1) * length] for i in lost}


@lru_cache(maxsize=64)
def _driver(k: int, parity: int) -> Any:
    from pyeclib.ec_iface import ECDriver

    return ECDriver(k=k, m=parity, ec_type="isa_l_rs_cauchy")


@lru_cache(maxsize=1024)
def _headers(k: int, parity: int, length: int) -> tuple[bytes, ...]:
    """liberasurecode's header of every fragment; it depends on the sizes, not on the data."""
    return tuple(
        fragment[:_HEADER_BYTES] for fragment in _driver(k, parity).encode(bytes(k * length))
    )


class RaptorQ:
    """RFC 6330, by the raptorq package. Symbol i has encoding symbol id i, parity j id k + j."""

    alignment = 8  # of its symbols

    def encode(self, symbols: Sequence[bytes], parity: int) -> list[bytes]:
        """See `fec.ErasureCode.encode`."""
        from raptorq import Encoder

        packets = Encoder.with_defaults(b"".join(symbols), len(symbols[0])).get_encoded_packets(
            parity
        )
        return [packet[_PAYLOAD_ID_BYTES:] for packet in packets[len(symbols) :]]

    def decode(self, k: int, parity: int, held: Mapping[int, bytes]) -> dict[int, bytes]:
        """See `fec.ErasureCode.decode`."""
        from raptorq import Decoder

        lost = [i for i in range(k) if i not in held]
        if len(held) < k or not lost:
            return {}
        length = len(next(iter(held.values())))
        decoder = Decoder.with_defaults(k * length, length)
        for number in sorted(held):
            block = decoder.decode(number.to_bytes(_PAYLOAD_ID_BYTES, "big") + held[number])
            if block is not None:
                return {i: block[i * length : (i + 1) * length] for i in lost}
        return {}
