"""Playback of the stream: the engine in a worker thread, paced, paused, stepped and changed.

Everything here runs in the event loop and needs no lock, but `_draw` and `_enter`: they run in
the one worker thread and touch only the engines and the history, which nothing else touches. What
they give back is immutable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sim.errors import UserError
from sim.media.images import LoadedImage
from sim.page.charts import gap_chart, packet_chart
from sim.page.controls import SettingRefused, Value, changed, values
from sim.page.engine import Engine, Snapshot
from sim.page.history import FrameHistory
from sim.page.photos import CodedPhotos
from sim.page.stages import STAGES, picture
from sim.page.text import Number, numbers
from sim.scenario.schema import Scenario

SHORTEST_S = 0.2
"""Between two frames; a page cannot show more of them."""
_LAST = len(STAGES) - 1
_LATEST = 4  # frames whose pictures can be had


@dataclass(frozen=True)
class Settings:
    """What a frame is made with.

    Attributes:
        scenario: that it is streamed under.
        positions: where each control stands, as in `controls.values`; of that the scenario follows.
        concealer: that repairs.
        engine: of the photographs.
    """

    scenario: Scenario
    positions: Mapping[str, Value]
    concealer: str
    engine: Engine

    @property
    def by_name(self) -> dict[str, object]:
        """Each control's place, and "repair" and "photos", to be compared."""
        return {**self.positions, "repair": self.concealer, "photos": self.engine}


@dataclass(frozen=True)
class RenderedFrame:
    """One frame, ready to be looked at.

    Attributes:
        settings: that it was made with.
        snapshot: what it is.
        pictures: (image file, media type) by stage.
        gaps, packets: the charts, HTML.
        numbers: beside them.
        mark: another for every frame and setting; pictures with the same mark are the same.
    """

    settings: Settings
    snapshot: Snapshot
    pictures: Mapping[str, tuple[bytes, str]]
    gaps: str
    packets: str
    numbers: tuple[Number, ...]
    mark: int


class Playback:
    """A stream that plays while somebody watches.

    Attributes:
        base: what it began with.
        settings: as they are now.
        shown: the latest frame; None before the first.
        latest: that and a few before it, by mark, for whoever is still fetching their pictures.
        paused: whether it stands still.
        stepping: whether one goes through the stages of a frame.
        stage: number of the stage that is looked at, into `STAGES`.
        trouble: what went wrong, in one line; "" if nothing did.
    """

    def __init__(
        self, engine: Engine, scenario: Scenario, concealer: str, shortest_s: float = SHORTEST_S
    ) -> None:
        """``shortest_s``: least time between two frames."""
        self.base = self.settings = Settings(scenario, values(scenario), concealer, engine)
        self.shown: RenderedFrame | None = None
        self.latest: dict[int, RenderedFrame] = {}
        self.paused = self.stepping = False
        self.stage = self._watched = _LAST
        self.trouble = ""
        self._history = FrameHistory()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stream")
        self._watchers: list[Callable[[], object]] = []
        self._wake = asyncio.Event()
        self._dirty = False  # something was set that the frame shown does not have
        self._advance = False  # the next frame is wanted though the stream is paused
        self._change = ""
        self._made = 0
        self._shortest_s = shortest_s

    @property
    def pending(self) -> list[str]:
        """What is set and not yet in the frame shown, by the names of `Settings.by_name`."""
        if self.shown is None:
            return []
        there = self.shown.settings.by_name
        return [name for name, value in self.settings.by_name.items() if there[name] != value]

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call ``watcher`` whenever there is something new; the stream waits while nobody does."""
        self._watchers.append(watcher)
        self._wake.set()

    def leave(self, watcher: Callable[[], object]) -> None:
        """Stop calling ``watcher``."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def change(self, moved: Mapping[str, Value], label: str) -> None:
        """Move controls; one that is back where it began is as the scenario had it. ``label``: the
        change in a word, for the charts."""
        positions = {**self.settings.positions, **moved}
        if positions == self.settings.positions:
            return
        began = self.base.positions
        away = {key: value for key, value in positions.items() if value != began[key]}
        try:
            scenario = changed(self.base.scenario, away)
        except SettingRefused as refused:
            self.tell(str(refused))
        else:
            self._set(replace(self.settings, scenario=scenario, positions=positions), label)

    def conceal_by(self, concealer: str, label: str) -> None:
        """Repair by another concealer."""
        if concealer != self.settings.concealer:
            self._set(replace(self.settings, concealer=concealer), label)

    def stream_photos(self, images: Sequence[LoadedImage]) -> None:
        """Stream other photographs."""
        engine = Engine(CodedPhotos(images, self.settings.engine.photos.model))
        self._set(replace(self.settings, engine=engine), "photographs: your own")

    def tell(self, trouble: str) -> None:
        """Show what went wrong, in one line."""
        self.trouble = trouble
        self._notify()

    def pause_or_play(self) -> None:
        """Pause, or play on."""
        self.paused = not self.paused
        if not self.paused:
            self.stepping, self.stage = False, self._watched
        self._wake.set()
        self._notify()

    def step(self) -> None:
        """To the next stage of this frame; after the last, to the first of the next frame."""
        if self.shown is None or self._advance:
            return
        if not self.stepping:
            self.paused = self.stepping = True
            self.stage = 0
        elif self.stage < _LAST:
            self.stage += 1
        else:
            self.stage, self._advance = 0, True
            self._wake.set()
        self._notify()

    def step_back(self) -> None:
        """To the stage before."""
        if self.stepping and self.stage > 0:
            self.stage -= 1
            self._notify()

    def look_at(self, stage: int) -> None:
        """Show a stage of every frame."""
        self.stage = stage
        if not self.stepping:
            self._watched = stage
        self._notify()

    async def run(self) -> None:
        """Play until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            number = self._wanted()
            if number is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            began = loop.time()
            settings, change = self.settings, self._change
            self._dirty, self._change = False, ""
            try:
                drawn = await loop.run_in_executor(self._worker, _draw, number, settings)
            except (UserError, ValueError) as error:  # what these photographs or this model refuse
                self.trouble = str(error)
                self._return_to_what_worked()
            else:
                if number != self._wanted_now(number):  # paused meanwhile: it stays as it was
                    self._changed(change)
                    continue
                shown = await loop.run_in_executor(
                    self._worker, self._enter, settings, *drawn, change
                )
                self.shown = self.latest[shown.mark] = shown
                self.latest.pop(shown.mark - _LATEST, None)
                self._advance = False
            self._notify()
            pace_s = max(self._shortest_s, 1 / settings.scenario.stream.fps)
            if not self.paused:
                await asyncio.sleep(max(0.0, pace_s - (loop.time() - began)))

    def close(self) -> None:
        """Stop after the frame that is being made."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _wanted(self) -> int | None:
        """The number of the frame to make now; None if none is."""
        if self.shown is None:
            return 0 if self._watchers else None
        number = self.shown.snapshot.number
        if self._advance or (not self.paused and self._watchers):
            return number + 1
        return number if self._dirty else None

    def _wanted_now(self, number: int) -> int | None:
        """As `_wanted`, of a frame that was wanted when its making began."""
        if self.shown is not None and number == self.shown.snapshot.number:
            return number
        return self._wanted()

    def _enter(
        self,
        settings: Settings,
        snapshot: Snapshot,
        pictures: dict[str, tuple[bytes, str]],
        change: str,
    ) -> RenderedFrame:
        self._made += 1
        monitor = self._history.add(snapshot, change)
        points = self._history.points
        charts = gap_chart(points), packet_chart(points)
        beside = tuple(numbers(snapshot, monitor))
        return RenderedFrame(settings, snapshot, pictures, *charts, beside, self._made)

    def _set(self, settings: Settings, label: str) -> None:
        self.settings, self.trouble = settings, ""
        self._changed(label)
        self._notify()

    def _changed(self, label: str) -> None:
        """``label``: the change, for the charts; "" if only the frame under way was given up."""
        self._dirty, self._change = self._dirty or bool(label), label or self._change
        self._wake.set()

    def _return_to_what_worked(self) -> None:
        if self.shown is None:
            raise RuntimeError(self.trouble)
        self.settings, self._advance = self.shown.settings, False

    def _notify(self) -> None:
        for watcher in list(self._watchers):
            watcher()


def _draw(number: int, settings: Settings) -> tuple[Snapshot, dict[str, tuple[bytes, str]]]:
    snapshot = settings.engine.frame(number, settings.scenario, settings.concealer)
    return snapshot, {stage: picture(snapshot, stage) for stage in STAGES}
