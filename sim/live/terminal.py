"""The view of a running stream in a terminal: pictures, packets in time, numbers beside theory.

Colours are those of the figures (Okabe and Ito), and every mark has a shape of its own, so nothing
hangs on colour alone. Where the output is no terminal, there is a plain line an image instead.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sim.drivers.record import LOST
from sim.live.monitor import FrameFate, StreamMonitor
from sim.progress import screen

_MARKS = {
    "delivered": ("█", "#56B4E9"),
    "late": ("▒", "#CC79A7"),
    "corrupted": ("x", "#E69F00"),
    "overflowed": ("v", "#009E73"),
    "erased": ("░", "#D55E00"),
}
_WORST = (*LOST, "delivered")
_QUIET = "grey50"
_REFRESH_PER_S = 4
_STATS_ROWS = 6
_FRAME_ROWS = 4  # borders, legend and gaps


@contextlib.contextmanager
def live_view(monitor: StreamMonitor, role: str, console: Console | None = None) -> Iterator[None]:
    """Show a monitor while the block runs.

    Args:
        monitor: filled by another thread, or between the calls of this one.
        role: "sender" or "receiver", for the title.
        console: standard error if None.
    """
    console = console or screen(stderr=True)
    if not console.is_terminal:
        yield
        return

    with Live(
        get_renderable=partial(render, monitor, role, console),
        console=console,
        refresh_per_second=_REFRESH_PER_S,
        transient=True,
    ):
        yield


def plain_line(monitor: StreamMonitor, frame: int) -> str:
    """One image in one line, for logs."""
    fate = monitor.frames.get(frame, FrameFate())
    arrived = sum(mark == "delivered" for mark in fate.marks)
    quality = ", ".join(f"{_words(k)} {v:.1f} dB" for k, v in monitor.quality.items())
    text = f"image {frame + 1} of {monitor.total}: {arrived} of {len(fate.marks)} packets in time"
    return f"{text}; {quality}" if quality else text


def render(monitor: StreamMonitor, role: str, console: Console) -> RenderableType:
    """The view as it is now, for a console of this size."""
    width = min(console.width, 132)
    pictures = dict(list(monitor.pictures.items())[-3:])
    room = console.height - _FRAME_ROWS - _STATS_ROWS - bool(monitor.anomalies)
    rows = max(3, min(8, room // 3))
    parts: list[RenderableType] = []
    if pictures:
        across = (width - 6 - 2 * len(pictures)) // max(2, len(pictures))
        parts += [_pictures(pictures, min(across, 46), max(4, room - rows - 2)), Text()]
    parts += [_raster(monitor, width - 4, rows), _legend(), _numbers(monitor)]
    if warnings := {name: n for name, n in monitor.anomalies.items() if n}:
        words = ", ".join(f"{_words(name)} {count}" for name, count in warnings.items())
        parts.append(Text(f"warnings: {words}", style="#E69F00", no_wrap=True, overflow="ellipsis"))
    title = f"{monitor.name} · {role} · {monitor.state or 'starting'}"
    shown = f"{monitor.images_due or len(monitor.frames)} of {monitor.total} images"
    below = f"{monitor.media_s:.1f} s · {shown}"
    return Panel(
        Group(*parts),
        title=Text(title),
        subtitle=Text(below),
        title_align="left",
        subtitle_align="left",
        border_style=_QUIET,
        width=width,
    )


# Pictures


def _pictures(pictures: Mapping[str, NDArray[np.uint8]], across: int, down: int) -> Table:
    table = Table.grid(padding=(0, 2))
    drawn = [_half_blocks(pixels, across, down) for pixels in pictures.values()]
    table.add_row(*drawn)
    table.add_row(*(Text(caption, style=_QUIET) for caption in pictures))
    return table


def _half_blocks(pixels: NDArray[np.uint8], across: int, down: int) -> Text:
    """uint8[H,W,3] as text of at most `across` x `down` characters, two pixels in each."""
    height, width = pixels.shape[:2]
    scale = min(across / width, 2 * down / height)
    size = max(2, round(width * scale)), max(2, 2 * round(height * scale / 2))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)).tolist()
    text = Text(no_wrap=True)
    for top, bottom in zip(small[::2], small[1::2], strict=True):
        for above, under in zip(top, bottom, strict=True):
            text.append("▀", Style(color=_colour(above), bgcolor=_colour(under)))
        text.append("\n")
    text.right_crop(1)
    return text


def _colour(rgb: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


# Packets


def _raster(monitor: StreamMonitor, width: int, rows: int) -> Table:
    """A line an image, a mark a packet in the order of sending; the latest image last."""
    table = Table.grid(padding=(0, 1))
    numbers = sorted(monitor.frames)[-rows:]
    label = len(str(monitor.total))
    room = max(8, width - label - 18)
    for number in numbers:
        fate = monitor.frames[number]
        table.add_row(
            Text(f"{number + 1:>{label}}", style=_QUIET), _marks(fate.marks, room), _outcome(fate)
        )
    for _ in range(rows - len(numbers)):
        table.add_row(Text(" "), Text(), Text())
    return table


def _marks(marks: list[str], room: int) -> Text:
    share = -(-len(marks) // room) if marks else 1  # packets a mark stands for
    text = Text(no_wrap=True)
    for at in range(0, len(marks), share):
        group = marks[at : at + share]
        worst = next(fate for fate in _WORST if fate in group)
        text.append(*_MARKS[worst])
    return text


def _outcome(fate: FrameFate) -> Text:
    if not fate.ready:
        return Text("…", style=_QUIET)
    if fate.complete:
        return Text("complete", style=_QUIET)
    return Text(f"{fate.tokens_lost:.0%} lost", style=_QUIET)


def _legend() -> Text:
    text = Text(no_wrap=True)
    for name, (mark, colour) in _MARKS.items():
        text.append(mark, colour)
        text.append(f" {name}   ", _QUIET)
    return text


# Numbers


def _numbers(monitor: StreamMonitor) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style=_QUIET, no_wrap=True, min_width=10)
    table.add_column(no_wrap=True, min_width=30)
    table.add_column(style=_QUIET, no_wrap=True)
    expected, likely = monitor.expected, monitor.likely
    theory = burst = ""
    if expected is not None:
        theory = f"theory {expected.loss:.1%}"
        burst = f"theory {expected.burst:.2f}" if math.isfinite(expected.burst) else ""
        if likely is not None:
            theory += f", 95%: {likely[0]:.0%} to {likely[1]:.0%}"
    table.add_row("erased", f"{_number(monitor.loss, '.1%')} of {monitor.sent:,} packets", theory)
    table.add_row("mean burst", f"{_number(monitor.burst, '.2f')} packets", burst)
    bpp = monitor.bpp_wire
    table.add_row(
        "rate",
        f"{monitor.kilobits_per_s:.1f} kbit/s",
        f"{monitor.bytes:,} bytes" + (f", {bpp:.4f} bpp" if math.isfinite(bpp) else ""),
    )
    waiting = ", ".join(f"{count} {name}" for name, count in monitor.waiting.items())
    table.add_row("buffer", waiting or "empty", "")
    done = f"{monitor.images_complete} of {monitor.images_due} images complete in time"
    others = [f"{n:,} {how}" for how, n in monitor.lost.items() if n and how != "erased"]
    text = f"packets: {', '.join(others)}" if others else "no packet late"
    table.add_row("deadline", text, done if monitor.images_due else "")
    table.add_row("quality", *_quality(monitor))
    return table


def _quality(monitor: StreamMonitor) -> tuple[str, str]:
    if not monitor.means:
        return (monitor.quality_is if monitor.images_due else "-"), ""
    best = max(monitor.means, key=lambda name: monitor.means[name])
    unrepaired = monitor.means.get("none", math.nan)
    others = f", none {unrepaired:.1f}" if best != "none" and math.isfinite(unrepaired) else ""
    latest = monitor.quality.get(best, math.nan)
    return (
        f"{monitor.quality_is} {_number(latest, '.1f')} dB {_words(best)}",
        f"mean {monitor.means[best]:.1f}{others}",
    )


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _words(name: str) -> str:
    return name.replace("_", " ")
