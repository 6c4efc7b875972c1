"""Erasure codes: some symbols of one length in, parity out; enough of both in, what is lost out.

reed_solomon  any k of k + m suffice. Systematic Cauchy code over GF(2**8) with the polynomial
              0x11d: parity j is the sum of ``s[i] / ((k + j) ^ i)`` (J. Bloemer et al., "An
              XOR-based erasure-resilient coding scheme", ICSI TR-95-048, 1995: every square part
              of a Cauchy matrix is regular). The same matrix as ISA-L's, so that where pyeclib is
              installed it takes over (`fec_extras`), with the same bytes.
xor           parity j is the sum of the symbols i with ``i % m == j``: each sum restores one loss
              (as the columns of RFC 5109 and SMPTE ST 2022-1).
raptorq       RFC 6330 (`fec_extras`): any k suffice with a probability of about 99%, any k + 2
              nearly always.

A product of a constant and a symbol is one `bytes.translate`, a sum one XOR of large integers:
for packets this is faster than numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

_POLYNOMIAL = 0x11D
_Matrix = tuple[tuple[int, ...], ...]


class Xor:
    """Sums of every m-th symbol."""

    alignment = 1

    def encode(self, symbols: Sequence[bytes], parity: int) -> list[bytes]:
        """See `fec.ErasureCode.encode`; at most k parity symbols."""
        return [_sum(symbols[j::parity]) for j in range(parity)]

    def decode(self, k: int, parity: int, held: Mapping[int, bytes]) -> dict[int, bytes]:
        """See `fec.ErasureCode.decode`: the lost symbol of every sum that misses only one."""
        restored = {}
        for j in range(min(parity, k)):
            lost = [i for i in range(j, k, parity) if i not in held]
            if len(lost) == 1 and k + j in held:
                present = [held[i] for i in range(j, k, parity) if i in held]
                restored[lost[0]] = _sum([held[k + j], *present])
        return restored


class ReedSolomon:
    """The Cauchy code in Python."""

    alignment = 1

    def encode(self, symbols: Sequence[bytes], parity: int) -> list[bytes]:
        """See `fec.ErasureCode.encode`."""
        k = len(symbols)
        return [_combine(row, symbols) for row in _cauchy(k, tuple(range(parity)))]

    def decode(self, k: int, parity: int, held: Mapping[int, bytes]) -> dict[int, bytes]:
        """See `fec.ErasureCode.decode`: all that is lost, if k symbols are held, or nothing."""
        lost = tuple(i for i in range(k) if i not in held)
        used = tuple(j for j in range(parity) if k + j in held)[: len(lost)]
        if len(used) < len(lost) or not lost:
            return {}
        known = [i for i in range(k) if i in held]
        symbols = [held[i] for i in known]
        # What is left of each parity symbol without the symbols that are there.
        rest = [
            _sum([held[k + j], _combine([row[i] for i in known], symbols)])
            if known
            else held[k + j]
            for j, row in zip(used, _cauchy(k, used), strict=True)
        ]
        solution = _solution(k, lost, used)
        return {i: _combine(row, rest) for i, row in zip(lost, solution, strict=True)}


def _sum(symbols: Sequence[bytes]) -> bytes:
    total = 0
    for symbol in symbols:
        total ^= int.from_bytes(symbol, "little")
    return total.to_bytes(len(symbols[0]), "little")


def _combine(factors: Sequence[int], symbols: Sequence[bytes]) -> bytes:
    """The sum of factor times symbol."""
    tables = _times()
    total = 0
    for factor, symbol in zip(factors, symbols, strict=True):
        total ^= int.from_bytes(symbol.translate(tables[factor]), "little")
    return total.to_bytes(len(symbols[0]), "little")


@lru_cache(maxsize=1)
def _times() -> tuple[bytes, ...]:
    """256 tables of 256 bytes: ``_times()[a][b]`` is a times b in GF(2**8)."""
    exponent, power = [0] * 255, 1  # of the generator 2
    logarithm = [0] * 256
    for i in range(255):
        exponent[i], logarithm[power] = power, i
        power <<= 1
        if power > 255:
            power ^= _POLYNOMIAL
    return (
        bytes(256),
        *(
            bytes([0] + [exponent[(logarithm[a] + logarithm[b]) % 255] for b in range(1, 256)])
            for a in range(1, 256)
        ),
    )


@lru_cache(maxsize=256)
def _inverse(value: int) -> int:
    """1 / value in GF(2**8), value 1..255."""
    return _times()[value].index(1)


@lru_cache(maxsize=1024)
def _cauchy(k: int, rows: tuple[int, ...]) -> _Matrix:
    """Rows of the parity matrix of k symbols."""
    return tuple(tuple(_inverse((k + j) ^ i) for i in range(k)) for j in rows)


@lru_cache(maxsize=256)
def _solution(k: int, lost: tuple[int, ...], used: tuple[int, ...]) -> _Matrix:
    """The inverse of the part of the parity matrix that parity rows and lost symbols share."""
    times = _times()
    size = len(lost)
    matrix = [
        [row[i] for i in lost] + [int(n == at) for n in range(size)]
        for at, row in enumerate(_cauchy(k, used))
    ]
    for at in range(size):  # Gauss-Jordan
        pivot = next(n for n in range(at, size) if matrix[n][at])
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        scale = times[_inverse(matrix[at][at])]
        matrix[at] = [scale[value] for value in matrix[at]]
        for n in range(size):
            if n != at and matrix[n][at]:
                factor = times[matrix[n][at]]
                matrix[n] = [
                    value ^ factor[pivot_value]
                    for value, pivot_value in zip(matrix[n], matrix[at], strict=True)
                ]
    return tuple(tuple(row[size:]) for row in matrix)
