"""Serial number arithmetic on 16-bit sequence numbers (RFC 1982, section 3)."""

from __future__ import annotations

SEQUENCE_BITS = 16
SEQUENCES = 1 << SEQUENCE_BITS


def unwrap(sequence: int, reference: int) -> int:
    """The integer congruent to ``sequence`` modulo 2**16 that lies nearest to ``reference``.

    Args:
        sequence: 0..2**16-1, from a packet.
        reference: any integer, of a packet known to be near.

    Returns:
        An integer in [reference - 2**15, reference + 2**15).
    """
    half = SEQUENCES // 2
    return reference + ((sequence - reference + half) % SEQUENCES) - half
