"""Sliders and menus say what a scenario may say, and the command repeats it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest

from channels import PRESETS
from sim.page.controls import SettingRefused, changed, command, controls, repairs, values
from sim.scenario.loader import load_scenario
from sim.scenario.schema import Scenario

BASE = Scenario(name="base", channel={"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5})


def test_controls_stand_where_the_scenario_does() -> None:
    stands = values(BASE)
    assert stands["loss"] == 0.2 and stands["burst"] == 5
    assert values(changed(BASE, {"burst": 1.0}))["burst"] == 1.0
    odd = Scenario(name="odd", channel={"preset": "wifi"}, stream={"slices": 37})
    for control in controls((256, 1024), values(odd), odd):
        assert values(odd)[control.key] in control.choices
        assert all(control.text(choice) for choice in control.choices)
        if control.ordered:
            assert list(control.choices) == sorted(control.choices, key=float)


def test_every_choice_of_every_control_is_a_scenario() -> None:
    for control in controls((8, 2048), values(BASE), BASE):
        for choice in control.choices:
            assert (
                values(changed(BASE, {control.key: choice}))[control.key] == pytest.approx(choice)
                or (control.key, choice) == ("burst", 1.5)
                or isinstance(choice, str)
            )


def test_loss_keeps_burst_and_link() -> None:
    slow = changed(BASE, {"delay_s": 0.1})
    assert slow.channel["loss"] == BASE.channel
    lossy = changed(slow, {"loss": 0.4})
    assert lossy.channel["loss"] == {"type": "gilbert_elliott", "loss": 0.4, "mean_burst": 5}
    assert lossy.channel["link"] == slow.channel["link"]
    assert changed(lossy, {"loss": 0.0}).channel["loss"] == {"type": "perfect"}
    assert changed(changed(slow, {"delay_s": 0.0}), {}).channel == BASE.channel
    wifi = Scenario(name="wifi", channel={"preset": "wifi"})
    assert changed(wifi, {"loss": 0.3}).channel["link"]["rate_bps"] == 20e6


def test_a_link_without_a_rate_has_no_queue() -> None:
    wifi = Scenario(name="wifi", channel={"preset": "wifi"})
    slow = changed(wifi, {"rate_bps": 1e4}).channel["link"]
    assert slow == {**PRESETS["wifi"].channel["link"], "rate_bps": 1e4}
    free = changed(wifi, {"rate_bps": math.inf}).channel["link"]
    assert free == {key: slow[key] for key in ("delay_s", "jitter")}
    assert changed(BASE, {"rate_bps": math.inf}).channel == {"loss": BASE.channel}["loss"]


def test_a_rate_takes_the_place_of_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("10\n20\n30\n")
    link = {"capacity": str(trace), "mtu_bytes": 1000, "delay_s": 0.1, "queue_packets": 9}
    varies = Scenario(name="varies", channel={"link": link})
    assert values(varies)["rate_bps"] == pytest.approx(3 * 1000 * 8 / 0.03)
    fixed = changed(varies, {"rate_bps": 2e3}).channel["link"]
    assert fixed == {"rate_bps": 2e3, "delay_s": 0.1, "queue_packets": 9}


def test_what_no_scenario_may_say_is_refused() -> None:
    with pytest.raises(SettingRefused):
        changed(BASE, {"codebook": 1000})


def test_the_command_repeats_what_is_set(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("channel: {type: gilbert_elliott, loss: 0.2, mean_burst: 5}\n")
    moved = {"loss": 0.35, "delay_s": 0.05, "slices": 64, "interleaver": "raster", "parity": 4}
    moved |= {"rate_bps": 1e4, "retries": 1}
    base = load_scenario(file).scenario
    now = changed(base, {**moved, "codebook": 256, "deadline_s": 0.75})
    start = ["sim", "run", str(file), "--set", "seed=7"]
    words = shlex.split(command(base, now, start))
    assert words[:5] == start
    assert load_scenario(file, [w for w in words[5:] if w != "--set"]).scenario == now
    assert command(base, base, start) == shlex.join(start)


def test_repairs_that_remember_are_offered_of_a_video() -> None:
    video = Scenario(name="video", video={"file": "a.mp4"}, concealers=["none", "median"])
    stills, clip, forgetful = repairs(BASE, True), repairs(video, True), repairs(video, False)
    remembering = {"previous", "previous_or_average", "inpaint_memory"}
    assert not remembering & {*stills.choices} and "inpaint" in stills.choices
    assert {*clip.choices} == {*stills.choices, *remembering, "median"}
    assert {*clip.choices} - {*forgetful.choices} == {"inpaint_memory"}
    for menu in (stills, clip):
        assert len({menu.text(name) for name in menu.choices}) == len(menu.choices)


def test_a_video_has_frames() -> None:
    video = Scenario(name="video", video={"file": "a.mp4"})
    labels = [{c.key: c.label for c in controls((8,), values(s), s)} for s in (BASE, video)]
    assert [one["slices"] for one in labels] == ["packets per image", "packets per frame"]
