"""The elements of the page, which show the playback and control it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from nicegui import events, json, ui

from sim.errors import UserError
from sim.media.images import unique_names
from sim.page.controls import Control, Value, command, controls, repairs
from sim.page.photos import read_photo
from sim.page.playback import Playback
from sim.page.stages import STAGES
from sim.page.text import picture_word, stage_title
from sim.page.view import COLOURS, fate_legend, view

_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text(encoding="utf-8") + COLOURS
SCRIPT = (_HERE / "page.js").read_text(encoding="utf-8")

MAX_PHOTOS = 64
MAX_UPLOAD = 256 * 2**20
"""Bytes of the photographs that are dropped at once."""


def build(playback: Playback, start: Sequence[str], longest_side: int) -> None:
    """Fill the page of one visitor.

    Args:
        playback: the one stream, which every visitor shares.
        start: the first words of the command that repeats what is set.
        longest_side: photographs are shrunk to that many pixels.
    """
    ui.add_css(STYLE)
    ui.add_head_html('<meta name="description" content="A picture stream over a lossy channel">')
    ui.add_body_html(f"<script>{SCRIPT}</script>")
    refreshes = [_bar(playback, longest_side)]
    with _tag("main", "page") as page:
        with _tag("div", "look"):
            refreshes.append(_hero(playback))
            _strip(playback)
        with _tag("div", "facts"):
            _place("dl", "numbers").classes("numbers")
            with _tag("section", "charts"):
                word = picture_word(playback.base.scenario)
                _text("h3").set_content(f"dB below each {word}'s own ceiling (no loss)")
                _place("div", "gaps").classes("gaps")
                _text("h3", "legend").set_content(f"packets {fate_legend()}")
                _place("div", "packets").classes("packets")
        refreshes.append(_controls(playback))
    refreshes.append(_foot(playback, start))

    def refresh() -> None:
        for one in refreshes:
            one()
        page.props["data-view"] = json.dumps(view(playback))
        page.update()

    keys = {"pause": playback.pause_or_play, "step": playback.step, "back": playback.step_back}
    ui.on("page-key", lambda event: keys[event.args]())
    refresh()
    playback.watch(refresh)
    ui.context.client.on_delete(lambda: playback.leave(refresh))


def _tag(tag: str, classes: str = "") -> ui.element:
    return ui.element(tag).classes(classes)


def _text(tag: str, classes: str = "") -> ui.html:
    """An element for text that changes; only ever given our own words."""
    return ui.html("", sanitize=False, tag=tag).classes(classes)


def _place(tag: str, text: str) -> ui.element:
    """An element that is filled with one of the texts of `view`, by the page's script."""
    return _tag(tag).props(f'data-text="{text}"')


def _picture(place: str) -> ui.element:
    """An img that shows one of the pictures of `view`."""
    return _tag("img").props(f'data-picture="{place}"')


def _bar(playback: Playback, longest_side: int) -> Callable[[], None]:
    with _tag("header", "bar"):
        with _tag("h1"):
            ui.html("Pictures through a lossy channel", sanitize=False, tag="span")
        _place("span", "state").classes("state").props('role="status"')
        with _tag("div", "buttons"):
            if playback.base.scenario.video is None:
                _photos_button(playback, longest_side)
            back = _button("←", "one stage back (left arrow)", playback.step_back)
            play = _button("", "pause or play (space)", playback.pause_or_play).classes("main")
            step = _button("Step →", "next stage (right arrow)", playback.step)
            theme = _button("◐", "light or dark", lambda: None)
            theme.on("click", js_handler="() => Quasar.Dark.toggle()")
    trouble = _text("p", "trouble").props('role="alert"')

    def refresh() -> None:
        play.set_text("Play" if playback.paused else "Pause")
        play.props(f'aria-keyshortcuts="Space" data-paused="{str(playback.paused).lower()}"')
        back.set_enabled(playback.stepping and playback.stage > 0)
        step.set_enabled(playback.shown is not None)
        trouble.set_content(escape(playback.trouble))
        trouble.set_visibility(bool(playback.trouble))

    return refresh


def _photos_button(playback: Playback, longest_side: int) -> None:
    """Photographs of one's own, chosen or dropped: they come by the same way."""
    button = _button("Photos", "your own photographs: choose them, or drop them", lambda: None)
    button.props('data-control="photos"')

    async def received(event: events.MultiUploadEventArguments) -> None:
        paths = [Path(file.name) for file in event.files]
        try:
            images = [
                await asyncio.to_thread(read_photo, path, name, await file.read(), longest_side)
                for path, name, file in zip(paths, unique_names(paths), event.files, strict=True)
            ]
        except UserError as error:
            playback.tell(str(error))
        else:
            playback.stream_photos(images)
        finally:
            button.props(remove="loading")
            event.sender.run_method("reset")

    upload = ui.upload(
        multiple=True,
        auto_upload=True,
        max_files=MAX_PHOTOS,
        max_total_size=MAX_UPLOAD,
        on_begin_upload=lambda: button.props("loading"),
        on_multi_upload=received,
        on_rejected=lambda: playback.tell(
            f"at most {MAX_PHOTOS} photographs of {MAX_UPLOAD // 2**20} MiB together"
        ),
    )
    upload.on("failed", lambda: playback.tell("not received; give image files, not a folder"))
    button.on("click", js_handler=f"() => runMethod({upload.id}, 'pickFiles', [])")


def _button(text: str, description: str, action: Callable[[], object]) -> ui.button:
    button = ui.button(text, on_click=action, color=None).props("flat no-caps")
    return button.props(f'aria-label="{description}" title="{description}"')


def _hero(playback: Playback) -> Callable[[], None]:
    with _tag("figure", "hero"):
        with _tag("div", "frame"):
            _picture("look")
        with _tag("figcaption"):
            _place("h2", "title")
            words = _place("p", "sentence").classes("sentence")
            _place("div", "legend").classes("legend")

    def refresh() -> None:
        words.props(f'aria-live="{"polite" if playback.paused else "off"}"')

    return refresh


def _strip(playback: Playback) -> None:
    with _tag("nav", "strip").props('aria-label="stages"'):
        titles = (stage_title(playback.base.scenario, stage) for stage in STAGES)
        for number, (stage, title) in enumerate(zip(STAGES, titles, strict=True)):
            with _tag("button", "thumb").on("click", partial(playback.look_at, number)) as thumb:
                thumb.props(f'type="button" aria-label="stage {number + 1}: {title}"')
                _picture(stage)
                _text("span").set_content(f"<b>{number + 1}</b>{title}")


def _controls(playback: Playback) -> Callable[[], None]:
    base, model = playback.base.scenario, playback.base.engine.photos.model
    with _tag("section", "controls").props('aria-label="settings of the running stream"'):
        places = [
            (control.key, (_slider if control.ordered else _menu)(playback, control))
            for control in controls(model.codebook_sizes, playback.settings.positions, base)
        ]
        repair = repairs(base, model.has_memory)
        select = _select(
            repair,
            playback.settings.concealer,
            lambda name: playback.conceal_by(name, f"repair: {repair.text(name)}"),
        )

    def refresh() -> None:
        for key, place in places:
            place(playback.settings.positions[key])
        select.set_value(playback.settings.concealer)

    return refresh


def _menu(playback: Playback, control: Control) -> Callable[[Value], object]:
    """A menu of a control's choices; returns what moves it to a value."""
    select = _select(
        control,
        playback.settings.positions[control.key],
        lambda value: playback.change(
            {control.key: value}, f"{control.label}: {control.text(value)}"
        ),
    )
    place: Callable[[Value], object] = select.set_value
    return place


def _select(control: Control, now: Value, chosen: Callable[[Any], None]) -> ui.select:
    with _tag("div", "control").props(f'data-control="{control.key}"'):
        _text("span", "label").set_content(control.label)
        select = ui.select(
            {choice: control.text(choice) for choice in control.choices},
            value=now,
            on_change=lambda event: chosen(event.value),
        )
        select.props(f'borderless dense options-dense aria-label="{control.label}"')
    return select


def _slider(playback: Playback, control: Control) -> Callable[[Value], None]:
    """A slider over a control's choices; returns what moves it to a value.

    It is the browser's own: keys, touch and screen readers know it. It is told its place only when
    something else has moved it, so that it never jumps back under a hand that is faster than us.
    """
    choices = list(control.choices)

    stands = choices.index(playback.settings.positions[control.key])

    def moved(event: Any) -> None:
        nonlocal stands
        stands = int(event.args)
        value = choices[stands]
        playback.change({control.key: value}, f"{control.label}: {control.text(value)}")

    with _tag("label", "control").props(f'data-control="{control.key}"'):
        _text("span", "label").set_content(control.label)
        reading = _text("span", "reading")
        slider = _tag("input").props(f'type="range" min="0" max="{len(choices) - 1}"')
        slider.props(f'aria-label="{control.label}"')
        slider.props["defaultValue"] = str(stands)
        js_value = "(event) => emit(event.target.value)"
        slider.on("input", moved, js_handler=js_value, throttle=0.1)

    def place(value: Value) -> None:
        nonlocal stands
        if value in choices and choices.index(value) != stands:
            stands = choices.index(value)
            slider.client.run_javascript(f"getHtmlElement({slider.id}).value = {stands}")
        slider.props["aria-valuetext"] = control.text(value)
        reading.set_content(escape(control.text(value)))

    return place


def _foot(playback: Playback, start: Sequence[str]) -> Callable[[], None]:
    with _tag("footer", "foot"):
        _text("span").set_content("The same losses in a table:")
        line = _text("code")

    def refresh() -> None:
        words = command(playback.base.scenario, playback.settings.scenario, start)
        if playback.settings.engine is not playback.base.engine:
            words += " --images PHOTOS"
        line.set_content(escape(words.encode(errors="backslashreplace").decode()))

    return refresh
