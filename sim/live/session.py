"""What the live commands do: put sender, receiver, view and results together."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from codec.checkpoint import ModelError
from codec.model import Model
from sim.drivers.clock import WallClock
from sim.drivers.links import ReceiverLink, open_receiver, open_sender
from sim.drivers.live_receiver import Incoming, LiveReceiver
from sim.drivers.recording import Recorder, recorded_about, replay
from sim.errors import UserError
from sim.experiment.folder import check_run
from sim.live.monitor import StreamMonitor
from sim.live.process import SenderProcess, interruptible
from sim.live.receive import (
    IncomingStream,
    LocalReferenceImages,
    Received,
    ReferenceImages,
    refuse_sweep,
)
from sim.live.results import write_received
from sim.live.send import send_stream
from sim.live.terminal import live_view, plain_line
from sim.media.capture import Photographs, open_source
from sim.media.frames import load_model
from sim.media.images import LoadedImage
from sim.progress import print_json, screen
from sim.results.files import Outcome
from sim.scenario.library import find_scenario
from sim.scenario.loader import LoadedScenario, load_scenario
from sim.scenario.schema import Scenario
from sim.stream import check_model

_LINGER_S = 1.0

Written = Callable[[Received, Outcome | None, Mapping[str, int]], object]
"""Told of a stream that is over: how it went, what was written of it, anomalies by name."""


def send_command(
    path: Path,
    overrides: Sequence[str],
    *,
    to: str,
    frames: int | None,
    video: Path | None,
    camera: int | None,
    keys: Path | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """See `sim send --help`."""
    loaded = _load(path, overrides)
    scenario = loaded.scenario
    console = screen(stderr=True)
    with closing(open_sender(to, None if keys is None else str(keys))) as link:
        source = open_source(
            scenario.images,
            loaded.images_base,
            fps=scenario.stream.fps,
            video=video,
            camera=camera,
            frames=frames,
        )
        if keep is not None:
            _make(keep)
        model = _model(loaded)
        monitor = StreamMonitor(
            scenario.name, scenario.channel, scenario.stream_config(), len(source.sizes)
        )
        if not console.is_terminal:
            console.print(f"sending {len(source.sizes)} images to {to}", soft_wrap=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(live_view(monitor, "sender", console))
            sent = send_stream(
                scenario,
                source,
                model,
                link,
                WallClock(),
                monitor,
                pace=scenario.pace,
                keep=keep,
                tell=lambda state: None if console.is_terminal else console.print(state),
                started=lambda sender: stack.enter_context(interruptible(sender.stop)),
            )
    ledger = sent.ledger
    summary = {
        "images": sent.captured,
        "interrupted": sent.interrupted,
        "packets": ledger.sent,
        "erased": ledger.erased,
        "late": ledger.late,
        "bpp": ledger.bpp,
        "bpp_wire": ledger.bpp_wire,
        "anomalies": {name: count for name, count in monitor.anomalies.items() if count},
    }
    if as_json:
        print_json(summary)
        return
    out = screen()
    expected = "" if monitor.expected is None else f" (theory {monitor.expected.loss:.1%})"
    out.print(
        f"sent {sent.captured} images in {ledger.sent:,} packets: {ledger.loss_rate:.1%} erased"
        f"{expected}, {ledger.late} late; {ledger.bpp_wire:.4f} bits per pixel on the wire"
    )
    _print_warnings(out, monitor.anomalies)


def receive_command(
    path: Path,
    overrides: Sequence[str],
    *,
    at: str,
    video: Path | None,
    keys: Path | None,
    originals: Path | None,
    record: Path | None,
    out: Path | None,
    once: bool,
    save_images: bool,
    as_json: bool,
    written: Written,
) -> None:
    """See `sim receive --help`."""
    loaded = _load(path, overrides)
    with closing(open_receiver(at, None if keys is None else str(keys))) as link:
        pictures = _pictures_here(loaded, video, originals)
        console = screen(stderr=True)
        if not console.is_terminal:
            console.print(f"listening at {link.address}", soft_wrap=True)
        session = ReceiverSession(
            loaded, _model(loaded), pictures, record, out, save_images, as_json, written
        )
        session.serve(link, once=once)


def demo_command(
    path: Path,
    overrides: Sequence[str],
    *,
    frames: int,
    video: Path | None,
    camera: int | None,
    udp: bool,
    record: Path | None,
    out: Path | None,
    save_images: bool,
    as_json: bool,
    written: Written,
) -> None:
    """See `sim demo --help`."""
    loaded = _load(path, overrides)
    address = "udp://127.0.0.1:0" if udp else "tcp://127.0.0.1:*"
    with (
        tempfile.TemporaryDirectory(prefix="sim-demo-") as scratch,
        closing(open_receiver(address)) as link,
    ):
        kept = Path(scratch)
        moving = video is not None or camera is not None
        command = [sys.executable, "-m", "sim", "send", str(path), "--to", link.address]
        command += ["--frames", str(frames)]
        for option, value in (("--video", video), ("--camera", camera)):
            command += [] if value is None else [option, str(value)]
        command += ["--keep", scratch] if moving else []
        for override in overrides:
            command += ["--set", override]
        pictures = LocalReferenceImages([], kept) if moving else _pictures_here(loaded, None, None)
        model = _model(loaded)
        with SenderProcess(command, kept) as sender:
            session = ReceiverSession(
                loaded, model, pictures, record, out, save_images, as_json, written
            )
            session.serve(link, once=True, on_idle=sender.check)


def replay_command(
    recording: Path,
    path: Path | None,
    overrides: Sequence[str],
    *,
    originals: Path | None,
    out: Path | None,
    save_images: bool,
    as_json: bool,
    written: Written,
) -> None:
    """See `sim replay --help`."""
    about = recorded_about(recording)
    loaded = _as_recorded(recording, about) if path is None else _load(path, overrides)
    pictures = _pictures_here(loaded, None, originals)
    session = ReceiverSession(
        loaded, _model(loaded), pictures, None, out, save_images, as_json, written
    )
    if not session.replay(recording):
        screen(stderr=True).print(
            f"{recording}: breaks off; replayed as far as it goes", soft_wrap=True
        )


def _as_recorded(recording: Path, about: Mapping[str, Any]) -> LoadedScenario:
    try:
        scenario = Scenario.model_validate(about["scenario"])
        base, model = Path(about["images_base"]), about["model"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{recording}: does not say what it is of; give --scenario") from None
    return LoadedScenario(scenario, [({}, scenario)], base, model)


class ReceiverSession:
    """Receives streams of one scenario, one after another, and writes down each."""

    def __init__(
        self,
        loaded: LoadedScenario,
        model: Model,
        originals: ReferenceImages,
        record: Path | None,
        out: Path | None,
        save_images: bool,
        as_json: bool,
        written: Written,
    ) -> None:
        if out is not None:
            check_run(out)  # before a stream is taken that could not be written
        self._loaded, self._model, self._originals = loaded, model, originals
        self._record, self._out = record, out
        self._save_images, self._as_json, self._written = save_images, as_json, written
        self._received: list[Received] = []
        self._recorder: Recorder | None = None
        self._console = screen(stderr=True)
        self._anomalies: Callable[[], dict[str, int]] = dict
        self._new_watch(0)

    def serve(
        self,
        link: ReceiverLink,
        *,
        once: bool,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        """Receive until told to stop, or one whole stream has come if ``once``."""
        told = False

        refused = 0

        def idle() -> None:
            nonlocal refused
            if link.anomalies.get("refused_key", 0) > refused:
                if not refused:  # it may try again and again
                    self._console.print(
                        "refused a sender: its key is not in peers/ of --keys, or it has none"
                    )
                refused = link.anomalies["refused_key"]
            self._monitor.state = receiver.state
            on_idle()

        receiver = LiveReceiver(link, self.open, WallClock(), on_idle=idle)
        self._anomalies = lambda: receiver.anomalies

        def stop() -> None:
            nonlocal told
            told = True
            receiver.stop()

        with interruptible(stop):  # while tables are written, too
            while not told:
                with live_view(self._monitor, "receiver", self._console):
                    ended = receiver.serve()
                    if ended and once:
                        receiver.answer_for(_LINGER_S)
                for received in self._received:
                    if told and received.ended == "sender gone":
                        received.ended = "stopped"
                    self.write(received)
                self._received.clear()
                if ended and once:
                    return
                self._new_watch(0)

    def open(self, start: bytes, about: dict[str, Any]) -> Incoming:
        """Where a stream goes."""
        scenario = self._loaded.scenario
        self._monitor.state = "receiving"
        reception = IncomingStream(
            start,
            about,
            scenario=scenario,
            model=self._model,
            originals=self._originals,
            monitor=self._monitor,
            finished=self._received.append,
            on_image=self._tell,
        )
        if self._record is None:
            return reception
        about = {**about, "images_base": str(self._loaded.images_base.absolute())}
        about["model"] = self._loaded.model
        self._recorder = Recorder(reception, self._record, start, about)
        return self._recorder

    def replay(self, recording: Path) -> bool:
        """As `serve`, from a file; whether it is whole."""
        with live_view(self._monitor, "replay", self._console):
            whole = replay(recording, self.open)
        for received in self._received:
            self.write(received)
        return whole

    def write(self, received: Received) -> None:
        """Tables and figures of a stream that is over."""
        warnings = {name: count for name, count in self._anomalies().items() if count}
        warnings |= {name: count for name, count in self._monitor.anomalies.items() if count}
        if self._recorder is not None and self._recorder.failed:
            warnings["recording_failed"] = 1
            self._console.print(self._recorder.failed, soft_wrap=True)
        outcome = write_received(
            self._loaded, self._model, received, warnings, self._out, self._save_images
        )
        self._written(received, outcome, warnings)

    def _tell(self, frame: int) -> None:
        if not self._console.is_terminal and not self._as_json:
            self._console.print(plain_line(self._monitor, frame), soft_wrap=True, highlight=False)

    def _new_watch(self, total: int) -> None:
        scenario = self._loaded.scenario
        self._monitor = StreamMonitor(
            scenario.name, scenario.channel, scenario.stream_config(), total
        )


def _load(path: Path, overrides: Sequence[str]) -> LoadedScenario:
    loaded = load_scenario(find_scenario(path), overrides)
    refuse_sweep(len(loaded.points))
    return loaded


def _model(loaded: LoadedScenario) -> Model:
    try:
        model = load_model(loaded.model)
    except ModelError as error:
        raise UserError(str(error)) from None
    check_model(model, loaded.scenario)
    return model


def _pictures_here(
    loaded: LoadedScenario, video: Path | None, folder: Path | None
) -> LocalReferenceImages:
    """The originals that this machine has; none is no mistake."""
    scenario = loaded.scenario
    images: list[LoadedImage] = []
    with contextlib.suppress(UserError):
        source = open_source(
            scenario.images, loaded.images_base, fps=scenario.stream.fps, video=video
        )
        images = list(source.pictures()) if isinstance(source, Photographs) else []
        if video is not None:
            images = list(source.pictures())
    return LocalReferenceImages(images, folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write here ({error.strerror})") from None


def _print_warnings(console: Console, anomalies: Mapping[str, int]) -> None:
    if warnings := {name: count for name, count in anomalies.items() if count}:
        words = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in warnings.items())
        console.print(f"warnings: {words} (docs/faults.md says what these mean)", soft_wrap=True)
