"""What ``iperf3 --udp --json`` tells of losses: how many in each interval, not which.

So there is a loss rate, and whether it changes between intervals more than independent losses
would make it; how long bursts are cannot be known.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels.erasure import UniformErasure
from channels.fit import Fit, FitReport, FittedParameter, wilson
from channels.parameters import ChannelParameterError

_MAX_BYTES = 1 << 28
_SUMS = ("sum", "sum_received", "sum_bidir_reverse")
ORDER_UNKNOWN = "iperf3 tells how many packets were lost in each interval, not which"


@dataclass(frozen=True, slots=True)
class IntervalLosses:
    """Packets sent and lost in each interval; one interval where only totals are known."""

    sent: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def dispersion(self) -> float:
        """How much more than independent losses those of the intervals scatter, as a ratio of
        variances; nan with fewer than four intervals."""
        n, rate = len(self.sent), sum(self.lost) / sum(self.sent)
        if n < 4 or not 0.0 < rate < 1.0:
            return math.nan
        square = sum(
            (lost - sent * rate) ** 2 / (sent * rate * (1.0 - rate))
            for sent, lost in zip(self.sent, self.lost, strict=True)
        )
        return square / (n - 1)


def is_json(path: str | Path) -> bool:
    """Whether a file looks like JSON; one that cannot be read does not."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"{"
    except (OSError, ValueError):
        return False


def read_iperf3(path: str | Path) -> IntervalLosses:
    """Losses by interval from the output of ``iperf3 --udp --json``, of either end.

    The receiving end counts losses: the server, or a client with ``--reverse`` or with
    ``--get-server-output``; any other client knows the totals alone.

    Raises:
        ChannelParameterError: ("path") not such output, a TCP test, or a test that failed.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return _intervals(json.loads(file.read(_MAX_BYTES).decode("utf-8-sig")))
    except ChannelParameterError as error:
        raise ChannelParameterError("path", f"{path}: {error.problem}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"not the JSON of iperf3: {error}"[:200]
        raise ChannelParameterError("path", f"cannot read {path}: {reason}") from None


def _intervals(report: Any) -> IntervalLosses:
    if not isinstance(report, dict) or "end" not in report or "intervals" not in report:
        raise ChannelParameterError("path", "holds JSON, but not that of iperf3 --json")
    if isinstance(report.get("error"), str):
        raise ChannelParameterError("path", f"iperf3 failed: {report['error'][:100]}")
    try:
        for part in (report.get("server_output_json"), report):
            if isinstance(part, dict):
                pairs = [_counts(interval) for interval in part["intervals"]]
                counts = [pair for pair in pairs if pair]
                if counts and all(0 <= lost <= sent for sent, lost in counts):
                    return IntervalLosses(*map(tuple, zip(*counts, strict=True)))
        total = _counts(report["end"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ChannelParameterError("path", "holds JSON, but not that of iperf3 --json") from None
    if total is None or not 0 <= total[1] <= total[0]:
        raise ChannelParameterError("path", "has no lost packets in it; test with iperf3 --udp")
    return IntervalLosses((total[0],), (total[1],))


def _counts(part: Mapping[str, Any]) -> tuple[int, int] | None:
    """Packets sent and lost, where the receiving end counted them."""
    for name in _SUMS:
        counted = part.get(name, {})
        if "lost_packets" in counted and counted["packets"] and not counted.get("omitted"):
            return int(counted["packets"]), int(counted["lost_packets"])
    return None


def fit_intervals(counts: IntervalLosses, candidates: Sequence[str]) -> FitReport:
    """The loss rate, as the report of a fit; every candidate but "uniform" is left out.

    The interval is Wilson's, for as many packets as are worth the scatter between intervals.

    Raises:
        ChannelParameterError: too few packets, all alike, or "uniform" is no candidate.
    """
    n, losses = sum(counts.sent), sum(counts.lost)
    if n < 100 or not 0 < losses < n:
        raise ChannelParameterError(
            "mask", f"has {n} packets with {losses} lost; a fit needs 100 or more, of both kinds"
        )
    if "uniform" not in candidates:
        raise ChannelParameterError("candidates", f"only uniform can be fitted: {ORDER_UNKNOWN}")
    rate = losses / n
    worth = n / max(1.0, counts.dispersion) if counts.dispersion > 1.0 else float(n)
    estimate = FittedParameter("loss", rate, *wilson(rate * worth, worth))
    likelihood = losses * math.log(rate) + (n - losses) * math.log1p(-rate)
    best = Fit(
        "uniform", UniformErasure(rate), (estimate,), likelihood, math.log(n) - 2 * likelihood
    )
    left_out = [
        (name, "which packets were lost is not known") for name in candidates if name != "uniform"
    ]
    return FitReport(n, losses, (best,), tuple(left_out))


def notes_of(counts: IntervalLosses) -> tuple[str, ...]:
    """What the counts can and cannot tell, a line each."""
    notes = [f"{ORDER_UNKNOWN}: the rate is known, the lengths of bursts are not"]
    if len(counts.sent) == 1:
        notes.append("only totals are here; the receiving end's output has intervals")
    elif not math.isnan(counts.dispersion):
        notes.append(
            f"losses of the {len(counts.sent)} intervals scatter {counts.dispersion:.1f} times as "
            "much as independent ones"
            + (": in bursts, or the rate changed; capture packets" if counts.dispersion > 2 else "")
        )
    return tuple(notes)
