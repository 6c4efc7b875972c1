"""An outgoing stream: its pictures are taken, tokenized ahead of time, and sent."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

from codec.files import replacing
from codec.hysteresis import SteadyTokens
from codec.model import Model
from sim.drivers.clock import Clock
from sim.drivers.endpoints import SenderEndpoint
from sim.drivers.links import SenderLink
from sim.drivers.live_sender import LiveSender, Stopped, StreamRefused
from sim.drivers.record import MediaFrame
from sim.errors import UserError, user_errors
from sim.live.monitor import StreamMonitor
from sim.live.sidecar import image_metadata, pack_account, packet_metadata
from sim.media.capture import FrameSource, digest
from sim.media.frames import near_tokens, with_token_importance
from sim.media.images import LoadedImage
from sim.protocol.config import StreamConfigError
from sim.protocol.ledger import Ledger
from sim.results.files import png
from sim.scenario.schema import CodecSection, Scenario
from sim.stream import CoderTables, StreamSetup
from sim.version import __version__

_T = TypeVar("_T")
_AHEAD = 2  # pictures tokenized before they are due


@dataclass(frozen=True)
class SendResult:
    """A stream that is over: the sender's ledger, and how many images were captured."""

    ledger: Ledger
    captured: int
    interrupted: bool


def send_stream(
    scenario: Scenario,
    source: FrameSource,
    model: Model,
    link: SenderLink,
    clock: Clock,
    monitor: StreamMonitor,
    *,
    pace: float,
    keep: Path | None = None,
    on_idle: Callable[[], object] = lambda: None,
    on_state: Callable[[str], object] = lambda state: None,
    started: Callable[[LiveSender], object] = lambda sender: None,
) -> SendResult:
    """Stream pictures to whoever receives at the other end of the link.

    Args:
        scenario: one point, without a sweep.
        source: the pictures.
        model: tokenizes them.
        link: to the receiver.
        clock: paces.
        monitor: filled with what happens.
        pace: wall seconds per second of media time.
        keep: a folder to write every picture to, as it was taken.
        on_idle: called while waiting; may raise to give up.
        on_state: called with what the sender waits for, whenever that changes.
        started: given the sender before anything is sent, so that it can be stopped.

    Raises:
        UserError: the receiver refuses the stream, there was none until told to stop, or the
            pictures do not fit the settings.
    """
    codec = scenario.codec
    setup = StreamSetup.of(scenario, CoderTables.of(model))
    notes: list[bytes] = []

    def frames() -> Iterator[MediaFrame]:
        taken = ahead(_tokenized(model, source, codec, setup.config.needs_importance, keep), _AHEAD)
        for number, (image, frame) in enumerate(taken):
            notes.append(image_metadata(number, image.name, digest(image.pixels), frame.index_map))
            monitor.pictures = {f"sent: {image.name}": image.pixels}
            yield frame

    with user_errors(f"{scenario.name}: stream.", StreamConfigError):
        parts = setup.config, setup.channel(), setup.key, setup.coders()
        sending = SenderEndpoint(frames(), *parts, source.sizes, setup.feedback())
    recorded = 0

    def sidecar() -> list[bytes]:
        nonlocal recorded
        new = sending.packets[recorded:]
        recorded = len(sending.packets)
        for record in new:
            monitor.packet(record)
        found, notes[:] = [*notes, *packet_metadata(new)], []
        return found

    about = {
        "version": __version__,
        "scenario": scenario.model_dump(),
        "names": list(source.names) if len(source.names) <= 10_000 else [],
        "digests": list(source.digests) if len(source.digests) <= 10_000 else [],
    }
    sender: LiveSender

    def idle() -> None:
        if sender.state != monitor.state and sender.state.startswith("waiting"):
            on_state(sender.state)
        monitor.state = sender.state
        monitor.anomalies = sender.anomalies
        monitor.waiting = {
            "in the channel": sender.in_flight,
            "unanswered": sender.unanswered,
        }
        if "quality" in sender.status:
            _show_news(monitor, sender.status)
        on_idle()

    sender = LiveSender(sending, link, clock, pace=pace, about=about, notes=sidecar, on_idle=idle)
    started(sender)

    def account() -> Mapping[str, Any]:
        return pack_account(sending.ledger, sending.captured, sending.captured < len(source.sizes))

    try:
        sender.run(account)
    except StreamRefused as error:
        raise UserError(f"the receiver refuses this stream: {error}") from None
    except Stopped as error:
        raise UserError(f"stopped: {error}; it has {sending.captured} images at most") from None
    return SendResult(sending.ledger, sending.captured, sending.captured < len(source.sizes))


def _show_news(monitor: StreamMonitor, status: Mapping[str, Any]) -> None:
    """Put the receiver's news of quality into the sender's monitor."""
    quality = status["quality"]
    if isinstance(quality, dict) and status.get("images") != monitor.images_due:
        monitor.images_due = int(status.get("images", 0))
        monitor.images_complete = int(status.get("complete", 0))
        monitor.pixels = int(status.get("pixels", 0))
        monitor.quality_is = str(status.get("quality_is", "quality"))
        monitor.measured({str(name): float(value) for name, value in quality.items()})


def _tokenized(
    model: Model,
    source: FrameSource,
    codec: CodecSection,
    needs_importance: bool,
    keep: Path | None,
) -> Iterator[tuple[LoadedImage, MediaFrame]]:
    steady, known = SteadyTokens(), dict[str, MediaFrame]()
    times = Counter(() if codec.hysteresis else source.digests)
    for image, key in zip(source.pictures(), chain(source.digests, repeat("")), strict=False):
        if keep is not None:
            _keep(image, keep / f"{image.name}.png")
        frame = known.get(key)
        if frame is None:
            near = near_tokens(model, image, *codec.tokenizer_key)
            tokens = steady.next_frame(near)
            frame = MediaFrame(image.name, tokens, image.width, image.height)
            if needs_importance:
                frame = with_token_importance(model, frame, codec.codebook)
            if times[key] > 1:  # a photograph that comes again
                known[key] = frame
        yield image, replace(frame, name=image.name)


def _keep(image: LoadedImage, target: Path) -> None:
    if target.exists() and image.path.exists() and target.samefile(image.path):
        raise UserError(f"{target}: would overwrite what is sent; keep it in another folder")
    with replacing(target) as partial:
        partial.write_bytes(png(image.pixels))


def ahead(items: Iterable[_T], depth: int) -> Iterator[_T]:
    """The same items, made by a thread of their own that is at most `depth` ahead.

    What goes wrong in the thread is raised here. The thread ends with the items, or when this
    iterator is closed.
    """
    source, end = iter(items), object()
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        made = deque(thread.submit(next, source, end) for _ in range(depth))
        while (item := made.popleft().result()) is not end:
            made.append(thread.submit(next, source, end))
            yield item  # type: ignore[misc]
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
