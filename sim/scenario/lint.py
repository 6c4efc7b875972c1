"""Scenarios whose stream and channel do not fit, found before they are run: see `channels.lint`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from channels.lint import Finding, Stream, lint
from codec.entropy import fixed_bytes
from sim.errors import UserError
from sim.protocol.config import StreamConfigError, StreamKey
from sim.protocol.handshake import StreamStart
from sim.protocol.packet import HEADER_BYTES
from sim.protocol.plan import Group, Pack, walk
from sim.protocol.protection import FecConfig
from sim.scenario.labels import setting_label
from sim.scenario.loader import LoadedScenario
from sim.scenario.pictures import picture_sizes
from sim.scenario.schema import Scenario

_IP_UDP_BYTES = 28  # in an IP packet, beside the datagram that `stream.mtu` bounds
_KEY = StreamKey("0" * 16, 0)


def lint_scenario(
    loaded: LoadedScenario, instead: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Remarks about every point of a scenario; those that do not hold at all of them say where.

    ``instead``: attributes of `channels.lint.Stream` that replace the scenario's own."""
    sizes = _image_sizes(loaded)
    found: dict[Finding, list[str]] = {}
    for values, scenario in loaded.points:
        for finding in _lint_point(scenario, sizes, instead or {}):
            found.setdefault(finding, []).append(setting_label(values))
    count = len(loaded.points)
    return [
        finding
        if len(places) == count
        else replace(finding, message=f"{finding.message} (at {places[-1]})")
        for finding, places in found.items()
    ]


def _lint_point(
    scenario: Scenario, sizes: Sequence[tuple[int, int]], instead: Mapping[str, Any]
) -> list[Finding]:
    try:
        return lint(scenario.channel, replace(_stream(scenario, sizes), **instead))
    except StreamConfigError as error:
        return [Finding("error", f"stream.{error.parameter}", error.message)]


def _image_sizes(loaded: LoadedScenario) -> list[tuple[int, int]]:
    """(width, height) of the images; [] where they cannot be read, which running them tells."""
    try:
        return picture_sizes(loaded)
    except UserError:
        return []


def _stream(scenario: Scenario, sizes: Sequence[tuple[int, int]]) -> Stream:
    """What a scenario sends, as if every token took log2(K) bits, which coding saves some of."""
    config = scenario.stream_config()
    waits_s = (config.packing - 1) / config.fps  # for the last image of a pack
    deadline_s = config.playout_delay_s - waits_s
    if not sizes:
        interval_s = 1 / (config.fps * config.slices)
        return Stream(
            interval_s=interval_s, interleaver_packets=config.slices, deadline_s=deadline_s
        )
    packs = list(itertools.islice(walk(StreamStart(config, _KEY, tuple(sizes))), 64))
    steps = [list(_media_steps(pack, config.fec)) for pack in packs]
    intervals_s = [
        pack.interval_s / len(pack.departures(config.fec, config.passes)) for pack in packs
    ]
    longest = max(range(len(packs)), key=lambda n: steps[n][-1] * intervals_s[n])
    tokens = sum(pack.layout.tokens for pack in packs) / sum(pack.count for pack in packs)
    part = fixed_bytes(round(tokens), config.codebook_size)
    return Stream(
        packet_bytes=HEADER_BYTES + config.packing * part,
        mtu_bytes=config.mtu + _IP_UDP_BYTES,
        interval_s=intervals_s[longest],
        interleaver_packets=steps[longest][-1] + 1,
        deadline_s=deadline_s,
    )


def _media_steps(pack: Pack, fec: FecConfig | None) -> Iterator[int]:
    """The places of a pack's media packets among all that it sends in one pass."""
    place = 0
    for step in pack.steps:
        if isinstance(step, Group):
            place += step.parity(fec) if fec is not None else 0
        else:
            yield place
            place += 1
