"""`sim report`: finished runs as one HTML file that needs nothing else, made from their tables.

The page holds its style, figures (SVG) and pictures (WebP) itself and asks no network for anything;
it has no scripts. The same runs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from codec.files import replacing
from sim.errors import UserError
from sim.metrics import METRICS
from sim.metrics import metric as metric_of
from sim.report.answer import answer
from sim.report.inline import Block, loss_blocks, quality_blocks, rate_blocks
from sim.report.pictures import PACKET_LOOKS, packet_counts, packet_rows, strips
from sim.results.run import RunTables, read_runs
from sim.scenario.labels import plain_label
from sim.scenario.schema import CLEAN

GLOSSARY = {
    "codebook": "the list of K vectors (codewords) that the codec knows; a token names one of them",
    "token": "the index of the codeword that stands for 16 x 16 pixels of the image",
    "index map": "the grid of an image's tokens",
    "slice": "the tokens that one packet carries; each slice decodes without the others",
    "packet": "a slice with a header of 12 bytes; on the wire it is one datagram",
    "erasure": "a packet that did not arrive; the receiver knows which one",
    "corruption": "a packet that arrived changed; the receiver detects it and treats it as erased",
    "loss rate": "the share of packets that were erased, corrupted or late",
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
    try:
        with replacing(target) as partial:
            partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    return target


def render(folders: Sequence[Path], metric: str | None = None) -> str:
    """The HTML of a report; see `write_report`."""
    runs = read_runs(folders)
    known = list(dict.fromkeys(name for run in runs for name in run.summary["metrics"]))
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
    try:
        context = {
            "runs": [_run(run, number, metric) for number, run in enumerate(runs)],
            "answer": answer(runs, metric),
            "title": _listed(list(dict.fromkeys(run.name for run in runs))),
            "compared": _compared(runs, metric) if len(runs) > 1 else [],
            "metric": metric_of(metric).heading,
            "glossary": GLOSSARY | {METRICS[m].label: _meaning(m) for m in known if m in METRICS},
        }
    except (KeyError, TypeError, ValueError, IndexError, OSError) as error:
        where = ", ".join(map(str, folders))
        raise UserError(f"{where}: the tables are not those of a run ({error!r})") from None
    return environment.get_template("report.html").render(context)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _meaning(metric: str) -> str:
    found = METRICS[metric]
    return f"{found.meaning}; {'more' if found.larger_is_better else 'less'} is better"


def _run(run: RunTables, number: int, metric: str) -> dict[str, Any]:
    """What the template says about one run."""
    metrics = [metric, *(name for name in run.summary["metrics"] if name != metric)]
    prefix = f"r{number}"
    quality = quality_blocks(run.points, [*metrics, "token_accuracy"], prefix)
    key, rest = quality[:1], quality[1:]
    repairs = set(run.points[0]["concealers"]) != {CLEAN}
    if not repairs:
        key, rest = loss_blocks(run.points, prefix), []
    elif len(run.points) == 1:
        key = [Block([], quality[0].panels[:1])]
        rest = [Block([], quality[0].panels[1:])]
    manifest = run.manifest
    return {
        "id": prefix,
        "title": run.title,
        "name": run.name,
        "question": run.question,
        "look": run.look,
        "answer": answer([run], metric),
        "repairs": repairs,
        "key": key,
        "quality": rest,
        "rate": rate_blocks(run.points, run.summary["metrics"], prefix),
        "strips": strips(run),
        "packets": packet_rows(run),
        "packet_legend": [
            {"look": name, "text": PACKET_LOOKS[name], "count": count}
            for name, count in packet_counts(run).items()
        ],
        "table": _table(run, [*metrics, "token_accuracy"]),
        "losses": _losses(run),
        "command": run.command,
        "scenario": run.scenario,
        "facts": {
            "seed": run.summary["seed"],
            "streams per point": run.summary["repeats"],
            "version": manifest["version"],
            "revision": manifest["revision"] or "unknown",
            "weights": manifest["weights_fingerprint"],
            "torch": manifest["libraries"]["torch"],
            "python": manifest["python"],
            "machine": f"{manifest['hardware']['processor']}, {manifest['hardware']['system']}",
        },
    }


def _table(run: RunTables, metrics: Sequence[str]) -> dict[str, Any]:
    """Means with intervals: a row per point and repair."""
    swept = len(run.settings) > 1
    rows = []
    for setting in run.settings:
        label = setting.label
        for name, found in setting.point["concealers"].items():
            cells = [_estimate(found[metric], metric) for metric in metrics]
            rows.append({"setting": label, "repair": plain_label(name), "cells": cells})
            label = ""
    return {"swept": swept, "metrics": [metric_of(m).heading for m in metrics], "rows": rows}


def _estimate(found: Mapping[str, Any], metric: str) -> dict[str, str]:
    if found["mean"] is None:
        return {"mean": "", "range": ""}
    mean, *ends = (
        "" if found[key] is None else metric_of(metric).text(found[key], unit=False)
        for key in ("mean", "low", "high")
    )
    return {"mean": mean, "range": " to ".join(ends) if all(ends) else ""}


def _losses(run: RunTables) -> list[dict[str, str]]:
    """What was sent and lost, a row per point."""
    rows = []
    for setting in run.settings:
        point, loss = setting.point, setting.point["loss"]
        expected = "" if "expected" not in loss else f"{loss['expected']:.1%}"
        spread = "" if not expected else f"{loss['one_stream_low']:.0%} to "
        spread += "" if not expected else f"{loss['one_stream_high']:.0%}"
        rows.append(
            {
                "setting": setting.label or "all",
                "packets": f"{loss['packets_sent']:,}",
                "lost": f"{loss['packets']:.1%}",
                "tokens": f"{loss['tokens']:.1%}",
                "expected": expected,
                "spread": spread,
                "bpp": f"{point['bpp']:.4f}",
                "wire": f"{point['bpp_wire']:.4f}",
            }
        )
    return rows


def _compared(runs: Sequence[RunTables], metric: str) -> list[dict[str, str]]:
    """A row per run and repair, means over all points of the run."""
    rows, text = [], metric_of(metric).text
    for run in runs:
        names = [name for name in run.points[0]["concealers"] if name != CLEAN]
        for name in (CLEAN, *names):
            means = [point["concealers"][name][metric]["mean"] for point in run.points]
            known = [mean for mean in means if mean is not None]
            rows.append(
                {
                    "run": run.title,
                    "repair": plain_label(name),
                    "mean": text(sum(known) / len(known), unit=False) if known else "",
                    "wire": f"{sum(p['bpp_wire'] for p in run.points) / len(run.points):.4f}",
                    "lost": f"{sum(p['loss']['packets'] for p in run.points) / len(means):.1%}",
                }
            )
    return rows
