"""Who computes changes nothing, and leaves when told to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sim.errors import UserError
from sim.jobs.executor import SerialExecutor, Workers, open_workers

SLEEPER = """
import signal, sys, time
from functools import partial
from pathlib import Path
from sim.jobs.executor import open_workers

def make(folder):
    def work(task):
        (folder / f"begun-{task}").touch()
        time.sleep(600 if task else 0)
        return task
    return work

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    with open_workers(None, partial(make, Path(sys.argv[1])), 2) as workers:
        for task, _ in workers.results(iter(range(9))):
            (Path(sys.argv[1]) / f"kept-{task}").touch()
"""


def squares(offset: int) -> Callable[[int], int]:
    """A worker."""
    return lambda task: task * task + offset


def fatal() -> Callable[[int], int]:
    """A worker that dies of the task 3."""

    def work(task: int) -> int:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    return work


def threads() -> Callable[[int], int]:
    """A worker that tells on how many threads its networks run."""

    def work(task: int) -> int:
        import torch

        return torch.get_num_threads()

    return work


def test_this_process_does_one_after_the_other() -> None:
    begun: list[int] = []

    def work(task: int) -> int:
        begun.append(task)
        return -task

    with open_workers(work, fatal, 1) as workers:
        found = []
        for task, result in workers.results(iter([1, 2, 3])):
            found.append((task, result))
            assert begun == [t for t, _ in found]
    assert found == [(1, -1), (2, -2), (3, -3)]


def test_tasks_are_handed_out_in_parts() -> None:
    parts: list[list[int]] = []

    def work(tasks: list[int]) -> list[int]:
        parts.append(tasks)
        return tasks

    numbers = [1, 1, 3, 5, 2, 2, 1]
    workers = Workers(SerialExecutor(), work, share=lambda task: task / 4)
    assert list(workers.results(iter(numbers))) == [(n, n) for n in numbers]
    assert parts == [[1, 1, 3], [5], [2, 2], [1]]


@pytest.mark.slow
def test_processes_give_the_same() -> None:
    with open_workers(squares(7), partial(squares, 7), 2) as workers:
        found = dict(workers.results(iter(range(20))))
        assert dict(workers.results(iter(range(3)))) == {0: 7, 1: 8, 2: 11}
    assert found == {n: n * n + 7 for n in range(20)}
    with open_workers(threads(), threads, 2) as workers:
        assert {count for _, count in workers.results(iter(range(4)))} == {1}


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told() -> None:
    with (
        pytest.raises(UserError, match="a worker process was killed"),
        open_workers(fatal(), fatal, 2) as workers,
    ):
        list(workers.results(iter(range(9))))


@pytest.mark.slow
def test_an_interrupt_ends_all_at_once_and_keeps_what_is_finished(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wanted = {"kept-0", "begun-1", "begun-2"}
        while not wanted <= {path.name for path in tmp_path.iterdir()}:
            assert process.poll() is None
            time.sleep(0.05)
        start = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        process.wait(30)
        assert time.monotonic() - start < 15  # a task takes 600 s
        with pytest.raises(ProcessLookupError):  # nobody is left of its group
            while time.monotonic() - start < 20:
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
