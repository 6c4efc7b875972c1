"""Laws of the repairs that paint pixels. They need the extra `inpaint-rivals`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from codec.concealment import conceal, restore
from codec.model import Model
from codec.pixel_repair import PIXEL_REPAIRS, RepairMissing, check_installed, repair_pixels

Cli = Callable[..., Any]
LIBRARY = {"telea": "cv2", "biharmonic": "skimage"}


@pytest.mark.parametrize("name", PIXEL_REPAIRS)
def test_only_lost_squares_change_and_flat_stays_flat(name: str, random_model: Model) -> None:
    pytest.importorskip(LIBRARY[name], reason="needs the extra inpaint-rivals")
    received = np.ones((3, 4), bool)
    received[1, 1:3] = False
    hole = (~received).repeat(16, 0).repeat(16, 1)[:40, :60]
    flat = np.full((40, 60, 3), 90, np.uint8)
    flat[hole] = 255
    assert np.abs(repair_pixels(name, flat, received).astype(int) - 90).max() <= 3
    indices = np.random.default_rng(0).integers(0, 64, (3, 4))
    done = restore(name, random_model, indices, received, 64, (40, 60))
    base = random_model.decode_codewords(
        conceal("neighbour_average", random_model, indices, received, 64).codeword_vectors, 40, 60
    )
    assert np.array_equal(done.image[~hole], base[~hole])
    whole = repair_pixels(name, base, np.zeros((3, 4), bool))
    assert np.array_equal(whole, base), "with nothing received there is no rim to start from"


@pytest.mark.parametrize("name", PIXEL_REPAIRS)
def test_a_missing_library_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, cli: Cli, random_model: Model
) -> None:
    from sim.errors import UserError
    from sim.media.frames import Restorer

    for module in ("cv2", "skimage"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RepairMissing, match=r"inpaint-rivals"):
        check_installed(name)
    check_installed("inpaint")
    with pytest.raises(UserError, match=r"concealers: .*inpaint-rivals"):
        Restorer(random_model, ["none", name])
    refused = cli("codec", "decode", "x.tok", "-o", "x.png", "--concealer", name)
    assert refused.exit_code == 2
    assert "inpaint-rivals" in refused.output
