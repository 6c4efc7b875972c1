"""`sim report`: finished runs as one HTML file, made from their tables, figures and pictures.

Style, figures (SVG) and pictures (WebP) are inside the page; it has no scripts and loads nothing.
The same runs give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from codec.files import replacing
from sim.errors import UserError, os_errors
from sim.figures.panels import finding
from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.report import about
from sim.report.answer import answer, comparison
from sim.report.inline import PACKET_LOOKS, figure, packet_counts, packet_rows, strips
from sim.results.run import Run, losses_label, rates_vary, reading, ways_lost
from sim.scenario.labels import plain_label
from sim.scenario.schema import CLEAN
from sim.statistics import Estimate, finite_mean

GLOSSARY = {
    "codebook": "the list of K vectors (codewords) that the codec knows; a token names one of them",
    "token": "the index of the codeword that stands for 16 x 16 pixels of the image",
    "index map": "the grid of an image's tokens",
    "slice": "the tokens that one packet carries; each slice decodes without the others",
    "packet": "a slice with a header of 12 bytes; on the wire it is one datagram",
    "erasure": "a packet that the loss process took; the receiver knows which one",
    "corruption": "a packet that arrived changed; the receiver detects it and treats it as erased",
    "overflow": "a packet that the link dropped: its queue was full, or it had waited too long",
    "loss rate": "the share of packets that were erased, overflowed, corrupted or late",
    "burst length": "how many packets are lost in a row",
    "late": "arrived after the playout deadline: as good as lost",
    "playout deadline": "when an image must be shown, counted from its capture",
    "interleaver": "the rule that says which tokens share a packet",
    "parity": "extra packets from which lost ones can be computed (forward error correction)",
    "concealment": "any repair of lost tokens",
    "inpainting": "the repair by the transformer; what it fills in is a guess",
    "bpp": "bits of payload per pixel of the image",
    "bpp on the wire": "all bits per pixel: headers, parity and retransmissions included",
    "95% interval": (
        "the middle 95% of means over resampled pairs of image and repeat (bootstrap); differences "
        "are paired. Images of one stream share its bursts: few streams give too narrow intervals"
    ),
}


def write_report(folders: Sequence[Path], target: Path, metric: str | None = None) -> Path:
    """Write the report of finished runs.

    Args:
        folders: run folders, at least one; several are compared.
        target: the HTML file; the one that is there is replaced.
        metric: the one that the answer is about; None: the first of the first run.

    Raises:
        UserError: not a run, an unknown metric, or a file that cannot be written.
    """
    page = render(folders, metric)
    with os_errors(target, "cannot be written"), replacing(target) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    return target


def render(folders: Sequence[Path], metric: str | None = None) -> str:
    """The HTML of a report; see `write_report`."""
    found = [Run.load(folder) for folder in folders]
    with reading(folders[0]):
        runs = dict(zip(about.titles(found), found, strict=True))
        known = list(dict.fromkeys(name for run in runs.values() for name in run.metrics))
    metric = metric or known[0]
    if metric not in known:
        raise UserError(f"--metric {metric}: is not among those measured: {', '.join(known)}")
    environment = Environment(
        loader=PackageLoader("sim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts: list[dict[str, Any]] = []
    for title, run in runs.items():
        with reading(run.folder):
            parts.append({"title": title, **_run(run, f"r{len(parts)}", metric)})
    with reading(", ".join(map(str, folders))):
        context = {
            "runs": parts,
            "answer": comparison(runs, metric) if len(runs) > 1 else parts[0]["answer"],
            "title": _listed(list(dict.fromkeys(run.name for run in runs.values()))),
            "compared": _compared(runs, metric) if len(runs) > 1 else [],
            "metric": metric_of(metric).heading,
            "glossary": GLOSSARY | {METRICS[m].label: _meaning(m) for m in known if m in METRICS},
        }
    return environment.get_template("report.html").render(context)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _meaning(metric: str) -> str:
    found = METRICS[metric]
    return f"{found.meaning}; {'more' if found.larger_is_better else 'less'} is better"


def _run(run: Run, prefix: str, metric: str) -> dict[str, Any]:
    """The values that the template shows of one run."""
    metrics = [metric, *(name for name in run.metrics if name != metric)]
    points, packets = run.points, run.pictured_packets()
    repairs = set(points[0].concealers) != {CLEAN}
    alt = finding(points, run.metrics[0]) if repairs else f"{losses_label(points)} lost"
    alt += "; the table below has all numbers"
    rate = repairs and len(points) > 1 and rates_vary(points)
    manifest = run.manifest
    return {
        "id": prefix,
        "name": run.name,
        "question": about.question(run),
        "look": about.what_to_look_at(run),
        "answer": answer(run, metric),
        "repairs": repairs,
        "quality": figure(run, "quality" if repairs else "losses", prefix, alt),
        "rate": figure(run, "rate", prefix, f"Quality over bits on the wire. {alt}")
        if rate
        else "",
        "time": figure(run, "time", prefix, "Quality of each frame, and its packets lost")
        if manifest["scenario"].get("video")
        else "",
        "strips": strips(run),
        "packets": packet_rows(packets),
        "packet_legend": [
            {"look": name, "text": PACKET_LOOKS[name][0], "count": count}
            for name, count in packet_counts(packets).items()
        ],
        "table": _table(run, [*metrics, "token_accuracy"]),
        "losses": _losses(run),
        "command": about.command(run),
        "scenario": about.scenario_yaml(run),
        "facts": {
            "seed": run.seed,
            "streams per point": run.summary["repeats"],
            "version": manifest["version"],
            "revision": manifest["revision"] or "unknown",
            "weights": manifest["weights_fingerprint"],
            "torch": manifest["libraries"]["torch"],
            "python": manifest["python"],
            "machine": f"{manifest['hardware']['processor']}, {manifest['hardware']['system']}",
        },
    }


def _table(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    """Means with intervals: a row per point and repair."""
    rows = []
    for point in run.points:
        label = point.label
        for name, found in point.concealers.items():
            cells = [_cell(found[metric], metric) for metric in metrics]
            rows.append({"setting": label, "repair": plain_label(name), "cells": cells})
            label = ""
    heads = [metric_of(metric).heading for metric in metrics]
    return {"swept": len(run.points) > 1, "metrics": heads, "rows": rows}


def _cell(found: Estimate, metric: str) -> dict[str, str]:
    mean, low, high = (
        metric_of(metric).text(value, unit=False) if math.isfinite(value) else ""
        for value in (found.mean, found.low, found.high)
    )
    return {"mean": mean, "range": f"{low} to {high}" if low and high else ""}


def _losses(run: Run) -> dict[str, Any]:
    """What was sent, and what was lost in which way, a row per point."""
    ways = ways_lost(run.points)
    rows = []
    for point in run.points:
        loss = point.loss
        shares = [_share(getattr(loss, how)) for how in ways]
        interval = f"{loss.low:.1%} to {loss.high:.1%}"
        cells = [f"{loss.packets_sent:,}", shares[0], interval, _share(loss.expected), *shares[1:]]
        cells += [_share(loss.packets), _share(loss.tokens)]
        cells += [f"{point.bpp:.4f}", f"{point.bpp_wire:.4f}"]
        rows.append((point.label or "all", cells))
    heads = ["packets", ways[0], "95% interval", "by theory", *ways[1:], "lost in all"]
    return {"heads": [*heads, "tokens lost", "bpp", "bpp on the wire"], "rows": rows}


def _share(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1%}"


def _compared(runs: Mapping[str, Run], metric: str) -> list[dict[str, str]]:
    """A row per run and repair, means over all points of the run."""
    rows = []
    for title, run in runs.items():
        points = run.points
        for name in (CLEAN, *(name for name in points[0].concealers if name != CLEAN)):
            mean = finite_mean([point.concealers[name][metric].mean for point in points])
            text = metric_of(metric).text(mean, unit=False) if math.isfinite(mean) else ""
            wire = finite_mean([point.bpp_wire for point in points])
            lost = finite_mean([point.loss.packets for point in points])
            row = {"run": title, "repair": plain_label(name), "mean": text}
            rows.append(row | {"wire": f"{wire:.4f}", "lost": f"{lost:.1%}"})
    return rows
