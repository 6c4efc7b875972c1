"""Pages as a browser shows them: nothing is cut, and colours have contrast."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sim.report.html import write_report
from tests.page.browser import FLAGS, chromium

BROWSER = chromium()


# The pages have no scripts: one is added to measure them.
PROBE = """<script>onload = () => {
    const d = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
    const light = c => c.match(/\\d+/g).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const style = getComputedStyle(document.body);
    const two = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
    d.dataset.found = [
        d.scrollWidth <= innerWidth,
        innerWidth < 1100 || [...document.querySelectorAll("table")]
            .every(table => table.scrollWidth <= table.parentNode.clientWidth),
        dark.matches ? "dark" : "light",
        [...document.images].filter(image => !image.naturalWidth).length,
        performance.getEntriesByType("resource")
            .filter(entry => !/^(data|file):/.test(entry.name)).length,
        (two[0] + .05) / (two[1] + .05) > 7,
    ].join()
}</script>"""


def seen(page: Path, profile: Path, width: int, scheme: int = 1) -> str:
    """What the probe finds in a page, in Chromium: that nothing is wider than the screen, that no
    table is wider than its frame on a screen that is not a phone's, the colour scheme, how many
    pictures are broken, how many requests were made, and that ink stands out from the paper (WCAG
    2.1: 4.5 to 1; here 7 to 1). No message on the console either."""
    assert BROWSER is not None
    command = [BROWSER, *FLAGS, "--headless", "--hide-scrollbars", "--enable-logging=stderr"]
    command += ["--v=0", f"--user-data-dir={profile}", "--dump-dom"]
    command += [f"--window-size={width},900", f"--blink-settings=preferredColorScheme={scheme}"]
    command.append(page.as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'data-found="([^"]+)"', done.stdout)
    assert found, done.stdout
    return found[1]


in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize(("scheme", "number"), [("dark", 0), ("light", 1)])
def test_a_report_in_a_browser(
    runs: list[Path], tmp_path: Path, width: int, scheme: str, number: int
) -> None:
    page = write_report(runs, tmp_path / "page.html")
    page.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    assert seen(page, tmp_path / "profile", width, number) == f"true,true,{scheme},0,0,true"


@pytest.mark.slow
@in_a_browser
def test_the_gallery_in_a_browser(tmp_path: Path) -> None:
    """Every picture is there, can be shown, and has words for those who cannot see it."""
    gallery = Path(__file__).parents[2] / "results" / "gallery"
    text = (gallery / "README.md").read_text()
    pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert {name for _, name in pictures} == {path.name for path in gallery.glob("*.webp")}
    assert all(len(alt.split()) > 5 for alt, _ in pictures)
    shown = "".join(
        f'<img style="max-width: 100%" src="{(gallery / name).as_uri()}">' for _, name in pictures
    )
    page = tmp_path / "gallery.html"
    page.write_text(f"<!doctype html><body style='color: black; background: white'>{shown}{PROBE}")
    assert seen(page, tmp_path / "profile", 390) == "true,true,light,0,0,true"
