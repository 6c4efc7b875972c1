"""`sim send`, `sim receive`, `sim demo`, `sim replay`, `sim keys`: streams between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.console import print_line, print_result, print_warnings
from sim.cli.options import (
    AsJson,
    DeviceOptions,
    NewOut,
    SaveImages,
    ScenarioOptions,
    Set,
    with_options,
)
from sim.cli.run import print_summary
from sim.errors import UserError
from sim.progress import print_json

if TYPE_CHECKING:
    from sim.live.receive import Received
    from sim.live.session import ReceiverOptions
    from sim.results.files import Outcome
    from sim.scenario.loader import LoadedScenario

ADDRESS = "tcp://127.0.0.1:5570"

Frames = Annotated[
    int | None,
    typer.Option(min=1, help="How many images; photographs start over when they run out."),
]
Video = Annotated[Path | None, typer.Option(help="Stream a video file (needs PyAV).")]
Camera = Annotated[int | None, typer.Option(min=0, help="Stream from camera N (needs PyAV).")]
Keys = Annotated[
    Path | None, typer.Option(help="Folder of CURVE keys (`sim keys`); needed beyond loopback.")
]
Originals = Annotated[
    Path | None,
    typer.Option(help="Where the sender keeps its pictures (`sim send --keep`), if not here."),
]
Record = Annotated[Path | None, typer.Option(help="Write the stream to a file, for replay.")]


@dataclass(frozen=True, kw_only=True)
class ResultOptions(DeviceOptions):
    """What is left of a received stream, and where the networks run."""

    out: NewOut = None
    save_images: SaveImages = False
    as_json: AsJson = False

    def receiver(self, record: Path | None = None) -> ReceiverOptions:
        """The same, for a session."""
        from sim.live.session import ReceiverOptions

        return ReceiverOptions(
            written=partial(_print_received, as_json=self.as_json),
            record=record,
            out=self.out,
            save_images=self.save_images,
            quiet=self.as_json,
            device=self.chosen_device(),
        )


@dataclass(frozen=True, kw_only=True)
class VideoOptions(ScenarioOptions):
    """A scenario, maybe with a video instead of its own pictures."""

    video: Video = None

    @property
    def overrides(self) -> list[str]:
        """As of `ScenarioOptions`."""
        video = [] if self.video is None else [_video({"file": str(self.video)})]
        return [*super().overrides, *video]

    def load_with(self, camera: int | None) -> LoadedScenario:
        """As `load`; with a camera, if one is given."""
        if camera is None:
            return self.load()
        if self.video is not None:
            raise UserError("choose one: --video or --camera")
        return replace(self, set_=[*(self.set_ or []), _video({"camera": camera})]).load()


def _video(section: Mapping[str, object]) -> str:
    from sim.scenario.loader import override_text

    return override_text("video", section)


@dataclass(frozen=True, kw_only=True)
class ReceiveOptions(VideoOptions, ResultOptions):
    """A scenario to receive, and what is left of it."""

    record: Record = None


@dataclass(frozen=True, kw_only=True)
class SendOptions(VideoOptions, DeviceOptions):
    """A scenario to send, and where the networks run."""


@with_options(SendOptions)
def send(
    options: SendOptions,
    to: Annotated[str, typer.Option(help="The receiver: tcp://, udp:// or ipc://.")] = ADDRESS,
    frames: Frames = None,
    camera: Camera = None,
    keys: Keys = None,
    keep: Annotated[
        Path | None, typer.Option(help="A folder to keep every picture in, as it was sent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stream a scenario's images to `sim receive`.

    The receiver runs in another terminal or on another machine.
    """
    from sim.live.session import CaptureOptions, send_session

    capture = CaptureOptions(frames=frames, keep=keep)
    device = options.chosen_device()
    sent = send_session(options.load_with(camera), to, capture, keys, device)
    print_result(as_json, sent, _print_sent, sent)


@with_options(ReceiveOptions)
def receive(
    options: ReceiveOptions,
    at: Annotated[str, typer.Option(help="Where to listen: tcp://, udp:// or ipc://.")] = ADDRESS,
    keys: Keys = None,
    originals: Originals = None,
    once: Annotated[bool, typer.Option("--once", help="End after one whole stream.")] = False,
) -> None:
    """Receive and repair streams.

    After each there are tables and figures, as of `sim run`, in results/SCENARIO/live-RUN, unless
    --out names another folder.
    """
    from sim.live.session import receive_session

    loaded, how = options.load(), options.receiver(options.record)
    receive_session(loaded, at, how, once=once, keys=keys, originals=originals)


@with_options(ReceiveOptions)
def demo(
    options: ReceiveOptions,
    frames: Frames = None,
    camera: Camera = None,
    udp: Annotated[bool, typer.Option("--udp", help="Over plain UDP instead of ZeroMQ.")] = False,
) -> None:
    """Watch a scenario run in the terminal.

    A sender and a receiver are processes that stream over loopback. Without --frames, 30
    photographs, or all of a video.
    """
    from sim.live.session import CaptureOptions, demo_session

    capture = CaptureOptions(frames=frames)
    demo_session(options.load_with(camera), capture, options.receiver(options.record), udp=udp)


@with_options(ResultOptions)
def replay(
    options: ResultOptions,
    recording: Annotated[Path, typer.Argument(help="Made with --record.", show_default=False)],
    scenario: Annotated[
        Path | None, typer.Option(help="For the repairs and the originals. Default: as recorded.")
    ] = None,
    set_: Set = None,
    originals: Originals = None,
) -> None:
    """Receive a recorded stream again.

    The images and tables are the same, byte for byte.
    """
    from sim.live.session import replay_session

    loaded = None if scenario is None else ScenarioOptions(scenario=scenario, set_=set_).load()
    replay_session(recording, loaded, options.receiver(), originals)


def keys(
    folder: Annotated[Path, typer.Argument(help="The new folder.", show_default=False)],
) -> None:
    """Make CURVE keys.

    A sender and a receiver on different machines need them.
    """
    from sim.drivers.keys import write_keys

    receiver, sender = write_keys(folder)
    typer.echo(f"receiver: sim receive SCENARIO --at tcp://0.0.0.0:5570 --keys {receiver}")
    typer.echo(f"sender:   sim send SCENARIO --to tcp://RECEIVER:5570 --keys {sender}")
    typer.echo("Copy the sender's folder to its machine over a way you trust, then delete it here.")


def _print_sent(sent: Mapping[str, Any]) -> None:
    from sim.drivers.record import LOST
    from sim.scenario.labels import count_label

    expected = sent["expected_loss"]
    theory = "" if expected is None else f" (theory {expected:.1%})"
    loss = sent["erased"] / sent["packets"] if sent["packets"] else 0.0
    others = "".join(f", {sent[how]} {how}" for how in LOST[1:] if sent[how] or how == "late")
    print_line(
        f"sent {count_label(sent['images'], 'image')} in "
        f"{count_label(sent['packets'], 'packet')}: {loss:.1%} erased{theory}"
        f"{others}; {sent['bpp_wire']:.4f} bits per pixel on the wire"
    )
    print_warnings(sent["anomalies"])


def _print_received(
    received: Received, outcome: Outcome | None, anomalies: Mapping[str, int], as_json: bool
) -> None:
    """How a stream went, and where everything is."""
    count = len(received.record.frames)
    if as_json:
        summary = {} if outcome is None else {"run": str(outcome.folder), **outcome.summary}
        live = {"ended": received.ended, "images": count, "anomalies": dict(anomalies)}
        print_json({**summary, "live": live})
        return
    ended = {
        "complete": "the stream came to its end",
        "interrupted": "the sender was stopped",
        "sender gone": "the sender vanished",
        "stopped": "stopped here",
    }[received.ended]
    if outcome is None:
        print_line(f"{ended}; no image came whole, nothing is written")
        return
    if received.pictures is not None:
        print_summary(outcome)
    else:
        from sim.results.files import OUTPUTS

        print_line(f"images:   {outcome.folder / OUTPUTS}")
        print_line("the originals are not here, so there is no quality to tell")
    print_line(f"{ended}: {count} of {received.total} images")
    print_warnings(anomalies)
