"""Laws of the studies and of the paper check, with the tiny untrained model and small pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, get_ident
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sim.studies.measurements import StudyTask, run_tasks
from sim.studies.repair.figures import draw_check, draw_study
from sim.studies.repair.masks import Condition, received
from sim.studies.repair.paper_check import (
    BASELINES,
    CLAIM,
    LESS_PSNR_DB,
    MORE_DISTANCE,
    summarize_check,
)

Cli = Callable[..., Any]
Redrawn = Callable[[Path, Callable[[Path], object]], bool]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        small = np.random.default_rng(number).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 80)).save(folder / f"{number}.png")
    return folder


def test_conditions_lose_what_they_say_and_interleavers_are_paired() -> None:
    """Over a long stream the rates agree; the same packets are lost in every order, so the same
    number of tokens."""
    grids = [(24, 36)] * 300
    for kind, spread in (("tokens", 0.003), ("packets", 0.02), ("bursts", 0.05)):
        found = received(Condition(kind, 0.2), grids, seed=1)  # type: ignore[arg-type]
        assert abs(np.mean([1 - there.mean() for there in found]) - 0.2) < spread
    lost = [~there for there in received(Condition("dispersed", 0.2, 5), grids, seed=1)]
    assert all(abs(gone.mean() - 0.2) < 0.001 for gone in lost)
    assert not any(
        (gone[1:] & gone[:-1]).any() or (gone[:, 1:] & gone[:, :-1]).any() for gone in lost
    )
    assert len({gone.tobytes() for gone in lost}) == 5  # each of the packets, at times
    orders = ("raster", "checkerboard", "low_discrepancy", "random")
    masks = [received(Condition("bursts", 0.3, 16, order), [(8, 8)] * 5, 1) for order in orders]
    counts = [[int(there.sum()) for there in found] for found in masks]
    assert counts == [counts[0]] * 4
    assert any(not np.array_equal(a, b) for a, b in zip(masks[0], masks[2], strict=True))
    again = received(Condition("bursts", 0.3, 16, orders[0]), [(8, 8)] * 5, 1)
    assert all(np.array_equal(a, b) for a, b in zip(masks[0], again, strict=True))


def test_jobs_are_done_once_and_the_order_of_rows_is_fixed(tmp_path: Path) -> None:
    done: list[str] = []

    def task(name: str, fails: bool = False) -> StudyTask:
        def rows() -> list[dict[str, Any]]:
            if fails:
                raise KeyboardInterrupt
            done.append(name)
            return [{"name": name, "nan": float("nan")}]

        return StudyTask(name, rows)

    about = {"kind": "test", "settings": {}}
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tmp_path / "s", about, [task(n, fails=True) for n in "abc"])
    (tmp_path / "s" / "jobs" / f"{task('b').key}.json").write_text(
        '{"name": "b", "rows": [{"name": "b"}]}'
    )
    rows = run_tasks(tmp_path / "s", about, [task(n) for n in "abc"])
    assert sorted(done) == ["a", "c"]
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["nan"] != rows[0]["nan"]


def test_a_job_tells_its_own_errors_and_the_start_of_a_study_stays_known(tmp_path: Path) -> None:
    about = {"kind": "test", "settings": {}}

    def absent() -> list[dict[str, Any]]:
        return [{"text": (tmp_path / "no-such-file").read_text()}]

    with pytest.raises(FileNotFoundError, match="no-such-file"):
        run_tasks(tmp_path / "s", about, [StudyTask("a", absent)])
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(json.dumps({**about, "revision": "of the first rows"}))
    assert run_tasks(tmp_path / "s", about, [StudyTask("a", lambda: [{"one": 1}])]) == [{"one": 1}]
    assert json.loads(manifest.read_text())["revision"] == "of the first rows"


def test_several_share_the_jobs(tmp_path: Path) -> None:
    """Each task is done once; all have all rows in the end."""
    folder, about, names = tmp_path / "s", {"kind": "test", "settings": {}}, "abcdefgh"
    done: list[str] = []
    together, here = Barrier(3), set[int]()

    def task(name: str) -> StudyTask:
        def rows() -> list[dict[str, Any]]:
            if get_ident() not in here:  # at its first
                here.add(get_ident())
                together.wait(10)
            done.append(name)
            return [{"name": name}]

        return StudyTask(name, rows)

    def work(_: int) -> Any:
        return run_tasks(folder, about, [task(name) for name in names])

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    assert found == [[{"name": name} for name in names]] * 3
    assert sorted(done) == [*names]
    assert not (folder / "jobs" / "claims").exists()


def test_several_may_begin_at_once(tmp_path: Path) -> None:
    """None takes the folder that another has just begun for something else."""
    about = {"kind": "test", "settings": {}}
    tasks = [StudyTask(name, lambda name=name: [{"name": name}]) for name in "abc"]  # type: ignore[misc]
    for number in range(20):
        together = Barrier(4)

        def run(_: int, folder: Path = tmp_path / str(number), together: Barrier = together) -> Any:
            together.wait()
            return run_tasks(folder, about, tasks)

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(run, range(4)))
        assert found == [[{"name": name} for name in "abc"]] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "table", "options"),
    [
        ("schedules", "table.csv", ("--levels", "64", "--passes", "1,3")),
        ("baselines", "table.csv", ("--levels", "64")),
        ("interleavers", "bits.csv", ("--codebook", "64")),
    ],
)
def test_studies_run_resume_and_draw(
    name: str, table: str, options: tuple[str, ...], cli: Cli, pictures: Path, redrawn: Redrawn
) -> None:
    call = ("study", name, "--images", pictures, "--model", "random", "--limit", "1", *options)
    first = cli(*call, "--out", "study", "--json")
    assert first.exit_code == 0, first.output
    text = Path("study", table).read_bytes()
    assert redrawn(Path("study"), draw_study)
    summary = json.loads(first.stdout)
    assert summary["points"] and summary["images"] == 1
    if name == "interleavers":
        drops = [point["psnr_drop_db"]["mean"] for point in summary["overall"]]
        assert len(drops) == 4 and drops == sorted(drops)
        assert "16 slices" in Path("study", "figures", "quality.svg").read_text()
        fixed = {p["bits_per_token"]["mean"] for p in summary["bits"] if p["entropy"] == "fixed"}
        assert min(fixed) >= 6, "bit-packing takes log2 K bits, and whole bytes per slice"
    again = cli(*call, "--out", "study")
    assert again.exit_code == 0, again.output
    assert Path("study", table).read_bytes() == text
    other = cli("study", name, "--images", pictures, "--model", "random", "--out", "study")
    assert other.exit_code == 2
    assert "choose another folder" in other.output


def test_paper_check_judges_and_never_fails(cli: Cli, pictures: Path, redrawn: Redrawn) -> None:
    call = ("paper-check", "--images", pictures, "--model", "random", "--levels", "64")
    result = cli(*call, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["claim"] in ("holds", "undecided", "does not hold")
    assert redrawn(Path(found["folder"]), draw_check)
    with Path(found["folder"], "paper-check.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (1 + len(CLAIM) + 1 + len(BASELINES))
    assert cli(*call).exit_code == 0
    assert cli("paper-check", "--images", pictures, "--levels", "x").exit_code == 2


def _rows(drop: float, more: float, noise: float) -> list[dict[str, Any]]:
    """Twelve images that lose `drop` dB and gain `more` distance, give or take `noise`."""
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        base: dict[str, Any] = {"image": str(number), "codebook": 64, "repeat": 0, "lost": 0.2}
        base |= {"token_accuracy": 0.5, "ms_ssim": 0.7, "ssimulacra2": 10.0}
        psnr, far = 20 + rng.normal(), 0.7 + 0.1 * rng.random()
        rows.append({**base, "condition": "clean", "repair": "clean", "psnr_db": psnr})
        rows[-1]["lpips"] = far
        for condition in (*(c.name for c in CLAIM), "tokens 50%"):
            for repair in ("inpaint", *(BASELINES if condition == "tokens 20%" else ())):
                lost = {"psnr_db": psnr - drop - noise * rng.normal()}
                lost["lpips"] = far * (1 + more + noise / 10 * rng.normal())
                rows.append({**base, "condition": condition, "repair": repair, **lost})
    return rows


def test_few_images_decide_nothing() -> None:
    rows = _rows(2.0, 0.5, 0.01)
    assert summarize_check(rows)["claim"] == "does not hold"
    few = [row for row in rows if row["image"] in {"0", "1", "2"}]
    assert summarize_check(few)["claim"] == "undecided"


@pytest.mark.parametrize(
    ("drop", "more", "noise", "verdict"),
    [
        (LESS_PSNR_DB - 0.1, MORE_DISTANCE - 0.02, 0.02, "holds"),
        (LESS_PSNR_DB + 0.1, MORE_DISTANCE - 0.02, 0.02, "does not hold"),
        (LESS_PSNR_DB - 0.1, MORE_DISTANCE + 0.02, 0.02, "does not hold"),
        (LESS_PSNR_DB - 0.01, MORE_DISTANCE - 0.02, 0.3, "undecided"),
    ],
)
def test_verdict_follows_the_limits(drop: float, more: float, noise: float, verdict: str) -> None:
    """How images differ from one another does not blur the comparison with themselves."""
    found = summarize_check(_rows(drop, more, noise))
    assert found["claim"] == verdict
    assert found["distances"] == ["lpips"]
    own = found["levels"][0]["conditions"]["packets 20%"]["inpaint"]
    exact = _rows(drop, more, noise)
    exact[0]["psnr_db"] = float("inf")  # nothing is known of such an image's loss
    assert summarize_check(exact)["claim"] in ("undecided", "does not hold")
    assert own["less_psnr_db"]["low"] <= own["less_psnr_db"]["mean"] <= own["less_psnr_db"]["high"]
    assert abs(own["less_psnr_db"]["mean"] - drop) < 3 * noise
    assert abs(own["more_distance"]["lpips"]["mean"] - more) < noise
