"""What a person sees when a scenario has run: a table, and where everything is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sim.metrics import metric as metric_of
from sim.progress import print_json, screen
from sim.results.files import FIGURES, OUTPUTS, Outcome
from sim.scenario.labels import value_label
from sim.scenario.schema import CLEAN

if TYPE_CHECKING:
    from sim.live.receive import Received


def print_summary(outcome: Outcome) -> None:
    """The summary as a table on standard output, and where everything is."""
    console = screen()
    summary = outcome.summary
    repairs = any(set(point["concealers"]) != {CLEAN} for point in summary["points"])
    console.print(_quality_table(summary) if repairs else _loss_table(summary))
    if len(summary["points"]) == 1:
        console.print(_loss_line(summary["points"][0]))
    if outcome.found:
        there = f"{outcome.found} of {outcome.cells} cells were finished before"
        console.print(f"{there}; --fresh does them again")
    console.print(f"pictures: {outcome.folder / FIGURES}", soft_wrap=True)
    console.print(f"tables:   {outcome.folder}", soft_wrap=True)


def _table(summary: Mapping[str, Any], swept: Sequence[str]) -> Table:
    table = Table(title=f"{summary['scenario']}, seed {summary['seed']}", title_justify="left")
    for key in swept:
        table.add_column(key.rpartition(".")[2].replace("_", " "), no_wrap=True)
    return table


def _loss_table(summary: Mapping[str, Any]) -> Table:
    """What the channel took at every point, for a run that repairs nothing."""
    swept = _swept(summary["points"])
    table = _table(summary, swept)
    for heading in ("packets", "lost", "95% interval", "by theory", "tokens lost"):
        table.add_column(heading, justify="right")
    for point in summary["points"]:
        loss = point["loss"]
        table.add_row(
            *_values(point, swept),
            f"{loss['packets_sent']:,}",
            f"{loss['packets']:.1%}",
            f"{loss['low']:.0%} to {loss['high']:.0%}",
            f"{loss['expected']:.1%}" if "expected" in loss else "",
            f"{loss['tokens']:.1%}",
        )
    return table


def _quality_table(summary: Mapping[str, Any]) -> Table:
    metrics = [*summary["metrics"], "token_accuracy"]
    swept = _swept(summary["points"])
    table = _table(summary, swept)
    table.add_column("repair", no_wrap=not swept)
    for metric in metrics:
        table.add_column(metric_of(metric).heading, justify="right")
    for point in summary["points"]:
        first = _values(point, swept)
        for name, found in point["concealers"].items():
            label = "(no loss)" if name == CLEAN else name.replace("_", " ")
            cells = [_cell(found[metric], metric) for metric in metrics]
            table.add_row(*first, label, *cells)
            first = [""] * len(swept)
        table.add_section()
    return table


def print_repeats(found: Sequence[Mapping[str, Any]], metric: str, within: float) -> None:
    """What `sim.results.repeats.repeats_wanted` found, as a table on standard output."""
    table = Table(
        title=f"repeats for {metric_of(metric).heading} +-{within:g}", title_justify="left"
    )
    swept = _swept(found)
    for key in swept:
        table.add_column(key.rpartition(".")[2].replace("_", " "), no_wrap=True)
    table.add_column("repair", no_wrap=True)
    for heading in ("repeats so far", "+- so far", "repeats needed"):
        table.add_column(heading, justify="right")
    for entry in found:
        half, needed = entry["half_width"], entry["needed"]
        table.add_row(
            *_values(entry, swept),
            entry["repair"].replace("_", " "),
            str(entry["repeats"]),
            "" if half != half else f"{half:.3g}",
            "run at least 2" if needed is None else str(needed),
        )
    screen().print(table)


def print_received(
    received: Received, outcome: Outcome | None, anomalies: Mapping[str, int], as_json: bool
) -> None:
    """Tell how the stream went and where everything is."""
    count = len(received.record.frames)
    ended = {
        "complete": "the stream came to its end",
        "interrupted": "the sender was stopped",
        "sender gone": "the sender vanished",
        "stopped": "stopped here",
    }[received.ended]
    if as_json:
        summary = {} if outcome is None else {"run": str(outcome.folder), **outcome.summary}
        live = {"ended": received.ended, "images": count, "anomalies": dict(anomalies)}
        print_json({**summary, "live": live})
        return
    console = screen()
    if outcome is None:
        console.print(f"{ended}; no image came whole, nothing is written")
        return
    if received.pictures is not None:
        print_summary(outcome)
    else:
        console.print(f"images:   {outcome.folder / OUTPUTS}", soft_wrap=True)
        console.print("the originals are not here, so there is no quality to tell")
    console.print(f"{ended}: {count} of {received.total} images")
    if anomalies:
        words = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in anomalies.items())
        console.print(f"warnings: {words} (docs/faults.md says what these mean)", soft_wrap=True)


def _swept(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that differ between points."""
    return list(dict.fromkeys(key for point in points for key in point["values"]))


def _values(point: Mapping[str, Any], swept: Sequence[str]) -> list[str]:
    """Of these keys at a point."""
    values = point["values"]
    return [value_label(values[key]) if key in values else "" for key in swept]


def _cell(found: Mapping[str, Any], metric: str) -> str:
    mean = found["mean"]
    return "" if mean is None or mean != mean else metric_of(metric).text(mean, unit=False)


def _loss_line(point: Mapping[str, Any]) -> str:
    loss = point["loss"]
    text = f"lost {loss['packets']:.1%} of {loss['packets_sent']} packets"
    if "expected" in loss:
        text += (
            f" (this channel loses {loss['expected']:.1%} on average; so short a stream, 95% of "
            f"the time, {loss['one_stream_low']:.0%} to {loss['one_stream_high']:.0%})"
        )
    bits = f"{point['bpp']:.4f} bits per pixel, {point['bpp_wire']:.4f} on the wire"
    return f"{text}, {loss['tokens']:.1%} of tokens; {bits}{_protection_line(point)}"


def _protection_line(point: Mapping[str, Any]) -> str:
    """What parity and retransmission did, if anything; runs of older versions do not say."""
    found = point.get("protection", {})
    told = [
        f"{found[name]} {what}"
        for name, what in (
            ("recovered", "slices restored by parity"),
            ("retransmitted", "packets sent again"),
        )
        if found.get(name)
    ]
    if not told:
        return ""
    return f"; {', '.join(told)}; complete {found['latency_s']:.2f} s after capture on average"
