"""Links, which carry messages between a sender and a receiver: one interface, two transports.

A link moves whole messages of `wire`, unchanged and bounded, whatever they contain.
``zeromq`` loses nothing while both ends live and blocks when the other end does not read;
``udp`` may lose datagrams. Both stay on this machine unless keys protect them.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Protocol

from sim.drivers.address import Address, Peer, check_exposure, check_resolves, read_address
from sim.errors import UserError


class SenderLink(Protocol):
    """The sender's end: connects to one receiver, in whatever order the two start.

    Attributes:
        window: batches that may be under way unanswered; the sender's and the receiver's memory
            are bounded by it.
        batch_bytes: a batch is closed when it holds so many bytes.
        reliable: whether silence means that nothing was lost.
    """

    window: int
    batch_bytes: int
    reliable: bool

    def send(self, message: bytes) -> bool:
        """Send one message; False if there is no room or no receiver at the moment."""
        ...

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message from the receiver; None if none comes in time."""
        ...

    def close(self) -> None:
        """Close the socket; what is under way may be lost."""
        ...


class ReceiverLink(Protocol):
    """The receiver's end: bound, and open to any number of senders.

    Attributes:
        address: where senders connect to.
        anomalies: what the link itself refused, by name.
        ack_every: batches that are acknowledged together, well below the sender's window.
    """

    address: str
    anomalies: dict[str, int]
    ack_every: int

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        """The next message and its sender; None if none comes in time."""
        ...

    def send(self, peer: Peer, message: bytes) -> bool:
        """Send one message to a peer; False if it is gone or does not read."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...


def open_sender(text: str, keys: str | None = None) -> SenderLink:
    """A link to the receiver at an address.

    Args:
        text: the address.
        keys: folder of the sender's CURVE keys; see `sim.drivers.keys`.

    Raises:
        UserError: not an address, one that is not safe, or keys that cannot be used.
    """
    address = read_address(text)
    check_exposure(address, keys)
    check_resolves(address)
    if address.scheme == "udp":
        from sim.drivers.udp import UdpSender

        _no_keys(address, keys)
        return UdpSender(address)
    from sim.drivers.keys import read_keys
    from sim.drivers.zeromq import ZmqSender

    return ZmqSender(address, None if keys is None else read_keys(keys))


def open_receiver(text: str, keys: str | None = None) -> ReceiverLink:
    """A link bound to an address.

    Args:
        text: the address.
        keys: folder of the receiver's CURVE keys; only the senders whose keys are in it may talk.

    Raises:
        UserError: not an address, one that is not safe or not free, or keys that cannot be used.
    """
    address = read_address(text)
    check_exposure(address, keys)
    if address.scheme == "udp":
        from sim.drivers.udp import UdpReceiver

        _no_keys(address, keys)
        return UdpReceiver(address)
    if address.scheme == "ipc":
        _check_path(address.text.removeprefix("ipc://"))
    from sim.drivers.keys import read_keys
    from sim.drivers.zeromq import ZmqReceiver

    return ZmqReceiver(address, None if keys is None else read_keys(keys))


def _check_path(path: str) -> None:
    """Raise UserError unless a socket may be made at a path: ZeroMQ removes what is there."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"ipc://{path}: cannot listen here ({error.strerror})") from None
    if not stat.S_ISSOCK(mode):
        raise UserError(f"ipc://{path}: something else is there, no socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:  # left behind by somebody who is gone
            return
    raise UserError(f"ipc://{path}: another receiver listens here; choose another path")


def _no_keys(address: Address, keys: str | None) -> None:
    if keys is not None:
        raise UserError(f"{address.text}: plain UDP has no encryption; use tcp:// with --keys")
