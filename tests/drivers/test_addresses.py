"""Where ends meet: what is taken, what does not exist, who is refused."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from sim.drivers.links import open_receiver
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
