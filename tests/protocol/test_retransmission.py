"""Retransmission: what is asked for, when, in which order, and how much of it is sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.protocol.events import PacketSent
from sim.protocol.feedback import pack_requests
from sim.protocol.handshake import StreamStart
from sim.protocol.protection import ArqConfig, FecConfig
from sim.protocol.sender import Sender
from tests.protocol.protected_stream import (
    BOOK,
    KEY,
    SIZES,
    configured,
    make_maps,
    original,
    play,
)


def test_what_is_missing_is_asked_for_while_an_answer_can_come() -> None:
    arq = ArqConfig(retries=3, delay_s=0.03, wait_s=0.01, budget=9)
    again: dict[int, int] = {}

    def third_time(sent: PacketSent) -> bool:
        again[sent.sequence] = again.get(sent.sequence, 0) + 1
        return sent.slice % 4 > 0 or again[sent.sequence] == 3

    run = play(configured(arq=arq), third_time, delay_s=0.02)
    assert all(frame.complete for frame in run.frames)
    assert run.counters["requested"] == sum(s.kind == "retransmission" for s in run.sent)
    assert set(again.values()) == {1, 3}
    first = next(s.sent_s for s in run.sent if s.kind == "retransmission")
    # The second packet tells the delay: one interval, the delay, its deviation, patience, return.
    assert first <= 2 * 0.1 / 9 + 3 * 0.02 + 0.01 + 0.03 + 1e-9

    hopeless = play(configured(arq=arq, playout_delay_s=0.04), third_time, delay_s=0.02)
    assert not hopeless.requests


def test_lost_requests_are_repeated() -> None:
    arq = ArqConfig(retries=4, delay_s=0.03, budget=9)
    run = play(
        configured(arq=arq),
        lambda s: s.kind == "retransmission" or s.slice != 1,
        feedback_arrives=lambda number: number % 2 > 0,
    )
    assert all(frame.complete for frame in run.frames)
    assert len(run.requests) > sum(s.kind == "retransmission" for s in run.sent) > 0


def test_with_parity_only_what_parity_cannot_restore_is_asked_for() -> None:
    fec, arq = FecConfig("reed_solomon", 9, 2), ArqConfig(delay_s=0.03)
    sizes = ((128, 96),) * 4
    two = play(configured(fec=fec, arq=arq), lambda s: not original(s) or s.slice > 1, sizes)
    assert not two.requests and all(frame.complete for frame in two.frames)
    four = play(configured(fec=fec, arq=arq), lambda s: not original(s) or s.slice > 3, sizes)
    assert all(frame.complete for frame in four.frames)
    assert sum(s.kind == "retransmission" for s in four.sent) == 2 * 4
    assert four.counters["recovered"] == 2 * 4


@pytest.mark.parametrize("order", ["first", "hardest"])
def test_groups_that_end_within_an_image_are_asked_for_too(order: str) -> None:
    """Groups of 7, images of 9: hardly any group ends with an image."""
    config = configured(
        fec=FecConfig("reed_solomon", 7, 1), arq=ArqConfig(delay_s=0.03, order=order)
    )
    lost = {0, 1, 4, 5}
    run = play(config, lambda s: not original(s) or s.slice not in lost, ((128, 96),) * 6)
    assert all(frame.complete for frame in run.frames)
    again = [s for s in run.sent if s.kind == "retransmission"]
    assert 0 < len(again) < 6 * len(lost)
    latest = {s.sent_s - config.capture_s(s.frame) for s in again}
    assert max(latest) < 0.3, "one image further at most"


def test_the_hardest_of_what_is_missing_is_sent_again_first() -> None:
    arq = ArqConfig(delay_s=0.03, order="hardest", budget=0.3)
    config = configured(arq=arq)
    sizes = ((128, 96),) * 3
    importance = [np.zeros((6, 8)) for _ in sizes]
    positions = config.layout(128, 96).positions
    for slice_ in range(9):
        for grid in importance:
            grid.ravel()[positions[slice_]] = slice_
    run = play(config, lambda s: not original(s) or s.slice % 2 == 0, sizes, importance=importance)
    again = [(s.frame, s.slice) for s in run.sent if s.kind == "retransmission"]
    assert again == [(frame, slice_) for frame in range(3) for slice_ in (7, 5, 3)]
    assert run.refused == 3  # slice 1 of each: over budget


@settings(max_examples=12)
@given(st.lists(st.binary(max_size=300), max_size=10))
def test_hostile_feedback_cannot_make_the_sender_send_more_than_allowed(
    noise: list[bytes],
) -> None:
    config = configured(arq=ArqConfig(retries=2, budget=0.5))
    start = StreamStart(config, KEY, SIZES)
    sender = Sender(start, BOOK)
    for frame, index_map in enumerate(make_maps(SIZES[:2])):
        sender.submit(index_map, *SIZES[frame], 0.1 * frame)
    count = len(sender.datagrams_to_send(0.5))
    everything_ever = pack_requests(range(65500, 65500 + 2000), KEY.seed)
    for data in [*noise, *everything_ever * 20]:
        sender.receive_feedback(data, 0.5)
    assert len(sender.datagrams_to_send(0.5)) <= 2 * np.ceil(0.5 * count / 2) + 2
    assert sender.counters["feedback"] == len(noise) + 20
    sender.receive_feedback(everything_ever[0], 5.0)  # past every deadline
    assert sender.next_timer() is None
