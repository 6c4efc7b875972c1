"""What the page shows of a frame: pictures and words that change together."""

from __future__ import annotations

from collections.abc import Collection
from html import escape
from typing import Any

from sim.page.history import fates
from sim.page.playback import Playback, RenderedFrame
from sim.page.stages import FATE_MARKS, STAGES, viridis_stops
from sim.page.text import alt_text, picture_word, sentence, stage_title

_SIGNS = {"o": "●", "v": "▼", "X": "✖", "D": "◆", "P": "✚"}
"""Characters by marker."""
COLOURS = "".join(f".{fate} {{ --fate: {colour}; }}\n" for fate, (colour, _) in FATE_MARKS.items())
"""The part of the style sheet that knows the fates of packets."""


def view(playback: Playback) -> dict[str, Any]:
    """What is put on the screen at once.

    Returns:
        "texts": HTML by place; "pictures": (URL, alternative text) by place, "look" and every
        stage; "stage": number of the one that is looked at; "stepping": whether those after it are
        still to come; "pending": names of the settings that are on their way. All pictures and
        texts are of one frame; before the first there are none but the state.
    """
    shown, stage = playback.shown, STAGES[playback.stage]
    found = {
        "stage": playback.stage,
        "stepping": playback.stepping,
        "pending": playback.pending,
    }
    if shown is None:
        return {**found, "pictures": {}, "texts": {"state": "the networks are warming up …"}}
    pictures = {name: _picture(shown, name) for name in STAGES}
    what, snapshot = "paused" if playback.paused else "live", shown.snapshot
    texts = {
        "state": f'<i class="{what}"></i>{what} · {picture_word(snapshot.scenario, "image")} '
        f"{snapshot.number + 1} · {escape(snapshot.photo.name)}",
        "title": f"<b>{playback.stage + 1}</b>{stage_title(snapshot.scenario, stage)}",
        "sentence": escape(sentence(snapshot, stage)),
        "legend": _legend(shown, stage),
        "numbers": "".join(
            f"<div><dt>{n.label}</dt><dd>{n.value}</dd><dd class=note>{n.note}</dd></div>"
            for n in shown.numbers
        ),
        "gaps": shown.gaps,
        "packets": shown.packets,
    }
    return {**found, "pictures": {"look": pictures[stage], **pictures}, "texts": texts}


def fate_legend(among: Collection[str] = tuple(FATE_MARKS)) -> str:
    """Colour, sign and name of what may become of a packet, or of those among some. HTML."""
    return "".join(
        f'<span><i class="{fate}">{_SIGNS[marker]}</i>{fate}</span>'
        for fate, (_, marker) in FATE_MARKS.items()
        if fate in among
    )


def _picture(shown: RenderedFrame, stage: str) -> tuple[str, str]:
    url = f"/picture/{shown.mark}/{stage.replace(' ', '-')}"
    return url, alt_text(shown.snapshot, stage)


def _legend(shown: RenderedFrame, stage: str) -> str:
    if stage == "packets":
        return '<span><i class="erased">★</i>in the first packet</span>'
    if stage == "lost":
        return fate_legend(fates(shown.snapshot))
    if stage == "filled" and shown.snapshot.concealer in ("inpaint", "inpaint_memory"):
        stops = ", ".join(viridis_stops(9))
        return (
            "<span>unsure</span>"
            f'<i class="scale" style="background:linear-gradient(90deg, {stops})"></i>'
            "<span>sure</span>"
        )
    return ""
