"""Sidecar metadata: what a live sender sends beside its stream, for the receiver's tables.

It says what the channel did to each packet and which tokens were sent. It travels in notes, which
are no packets: they are outside the loss model, count in no rate, and what decodes never sees them.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.drivers.record import PacketRecord
from sim.protocol.ledger import Ledger

_PACKETS_A_NOTE = 200
_MAX_TOKENS = 20_000  # of an image; more do not fit a note


def packet_metadata(records: Iterable[PacketRecord]) -> Iterator[bytes]:
    """The records of packets, as notes."""
    rows = [list(record) for record in records]
    for at in range(0, len(rows), _PACKETS_A_NOTE):
        yield _pack({"packets": rows[at : at + _PACKETS_A_NOTE]})


def image_metadata(frame: int, name: str, digest: str, index_map: NDArray[np.int64]) -> bytes:
    """A note of an image as it was sent: its tokens int64[h,w], 0..2**15-1, unless there are too
    many."""
    tokens = None
    if index_map.size <= _MAX_TOKENS:
        tokens = base64.b64encode(index_map.astype(">u2").tobytes()).decode()
    shape = list(index_map.shape)
    return _pack(
        {"image": {"frame": frame, "name": name, "digest": digest, "shape": shape, "map": tokens}}
    )


def _pack(note: Mapping[str, Any]) -> bytes:
    return json.dumps(note, separators=(",", ":")).encode()


class SidecarMetadata:
    """The metadata of a stream, as its notes come in.

    Attributes:
        packets: every packet that was sent, in order.
        digests: fingerprints of the images, by frame.
        maps: their tokens, int64[h,w], by frame.
    """

    def __init__(self) -> None:
        self.packets: list[PacketRecord] = []
        self.digests: dict[int, str] = {}
        self.maps: dict[int, NDArray[np.int64]] = {}

    def add(self, data: bytes) -> list[PacketRecord]:
        """Take a note, and return the packets in it.

        Raises:
            ValueError: it is malformed.
        """
        try:
            note = json.loads(data)
            found = [PacketRecord(*row) for row in note.get("packets", ())]
            if (image := note.get("image")) is not None:
                frame = int(image["frame"])
                self.digests[frame] = str(image["digest"])
                if image["map"] is not None:
                    raw = np.frombuffer(base64.b64decode(image["map"]), ">u2")
                    self.maps[frame] = raw.astype(np.int64).reshape(image["shape"])
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a note: {error!r}") from None
        self.packets += found
        return found


def pack_account(ledger: Ledger, captured: int, interrupted: bool) -> dict[str, Any]:
    """The sender's account for the end of a stream."""
    return {
        "ledger": dataclasses.asdict(ledger),
        "captured": captured,
        "interrupted": interrupted,
    }


def read_ledger(account: Mapping[str, Any]) -> Ledger:
    """The ledger in an account.

    Raises:
        ValueError: there is none.
    """
    try:
        return Ledger(**account["ledger"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no ledger in the account: {error}") from None
