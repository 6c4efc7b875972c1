"""What a report's sentences compare, and what they leave out."""

from __future__ import annotations

import re
from pathlib import Path

from sim.report.answer import answer
from sim.report.html import render
from sim.results.run import Run


def swept(folder: Path, photo: Path, **settings: object) -> Run:
    """A finished sweep of one small image, twice."""
    from sim.api import run

    scenario = {
        "images": [str(photo), str(photo)],
        "codec": {"model": "random", "codebook": 64},
        "stream": {"slices": 6, "fps": 10},
        "transport": "virtual",
        "concealers": ["none"],
        "metrics": ["psnr_db"],
    }
    return run(scenario | settings, out=folder)


def test_what_is_equal_by_construction_is_told_by_its_bits(photo: Path, tmp_path: Path) -> None:
    coders = {"codec.entropy": ["fixed", "static"]}
    alone = answer(swept(tmp_path / "a", photo, sweep=coders), "psnr_db")
    assert alone.startswith("The pictures are the same at every") and "0.00 dB" not in alone
    sizes = coders | {"codec.codebook": [8, 64]}
    both = answer(swept(tmp_path / "b", photo, sweep=sizes), "psnr_db")
    assert "the choice changes no picture" in both
    for bits in (alone, both):
        assert re.search(r"on the wire.*\d\.\d{4} with .*fixed, \d\.\d{4} with .*static", bits)


def test_of_many_streams_the_spread_is_told_too(photo: Path, tmp_path: Path) -> None:
    sweep = {"channel.mean_burst": [2, 4]}
    channel = {"type": "gilbert_elliott", "loss": 0.3, "mean_burst": 2}
    many = swept(tmp_path / "many", photo, sweep=sweep, channel=channel, repeats=8)
    assert re.search(
        r"scatter least at \d \(\d.* dB\) and most at \d \(\d", answer(many, "psnr_db")
    )
    few = swept(tmp_path / "few", photo, sweep=sweep, channel=channel, repeats=2)
    assert "scatter" not in answer(few, "psnr_db")


def test_late_packets_are_no_erased_ones(photo: Path, tmp_path: Path) -> None:
    """In the sentence, the table of the page, and its raster."""
    stream = {"slices": 6, "fps": 2, "playout_delay_s": 0.2}
    run = swept(tmp_path / "late", photo, stream=stream, channel={"type": "perfect"})
    (point,) = run.points
    assert (point.loss.erased, point.loss.late) == (0, point.loss.packets) and point.loss.late > 0.4
    assert (point.loss.low, point.loss.expected) == (0, 0), "the interval is that of the channel"
    assert f"(0.0% erased, {point.loss.late:.1%} late)" in answer(run, "psnr_db")
    page = render([run.folder])
    assert '<th scope="col" class="n">late</th>' in page and "overflowed</th>" not in page
    assert sum(row.late for row in run.images if row.concealer == "clean") == sum(
        packet.outcome == "late" for packet in run.packets
    )
