"""The page in a real browser: it moves, obeys, explains, and asks nobody else for anything."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.errors import UserError
from sim.scenario.loader import load_scenario
from tests.page.browser import PATIENCE_MS, browsing, chromium, served, wait_for_image

SMALL = ["--side", "256", "--set", "codec.model=random", "--set", "stream.fps=2"]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "page.yaml"
    file.write_text(
        "channel: {type: gilbert_elliott, loss: 0.2, mean_burst: 5}\n"
        "stream: {slices: 32, playout_delay_s: 1.0}\n"
    )
    return file


class Watched:
    """A browser page whose every request, error and console message is kept."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.external: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", lambda socket: self._asked(socket.url.replace("ws:", "http:")))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._said)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address + "/", "data:", "blob:")):
            self.external.append(url)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@pytest.fixture
def seen(scenario: Path) -> Iterator[tuple[Watched, subprocess.Popen[str]]]:
    pytest.importorskip("nicegui", reason="needs the extra page")
    pytest.importorskip("playwright", reason="needs the extra browser")
    if chromium() is None:
        pytest.skip("needs Chromium")
    with served([str(scenario), *SMALL]) as (address, process), browsing() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        watched = Watched(page, address)
        page.goto(address, timeout=PATIENCE_MS, wait_until="domcontentloaded")
        yield watched, process


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page(seen: tuple[Watched, subprocess.Popen[str]]) -> None:
    watched, process = seen
    page = watched.page
    page.set_default_timeout(PATIENCE_MS)
    wait_for_image(page, 2)
    number = page.locator(".numbers div", has_text="packets erased").locator("dd").first

    def theory(text: str) -> None:
        page.locator(".numbers .note", has_text=f"theory {text}").first.wait_for()

    # Whenever one looks, the large picture and the small ones are of one frame.
    frames_shown = """() => [...new Set([...document.querySelectorAll('img[data-picture]')]
        .map(img => img.dataset.shown.split('/')[2]))]"""
    told_of = """() => [document.querySelector('.hero img').alt,
        document.querySelector('.sentence').textContent]"""
    seen_frames = set()
    for _ in range(30):
        (frame,) = page.evaluate(frames_shown)
        seen_frames.add(frame)
        alternative, words = page.evaluate(told_of)
        assert alternative.endswith(words)
        page.wait_for_timeout(100)
    assert len(seen_frames) > 1

    # A slider changes picture and numbers of the running stream.
    lost = page.get_by_role("button", name="stage 4: lost")
    theory("20.0%")
    loss = page.get_by_role("slider", name="packets lost")
    loss.press("Home")
    theory("0.0%")
    assert number.inner_text() == "0.0%"
    lost.click()
    page.get_by_text("All 32 packets arrived in time").wait_for()
    nothing_lost = page.locator(".hero img").screenshot()
    loss.press("End")
    theory("60.0%")
    page.wait_for_function("!document.querySelector('.sentence').textContent.startsWith('All')")
    assert float(number.inner_text().rstrip("%")) > 20
    assert page.locator(".hero img").screenshot() != nothing_lost
    assert "loss: 0.6" in page.locator(".foot code").inner_text()
    assert page.locator(".chart rect.erased").count() > 0

    # Keys pause it and step through the stages of one image; each explains itself.
    loss.blur()
    page.keyboard.press("Space")
    page.get_by_text("paused").wait_for()
    told = []
    for stage in ("photograph", "index map", "packets", "lost", "unrepaired", "filled", "repaired"):
        page.keyboard.press("ArrowRight")
        page.locator(".hero h2", has_text=stage).wait_for()
        told.append(page.locator(".sentence").inner_text())
        assert page.locator(".hero img").get_attribute("alt").endswith(told[-1])
    assert len(set(told)) == 7
    page.keyboard.press("ArrowLeft")
    page.locator(".hero h2", has_text="filled").wait_for()
    still = page.locator(".state").inner_text()
    page.get_by_role("slider", name="packets per image").press("End")
    page.locator(".hero figcaption", has_text="missing").wait_for()
    assert page.locator(".state").inner_text() == still

    # What is dropped on it is streamed, if it is a photograph.
    drop = """async name => {
        const canvas = new OffscreenCanvas(256, 256), dataTransfer = new DataTransfer();
        canvas.getContext('2d').fillRect(0, 0, 99, 99);
        const content = name.endsWith('.png') ? await canvas.convertToBlob() : 'words';
        dataTransfer.items.add(new File([content], name));
        const options = {dataTransfer, bubbles: true, cancelable: true};
        document.body.dispatchEvent(new DragEvent('drop', options));
    }"""
    page.evaluate(drop, "notes.txt")
    page.locator(".trouble", has_text="notes.txt: not an image in a format").wait_for()
    page.evaluate(drop, "mine.png")
    page.locator(".state", has_text="mine").wait_for()
    page.locator(".trouble").wait_for(state="hidden")
    assert page.locator(".foot code").inner_text().endswith("--images PHOTOS")

    # It can be used without seeing it, in the dark, and on a phone.
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for slider in page.locator("input[type=range]").all():
        assert slider.get_attribute("aria-label") and slider.get_attribute("aria-valuetext")
    page.get_by_label("light or dark").click()
    page.locator("body.body--dark").wait_for()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    page.keyboard.press("Escape")
    page.get_by_label("pause or play").click()
    page.get_by_text("live").wait_for()

    assert watched.external == []
    assert watched.complaints == []
    page.close()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE_MS / 1000)
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_port_in_use_is_told_in_one_line(scenario: Path) -> None:
    pytest.importorskip("nicegui", reason="needs the extra page")
    from sim.page.server import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use; choose another with --port"):
            serve(load_scenario(scenario), scenario, port)


def test_a_missing_extra_is_told_in_one_line(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim.page.server import serve

    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(UserError, match=r"pip install 'lossy-stream-sim\[page\]'"):
        serve(load_scenario(scenario), scenario)
