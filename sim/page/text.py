"""The words of the page: a sentence for every stage, the numbers, alternative texts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from sim.drivers.record import LOST
from sim.live.monitor import StreamMonitor
from sim.page.engine import Snapshot
from sim.page.history import RESTORED, fates
from sim.scenario.schema import Scenario

_NONE = "\u2013"
_WAYS = {
    "erased": "{be} erased",
    "overflowed": "overflowed a queue",
    "corrupted": "{be} corrupted",
    "late": "came too late",
}

_REPAIRS = {
    "none": "Nothing is filled in: every missing number stands for grey.",
    "most_frequent": "Every missing number becomes the one used most.",
    "nearest": "Every missing number is copied from the nearest one that arrived.",
    "neighbour_average": "Every missing number is averaged from its neighbours.",
    "median": "Every missing number is the median of its neighbours.",
    "telea": "The holes are painted over from their edges, by fast marching.",
    "biharmonic": "The holes are painted over from their edges, as smoothly as can be.",
    "previous": "Every missing number is the one that was shown there before.",
    "previous_or_average": "Every missing number is the one shown there before or the average of "
    "its neighbours, whichever fits better what arrived around it.",
}


@dataclass(frozen=True)
class Number:
    """A number on the page: its label, its value, and a note to compare it with."""

    label: str
    value: str
    note: str


def picture_word(scenario: Scenario, still: str = "photograph") -> str:
    """What a picture of the stream is called: ``still``, but of a video a frame."""
    return still if scenario.video is None else "frame"


def stage_title(scenario: Scenario, stage: str) -> str:
    """A stage by name, for people."""
    return picture_word(scenario) if stage == "photograph" else stage


def sentence(snapshot: Snapshot, stage: str) -> str:
    """One sentence that explains a stage by this frame's own numbers."""
    frame, tokens = snapshot.coded.frame, snapshot.received.size
    codebook, patch = snapshot.scenario.codec.codebook, snapshot.scenario.codec.patch
    lost = int(np.count_nonzero(~snapshot.received))
    clean, repaired, unrepaired = snapshot.psnr_db
    match stage:
        case "photograph":
            kilobytes = frame.width * frame.height * 3 / 1000
            return (
                f"The sender takes a {picture_word(snapshot.scenario)} of "
                f"{frame.width} by {frame.height} pixels: "
                f"{kilobytes:.0f} kB if they were sent as they are."
            )
        case "index map":
            return (
                f"The encoder stands a codeword for every {patch} by {patch} pixels, the nearest "
                f"of {codebook:,}: {tokens} numbers of at most {codebook.bit_length() - 1} bits."
            )
        case "packets":
            each = snapshot.wire_bytes / max(1, len(snapshot.packets))
            which = "The numbers" + " that changed" * bool(snapshot.scenario.stream.refresh)
            return (
                f"{which} are dealt out to {len(snapshot.packets)} packets of about "
                f"{each:.0f} bytes, each readable alone; the orange ones travel in the first."
            )
        case "lost":
            return f"{_losses(snapshot)}: {lost} of {tokens} numbers are missing."
        case "unrepaired":
            return (
                f"Decoded as it is, every missing number leaves a grey patch: {unrepaired:.1f} dB."
            )
        case "filled":
            return _filling(snapshot, lost)
        case "repaired":
            return (
                f"The decoder turns the completed numbers into pixels: {repaired:.1f} dB, "
                f"against {unrepaired:.1f} without repair and {clean:.1f} without any loss."
            )
    raise ValueError(f"no stage {stage!r}")


def _losses(snapshot: Snapshot) -> str:
    sent = len(snapshot.packets)
    ways = Counter(packet.outcome for packet in snapshot.packets)
    lost = [
        f"{ways[how]} {_WAYS[how].format(be='was' if ways[how] == 1 else 'were')}"
        for how in LOST
        if ways[how]
    ]
    if not lost:
        return f"All {sent} packets arrived in time"
    restored = Counter(fates(snapshot))[RESTORED]
    again = [f"{restored} of them restored"] if restored else []
    return f"Of {sent} packets {', '.join([*lost, *again])}"


def _filling(snapshot: Snapshot, lost: int) -> str:
    if lost == 0:
        return "Nothing is missing, so there is nothing to fill in."
    if snapshot.concealer in _REPAIRS:
        return _REPAIRS[snapshot.concealer]
    seen = " and what was shown before" * (snapshot.concealer == "inpaint_memory")
    return (
        f"The transformer estimates the {lost} missing numbers from those that arrived{seen}; "
        "the lighter a patch, the surer it is."
    )


def alt_text(snapshot: Snapshot, stage: str) -> str:
    """The alternative text of a picture, for screen readers."""
    name, word = snapshot.photo.name, picture_word(snapshot.scenario)
    kind = {
        "photograph": f"the {word} {name}",
        "index map": f"the {word} {name} as a grid of numbered cells",
        "packets": "the grid coloured by packet",
        "lost": "the grid with a mark on every lost cell",
        "unrepaired": f"{name} with a grey patch for every lost cell",
        "filled": "the filled cells over the picture, lighter where the repair is surer",
        "repaired": f"{name} as the receiver repaired it",
    }[stage]
    return f"{kind}. {sentence(snapshot, stage)}"


def numbers(snapshot: Snapshot, monitor: StreamMonitor) -> list[Number]:
    """The numbers of the page, most important first."""
    clean, repaired, unrepaired = snapshot.psnr_db
    pixels = snapshot.coded.frame.width * snapshot.coded.frame.height
    lost = int(np.count_nonzero(~snapshot.received))
    burst = math.nan if monitor.expected is None else monitor.expected.burst
    return [
        Number("packets erased", _percent(monitor.loss), _loss_note(monitor)),
        Number(
            "mean burst",
            _NONE if math.isnan(monitor.burst) else f"{monitor.burst:.1f}",
            f"{_theory(burst, '.1f')}, in {monitor.bursts} bursts",
        ),
        Number(
            "repaired",
            f"{repaired:.1f} dB",
            f"{repaired - unrepaired:+.1f} dB by the repair, {_short_of(clean, repaired)}",
        ),
        Number(
            "guessed exactly",
            _percent(snapshot.token_accuracy),
            f"of {lost} missing numbers",
        ),
        Number(
            "on the wire",
            f"{snapshot.wire_bytes:,} bytes",
            f"{8 * snapshot.wire_bytes / pixels:.3f} bits per pixel, "
            f"{3 * pixels / max(1, snapshot.wire_bytes):.0f} times less than raw pixels",
        ),
        Number(
            "too late",
            _percent(monitor.lost["late"] / monitor.sent if monitor.sent else math.nan),
            f"after the deadline of {snapshot.scenario.stream.playout_delay_s:g} s"
            + "".join(
                f", {monitor.lost[how]:,} {how}"
                for how in ("overflowed", "corrupted")
                if monitor.lost[how]
            ),
        ),
    ]


def _percent(share: float) -> str:
    return _NONE if math.isnan(share) else f"{share:.1%}"


def _theory(value: float, form: str) -> str:
    return "no theory" if math.isnan(value) else f"theory {value:{form}}"


def _loss_note(monitor: StreamMonitor) -> str:
    theory = _theory(math.nan if monitor.expected is None else monitor.expected.loss, ".1%")
    if monitor.likely is None:
        return f"{theory}, of {monitor.sent:,} packets"
    low, high = monitor.likely
    return f"{theory}; {low:.0%} to {high:.0%} is normal in {monitor.sent:,} packets"


def _short_of(clean: float, repaired: float) -> str:
    gap = clean - repaired
    if abs(gap) < 0.05:
        return "as good as no loss"
    return f"{abs(gap):.1f} {'short of' if gap > 0 else 'above'} no loss"
