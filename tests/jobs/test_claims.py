"""Work shared by processes through a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from sim.jobs.claims import SILENT_S, Claims, complete
from sim.jobs.executor import alone
from sim.jobs.store import Files, Record, Store, digest


@dataclass(frozen=True)
class Number:
    """Whose result is itself."""

    key: str


def claim_of(folder: Path, key: str, content: str, age_s: float = 0.0) -> None:
    """A claim as another process would have left it."""
    path = folder / "claims" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    when = time.time() - age_s
    os.utime(path, (when, when))


def ended_process() -> int:
    """The number of a process that was here."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_task_has_one_claim(tmp_path: Path) -> None:
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.take("a") and not two.take("a") and two.take("b")
        one.drop("a")
        assert two.take("a")
        two.drop("b")
        assert one.take("b")
    assert not (tmp_path / "claims").exists()


def test_one_comes_while_others_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one to leave removes the folder that the next one is about to write in."""
    write, leaving = Path.write_text, [1, 2, 3]

    def late(path: Path, content: str) -> int:
        if leaving:
            leaving.pop()
            path.parent.rmdir()
        return write(path, content)

    monkeypatch.setattr(Path, "write_text", late)
    with Claims(tmp_path) as claims:
        assert claims.take("a") and not leaving
    assert not (tmp_path / "claims").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("in the way")
    with pytest.raises(OSError), Claims(tmp_path):
        pass


def test_a_claim_of_a_dead_process_is_void(tmp_path: Path) -> None:
    here = os.uname().nodename
    claim_of(tmp_path, "alive", f"{here} {os.getpid()}")
    claim_of(tmp_path, "dead", f"{here} {ended_process()}")
    claim_of(tmp_path, "elsewhere", "some-other-machine 1")
    claim_of(tmp_path, "silent", "some-other-machine 1", 2 * SILENT_S)
    claim_of(tmp_path, "damaged", "", 2 * SILENT_S)
    with Claims(tmp_path) as claims:
        taken = [name.name for name in (tmp_path / "claims").iterdir() if claims.take(name.name)]
    assert sorted(taken) == ["damaged", "dead", "silent"]


def test_claims_cost_nothing_but_time_where_no_links_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        assert one.take("a") and two.take("a")


def test_everything_is_done_once_though_somebody_dies(tmp_path: Path) -> None:
    """Three at work, and the claims of one who was killed lie around."""
    tasks = [Number(digest(n)) for n in range(60)]
    for task in tasks[:5]:
        claim_of(tmp_path, task.key, f"{os.uname().nodename} {ended_process()}")
    done: list[str] = []
    counts: list[int] = []

    def work() -> None:
        def one(task: Number) -> tuple[Record, Files]:
            time.sleep(0.001)
            done.append(task.key)
            return {}, {}

        counts.append(complete(Store(tmp_path), tasks, alone(one)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == sorted(task.key for task in tasks)
    assert sum(counts) == 60 and len(Store(tmp_path)) == 60
    assert not (tmp_path / "claims").exists()


def test_records_are_whole_or_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    assert store.find("a") is None
    store.put("a", {"one": 1.5, "nan": float("nan")}, {"x/y.png": b"content"})
    found = store.get("a")
    assert found["one"] == 1.5 and found["nan"] != found["nan"]
    assert (store.files("a") / "x" / "y.png").read_bytes() == b"content"
    path = tmp_path / "new" / "a.json"
    for damaged in (path.read_bytes()[:-3], b"", b"\xff\xfe", b"[1]"):
        path.write_bytes(damaged)
        assert store.find("a") is None
    assert store.computed("a", lambda: {"again": True}) == {"again": True}
    assert store.find("a") == {"again": True}
