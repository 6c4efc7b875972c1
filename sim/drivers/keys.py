"""Folders of CURVE keys, for streams between machines.

A folder for each side: its own ``secret.key`` (only its owner may read it) and the public keys of
those it talks to in ``peers/``. `write_keys` makes both sides' folders; the sender's goes to the
other machine, over a way that can be trusted.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from sim.drivers.curve import new_pair, public_of
from sim.errors import UserError, os_errors

SIDES = ("receiver", "sender")
_Z85 = re.compile(rb"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")  # of 32 bytes (ZeroMQ RFC 32)


@dataclass(frozen=True)
class Keys:
    """One side's keys, Z85. ``pair``: (secret, public); ``peers``: public keys of the others."""

    pair: tuple[bytes, bytes]
    peers: tuple[bytes, ...]
    folder: Path

    def only_peer(self) -> bytes:
        """The one key in ``peers``.

        Raises:
            UserError: there is not exactly one.
        """
        if len(self.peers) != 1:
            raise UserError(
                f"{self.folder / 'peers'}: a sender needs the key of one receiver, "
                f"found {len(self.peers)}"
            )
        return self.peers[0]


def write_keys(folder: Path) -> tuple[Path, Path]:
    """Make new keys for a receiver and a sender that know each other.

    Returns:
        The folders for ``--keys``: the receiver's and the sender's.

    Raises:
        UserError: there are keys already, or it cannot be written there.
    """
    pairs = {side: new_pair() for side in SIDES}
    homes = {side: folder / side for side in SIDES}
    for home in homes.values():
        if home.exists():
            raise UserError(f"{home}: exists; keys are never overwritten")
    with os_errors(folder, "cannot write keys here"):
        for side, other in (SIDES, SIDES[::-1]):
            home = homes[side]
            (home / "peers").mkdir(parents=True, mode=0o700)
            home.chmod(0o700)
            _write(home / "secret.key", pairs[side][0], 0o600)
            _write(home / "peers" / f"{other}.key", pairs[other][1], 0o644)
    return homes["receiver"], homes["sender"]


def read_keys(folder: str | Path) -> Keys:
    """Read one side's keys.

    Raises:
        UserError: missing, not keys, or a secret that others may read.
    """
    home = Path(folder)
    secret_file = home / "secret.key"
    secret = _read(secret_file)
    mode = stat.S_IMODE(secret_file.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise UserError(
            f"{secret_file}: others may read this secret (mode {mode:03o}); "
            f"run chmod 600 {secret_file}"
        )
    peers = tuple(_read(path) for path in sorted((home / "peers").glob("*.key")))
    if not peers:
        raise UserError(f"{home / 'peers'}: no keys (*.key) of the other side")
    try:
        return Keys((secret, public_of(secret)), peers, home)
    except ValueError:
        raise UserError(f"{secret_file}: not a key") from None


def _write(path: Path, key: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(key + b"\n")


def _read(path: Path) -> bytes:
    with os_errors(path, "cannot read the key"):
        key = path.read_bytes().strip()
    if not _Z85.fullmatch(key):
        raise UserError(f"{path}: not a key (40 characters of Z85, as sim keys writes them)")
    return key
