"""Live sessions: sender, receiver, view and results together."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codec.device import CPU, Device
from codec.model import Model
from sim.drivers.clock import WallClock
from sim.drivers.links import ReceiverLink, open_receiver, open_sender
from sim.drivers.live_receiver import Incoming, LiveReceiver
from sim.drivers.recording import Recorder, recorded_about, replay
from sim.errors import UserError, os_errors
from sim.experiment.folder import check_run
from sim.live.monitor import StreamMonitor
from sim.live.process import SenderProcess, interruptible
from sim.live.receive import IncomingStream, Received, ReferenceImages
from sim.live.results import write_received
from sim.live.send import SendResult, send_stream
from sim.live.terminal import live_view, plain_line
from sim.media.frames import load_model
from sim.media.images import LoadedImage
from sim.metrics.quality import check_metrics
from sim.progress import screen
from sim.results.files import Outcome
from sim.scenario.labels import count_label
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import load_pictures, open_pictures
from sim.scenario.schema import Scenario
from sim.stream import check_model

_LINGER_S = 1.0
_DEMO_FRAMES = 30

Written = Callable[[Received, Outcome | None, Mapping[str, int]], object]
"""Called with a stream that is over: how it went, what was written of it, anomalies by name."""


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """Which of a scenario's pictures a sender streams.

    Attributes:
        frames: how many; None: as the scenario says.
        keep: a folder to write every picture to, as it was taken.
    """

    frames: int | None = None
    keep: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ReceiverOptions:
    """What a receiver does with the streams that come.

    Attributes:
        written: called with each, when its results are written.
        record: a file to write the stream to, for replay.
        out: the run folder; None: one below results/.
        save_images: whether every output image is written.
        quiet: whether nothing is printed about each image.
        device: where the networks run.
    """

    written: Written
    record: Path | None = None
    out: Path | None = None
    save_images: bool = False
    quiet: bool = False
    device: Device = CPU


def send_session(
    loaded: LoadedScenario,
    to: str,
    capture: CaptureOptions,
    keys: Path | None = None,
    device: Device = CPU,
) -> dict[str, Any]:
    """Stream a scenario's pictures to the receiver at an address; keys are CURVE keys, the device
    is where the networks run.

    Returns:
        "images", "interrupted", "packets", of these every way in `sim.drivers.record.LOST`, "bpp",
        "bpp_wire", "expected_loss" (by theory; None where there is none), "anomalies" by name.

    Raises:
        UserError: see `send_stream`; or an address, a source or the model cannot be used.
    """
    _check_one_stream(loaded)
    scenario = loaded.scenario
    console = screen(stderr=True)
    with closing(open_sender(to, None if keys is None else str(keys))) as link:
        source = open_pictures(loaded, capture.frames)
        if capture.keep is not None:
            with os_errors(capture.keep, "cannot write here"):
                capture.keep.mkdir(parents=True, exist_ok=True)
        model = _model(loaded, device)
        monitor = _monitor(scenario, len(source.sizes))
        if not console.is_terminal:
            console.print(
                f"sending {count_label(len(source.sizes), 'image')} to {to}", soft_wrap=True
            )
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
                keep=capture.keep,
                on_state=lambda state: None if console.is_terminal else console.print(state),
                started=lambda sender: stack.enter_context(interruptible(sender.stop)),
            )
    return _sent_summary(sent, monitor)


def receive_session(
    loaded: LoadedScenario,
    at: str,
    options: ReceiverOptions,
    *,
    once: bool,
    keys: Path | None = None,
    originals: Path | None = None,
) -> None:
    """Receive streams at an address until told to stop, or one whole stream if ``once``.

    Args:
        loaded: the scenario, with the repairs.
        at: where to listen.
        options: what is done with the streams.
        once: whether to end after one.
        keys: folder of CURVE keys.
        originals: where the sender keeps its pictures, if not in the scenario's place.

    Raises:
        UserError: an address, the model or the run folder cannot be used.
    """
    _check_one_stream(loaded)
    with closing(open_receiver(at, None if keys is None else str(keys))) as link:
        pictures = _pictures_here(loaded, originals)
        console = screen(stderr=True)
        if not console.is_terminal:
            console.print(f"listening at {link.address}", soft_wrap=True)
        ReceiverSession(loaded, pictures, options).serve(link, once=once)


def demo_session(
    loaded: LoadedScenario, capture: CaptureOptions, options: ReceiverOptions, *, udp: bool
) -> None:
    """A sender in a process of its own, and a receiver here, for one stream over loopback.

    Raises:
        UserError: one of them cannot do its part.
    """
    _check_one_stream(loaded)
    address = "udp://127.0.0.1:0" if udp else "tcp://127.0.0.1:*"
    with (
        tempfile.TemporaryDirectory(prefix="sim-demo-") as scratch,
        closing(open_receiver(address)) as link,
    ):
        if loaded.scenario.video is None:
            capture = replace(capture, frames=capture.frames or _DEMO_FRAMES)
            pictures = _pictures_here(loaded, None)
        else:
            capture = replace(capture, keep=Path(scratch))
            pictures = ReferenceImages([], capture.keep)
        to = link.address
        with SenderProcess(send_session, loaded, to, capture, None, options.device) as sender:
            session = ReceiverSession(loaded, pictures, options)  # while the sender starts
            session.serve(link, once=True, on_idle=sender.check)


def replay_session(
    recording: Path,
    loaded: LoadedScenario | None,
    options: ReceiverOptions,
    originals: Path | None = None,
) -> None:
    """Receive a recorded stream again; without a scenario, under the recorded one.

    Raises:
        UserError: the recording, the model or the run folder cannot be used.
    """
    about = recorded_about(recording)
    loaded = loaded or _as_recorded(recording, about)
    _check_one_stream(loaded)
    session = ReceiverSession(loaded, _pictures_here(loaded, originals), options)
    if not session.replay(recording):
        screen(stderr=True).print(
            f"{recording}: breaks off; replayed as far as it goes", soft_wrap=True
        )


class ReceiverSession:
    """Receives streams of one scenario, one after another, and writes the results of each."""

    def __init__(
        self, loaded: LoadedScenario, originals: ReferenceImages, options: ReceiverOptions
    ) -> None:
        self._loaded, self._originals, self._options = loaded, originals, options
        self._model = _model(loaded, options.device)
        if options.out is not None:
            check_run(options.out)  # before a stream is taken that could not be written
        self._received: list[Received] = []
        self._recorder: Recorder | None = None
        self._console = screen(stderr=True)
        self._anomalies: Callable[[], dict[str, int]] = dict
        self._monitor = _monitor(loaded.scenario, 0)

    def serve(
        self,
        link: ReceiverLink,
        *,
        once: bool,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        """Receive until told to stop, or one whole stream has come if ``once``."""
        stopped = False
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
            nonlocal stopped
            stopped = True
            receiver.stop()

        with interruptible(stop), ThreadPoolExecutor(1) as beside:  # while tables are written, too
            beside.submit(_prepare_figures)
            while not stopped:
                with live_view(self._monitor, "receiver", self._console):
                    ended = receiver.serve()
                if ended and once:
                    beside.submit(receiver.answer_for, _LINGER_S)
                for received in self._received:
                    if stopped and received.ended == "sender gone":
                        received.ended = "stopped"
                    self._write(received)
                self._received.clear()
                if ended and once:
                    return
                self._monitor = _monitor(self._loaded.scenario, 0)

    def replay(self, recording: Path) -> bool:
        """As `serve`, from a file; whether it is whole."""
        with live_view(self._monitor, "replay", self._console):
            whole = replay(recording, self.open)
        for received in self._received:
            self._write(received)
        return whole

    def open(self, start: bytes, about: dict[str, Any]) -> Incoming:
        """An incoming stream, for `LiveReceiver`; recorded if that is wanted."""
        scenario = self._loaded.scenario
        self._monitor.state = "receiving"
        incoming = IncomingStream(
            start,
            about,
            scenario=scenario,
            model=self._model,
            originals=self._originals,
            monitor=self._monitor,
            finished=self._received.append,
            on_image=self._print_image,
            save_images=self._options.save_images,
        )
        if self._options.record is None:
            return incoming
        about = {**about, "images_base": str(self._loaded.images_base.absolute())}
        about["model"] = self._loaded.model
        self._recorder = Recorder(incoming, self._options.record, start, about)
        return self._recorder

    def _write(self, received: Received) -> None:
        """Tables and figures of a stream that is over."""
        counts = [*self._anomalies().items(), *self._monitor.anomalies.items()]
        warnings = {name: count for name, count in counts if count}
        if self._recorder is not None and self._recorder.failed:
            warnings["recording_failed"] = 1
            self._console.print(self._recorder.failed, soft_wrap=True)
        options = self._options
        outcome = write_received(
            self._loaded, self._model, received, warnings, options.out, options.save_images
        )
        options.written(received, outcome, warnings)

    def _print_image(self, frame: int) -> None:
        if not self._console.is_terminal and not self._options.quiet:
            self._console.print(plain_line(self._monitor, frame), soft_wrap=True, highlight=False)


def _prepare_figures() -> None:
    """Load what draws them while a stream is awaited."""
    from sim.figures import pictures, plots  # noqa: F401


def _sent_summary(sent: SendResult, monitor: StreamMonitor) -> dict[str, Any]:
    ledger = sent.ledger
    return {
        "images": sent.captured,
        "interrupted": sent.interrupted,
        "packets": ledger.sent,
        **monitor.lost,
        "bpp": ledger.bpp,
        "bpp_wire": ledger.bpp_wire,
        "expected_loss": None if monitor.expected is None else monitor.expected.loss,
        "anomalies": {name: count for name, count in monitor.anomalies.items() if count},
    }


def _monitor(scenario: Scenario, total: int) -> StreamMonitor:
    return StreamMonitor(scenario.name, scenario.channel, scenario.stream_config(), total)


def _check_one_stream(loaded: LoadedScenario) -> None:
    if len(loaded.points) != 1:
        raise UserError(
            f"a live stream is one point, this scenario sweeps {len(loaded.points)}; use a "
            "scenario without a sweep"
        )


def _as_recorded(recording: Path, about: Mapping[str, Any]) -> LoadedScenario:
    try:
        scenario = Scenario.model_validate(about["scenario"])
        base, model = Path(about["images_base"]), about["model"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{recording}: does not say what it is of; give --scenario") from None
    return LoadedScenario(scenario, [({}, scenario)], base, model)


def _model(loaded: LoadedScenario, device: Device) -> Model:
    check_metrics(loaded.scenario.metrics)
    model = load_model(loaded.model, device)
    check_model(model, loaded.scenario)
    return model


def _pictures_here(loaded: LoadedScenario, folder: Path | None) -> ReferenceImages:
    """The originals that this machine has; none is no mistake."""
    images: list[LoadedImage] = []
    with contextlib.suppress(UserError):
        images = load_pictures(loaded)
    return ReferenceImages(images, folder)
