"""Where ends meet: what is taken, what does not exist, who is refused."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from sim.drivers.keys import write_keys
from sim.drivers.links import open_receiver, open_sender
from sim.errors import UserError


def test_a_file_is_not_taken_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(UserError, match="no socket; choose another"):
        open_receiver(f"ipc://{path}")
    assert path.read_text() == "mine"


def test_a_second_receiver_leaves_the_first_its_path(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path / 'stream'}"
    with closing(open_receiver(address)):
        for _ in range(2):
            with pytest.raises(UserError, match="another receiver listens here"):
                open_receiver(address)
    open_receiver(address).close()


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with closing(open_receiver(f"ipc://{path}")) as link:
        assert link.address == f"ipc://{path}"


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(UserError, match=r"cannot resolve nosuch\.invalid"):
        open_sender("tcp://nosuch.invalid:5570", "keys")


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_port_in_use_is_told_with_who_uses_it(scheme: str) -> None:
    told = rf"cannot listen here .*\(process {os.getpid()}\)"
    with (
        closing(open_receiver(f"{scheme}://127.0.0.1:0")) as link,
        pytest.raises(UserError, match=told),
    ):
        open_receiver(link.address)


def test_the_key_of_another_receiver(tmp_path: Path) -> None:
    ours, _ = write_keys(tmp_path / "ours")
    _, theirs = write_keys(tmp_path / "theirs")
    with (
        closing(open_receiver("tcp://127.0.0.1:*", str(ours))) as receiver,
        closing(open_sender(receiver.address, str(theirs))) as sender,
    ):
        with pytest.raises(UserError, match="is not that of this receiver"):
            for _ in range(100):
                sender.send(b"hello")
                sender.receive(0.05)
        assert receiver.receive(0.1) is None
        assert receiver.anomalies["refused_key"] > 0


@pytest.mark.parametrize("file", ["secret.key", "peers/receiver.key"])
@pytest.mark.parametrize("content", [b"", b"x" * 39, b"~" * 40, bytes(40), b"\xff" * 40])
def test_a_broken_key_is_told_by_its_name(tmp_path: Path, file: str, content: bytes) -> None:
    _, sender = write_keys(tmp_path / "keys")
    (sender / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: not a key"):
        open_sender("tcp://127.0.0.1:5570", str(sender))
