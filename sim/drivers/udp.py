"""The plain UDP link: one socket at each end, one datagram a message, loopback only.

Nothing repeats what is lost and nothing says that it was; the window keeps what is under way well
below the socket's buffer, so on loopback the kernel has no reason to drop anything, and if it does
the numbers of the batches tell. Each datagram ends with a CRC-32, because UDP's own checksum is
16 bits and loopback computes none.
"""

from __future__ import annotations

import select
import socket
import zlib

from sim.drivers.address import Address, Peer, taken_by
from sim.errors import UserError

MAX_UDP_BYTES = 65_507
WINDOW = 8
BATCH_BYTES = 8192
_BUFFER_BYTES = 1 << 21
_CRC_BYTES = 4


def _socket(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    found.setblocking(False)
    return found


def _seal(message: bytes) -> bytes:
    return message + zlib.crc32(message).to_bytes(_CRC_BYTES, "big")


def _open(datagram: bytes) -> bytes:
    """The message in a datagram; b"" if it is damaged."""
    message = datagram[:-_CRC_BYTES]
    sound = zlib.crc32(message) == int.from_bytes(datagram[-_CRC_BYTES:], "big")
    return message if sound else b""


def _receive(from_: socket.socket, timeout_s: float) -> tuple[Peer, bytes] | None:
    """The sender of the next datagram and the message in it, within ``timeout_s``."""
    try:
        try:  # first, because asking whether there is one takes longer than taking it
            datagram, peer = from_.recvfrom(MAX_UDP_BYTES)
        except BlockingIOError:
            if timeout_s <= 0 or not select.select([from_], [], [], timeout_s)[0]:
                return None
            datagram, peer = from_.recvfrom(MAX_UDP_BYTES)
    except OSError:  # nobody listens there now
        return None
    return peer, _open(datagram)


class UdpSender:
    """See `SenderLink`."""

    window, batch_bytes, reliable = WINDOW, BATCH_BYTES, False

    def __init__(self, address: Address) -> None:
        self._socket = _socket(address)
        self._socket.connect((address.host, address.port))

    def send(self, message: bytes) -> bool:
        """Never blocks; False if the kernel has no room or nobody listens there now."""
        if len(message) > MAX_UDP_BYTES - _CRC_BYTES:
            raise UserError(f"a message of {len(message)} bytes does not fit a UDP datagram")
        try:
            self._socket.send(_seal(message))
        except OSError:  # refused by an earlier datagram's answer, or no room
            return False
        return True

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, within ``timeout_s``."""
        got = _receive(self._socket, timeout_s)
        return None if got is None else got[1]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class UdpReceiver:
    """See `ReceiverLink`."""

    ack_every = WINDOW // 2

    def __init__(self, address: Address) -> None:
        """Raises UserError if the address is not free."""
        self.anomalies: dict[str, int] = {}
        self._socket = _socket(address)
        try:
            self._socket.bind((address.host, address.port))
        except OSError as error:
            self._socket.close()
            raise UserError(
                f"{address.text}: cannot listen here ({error.strerror}){taken_by(address)}"
            ) from None
        host, port = self._socket.getsockname()[:2]
        self.address = f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        """The next message, within ``timeout_s``."""
        return _receive(self._socket, timeout_s)

    def send(self, peer: Peer, message: bytes) -> bool:
        """Never blocks; False if the kernel has no room."""
        try:
            self._socket.sendto(_seal(message), peer)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
