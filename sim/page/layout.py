"""The elements of the page, which show the playback and control it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from nicegui import ui

from codec.concealment import CONCEALERS as REPAIRS
from sim.page.controls import BLOCK, CONCEALERS, Control, Value, command, controls
from sim.page.history import fates
from sim.page.playback import Playback, RenderedFrame
from sim.page.stages import STAGES, viridis_stops
from sim.page.text import alt_text, sentence

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")

# Space pauses and the arrows step, unless the key belongs to what has the focus. A slider that was
# dragged lets go of the focus, so that the arrows are the page's again.
_KEYS = """
document.addEventListener('keydown', event => {
  const at = event.target, arrows = event.key.startsWith('Arrow');
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (at.closest('select, textarea, [role=combobox], [role=listbox]')) return;
  if (at.closest(arrows ? 'input' : 'button, a')) return;
  const name = {' ': 'pause', ArrowRight: 'step', ArrowLeft: 'back'}[event.key];
  if (!name) return;
  event.preventDefault();
  emitEvent('page-key', name);
});
document.addEventListener('pointerup', () => {
  if (document.activeElement?.type === 'range') document.activeElement.blur();
});
"""

# An img that names a picture (data-picture) gets it when all that are wanted have come, so that
# large and small pictures are always of one frame. Frames that come faster than their pictures are
# passed over.
_PICTURES = """
const named = () => [...document.querySelectorAll('img[data-picture]')];
const stale = () => named().filter(img => img.dataset.picture !== img.dataset.shown);
const fetched = new Map();
async function bring(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(url);
  const image = new Image();
  image.src = URL.createObjectURL(await answer.blob());
  await image.decode();
  fetched.set(url, image);
}
let bringing = false;
async function bringPictures() {
  if (bringing) return;
  bringing = true;
  while (stale().length) {
    const places = named().map(img => [img, img.dataset.picture]);
    const wanted = new Set(places.map(([_, url]) => url));
    try {
      await Promise.all([...wanted].filter(url => !fetched.has(url)).map(bring));
    } catch {
      await new Promise(later => setTimeout(later, 50));
      continue;
    }
    for (const [img, url] of places) {
      img.src = fetched.get(url).src;
      img.dataset.shown = url;
    }
    for (const [url, image] of fetched) {
      if (wanted.has(url)) continue;
      URL.revokeObjectURL(image.src);
      fetched.delete(url);
    }
  }
  bringing = false;
}
new MutationObserver(bringPictures).observe(
  document.documentElement, {subtree: true, childList: true, attributeFilter: ['data-picture']});

// Where the small pictures do not fit side by side, the one that is looked at is kept in sight.
new MutationObserver(() => {
  const thumb = document.querySelector('.thumb[aria-current=step]'), strip = thumb?.parentElement;
  strip?.scrollTo({left: thumb.offsetLeft - (strip.clientWidth - thumb.clientWidth) / 2});
}).observe(document.documentElement, {subtree: true, attributeFilter: ['aria-current']});
"""

_FATES = (("lost", "✕", "lost"), ("late", "●", "too late"), ("restored", "+", "restored"))
_LEGENDS = {
    "lost": _FATES,
    "packets": (("lost", "●", "in the first packet"),),
}


def build(playback: Playback, levels: tuple[int, ...], file: str) -> None:
    """Fill the page of one visitor.

    Args:
        playback: the one stream, which every visitor shares.
        levels: codebook sizes that can be chosen.
        file: of the scenario, for the command that repeats what is set.
    """
    ui.add_css(STYLE)
    ui.add_head_html('<meta name="description" content="A picture stream over a lossy channel">')
    ui.add_body_html(f"<script>{_KEYS}{_PICTURES}</script>")
    refreshes = [_bar(playback)]
    with _tag("main", "page"):
        with _tag("div", "look"):
            refreshes.append(_hero(playback))
            refreshes.append(_strip(playback))
        with _tag("div", "facts"):
            refreshes.append(_numbers(playback))
            refreshes.append(_charts(playback))
        refreshes.append(_controls(playback, levels))
    refreshes.append(_foot(playback, file))

    def refresh() -> None:
        for one in refreshes:
            one()

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


def _bar(playback: Playback) -> Callable[[], None]:
    with _tag("header", "bar"):
        with _tag("h1"):
            ui.html("Pictures through a lossy channel", sanitize=False, tag="span")
        state = _text("span", "state").props('role="status"')
        with _tag("div", "buttons"):
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
        shown = playback.shown
        if shown is None:
            state.set_content("the networks are warming up …")
        else:
            what = "paused" if playback.paused else "live"
            snapshot = shown.snapshot
            state.set_content(
                f'<i class="{what}"></i>{what} · image {snapshot.number + 1} · '
                f"{escape(snapshot.photo.name)}"
            )

    return refresh


def _button(text: str, description: str, action: Callable[[], object]) -> ui.button:
    button = ui.button(text, on_click=action, color=None).props("flat no-caps")
    return button.props(f'aria-label="{description}" title="{description}"')


def _hero(playback: Playback) -> Callable[[], None]:
    with _tag("figure", "hero"):
        with _tag("div", "frame"):
            image = _tag("img")
        with _tag("figcaption"):
            title = _text("h2")
            words = _text("p", "sentence")
            legend = _text("div", "legend")

    def refresh() -> None:
        shown, stage = playback.shown, STAGES[playback.stage]
        if shown is None:
            return
        _show(image, shown, stage)
        title.set_content(f"<b>{playback.stage + 1}</b>{stage}")
        words.set_content(escape(sentence(shown.snapshot, stage)))
        words.props(f'aria-live="{"polite" if playback.paused else "off"}"')
        legend.set_content(_legend(shown, stage))

    return refresh


def _strip(playback: Playback) -> Callable[[], None]:
    thumbs = []
    with _tag("nav", "strip").props('aria-label="stages"'):
        for number, stage in enumerate(STAGES):
            with _tag("button", "thumb").on(
                "click", partial(_looked_at, playback, number)
            ) as thumb:
                thumb.props(f'type="button" aria-label="stage {number + 1}: {stage}"')
                image = _tag("img")
                label = _text("span")
            label.set_content(f"<b>{number + 1}</b>{stage}")
            thumbs.append((thumb, image))

    def refresh() -> None:
        if playback.shown is None:
            return
        for number, (thumb, image) in enumerate(thumbs):
            _show(image, playback.shown, STAGES[number])
            now = number == playback.stage
            ahead = playback.stepping and number > playback.stage
            thumb.props(f'aria-current="{"step" if now else "false"}"')
            thumb.classes(add="ahead" if ahead else "", remove="" if ahead else "ahead")

    return refresh


def _looked_at(playback: Playback, number: int, _: object) -> None:
    playback.look_at(number)


def _show(image: ui.element, shown: RenderedFrame, stage: str) -> None:
    """Let an img show a stage."""
    image.props["data-picture"] = f"/picture/{shown.mark}/{stage.replace(' ', '-')}"
    image.props["alt"] = alt_text(shown.snapshot, stage)
    image.update()


def _numbers(playback: Playback) -> Callable[[], None]:
    box = _text("dl", "numbers")

    def refresh() -> None:
        if playback.shown is None:
            return
        box.set_content(
            "".join(
                f"<div><dt>{n.label}</dt><dd>{n.value}</dd><dd class=note>{n.note}</dd></div>"
                for n in playback.shown.numbers
            )
        )

    return refresh


def _charts(playback: Playback) -> Callable[[], None]:
    with _tag("section", "charts"):
        _text("h3").set_content("Quality of every image, PSNR in dB")
        quality = _text("div", "quality")
        _text("h3").set_content(
            "Packets of every image"
            + "".join(f' <span><i class="{kind}"></i>{text}</span>' for kind, _, text in _FATES)
        )
        packets = _text("div", "packets")

    def refresh() -> None:
        if playback.shown is not None:
            quality.set_content(playback.shown.quality)
            packets.set_content(playback.shown.packets)

    return refresh


def _controls(playback: Playback, levels: tuple[int, ...]) -> Callable[[], None]:
    with _tag("section", "controls").props('aria-label="settings of the running stream"'):
        fec = playback.base.stream.fec
        places = [
            (control.key, (_slider if control.ordered else _menu)(playback, control))
            for control in controls(levels, playback.positions, fec.data if fec else BLOCK)
        ]
        repairs = {name: CONCEALERS.get(name, name) for name in REPAIRS if _offered(name, playback)}
        repair = Control("", "repair", tuple(repairs), repairs.__getitem__, ordered=False)
        select = _select(
            repair, playback.concealer, lambda name: playback.conceal_by(name, repairs[name])
        )

    def refresh() -> None:
        for key, place in places:
            place(playback.positions[key])
        select.set_value(playback.concealer)

    return refresh


def _offered(concealer: str, playback: Playback) -> bool:
    """Whether a repair is in the menu: those of `CONCEALERS`, and any that the scenario names."""
    return concealer in CONCEALERS or concealer in playback.base.concealers


def _menu(playback: Playback, control: Control) -> Callable[[Value], None]:
    """A menu of a control's choices; returns what moves it to a value."""
    select = _select(
        control,
        playback.positions[control.key],
        lambda value: playback.change({control.key: value}, control.text(value)),
    )

    def place(value: Value) -> None:
        select.set_value(value)

    return place


def _select(control: Control, now: Value, chosen: Callable[[Any], None]) -> ui.select:
    with _tag("div", "control"):
        _text("span", "label").set_content(control.label)
        select = ui.select(
            {choice: control.text(choice) for choice in control.choices},
            value=now,
            on_change=lambda event: chosen(event.value),
        )
        select.props(
            f'borderless dense options-dense aria-label="{control.label}" '
            f'data-control="{control.key or control.label}"'
        )
    return select


def _slider(playback: Playback, control: Control) -> Callable[[Value], None]:
    """A slider over a control's choices; returns what moves it to a value.

    It is the browser's own: keys, touch and screen readers know it. It is told its place only when
    something else has moved it, so that it never jumps back under a hand that is faster than us.
    """
    choices = list(control.choices)

    stands = choices.index(playback.positions[control.key])

    def moved(event: Any) -> None:
        nonlocal stands
        stands = int(event.args)
        value = choices[stands]
        playback.change({control.key: value}, f"{control.label}: {control.text(value)}")

    with _tag("label", "control"):
        _text("span", "label").set_content(control.label)
        reading = _text("span", "reading")
        slider = _tag("input").props(f'type="range" min="0" max="{len(choices) - 1}"')
        slider.props(f'aria-label="{control.label}" data-control="{control.key}"')
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


def _foot(playback: Playback, file: str) -> Callable[[], None]:
    with _tag("footer", "foot"):
        _text("span").set_content("The same losses in a table:")
        line = _text("code")

    def refresh() -> None:
        words = command(playback.base, playback.scenario, file)
        line.set_content(escape(words.encode(errors="backslashreplace").decode()))

    return refresh


def _legend(shown: RenderedFrame, stage: str) -> str:
    if stage == "filled" and shown.snapshot.concealer == "inpaint":
        stops = ", ".join(viridis_stops(9))
        return (
            "<span>unsure</span>"
            f'<i class="scale" style="background:linear-gradient(90deg, {stops})"></i>'
            "<span>sure</span>"
        )
    found = fates(shown.snapshot)
    return "".join(
        f'<span><i class="{kind}">{sign}</i>{text}</span>'
        for kind, sign, text in _LEGENDS.get(stage, ())
        if stage == "packets" or kind in found
    )
