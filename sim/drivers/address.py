"""Where a stream goes: ``tcp://HOST:PORT``, ``ipc://PATH`` (ZeroMQ) and ``udp://HOST:PORT``; port 0
or ``*`` lets the system choose."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil

from sim.errors import UserError

Peer = Any
"""Who sent a message; hashable, meaningful to its link only."""


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address; ``scheme`` is "tcp", "ipc" or "udp", port 0 means any."""

    scheme: str
    host: str
    port: int
    text: str

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.scheme == "ipc" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_address(text: str) -> Address:
    """Read an address.

    Raises:
        UserError: it is malformed.
    """
    scheme, _, rest = text.partition("://")
    if scheme == "ipc" and rest:
        return Address(scheme, "", 0, text)
    try:
        if scheme not in ("tcp", "udp"):
            raise ValueError
        parts = urlsplit(f"//{rest[:-1]}0" if rest.endswith(":*") else f"//{rest}")
        host, port = parts.hostname, parts.port
        if not host or port is None or parts.path or parts.username:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{text}: not an address; write tcp://127.0.0.1:5555, udp://127.0.0.1:5555 or ipc://PATH"
        ) from None
    name = f"[{host}]" if ":" in host else host
    return Address(scheme, host, port, f"{scheme}://{name}:{port or '*'}")


def check_exposure(address: Address, keys: object | None) -> None:
    """Check that a stream stays on this machine unless it is encrypted and its peers are known.

    Raises:
        UserError: the address is reachable from elsewhere, and nothing protects it.
    """
    if address.is_loopback:
        return
    if address.scheme == "udp":
        raise UserError(
            f"{address.text}: plain UDP stays on this machine (127.0.0.1): it is neither encrypted "
            "nor authenticated; use tcp:// with --keys"
        )
    if keys is None:
        raise UserError(
            f"{address.text}: reachable from other machines, so it needs --keys (make them with "
            "`sim keys FOLDER`)"
        )


def check_resolves(address: Address) -> None:
    """Raise UserError unless the host of an address is known."""
    if address.scheme == "ipc":
        return
    try:
        socket.getaddrinfo(address.host, address.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name of a host"
        raise UserError(f"{address.text}: cannot resolve {address.host} ({reason})") from None


def taken_by(address: Address) -> str:
    """The process that listens at an address, if the system knows it: "; taken by NAME (PID)"."""
    kind = "tcp" if address.scheme == "tcp" else "udp"
    try:
        for one in psutil.net_connections(kind):
            ours = one.laddr and one.laddr.port == address.port and not one.raddr
            if address.port and ours and one.pid:
                return f"; taken by {psutil.Process(one.pid).name()} (process {one.pid})"
    except (psutil.Error, OSError):
        pass
    return "; is it taken?"
