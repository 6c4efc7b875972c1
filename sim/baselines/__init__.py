"""What a user would pick instead: classical codecs, each also with half-size coding.

Those that this machine lacks are named with the reason, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.baselines.coded import Baseline, BaselineError, Coded, Counted, HalfSize, RateSearch
from sim.baselines.still import heif_codec, pillow_codecs
from sim.baselines.video import video_codecs

FORMATS = ("jpeg", "webp", "jpeg2000", "avif", "heic", "vvc", "av1", "x265")
BASELINES = tuple(name for form in FORMATS for name in (form, f"{form}-half"))
"""Every name, whether it is there or not."""

RESILIENT = tuple(
    name for form in ("jpeg-restart", "jpeg-progressive") for name in (form, f"{form}-half")
)
"""Variants of JPEG made for damaged files; of no interest where nothing is lost."""

__all__ = [
    "BASELINES",
    "FORMATS",
    "RESILIENT",
    "Baseline",
    "BaselineError",
    "Coded",
    "Counted",
    "HalfSize",
    "RateSearch",
    "find_baselines",
]


def find_baselines(
    names: Sequence[str] = BASELINES,
) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Those of `names` that are there, in the order of `BASELINES`, and for the others why not.

    Args:
        names: from `BASELINES` and `RESILIENT`.

    Raises:
        KeyError: no such name.
    """
    every = (*BASELINES, *RESILIENT)
    for name in names:
        if name not in every:
            raise KeyError(name)
    formats = {name.removesuffix("-half") for name in names}
    still, missing = pillow_codecs()
    found: list[Baseline] = [*still]
    heif = heif_codec()
    if isinstance(heif, str):
        missing["heic"] = heif
    else:
        found.append(heif)
    if formats & {"vvc", "av1", "x265"}:
        video, absent = video_codecs()
        found += video
        missing |= absent
    there: dict[str, Baseline] = {}
    for codec in found:
        there[codec.name] = codec
        there[f"{codec.name}-half"] = HalfSize(codec)
    chosen = {name: there[name] for name in every if name in names and name in there}
    notes = {form: missing[form] for form in missing if form in formats}
    return chosen, notes
