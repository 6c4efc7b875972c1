"""`sim channel`: look at channels, sample them, fit them, check them.

numpy and everything heavier is imported inside the commands.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import print_line, print_result, print_table
from sim.cli.groups import command_group
from sim.cli.options import AsJson, NewOutFile, OutFile, Seed
from sim.errors import UserError, user_errors
from sim.progress import screen

if TYPE_CHECKING:
    from channels.describe import Description
    from channels.fit import Fit, FitReport
    from channels.link import Link
    from channels.lint import Finding
    from sim.scenario.channel_argument import ChannelSource

channel_app = command_group()

ChannelName = Annotated[
    str,
    typer.Argument(
        metavar="CHANNEL",
        help="A preset, type:name=value,..., a line of tc netem, or a YAML file (a scenario too).",
        show_default=False,
    ),
]
Packets = Annotated[int, typer.Option("-n", "--packets", min=10_000, max=20_000_000)]

_REFUSALS = (ValueError, IndexError)
"""What channels raise of what they cannot do."""
_NETEM_START = "netem starts in its good state, so it loses less at first; ours is stationary"
_LINK_LOSSES = (
    "losses by the link (queue, delay) depend on the sizes and times of packets; they are not here"
)


@channel_app.command()
def describe(
    channel: ChannelName, packets: Packets = 1_000_000, seed: Seed = 1, as_json: AsJson = False
) -> None:
    """Theory beside a sample.

    With intervals, and the tc netem command if there is one.
    """
    from channels import PerfectLoss, UniformErasure
    from channels.describe import describe as describe_loss
    from channels.tc import to_tc
    from sim.scenario.channel_argument import read_source

    source = read_source(channel)
    loss, link = source.models()
    with user_errors(f"{channel}: ", *_REFUSALS):
        found = describe_loss(loss, packets, seed)
        line = to_tc(loss, link)
        notes = [*found.warnings, *_link_notes(link), *(line.notes if line else ())]
    command = line.command if line else None
    if command and not isinstance(loss, (PerfectLoss, UniformErasure)):
        notes.append(_NETEM_START)
    summary = {
        "channel": channel,
        "spec": source.spec,
        **({} if source.preset is None else {"preset": asdict(source.preset)}),
        "packets": packets,
        "seed": seed,
        "confidence": 0.99,
        "rows": [{**asdict(row), "inside": row.inside} for row in found.rows],
        "netem": command,
        "notes": notes,
    }
    print_result(as_json, summary, _print_description, source, found, command, notes)


@channel_app.command()
def sample(
    channel: ChannelName,
    packets: Annotated[int, typer.Option("-n", "--packets", min=0, help="How many.")],
    out: OutFile,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Write which packets are lost: a boolean .npy array, True = lost."""
    import shutil

    from channels.describe import sample_to_file
    from sim.scenario.channel_argument import new_file, read_source

    if out.suffix != ".npy":
        raise UserError(f"{out}: a mask is a .npy file; name it so")
    loss, link = read_source(channel).models()
    with contextlib.suppress(OSError):  # a missing folder is told below
        free = shutil.disk_usage(out.absolute().parent).free
        if packets > free:
            raise UserError(f"{out}: {packets:,} packets are as many bytes; {free:,} are free")
    with user_errors(f"{channel}: ", *_REFUSALS):
        notes = _link_notes(link)
    with new_file(out) as partial, user_errors(f"{channel}: ", *_REFUSALS):
        losses = sample_to_file(loss, packets, seed, partial)
    rate = losses / packets if packets else math.nan
    summary = {
        "channel": channel,
        "mask": str(out),
        "packets": packets,
        "losses": losses,
        "loss_rate": rate,
        "seed": seed,
        "notes": notes,
    }
    share = f" ({rate:.4%})" if packets else ""
    text = f"{out}: {packets:,} packets, {losses:,} lost{share}, seed {seed}"
    print_result(as_json, summary, typer.echo, "\n".join([text, *map(_note, notes)]))


@channel_app.command()
def fit(
    trace: Annotated[
        Path,
        typer.Argument(
            help="Mask (.npy, text of 0 and 1), CSV with lost or sequence, capture with RTP "
            "(pcap, pcapng, Wireshark's CSV), log of ping, or iperf3 --json.",
            show_default=False,
        ),
    ],
    models: Annotated[
        str | None,
        typer.Option(help="Models that compete, with commas; order_5 to order_10 only if named."),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            min=1, max=62, help="Width of the counter of sequence numbers.", show_default="found"
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="Part of the name of one of several streams: SSRC, address, host."),
    ] = None,
    out: NewOutFile = None,
    as_json: AsJson = False,
) -> None:
    """Choose the loss model of a trace by BIC.

    The output is YAML, for scenarios.
    """
    from channels.fit import CANDIDATES
    from channels.fit import fit as fit_models
    from channels.iperf import fit_intervals, is_json, notes_of, read_iperf3
    from channels.parameters import ChannelParameterError
    from channels.trace import read_loss_trace
    from sim.scenario.channel_argument import new_file

    names = [name.strip() for name in models.split(",")] if models else list(CANDIDATES)
    try:
        if is_json(trace):
            counts = read_iperf3(trace)
            report, notes = fit_intervals(counts, names), notes_of(counts)
            packets = report.packets
        else:
            mask, notes = read_loss_trace(trace, bits, stream)
            report, packets = fit_models(mask, names), int(mask.size)
    except ChannelParameterError as error:
        named = {"candidates": "--models: ", "bits": "--bits: ", "stream": "--stream: "}
        where = named.get(error.parameter, "" if error.parameter == "path" else f"{trace}: ")
        raise UserError(f"{where}{error.problem}") from None
    text = _fit_text(trace, report, packets, notes)
    if out is not None:
        with new_file(out) as partial:
            partial.write_text(text, encoding="utf-8")
    summary = {
        "trace": str(trace),
        "packets": report.packets,
        "losses": report.losses,
        "best": report.best.name,
        "yaml": report.best.yaml(),
        "out": None if out is None else str(out),
        "models": [_fit_row(found) for found in report.fits],
        "left_out": dict(report.left_out),
        "notes": list(notes),
    }
    shown = text.removesuffix("\n") if out is None else f"{text}# written to {out}"
    print_result(as_json, summary, typer.echo, shown)


@channel_app.command()
def lint(
    channel: ChannelName,
    packets: Annotated[int | None, typer.Option("-n", "--packets", min=1)] = None,
    packet_bytes: Annotated[int | None, typer.Option(min=1, help="Of a datagram.")] = None,
    mtu: Annotated[int | None, typer.Option(min=1, help="Largest IP packet, bytes.")] = None,
    interval: Annotated[float | None, typer.Option(min=0, help="Seconds between packets.")] = None,
    interleaver: Annotated[
        int | None, typer.Option(min=1, help="Packets that the interleaver spreads over.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0, help="Seconds from sending to playing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what is impossible or misleading.

    Exit code 1: impossible. Of a scenario, it knows the stream too.
    """
    for name, value in (("interval", interval), ("deadline", deadline)):
        if value is not None and not math.isfinite(value):
            raise UserError(f"--{name}: must be finite, got {value}")
    given = {
        "packets": packets,
        "packet_bytes": packet_bytes,
        "mtu_bytes": mtu,
        "interval_s": interval,
        "interleaver_packets": interleaver,
        "deadline_s": deadline,
    }
    found = _findings(channel, {name: value for name, value in given.items() if value is not None})
    lines = [f"{f.level}: {f.where}: {f.message}" for f in found] or ["nothing to remark"]
    summary = {"channel": channel, "findings": [asdict(finding) for finding in found]}
    print_result(as_json, summary, typer.echo, "\n".join(lines))
    if any(finding.level == "error" for finding in found):
        raise typer.Exit(1)


def _findings(channel: str, given: dict[str, Any]) -> list[Finding]:
    from channels.lint import Stream, lint_netem
    from channels.lint import lint as lint_channel
    from channels.tc import is_tc
    from sim.scenario.channel_argument import read_source
    from sim.scenario.lint import lint_scenario

    found: list[Finding] = []
    if is_tc(channel):
        found = lint_netem(channel)
        if not any(finding.level == "note" for finding in found):
            return found  # no model stands for these options
    source = read_source(channel)
    with user_errors(f"{channel}: ", *_REFUSALS):
        if source.scenario is not None:
            return lint_scenario(source.scenario, given)
        more = lint_channel(source.spec, Stream(**given))
    said = {finding.message for finding in found}
    return found + [finding for finding in more if finding.message not in said]


@channel_app.command()
def plot(
    channel: ChannelName,
    out: OutFile,
    packets: Packets = 1_000_000,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Draw a sample beside theory.

    Losses, burst lengths and autocorrelation, as PNG, SVG or PDF.
    """
    from sim.scenario.channel_argument import new_file, read_source

    source = read_source(channel)
    loss, _ = source.models()
    from channels.base import loss_mask
    from channels.describe import recorded_packets
    from sim.figures.channel import FORMATS, draw_channel
    from sim.version import __version__

    if out.suffix not in FORMATS:
        raise UserError(f"{out}: a figure is one of {', '.join(FORMATS)}")
    with user_errors(f"{channel}: ", *_REFUSALS), new_file(out) as partial:
        packets = min(packets, recorded_packets(loss) or packets)
        mask = loss_mask(loss, packets, seed)
        small = f"{channel} · {packets:,} packets · seed {seed} · lossy-stream-sim {__version__}"
        title = f"{channel}: {mask.mean():.2%} of {packets:,} packets lost"
        draw_channel(mask, loss.chain(), partial, out.suffix, title, small)
    summary = {"packets": packets, "seed": seed, "loss_rate": float(mask.mean())}
    print_result(as_json, {"channel": channel, "figure": str(out), **summary}, typer.echo, out)


def _link_notes(link: Link) -> list[str]:
    lossy = (link.queue_packets, link.queue_bytes, link.delay_loss)
    return [_LINK_LOSSES] if any(part is not None for part in lossy) else []


def _note(note: str) -> str:
    return f"note: {note}"


def _print_description(
    source: ChannelSource, found: Description, command: str | None, notes: list[str]
) -> None:
    from channels.spec import to_yaml

    if source.preset is not None:
        preset = source.preset
        screen().print(f"{preset.name}: {preset.summary}\n\n{to_yaml(preset.channel)}")
        screen().print(f"source: {preset.source}\nbasis:  {preset.basis}\n")
    numbers = ("theory", "sample", "99% interval", " ")
    print_table(
        f"{source.text}: {found.packets:,} packets, seed {found.seed}",
        ("", *numbers),
        [
            (
                row.name,
                _figures(row.theory),
                _figures(row.sample),
                "" if math.isnan(row.low) else f"{_figures(row.low)} to {_figures(row.high)}",
                "" if row.inside else "OUTSIDE",
            )
            for row in found.rows
        ],
        right=numbers,
        unbroken=("", *numbers),
    )
    print_line("One row in a hundred falls outside by chance; the interval of a row without")
    print_line("theory is the sample's own.")
    typer.echo("\n".join([f"netem: {command or 'no equivalent'}", *map(_note, notes)]))


def _figures(value: float) -> str:
    """Four digits; whole above 10,000; rounding errors are 0."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{round(value, 12) + 0.0:.4g}"


def _fit_row(found: Fit) -> dict[str, object]:
    from channels.spec import loss_spec

    return {
        "name": found.name,
        "bic": found.bic,
        "log_likelihood": found.log_likelihood,
        "channel": {"loss": loss_spec(found.model)},
        "estimates": [asdict(estimate) for estimate in found.estimates],
    }


def _fit_text(trace: Path, report: FitReport, size: int, notes: Sequence[str]) -> str:
    """The best model as YAML, below comments that tell how it was chosen."""
    best = report.best
    cut = "" if report.packets == size else f" (the first of {size:,})"
    name = str(UserError(str(trace)))
    lines = [
        f"{name}: {report.packets:,} packets{cut}, {report.losses:,} lost",
        *notes,
        "by BIC, least is best:",
        *(f"  {fit.name:16} {fit.bic - best.bic:+14,.1f}" for fit in report.fits),
        *(f"  {name:16} left out: {why}" for name, why in report.left_out),
        f"{best.name}, with 95% intervals:",
        *(f"  {e.name} {e.value:.5g}  {_between(e.low, e.high)}" for e in best.estimates),
    ]
    return "".join(f"# {line}\n" for line in lines) + best.yaml()


def _between(low: float, high: float) -> str:
    return "(no interval)" if math.isnan(low) else f"({low:.5g} to {high:.5g})"
