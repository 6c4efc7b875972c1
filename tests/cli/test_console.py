"""Tables on a screen: nothing is shortened, whatever its width."""

from __future__ import annotations

import io
import re
import sys

import pytest

from sim.cli.console import print_table

RIGHT = ("PSNR (dB)", "SSIMULACRA2", "MS-SSIM", "tokens right", "on the wire")
HEADINGS = ("channel", "repair", *RIGHT)
ROWS = [
    ("gilbert_elliott", "neighbour average", "22.45", "-760.8", "0.812", "0.344", "0.0638"),
    None,
    ("uniform", "inpaint", "23.45", "-761.8", "0.813", "0.345", "0.0639"),
]


class Terminal(io.StringIO):
    """What stands for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [62, 80, 100, 132])
@pytest.mark.parametrize("tables", [None, 1])
def test_a_wide_table_becomes_several(
    width: int, tables: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", Terminal())
    left = print_table("title", HEADINGS, ROWS, right=RIGHT, unbroken=HEADINGS, tables=tables)
    text = re.sub(r"\x1b\[[0-9;]*m", "", sys.stdout.getvalue())  # type: ignore[attr-defined]
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert bool(left) == (tables == 1 and width < 100) and text.count("title") == 1
    shown = [n for n, heading in enumerate(HEADINGS) if heading not in left]
    for row in (HEADINGS, *filter(None, ROWS)):
        for n in shown:
            assert all(word in text for word in row[n].split()), row[n]
    assert not any(str(row[HEADINGS.index(name)]) in text for row in ROWS if row for name in left)
    repeated = text.count("neighbour average")
    assert repeated == (1 if width >= 100 or tables else 2 if width == 80 else 3)
