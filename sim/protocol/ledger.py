"""The account of a stream: every packet and every byte, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.protocol.events import REJECTIONS


class LedgerError(RuntimeError):
    """The account does not close: packets appeared or vanished that no channel has judged."""


def bpp(size_bytes: int, pixels: int) -> float:
    """Bits per pixel; NaN for no pixels."""
    return 8 * size_bytes / pixels if pixels else float("nan")


@dataclass
class Ledger:
    """Counts of one run.

    Attributes:
        sent: packets handed to the channel: media, parity and retransmissions.
        erased: of these, taken by the loss process.
        overflowed: of these, dropped by the link (`channels.base.OVERFLOWED`).
        delivered: of these, arrived at least once.
        duplicated: copies that arrived beyond the first.
        corrupted: copies that arrived with changed bytes.
        late: packets whose first copy arrived after the playout deadline.
        parity, retransmitted: of those sent, by kind.
        payload_bytes: of media sent for the first time, without headers.
        parity_bytes, retransmitted_bytes: of those packets, headers included.
        feedback: control packets handed to the way back.
        feedback_lost: of these, never arrived.
        feedback_copies: copies of these that arrived beyond the first.
        feedback_bytes: of these, headers included.
        wire_bytes: of everything sent in either direction, with everything the protocol adds.
        control_bytes: of the handshake; outside the loss model, in no rate.
        pixels: of all frames.
    """

    sent: int = 0
    erased: int = 0
    overflowed: int = 0
    delivered: int = 0
    duplicated: int = 0
    corrupted: int = 0
    late: int = 0
    parity: int = 0
    retransmitted: int = 0
    payload_bytes: int = 0
    parity_bytes: int = 0
    retransmitted_bytes: int = 0
    feedback: int = 0
    feedback_lost: int = 0
    feedback_copies: int = 0
    feedback_bytes: int = 0
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
        """Erased packets per packet sent, of all kinds; NaN if none was."""
        return self.erased / self.sent if self.sent else float("nan")

    def check(self, counters: Mapping[str, int], heard: int = 0) -> None:
        """Close the account against the receiver's ``counters``.

        Args:
            counters: the receiver's.
            heard: control packets, copies included, that the sender has taken note of.

        Raises:
            LedgerError: sent is not erased + overflowed + delivered, or the receiver has not seen
                every copy that was delivered, or not made up its mind about each; or the same on
                the way back.
        """
        received, accepted = counters["received"], counters["accepted"]
        rejected = sum(counters[reason] for reason in REJECTIONS)
        if self.sent != self.erased + self.overflowed + self.delivered:
            raise LedgerError(
                f"{self.sent} sent, {self.erased} erased + {self.overflowed} overflowed + "
                f"{self.delivered} delivered"
            )
        if received != self.delivered + self.duplicated:
            raise LedgerError(
                f"{self.delivered} delivered + {self.duplicated} duplicated, {received} received"
            )
        if received != accepted + rejected:
            raise LedgerError(f"{received} received, {accepted} accepted + {rejected} rejected")
        if self.feedback + self.feedback_copies != self.feedback_lost + heard:
            raise LedgerError(
                f"{self.feedback} feedback + {self.feedback_copies} copies, "
                f"{self.feedback_lost} lost + {heard} heard"
            )
