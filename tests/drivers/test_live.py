"""The live driver: the same results as in virtual time, and no hang whatever happens to a peer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sim.drivers.live import PeerError, run_live
from sim.drivers.record import StreamRecord
from sim.drivers.virtual import run_virtual
from tests.drivers import live_peers as peers

pytestmark = pytest.mark.timeout(60)

BURSTS = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}
ROUGH = {
    "loss": {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5},
    "link": {
        "delay_s": 0.15,
        "jitter": {"type": "normal", "std_s": 0.05},
        "reorder": 0.1,
        "reorder_s": 0.08,
        "duplicate": 0.2,
        "bit_error": 0.0005,
    },
}
PERFECT = {"type": "perfect"}


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


def live(**changes: Any) -> StreamRecord:
    options: dict[str, Any] = {
        "make_frames": peers.make_frames,
        "config": peers.CONFIG,
        "make_channel": partial(peers.make_channel, PERFECT, 1),
        "key": peers.KEY,
        "make_coders": peers.make_book,
        "pace": 0,
        "stall_s": 20,
    }
    return run_live(**{**options, **changes})


def virtual(make_channel: Callable[[], Any], frames: Callable[[], Any]) -> StreamRecord:
    return run_virtual(frames(), peers.CONFIG, make_channel(), peers.KEY, peers.make_book())


def as_data(record: StreamRecord) -> list[object]:
    """Everything in a record, in a form that compares byte for byte."""
    frames = [
        (
            frame.frame,
            frame.key,
            frame.grid.indices.shape,
            frame.grid.indices.tobytes(),
            frame.grid.received.tobytes(),
            frame.width,
            frame.height,
            frame.codebook_size,
            frame.complete,
            frame.first_arrival_s,
            frame.due_s,
        )
        for frame in record.frames
    ]
    return [record.packets, frames, record.counters, record.ledger]


@pytest.mark.parametrize(
    ("make_channel", "seed"),
    [
        (partial(peers.make_channel, BURSTS, 1), 1),
        (partial(peers.make_channel, BURSTS, 2), 2),
        (partial(peers.make_channel, ROUGH, 3), 3),
        (partial(peers.make_channel, ROUGH, 4), 4),
        (partial(peers.Ties, 5), 5),
    ],
)
def test_the_driver_law(make_channel: Callable[[], Any], seed: int) -> None:
    """Virtual and live lose the same packets and release the same frames, byte for byte."""
    frames = partial(peers.make_frames, 40, seed)
    assert as_data(live(make_frames=frames, make_channel=make_channel)) == as_data(
        virtual(make_channel, frames)
    )


def test_the_driver_law_over_udp() -> None:
    make_channel = partial(peers.make_channel, ROUGH, 8)
    expected = virtual(make_channel, peers.make_frames)
    assert as_data(live(make_channel=make_channel, transport="udp")) == as_data(expected)


def test_the_wall_clock_paces_but_does_not_change_the_result() -> None:
    make_channel = partial(peers.make_channel, BURSTS, 6)
    expected = virtual(make_channel, peers.make_frames)
    times: list[float] = []
    record = live(
        make_channel=make_channel,
        pace=0.5,
        progress=lambda done, total: times.append(time.monotonic()),
    )
    assert as_data(record) == as_data(expected)
    media_s = record.frames[-1].due_s - record.frames[0].due_s
    assert times[-1] - times[0] > 0.3 * media_s  # half, but for a busy machine's delays


def test_frames_are_handed_over_here_as_they_come() -> None:
    make_channel = partial(peers.make_channel, BURSTS, 7)
    steps: list[object] = []
    record = live(
        make_channel=make_channel,
        on_frame=steps.append,
        progress=lambda *step: steps.append(step),
    )
    assert steps[::2] == record.frames
    assert steps[1::2] == [(n + 1, 12) for n in range(12)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"make_frames": peers.raising}, "sender process: ValueError: no such luck"),
        ({"make_frames": peers.killed}, "sender process was killed by SIGKILL"),
        ({"make_channel": peers.exiting}, "sender process ended unexpectedly with exit code 3"),
        ({"make_coders": peers.raising_book}, "receiver process: ValueError: no such luck"),
        ({"make_coders": peers.killed_book}, "receiver process was killed by SIGKILL"),
        (
            {"make_coders": peers.hanging_book, "stall_s": 2},
            "no news of sender or receiver for 2 s",
        ),
    ],
)
def test_a_failing_peer_is_one_clear_error_soon(changes: dict[str, Any], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(PeerError) as error:
        live(**changes)
    assert str(error.value) == message
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_a_peer_killed_in_mid_stream_is_one_clear_error_soon(role: str) -> None:
    killed_at: list[float] = []

    def kill(done: int, total: int) -> None:
        if not killed_at:
            killed_at.append(time.monotonic())
            for child in multiprocessing.active_children():
                if child.name == f"stream-{role}" and child.pid is not None:
                    os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(PeerError, match=f"{role} process was killed by SIGKILL"):
        live(make_frames=partial(peers.make_frames, 200), pace=1, progress=kill)
    assert time.monotonic() - killed_at[0] < 5


def test_an_error_here_takes_both_peers_down() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(make_frames=partial(peers.make_frames, 200), pace=1, progress=stop)


def test_peers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
from functools import partial
from pathlib import Path
from tests.drivers import live_peers as peers
from sim.drivers.live import run_live
if __name__ == "__main__":
    folder = Path({str(tmp_path)!r})
    run_live(
        partial(peers.frames_with_pid, folder / "sender"),
        peers.CONFIG,
        partial(peers.Ties, 1),
        peers.KEY,
        partial(peers.book_with_pid, folder / "receiver"),
        pace=60,
    )
"""
    path = tmp_path / "parent.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(path)], env=environment)
    pids = [tmp_path / "sender", tmp_path / "receiver"]
    try:
        wait_for(lambda: all(path.exists() and path.read_text() for path in pids))
        time.sleep(0.5)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(is_running(int(path.read_text())) for path in pids))


def wait_for(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # one that waits to be reaped is gone
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("pace", [-1, float("nan"), float("inf")])
def test_a_senseless_pace_is_refused(pace: float) -> None:
    with pytest.raises(ValueError, match="pace"):
        live(pace=pace)
