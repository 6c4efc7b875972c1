"""The web server of the live page, for browsers on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from pathlib import Path

from codec.device import CPU, Device
from sim.errors import UserError
from sim.media.frames import load_model
from sim.page.engine import Engine
from sim.page.photos import as_streamed, open_photos
from sim.page.playback import Playback
from sim.page.stages import STAGES
from sim.scenario.loader import LoadedScenario
from sim.stream import check_model

HOST = "127.0.0.1"
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path fill="#0072b2" d="M1 1h6v6H1zM9 9h6v6H9z"/><path fill="#56b4e9" d="M1 9h6v6H1z"/>'
    '<path fill="#d55e00" d="M9 1h6v6H9z"/></svg>'
)


def serve(
    loaded: LoadedScenario,
    file: Path,
    port: int = 8080,
    longest_side: int = 384,
    open_browser: bool = False,
    device: Device = CPU,
) -> None:
    """Show a stream until Ctrl-C.

    Args:
        loaded: its scenario; of a sweep, the first point.
        file: where that came from.
        port: of the web page, on this machine only.
        longest_side: pictures are shrunk to that many pixels, so that they stream live.
        open_browser: also open the page in a browser.
        device: where the networks run.

    Raises:
        UserError: NiceGUI is not installed, the port is taken, pictures or weights cannot be used.
    """
    try:
        from nicegui import app, ui
    except ImportError:
        raise UserError(
            "the live page needs NiceGUI: pip install 'lossy-stream-sim[page]'"
        ) from None
    from fastapi import Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from sim.page.layout import build

    _check_port(port)
    loaded = as_streamed(loaded, longest_side)
    scenario, photos_for = loaded.scenario, open_photos(loaded, longest_side)
    model = load_model(loaded.model, device)
    check_model(model, scenario)
    playback = Playback(Engine(photos_for(model)), scenario, scenario.concealers[-1])
    camera = scenario.video is not None and scenario.video.file is None  # it cannot be run again
    start = ["sim", "demo" if camera else "run", str(file)]
    start += [word for given in loaded.source["overrides"] for word in ("--set", given)]

    def picture(mark: int, stage: str) -> Response:
        """A stage of a frame, if it is one of the latest."""
        shown, name = playback.latest.get(mark), stage.replace("-", " ")
        if shown is None or name not in STAGES:
            return Response(status_code=404)
        content, kind = shown.pictures[name]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-store"})

    def page() -> None:
        build(playback, start, longest_side)

    async def play() -> None:
        print(f"http://{HOST}:{port}  (Ctrl-C stops)", flush=True)
        running.append(asyncio.create_task(playback.run()))

    async def stop() -> None:
        for task in running:
            task.cancel()
        playback.close()

    # Until Python 3.12, asyncio.wait_for can lose a cancellation; NiceGUI then reports on stderr
    # that it had to cancel a task twice.
    logging.getLogger("nicegui").addFilter(
        lambda record: not record.getMessage().startswith("Could not cancel")
    )
    running: list[asyncio.Task[None]] = []
    app.add_api_route("/picture/{mark}/{stage}", picture)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.on_startup(play)
    app.on_shutdown(stop)
    ui.page("/")(page)
    with contextlib.suppress(KeyboardInterrupt):
        ui.run(
            host=HOST,
            port=port,
            title="Pictures through a lossy channel",
            favicon=_ICON,
            dark=None,
            language="en-US",
            tailwind=False,
            binding_refresh_interval=None,
            reconnect_timeout=20.0,  # a busy machine answers late; a page must not reload for that
            reload=False,
            show=open_browser,
            show_welcome_message=False,
            uvicorn_logging_level="error",
        )


def _check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            why = (
                "is in use"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used ({error.strerror})"
            )
            raise UserError(f"port {port} {why}; choose another with --port") from None
