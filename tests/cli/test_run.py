"""What `sim run` prints: losses by their cause, and of a sweep what each point took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

SCENARIO = """\
images: ['{photo}']
codec: {{model: random, codebook: 64}}
stream: {{slices: 8, fps: 2, playout_delay_s: 0.25}}
channel: {{type: uniform, loss: 0.25}}
transport: virtual
concealers: {concealers}
metrics: [psnr_db]
repeats: 2
"""


def ran(cli: Cli, photo: Path, concealers: str, *options: object) -> str:
    """What it prints, words with single spaces."""
    Path("s.yaml").write_text(SCENARIO.format(photo=photo, concealers=concealers))
    done = cli("run", "s.yaml", "--out", "run", *options)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize("concealers", ["[]", "[none]"])
def test_the_theory_stands_beside_what_the_channel_erased(
    cli: Cli, photo: Path, concealers: str
) -> None:
    text = ran(cli, photo, concealers)
    assert " erased, " in text and " late (this channel erases 25.0% on average" in text
    in_time = ran(cli, photo, concealers, "--set", "stream.playout_delay_s=1.0")
    assert " late" not in in_time and "(this channel loses 25.0% on average" in in_time


def test_a_sweep_tells_losses_bits_and_spread(cli: Cli, photo: Path) -> None:
    sweep = "sweep={codec.codebook: [8, 64], stream.playout_delay_s: [0.25, 1.0]}"
    text = ran(cli, photo, "[none]", "--set", sweep)
    _, table = text.split("packets and bits")
    for heading in ("erased", "95%", "theory", "late", "tokens", "bpp", "wire", "complete"):
        assert heading in table, heading
    for nothing in ("overflowed", "corrupted"):
        assert nothing not in table, "a column of zeros"
    assert "±" in text and "standard deviation of a stream's mean PSNR" in text
