"""`sim send`, `sim receive`, `sim demo`, `sim replay`, `sim keys`: streams between processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

ADDRESS = "tcp://127.0.0.1:5570"

_Scenario = Annotated[Path, typer.Argument(help="Scenario file (YAML).", show_default=False)]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
]
_Seed = Annotated[int | None, typer.Option(help="Override the seed.")]
_Frames = Annotated[
    int | None,
    typer.Option(min=1, help="How many images; photographs start over when they run out."),
]
_Video = Annotated[Path | None, typer.Option(help="Stream a video file (needs PyAV).")]
_Camera = Annotated[int | None, typer.Option(min=0, help="Stream from camera N (needs PyAV).")]
_Keys = Annotated[
    Path | None, typer.Option(help="Folder of CURVE keys (`sim keys`); needed beyond loopback.")
]
_Out = Annotated[Path | None, typer.Option(help="The run folder; else results/SCENARIO/live-RUN.")]
_Record = Annotated[Path | None, typer.Option(help="Write the stream to a file, for replay.")]
_SaveImages = Annotated[bool, typer.Option("--save-images", help="Also write every output image.")]
_Json = Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")]


def send(
    scenario: _Scenario,
    to: Annotated[str, typer.Option(help="The receiver: tcp://, udp:// or ipc://.")] = ADDRESS,
    set_: _Set = None,
    seed: _Seed = None,
    frames: _Frames = None,
    video: _Video = None,
    camera: _Camera = None,
    keys: _Keys = None,
    keep: Annotated[
        Path | None, typer.Option(help="A folder to keep every picture in, as it was sent.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Stream a scenario's images to `sim receive`. It runs in another terminal or elsewhere."""
    from sim.live.session import send_command

    send_command(
        scenario,
        _overrides(set_, seed),
        to=to,
        frames=frames,
        video=video,
        camera=camera,
        keys=keys,
        keep=keep,
        as_json=as_json,
    )


def receive(
    scenario: _Scenario,
    at: Annotated[str, typer.Option(help="Where to listen: tcp://, udp:// or ipc://.")] = ADDRESS,
    set_: _Set = None,
    seed: _Seed = None,
    video: _Video = None,
    keys: _Keys = None,
    originals: Annotated[
        Path | None,
        typer.Option(help="Where the sender keeps its pictures (`sim send --keep`), if not here."),
    ] = None,
    record: _Record = None,
    out: _Out = None,
    once: Annotated[bool, typer.Option("--once", help="End after one whole stream.")] = False,
    save_images: _SaveImages = False,
    as_json: _Json = False,
) -> None:
    """Receive and repair streams. Tables and figures after each, as `sim run`."""
    from sim.cli.console import print_received
    from sim.live.session import receive_command

    receive_command(
        scenario,
        _overrides(set_, seed),
        at=at,
        video=video,
        keys=keys,
        originals=originals,
        record=record,
        out=out,
        once=once,
        save_images=save_images,
        as_json=as_json,
        written=partial(print_received, as_json=as_json),
    )


def demo(
    scenario: _Scenario,
    set_: _Set = None,
    seed: _Seed = None,
    frames: Annotated[
        int, typer.Option(min=1, help="How many images; photographs start over.")
    ] = 30,
    video: _Video = None,
    camera: _Camera = None,
    udp: Annotated[bool, typer.Option("--udp", help="Over plain UDP instead of ZeroMQ.")] = False,
    record: _Record = None,
    out: _Out = None,
    save_images: _SaveImages = False,
    as_json: _Json = False,
) -> None:
    """Watch a scenario run. A sender and a receiver process, in one terminal."""
    from sim.cli.console import print_received
    from sim.live.session import demo_command

    demo_command(
        scenario,
        _overrides(set_, seed),
        frames=frames,
        video=video,
        camera=camera,
        udp=udp,
        record=record,
        out=out,
        save_images=save_images,
        as_json=as_json,
        written=partial(print_received, as_json=as_json),
    )


def replay(
    recording: Annotated[Path, typer.Argument(help="Made with --record.", show_default=False)],
    scenario: Annotated[
        Path | None, typer.Option(help="For the repairs and the originals; else as recorded.")
    ] = None,
    set_: _Set = None,
    originals: Annotated[
        Path | None, typer.Option(help="Folder of the pictures as they were sent.")
    ] = None,
    out: _Out = None,
    save_images: _SaveImages = False,
    as_json: _Json = False,
) -> None:
    """Receive a recorded stream again. The same images and tables, byte for byte."""
    from sim.cli.console import print_received
    from sim.live.session import replay_command

    replay_command(
        recording,
        scenario,
        list(set_ or []),
        originals=originals,
        out=out,
        save_images=save_images,
        as_json=as_json,
        written=partial(print_received, as_json=as_json),
    )


def keys(
    folder: Annotated[Path, typer.Argument(help="To be made.", show_default=False)],
) -> None:
    """Make CURVE keys. For a sender and a receiver on different machines."""
    from sim.drivers.keys import write_keys

    receiver, sender = write_keys(folder)
    typer.echo(f"receiver: sim receive SCENARIO --at tcp://0.0.0.0:5570 --keys {receiver}")
    typer.echo(f"sender:   sim send SCENARIO --to tcp://RECEIVER:5570 --keys {sender}")
    typer.echo("Copy the sender's folder to its machine over a way you trust, then delete it here.")


def _overrides(set_: list[str] | None, seed: int | None) -> list[str]:
    return [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]


def add_live_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    for command in (demo, send, receive, replay, keys):
        app.command()(command)
