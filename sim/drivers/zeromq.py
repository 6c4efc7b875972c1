"""The ZeroMQ link: DEALER to ROUTER, one connection for both directions.

Nothing here drops in silence. DEALER blocks at its mark. ROUTER reads as it likes and, with
ROUTER_MANDATORY, refuses to send what it cannot route instead of throwing it away; it is what lets
a receiver tell senders apart. IMMEDIATE keeps messages from being queued for a receiver that is
not there; LINGER 0 lets an end go at once (the end of a stream is acknowledged, so nothing that
matters is under way then); MAXMSGSIZE and the marks bound memory.

A dead machine is found by TCP's keepalive, a silent peer by the probes of `live_sender`. ZeroMQ's
own heartbeats are off: a receiver that stalls fills its pipe, after which nothing reads the
heartbeats behind it, and the connection is cut with all that is under way.

With keys both ends speak CURVE, and an authenticator in the receiver's process admits only the
senders whose public keys it has.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import zmq
import zmq.auth.thread
from zmq.utils.monitor import parse_monitor_message

from sim.drivers.address import Address, Peer, taken_by
from sim.drivers.keys import Keys
from sim.drivers.wire import MAX_MESSAGE_BYTES
from sim.errors import UserError

HIGH_WATER = 64  # messages a socket holds for a peer before it blocks
WINDOW = 48
BATCH_BYTES = 49_152  # a batch is closed by what reaches this, and still fits a message
_HANDSHAKE_MS, _RECONNECT_MS, _MAX_RECONNECT_MS = 5000, 50, 1000
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_TIMES = 10, 5, 3


def _socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, address: Address
) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.sndhwm = socket.rcvhwm = HIGH_WATER
    socket.maxmsgsize = MAX_MESSAGE_BYTES
    socket.linger = 0
    socket.immediate = True
    socket.sndtimeo = socket.rcvtimeo = 0
    socket.tcp_keepalive, socket.tcp_keepalive_idle = 1, _KEEPALIVE_IDLE_S
    socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = _KEEPALIVE_EVERY_S, _KEEPALIVE_TIMES
    socket.handshake_ivl = _HANDSHAKE_MS
    socket.reconnect_ivl, socket.reconnect_ivl_max = _RECONNECT_MS, _MAX_RECONNECT_MS
    socket.ipv6 = ":" in address.host
    return socket


def _wait(socket: zmq.Socket[bytes], waits_ms: int, timeout_s: float) -> int:
    """Let a socket that waits so long for a message wait for ``timeout_s``; how long that is.

    Waiting in `recv` takes one call for a message that is late, where polling takes three.
    """
    timeout_ms = max(0, round(1000 * timeout_s))
    if timeout_ms != waits_ms:
        socket.rcvtimeo = timeout_ms
    return timeout_ms


_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_WRONG_KEY_AFTER = 20  # broken handshakes in a row: one may be a receiver that is going


class _Handshakes:
    """Events of a socket's handshakes since the last call."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._events = socket.get_monitor_socket(_FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def take(self) -> list[int]:
        """The events, in order."""
        found = []
        with suppress(zmq.Again):
            while True:
                message = self._events.recv_multipart(zmq.NOBLOCK)
                found.append(int(parse_monitor_message(message)["event"]))
        return found


class ZmqSender:
    """See `SenderLink`."""

    window, batch_bytes, reliable = WINDOW, BATCH_BYTES, True

    def __init__(self, address: Address, keys: Keys | None = None) -> None:
        """Raises UserError if the keys name no receiver."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket, self._waits_ms = _socket(self._context, zmq.DEALER, address), 0
        self._handshakes, self._failed = _Handshakes(self._socket), 0
        self._address, self._keys = address, keys
        try:
            if keys is not None:
                self._socket.curve_secretkey, self._socket.curve_publickey = keys.pair
                self._socket.curve_serverkey = keys.only_peer()
            self._socket.connect(address.text)
        except zmq.ZMQError as error:
            self.close()
            raise UserError(f"{address.text}: cannot connect ({error.strerror})") from None
        except UserError:
            self.close()
            raise

    def send(self, message: bytes) -> bool:
        """Never blocks.

        Raises:
            UserError: the receiver does not let this sender in.
        """
        try:
            self._socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            self._check_door()
            return False
        return True

    def _check_door(self) -> None:
        where = self._address.text
        for event in self._handshakes.take():
            self._failed = 0 if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else self._failed + 1
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise UserError(
                    f"{where}: the receiver refuses this sender's key; its folder of --keys needs "
                    "it in peers/"
                )
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                raise UserError(
                    f"{where}: what listens there speaks otherwise; sender and receiver need "
                    "--keys both, or neither"
                )
        if self._keys is not None and self._failed >= _WRONG_KEY_AFTER:
            raise UserError(
                f"{where}: the key in {self._keys.folder / 'peers'} is not that of this receiver"
            )

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, within ``timeout_s``."""
        self._waits_ms = _wait(self._socket, self._waits_ms, timeout_s)
        try:
            return self._socket.recv()
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)


class ZmqReceiver:
    """See `ReceiverLink`."""

    ack_every = WINDOW // 3

    def __init__(self, address: Address, keys: Keys | None = None) -> None:
        """Raises UserError if the address is not free."""
        self.anomalies = {"refused_key": 0}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: zmq.auth.thread.ThreadAuthenticator | None = None
        if keys is not None:
            self._authenticator = zmq.auth.thread.ThreadAuthenticator(self._context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(
                "*", CurveAuthenticator(keys, self.anomalies)
            )
        self._socket, self._waits_ms = _socket(self._context, zmq.ROUTER, address), 0
        self._handshakes = _Handshakes(self._socket)
        self._socket.router_mandatory = True
        if keys is not None:
            self._socket.curve_secretkey, self._socket.curve_publickey = keys.pair
            self._socket.curve_server = True
        try:
            self._socket.bind(address.text)
        except zmq.ZMQError as error:
            self.close()
            raise UserError(
                f"{address.text}: cannot listen here ({error.strerror}){taken_by(address)}"
            ) from None
        endpoint = bytes(self._socket.last_endpoint)  # type: ignore[arg-type]
        self.address = endpoint.decode().rstrip("\0")

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        """The next message, within ``timeout_s``."""
        self._waits_ms = _wait(self._socket, self._waits_ms, timeout_s)
        try:
            peer, message = self._socket.recv(), self._socket.recv()
        except zmq.Again:
            refused = self._handshakes.take().count(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
            if self._authenticator is not None:  # no key at all, or not for this receiver
                self.anomalies["refused_key"] += refused
            return None
        while self._socket.rcvmore:  # a stranger's idea of a message; it parses as none
            message = self._socket.recv()[:0]
        return peer, message

    def send(self, peer: Peer, message: bytes) -> bool:
        """Never blocks; False if it is not sent."""
        try:
            self._socket.send_multipart([peer, message], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def close(self) -> None:
        """Close the socket."""
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger=0)


class CurveAuthenticator:
    """Admits known public keys; called by the authenticator's thread."""

    def __init__(self, keys: Keys, anomalies: dict[str, int]) -> None:
        self._known = frozenset(keys.peers)
        self._anomalies = anomalies
        self._lock = threading.Lock()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a sender with this public key (Z85) may talk."""
        if key in self._known:
            return True
        with self._lock, suppress(KeyError):
            self._anomalies["refused_key"] += 1
        return False
