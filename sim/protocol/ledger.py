"""The account of a stream: every packet and every byte, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.protocol.receiver import REJECTIONS


class LedgerError(RuntimeError):
    """The account does not close: packets appeared or vanished that no channel has judged."""


def bpp(size_bytes: int, pixels: int) -> float:
    """Bits per pixel; NaN for no pixels."""
    return 8 * size_bytes / pixels if pixels else float("nan")


@dataclass
class Ledger:
    """Counts of one run.

    Attributes:
        sent: packets handed to the channel.
        erased: of these, never arrived.
        delivered: of these, arrived at least once.
        duplicated: copies that arrived beyond the first.
        corrupted: copies that arrived with changed bytes.
        late: packets whose first copy arrived after the playout deadline.
        payload_bytes: sent, without headers.
        wire_bytes: sent, with everything the protocol adds.
        control_bytes: of the handshake; outside the loss model, in no rate.
        pixels: of all frames.
    """

    sent: int = 0
    erased: int = 0
    delivered: int = 0
    duplicated: int = 0
    corrupted: int = 0
    late: int = 0
    payload_bytes: int = 0
    wire_bytes: int = 0
    control_bytes: int = 0
    pixels: int = 0

    @property
    def bpp(self) -> float:
        """Payload bits per pixel."""
        return bpp(self.payload_bytes, self.pixels)

    @property
    def bpp_wire(self) -> float:
        """Bits per pixel of everything on the wire."""
        return bpp(self.wire_bytes, self.pixels)

    @property
    def loss_rate(self) -> float:
        """Erased packets per packet sent; NaN if none was."""
        return self.erased / self.sent if self.sent else float("nan")

    def check(self, counters: Mapping[str, int]) -> None:
        """Close the account against the receiver's ``counters``.

        Raises:
            LedgerError: sent is not erased + delivered, or the receiver has not seen every copy
                that was delivered, or not made up its mind about each.
        """
        received, accepted = counters["received"], counters["accepted"]
        rejected = sum(counters[reason] for reason in REJECTIONS)
        if self.sent != self.erased + self.delivered:
            raise LedgerError(
                f"{self.sent} sent, {self.erased} erased + {self.delivered} delivered"
            )
        if received != self.delivered + self.duplicated:
            raise LedgerError(
                f"{self.delivered} delivered + {self.duplicated} duplicated, {received} received"
            )
        if received != accepted + rejected:
            raise LedgerError(f"{received} received, {accepted} accepted + {rejected} rejected")
