"""Wall time, which is read here only, and the pacing of media time by it."""

from __future__ import annotations

import math
import time
from typing import Protocol

LEAP_S = 5.0
"""A clock that advances by more between two readings, or goes back, has jumped."""
SLACK_S = 1.0
"""A stream further behind than this has stalled; it goes on from there instead of catching up."""


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


class SteadyClock:
    """A clock without its jumps: steps between two readings count only if they are credible.

    ``jumps``: how many were not (the clock was set, the machine slept or was moved, or the
    process stood still).
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.now()
        self._time = 0.0
        self.jumps = 0

    def now(self) -> float:
        """Seconds since it was made; never decreases. Read it at least every `LEAP_S` / 2."""
        now = self._clock.now()
        step = now - self._last
        self._last = now
        if 0 <= step <= LEAP_S:
            self._time += step
        else:
            self.jumps += 1
        return self._time


class Pacer:
    """Maps media time to wall time: the stream's zero plus ``pace`` wall seconds a second.

    When the clock jumps the stream neither bursts nor hangs. ``stalls`` counts how often it fell
    more than `SLACK_S` behind and went on from there, ``stalled_s`` for how long in all.
    """

    def __init__(self, clock: SteadyClock, pace: float) -> None:
        if not 0 <= pace < math.inf:
            raise ValueError(f"pace must be a finite number >= 0, got {pace!r}")
        self._clock = clock
        self._zero = clock.now()
        self.pace = pace
        self.stalls = 0
        self.stalled_s = 0.0

    def start(self, media_s: float) -> None:
        """Set the zero so that it is now media time ``media_s``."""
        self._zero = self._clock.now() - self.pace * media_s

    def wait_s(self, media_s: float) -> float:
        """Seconds until ``media_s`` has come; 0 if it has."""
        if not self.pace:
            return 0.0
        left = self._zero + self.pace * media_s - self._clock.now()
        if left < -SLACK_S:
            self.stalls += 1
            self.stalled_s -= left
            self._zero -= left
        return max(0.0, left)
