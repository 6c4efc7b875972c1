"""Key pairs of CURVE, ZeroMQ's encryption."""

from __future__ import annotations

import zmq


def new_pair() -> tuple[bytes, bytes]:
    """A new CURVE pair in Z85: (secret, public), 40 characters each."""
    public, secret = zmq.curve_keypair()
    return secret, public


def public_of(secret: bytes) -> bytes:
    """The public key of a secret one.

    Raises:
        ValueError: it is not a secret key.
    """
    try:
        return zmq.curve_public(secret)
    except zmq.ZMQError:
        raise ValueError("no CURVE key") from None
