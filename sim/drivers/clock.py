"""The only place that asks what time it is: wall time, and how media time keeps to it."""

from __future__ import annotations

import math
import time
from typing import Protocol

LEAP_S = 5.0
"""A clock that moves on by more between two looks, or back at all, has jumped."""
SLACK_S = 1.0
"""A stream further behind than this does not hurry to catch up: it has stalled, and goes on."""


class Clock(Protocol):
    """Wall time."""

    def now(self) -> float:
        """Seconds from any origin."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class WallClock:
    """The system's monotonic clock."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Pacer:
    """Tells when a media time has come: the stream's zero plus ``pace`` wall seconds a second.

    A clock that jumps (a laptop that slept, a virtual machine that moved) shifts the stream's
    zero with it, so packets neither burst nor hang; ``jumps`` counts that. ``stalls`` counts how
    often the stream fell more than `SLACK_S` behind and went on from there, ``stalled_s`` for how
    long in all.
    """

    def __init__(self, clock: Clock, pace: float) -> None:
        if not 0 <= pace < math.inf:
            raise ValueError(f"pace must be a finite number >= 0, got {pace!r}")
        self._clock = clock
        self.pace = pace
        self._zero = self._last = clock.now()
        self.jumps = 0
        self.stalls = 0
        self.stalled_s = 0.0

    def start(self, media_s: float) -> None:
        """It is now media time ``media_s``."""
        self._last = self._clock.now()
        self._zero = self._last - self.pace * media_s

    def look(self) -> float:
        """What time it is; to be called at least every `LEAP_S` / 2, so that jumps are seen."""
        now = self._clock.now()
        step = now - self._last
        self._last = now
        if step < 0 or step > LEAP_S:
            self.jumps += 1
            self._zero += step
        return now

    def wait_s(self, media_s: float) -> float:
        """Seconds until ``media_s`` has come; 0 if it has."""
        if not self.pace:
            return 0.0
        left = self._zero + self.pace * media_s - self.look()
        if left < -SLACK_S:
            self.stalls += 1
            self.stalled_s -= left
            self._zero -= left
        return max(0.0, left)
