"""The report: one file that needs nothing else, tells the truth of the tables, and can be read."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.api import load
from sim.errors import UserError
from sim.figures.run import draw_figures
from sim.report import about
from sim.report.answer import answer, comparison, decided, difference
from sim.report.html import render
from sim.results.run import Run
from sim.scenario.labels import with_label
from sim.scenario.library import library_files, opening_paragraphs
from sim.statistics import MIN_PAIRS

Cli = Callable[..., Any]


class Page(html.parser.HTMLParser):
    """What a page refers to, its identifiers, and whether its tags match."""

    VOID = frozenset({"meta", "link", "img", "path", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "href", "data", "action") and v]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag in ("img", "svg"):
            self.images.append(found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("which", ["one", "swept", "both"])
def test_a_page_needs_nothing_else(pages: dict[str, str], which: str) -> None:
    text = pages[which]
    page = Page(text)
    assert page.open == []
    for reference in page.references:
        assert reference.startswith(("data:", "#")), reference
    assert not re.search(r"https?:|@import|url\((?!#)", text), "nothing is fetched"
    assert not {"script", "iframe", "object", "embed", "form"} & set(page.tags)
    assert len(set(page.ids)) == len(page.ids)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert {r for r in re.findall(r"url\(#([^)]+)\)", text)} <= set(page.ids)
    for image in page.images:
        assert image.get("alt") or image.get("aria-label") or image.get("aria-hidden"), image


def test_what_a_page_tells(runs: list[Path], pages: dict[str, str]) -> None:
    text = pages["one"]
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    for words in ("Run it again", "sim run", "erasure", "playout deadline"):
        assert words in text, words
    assert text.count("data:image/webp") == 2 * 3, "a strip, how sure, the repair not in the strip"
    assert "scenario small · seed 3" in text, "the figures are the run's own"
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    assert manifest["weights_fingerprint"] in text
    assert "Quality for bits" in pages["swept"], "codebooks cost different bits"
    assert "Quality for bits" not in text


def test_runs_are_named_by_what_differs(runs: list[Path], tmp_path: Path) -> None:
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    for name, value in (("a", "raster"), ("b", "random")):
        shutil.copytree(runs[0], tmp_path / name)
        manifest["scenario"]["stream"]["interleaver"] = value
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    one, other, same = (Run.load(folder) for folder in (tmp_path / "a", tmp_path / "b", runs[0]))
    assert about.titles([one, other]) == ["interleaver: raster", "interleaver: random"]
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert about.titles([one, other, Run.load(tmp_path / "c")]) == ["a", "b", "c"]
    assert about.titles([same]) == [runs[0].name]


def test_a_page_names_no_file_that_it_shows(runs: list[Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0], tmp_path / "run")
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    for path in library_files():
        text = path.read_text()
        manifest["source"]["question"] = "\n".join(opening_paragraphs(text)).replace("\n", "\n\n")
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
        look = about.what_to_look_at(Run.load(tmp_path / "run"))
        assert look.startswith("Look at") and "figures/" not in look, path


@pytest.mark.parametrize("mark", ["# ", ""])
def test_the_question_is_the_scenarios(runs: list[Path], tmp_path: Path, mark: str) -> None:
    asking = tmp_path / "asking"
    shutil.copytree(runs[0], asking)
    manifest = json.loads((asking / "manifest.json").read_text())
    text = "Question: what do holes cost?\n\nLook at them."
    question = "\n".join(f"{mark}{line}".rstrip() for line in text.split("\n"))
    source = {"file": "mine/holes.yaml", "question": question, "overrides": ["codec.codebook=8"]}
    (asking / "manifest.json").write_text(json.dumps({**manifest, "source": source}))
    run = Run.load(asking)
    assert about.question(run) == "What do holes cost?"
    assert about.what_to_look_at(run) == "Look at them."
    assert about.command(run) == "sim run holes.yaml --set codec.codebook=8"


def test_the_same_runs_give_the_same_page(
    runs: list[Path], pages: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(runs[1], tmp_path / "swept")
    shutil.rmtree(tmp_path / "swept" / "cells")
    assert pages["swept"] == render([tmp_path / "swept"])


@pytest.mark.parametrize("figure", ["quality.svg", "rate.svg", "strip-photo.png"])
def test_figures_that_are_gone_are_to_be_drawn_again(
    runs: list[Path], pages: dict[str, str], figure: str, cli: Cli, tmp_path: Path
) -> None:
    shutil.copytree(runs[1], tmp_path / "run")
    (tmp_path / "run" / "figures" / figure).unlink()
    result = cli("report", tmp_path / "run", "-o", "page.html")
    assert result.exit_code == 2 and f"sim plot {tmp_path / 'run'}" in result.stderr
    assert cli("plot", tmp_path / "run").exit_code == 0
    assert cli("report", tmp_path / "run", "-o", "page.html").exit_code == 0
    assert Path("page.html").read_text() == pages["swept"]


@pytest.mark.parametrize(
    "more",
    [
        "<script>alert(1)</script>",
        '<g onload="alert(1)"/>',
        '<use href="https://example.org/x"/>',
        "<use xlink:href='data:image/svg+xml,x'/>",
        '<path style="fill: url(https://example.org/x)"/>',
        "<foreignObject/>",
    ],
)
def test_a_figure_that_another_program_changed_is_refused(
    runs: list[Path], more: str, tmp_path: Path
) -> None:
    shutil.copytree(runs[0], tmp_path / "run")
    path = tmp_path / "run" / "figures" / "quality.svg"
    path.write_text(path.read_text().replace("</svg>", f"{more}</svg>"))
    with pytest.raises(UserError, match="draw it again"):
        render([tmp_path / "run"])


def test_the_answer_is_that_of_the_tables(runs: list[Path]) -> None:
    run = Run.load(runs[0])
    told = answer(run, "psnr_db")
    repairs = {n: v for n, v in run.points[0].concealers.items() if n != "clean"}
    best = max(repairs, key=lambda name: repairs[name]["psnr_db"].mean)
    assert with_label(best) in told
    assert f"{repairs[best]['psnr_db'].mean:.2f} dB" in told
    assert "too few to be sure" in told or "not decided" in told, "four pairs decide nothing"


def test_the_best_is_the_least_where_less_is_better(runs: list[Path]) -> None:
    one, swept = map(Run.load, runs)
    repairs = {n: v for n, v in one.points[0].concealers.items() if n != "clean"}
    best = min(repairs, key=lambda name: repairs[name]["lpips"].mean)
    told = answer(one, "lpips")
    assert f"mean LPIPS {with_label(best)} is" in told
    others = [name for name in repairs if name != best]
    nearest = min(others, key=lambda name: repairs[name]["lpips"].mean).replace("_", " ")
    assert f"below {nearest.replace('none', 'leaving the holes')}" in told
    assert re.search("mean LPIPS is lowest|falls", answer(swept, "lpips"))
    both = {"one": one, "swept": swept}
    assert "the lowest mean LPIPS" in comparison(both, "lpips")
    assert "the highest mean PSNR" in comparison(both, "psnr_db")


def test_an_old_run_still_opens(runs: list[Path], tmp_path: Path) -> None:
    """One of before LPIPS was measured, packets had kinds, and manifests listed files."""
    old = tmp_path / "old"
    shutil.copytree(runs[0], old)
    later = {"images": {"lpips"}, "packets": {"copies", "kind", "last_frame"}}
    for name, columns in later.items():
        with (old / f"{name}.csv").open(newline="") as file:
            rows = [{k: row[k] for k in row if k not in columns} for row in csv.DictReader(file)]
        with (old / f"{name}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    summary = json.loads((old / "summary.json").read_text())
    summary["metrics"].remove("lpips")
    for by_name in summary["points"][0]["concealers"].values():
        del by_name["lpips"]
    (old / "summary.json").write_text(json.dumps(summary))
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    draw_figures(old)
    assert "LPIPS" not in render([old])
    run = load(old)
    row, packet = run.images[0], next(run.packets)
    assert np.isfinite(row.psnr_db) and np.isnan([row.lpips, row.lpips_vgg, row.dists]).all()
    assert (packet.kind, packet.copies) == ("media", 1)


def test_differences_are_paired_and_cautious() -> None:
    images = [(str(number), 0) for number in range(12)]
    rng = np.random.default_rng(1)
    base = {key: float(value) for key, value in zip(images, rng.normal(20, 3, 12), strict=True)}
    better = {key: value + 0.3 + rng.normal(0, 0.05) for key, value in base.items()}
    found = difference(better, base)
    assert decided(found) and found.mean == pytest.approx(0.3, abs=0.05)
    assert found.low < found.mean < found.high < 0.5, "the spread of images is not in it"
    few = {key: better[key] for key in images[: MIN_PAIRS - 1]}
    assert not decided(difference(few, base))
    even = {key: value + (-1) ** int(key[0]) for key, value in base.items()}
    assert not decided(difference(even, base))
    assert difference(base, {("elsewhere", 0): 1.0}).n == 0


def test_the_intervals_cover(runs: list[Path]) -> None:
    """95% intervals of twelve independent pairs hold the truth in about nine of ten samples:
    percentile bootstraps of small samples are known to be somewhat narrow."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        a = {(str(n), 0): float(v) for n, v in enumerate(rng.normal(0.5, 1, 12))}
        found = difference(a, {key: 0.0 for key in a})
        hits += found.low <= 0.5 <= found.high
    assert 0.84 <= hits / 200 <= 0.99


def test_command_writes_one_file(runs: list[Path], pages: dict[str, str], cli: Cli) -> None:
    result = cli("report", runs[0], "-o", "page.html")
    assert result.exit_code == 0, result.output
    assert Path("page.html").read_text() == pages["one"]
    assert [path.name for path in Path().iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere",), "holds no run"),
        (("{run}", "{run}"), "named twice"),
        (("{run}", "--metric", "vmaf"), "not among those measured: psnr_db"),
        (("{run}", "-o", "no/such/page.html"), "cannot be written"),
    ],
)
def test_mistakes(runs: list[Path], cli: Cli, arguments: tuple[str, ...], problem: str) -> None:
    result = cli("report", *(word.format(run=runs[0]) for word in arguments))
    assert result.exit_code == 2 and problem in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(Path().iterdir()) == []


def test_damaged_tables_are_told(runs: list[Path], cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(runs[0], broken)
    (broken / "images.csv").write_text("a,b\n1,2\n")
    result = cli("report", broken)
    assert result.exit_code == 2 and "not those of a run" in result.stderr


def test_a_gallery_is_made_anew_or_not_at_all(runs: list[Path], tmp_path: Path) -> None:
    from PIL import Image

    from sim.report.gallery import GalleryEntry, make_gallery
    from sim.results.files import Outcome

    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    (run / "figures").mkdir(exist_ok=True)
    Image.linear_gradient("L").resize((2600, 400)).save(run / "figures" / "strip-photo.png")

    def make(folder: Path) -> Path:
        return make_gallery(folder, shown, run=lambda loaded: Outcome(run, {}))

    target = tmp_path / "gallery"
    shown = (
        GalleryEntry("clean", ("strip-photo",)),
        GalleryEntry("clean", ("strip-photo",), ("seed=2",)),
    )
    page = make(target).read_text()
    assert make(target).read_text() == page
    pictures = {path.name for path in target.glob("*.webp")}
    assert pictures == {"small-photo.webp", "small-2-photo.webp"}
    assert all(f"]({name})" in page for name in pictures)
    assert all((target / name).stat().st_size < 60_000 for name in pictures)
    assert "sim run small --set seed=2" in page

    (target / "thesis.tex").touch()
    (run / "README.md").write_text("# My project")
    for taken in (target, run, run / "manifest.json"):
        with pytest.raises(UserError, match="holds no gallery"):
            make(taken)
    (target / "thesis.tex").unlink()
    (run / "figures" / "strip-photo.png").unlink()
    with pytest.raises(UserError, match="cannot be written"):
        make(target)
    assert (target / "README.md").read_text() == page, "the old one stays"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "gallery"}
