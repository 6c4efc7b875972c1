"""What the live view says: the stream's own numbers, beside theory, in any terminal."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

from channels import build, read_channel
from sim.drivers.record import PacketRecord
from sim.live.monitor import KEPT_FRAMES, StreamMonitor
from sim.live.terminal import plain_line, render
from sim.protocol.config import StreamConfig
from sim.protocol.events import FrameReady, ReceivedGrid

CHANNEL = {"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5}
CONFIG = StreamConfig(codebook_size=64, slices=16, fps=10)


def watched(frames: int, channel: dict[str, object] = CHANNEL) -> StreamMonitor:
    """A monitor of a stream: every 7th packet late, the channel's own losses."""
    monitor = StreamMonitor("s", channel, CONFIG, frames)
    loss, link = read_channel(channel)
    made = build(loss, link=link, seed=5)
    for number in range(frames * 16):
        sent_s = number / 160
        arrives = bool(made.transmit(b"x" * 50, sent_s))
        late = arrives and number % 7 == 0
        fate = "delivered" if arrives else "erased"
        monitor.packet(
            PacketRecord(
                number % 65536, number // 16, number % 16, 50, sent_s, fate,
                sent_s if arrives else None, late, int(arrives), "media", number // 16,
            )
        )  # fmt: skip
    return monitor


def release(monitor: StreamMonitor, frame: int, received: np.ndarray) -> None:
    grid = ReceivedGrid(np.where(received, 1, -1), received)
    fields = {name: None for name in FrameReady.__dataclass_fields__}
    fields |= {"frame": frame, "grid": grid, "width": 64, "height": 64, "due_s": 1.0}
    monitor.image(FrameReady(**{**fields, "complete": bool(received.all())}))


def shown(monitor: StreamMonitor, width: int = 110, height: int = 36) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    with console.capture() as capture:
        console.print(render(monitor, "receiver", console))
    return capture.get()


def plain(text: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    from rich.text import Text

    console.print(Text.from_ansi(text))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_losses_and_bursts_are_counted_as_they_fall() -> None:
    monitor = watched(50)
    loss, _ = read_channel(CHANNEL)
    lost = [
        not arrived
        for arrived in (mark != "erased" for f in monitor.frames.values() for mark in f.marks)
    ]
    starts = sum(b and not a for a, b in zip([False, *lost], lost, strict=False))
    assert monitor.sent == len(lost) == 800
    assert monitor.loss == pytest.approx(sum(lost) / 800)
    assert monitor.burst == pytest.approx(sum(lost) / starts)
    assert monitor.expected is not None
    assert (monitor.expected.loss, monitor.expected.burst) == pytest.approx((0.2, 5.0))
    low, high = monitor.likely or (math.nan, math.nan)
    assert 0 <= low < 0.2 < high <= 1
    assert monitor.kilobits_per_s == pytest.approx(160 * 50 * 8 / 1000, rel=0.01)
    assert loss.chain() is not None


def test_memory_is_bounded() -> None:
    monitor = watched(300)
    assert len(monitor.frames) == KEPT_FRAMES
    assert monitor.sent == 4800
    assert max(monitor.frames) == 299


@pytest.mark.parametrize("size", [(40, 16), (80, 24), (110, 36), (200, 60)])
def test_the_view_fits_every_terminal(size: tuple[int, int]) -> None:
    monitor = watched(12)
    monitor.pictures = {name: np.full((64, 96, 3), 90, np.uint8) for name in ("sent", "holes", "x")}
    monitor.measured({"none": 20.0, "inpaint": 23.5})
    release(monitor, 3, np.ones((4, 4), np.bool_))
    monitor.anomalies = {"stalls": 2, "quiet": 0}
    text = plain(shown(monitor, *size))
    lines = text.rstrip("\n").splitlines()
    assert max(map(len, lines)) <= min(size[0], 132)
    assert "warnings: stalls 2" in text and "quiet" not in text


def test_the_view_tells_what_there_is() -> None:
    monitor = watched(12)
    release(monitor, 10, np.ones((4, 4), np.bool_))
    release(monitor, 11, np.tile([True, True, True, False], (4, 1)))
    monitor.measured({"none": 20.0, "inpaint": 23.5})
    text = plain(shown(monitor))
    for words in ("theory 20.0%", "theory 5.00", "complete", "25% lost", "23.5 dB inpaint"):
        assert words in text, words
    marks = {"delivered": "█", "late": "▒", "erased": "░"}
    (line,) = (line for line in text.splitlines() if line.startswith("│ 12 "))
    for name, mark in marks.items():
        assert line.count(mark) == monitor.frames[11].marks.count(name)
    assert plain_line(monitor, 11).startswith("image 12 of 12: ")


def test_nothing_has_come_yet() -> None:
    text = plain(shown(StreamMonitor("s", {"type": "perfect"}, CONFIG, 0)))
    assert "waiting" in text or "starting" in text
    assert "nan" not in text


def test_numbers_are_whole_at_80_columns() -> None:
    monitor = watched(40)
    release(monitor, 39, np.ones((4, 4), np.bool_))
    monitor.measured({"none": 20.44, "inpaint": 22.46, "neighbour_average": 21.45})
    text = plain(shown(monitor, 80, 30))
    low, high = monitor.likely or (0.0, 0.0)
    for words in (f"theory 20.0%, 95%: {low:.0%} to {high:.0%} ", "mean 22.5, none 20.4 ", "bytes"):
        assert words in text, text
