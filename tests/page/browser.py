"""The live page in a headless browser: for its test, and for the pictures in the documentation.

``python -m tests.page.browser docs`` takes those again (extras page and browser, and Chromium).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sim.page.stages import STAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_MS = 240_000  # for machines that are busy with other things
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """The path of an installed Chromium; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@contextlib.contextmanager
def served(arguments: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`sim page` with these arguments in a process of its own: its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", "from sim.cli.main import app; app()", "page", "--port", port]
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}  # else NiceGUI acts
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=alone,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("http"):
            raise RuntimeError(f"sim page did not start: {process.communicate()[1]}")
        yield line.split()[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_MS / 1000)


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium with a fresh profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def wait_for_image(page: Page, number: int) -> None:
    """Wait until the page shows this image of the stream, counted from 1, or a later one."""
    page.wait_for_function(
        r"""n => /(?:image|frame) (\d+)/
            .exec(document.querySelector('.state')?.textContent)?.[1] >= n""",
        arg=number,
        timeout=PATIENCE_MS,
    )


def shown_image(page: Page) -> int:
    """The number of the image that the page shows, counted from 1."""
    words = page.locator(".state").inner_text(timeout=PATIENCE_MS).split()
    return int(words[words.index("image") + 1])


def take(folder: Path) -> list[Path]:
    """The page on a desk, running, and on a phone at night, one stage explained."""
    taken = []
    with served([]) as (address, _), browsing() as browser:
        desk = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
        desk.goto(address, timeout=PATIENCE_MS)
        wait_for_image(desk, 12)
        slider = desk.get_by_role("slider", name="packets lost")
        for _ in range(20):
            slider.press("ArrowRight")
        slider.blur()
        wait_for_image(desk, 36)
        taken.append(_save(desk, folder / "page.webp"))
        number = shown_image(desk)
        desk.close()
        phone = browser.new_page(
            viewport={"width": 412, "height": 892}, color_scheme="dark", device_scale_factor=1.5
        )
        phone.goto(address, timeout=PATIENCE_MS)
        wait_for_image(phone, number + 3)  # it moves, so it is connected, and keys are heard
        for stage in STAGES[: STAGES.index("lost") + 1]:
            phone.keyboard.press("ArrowRight")
            phone.locator(".hero h2", has_text=stage).wait_for(timeout=PATIENCE_MS)
        wait_for_image(phone, number)
        taken.append(_save(phone, folder / "page-phone.webp"))
    return taken


def _save(page: Page, path: Path) -> Path:
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(path, quality=82, method=6)
    return path


if __name__ == "__main__":
    print("\n".join(map(str, take(Path(sys.argv[1])))))
