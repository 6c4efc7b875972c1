"""The driver law where there is a way back: live and virtual streams stay one and the same."""

from __future__ import annotations

from functools import partial

import pytest

from sim.drivers.live import run_live
from sim.drivers.virtual import run_virtual
from sim.protocol.config import StreamConfig
from sim.protocol.protection import ArqConfig, FecConfig
from sim.stream import make_channel, make_feedback
from tests.drivers import live_peers as peers

ROUGH = {
    "loss": {"type": "gilbert_elliott", "loss": 0.3, "mean_burst": 3},
    "link": {
        "delay_s": 0.02,
        "jitter": {"type": "normal", "std_s": 0.01},
        "duplicate": 0.1,
        "bit_error": 0.0005,
    },
}


def configured(**changes: object) -> StreamConfig:
    settings = {"codebook_size": 64, "slices": 8, "fps": 10, "first_sequence": 65500}
    return StreamConfig(**{**settings, "playout_delay_s": 0.6, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "receivers", "transport"),
    [
        (
            configured(
                fec=FecConfig("reed_solomon", 8, 2, 2),
                arq=ArqConfig(2, 0.03, order="hardest", budget=0.7, loss=0.2),
                packing=2,
            ),
            2,
            "zeromq",
        ),
        pytest.param(
            configured(arq=ArqConfig(3, 0.03, loss=0.3)), 1, "zeromq", marks=pytest.mark.slow
        ),
        pytest.param(
            configured(arq=ArqConfig(3, 0.03, loss=0.3)), 1, "udp", marks=pytest.mark.slow
        ),
        pytest.param(
            configured(fec=FecConfig("xor", 6, 2, 3, True), passes=2),
            1,
            "zeromq",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_live_and_virtual_agree_on_everything(
    config: StreamConfig, receivers: int, transport: str
) -> None:
    channel = partial(make_channel, ROUGH, 5, 0, receivers)
    feedback = partial(make_feedback, config.arq, 5, 0) if config.arq is not None else None
    live = run_live(
        peers.make_frames,
        config,
        channel,
        peers.KEY,
        peers.make_book,
        pace=0.0,
        stall_s=60,
        transport=transport,
        make_feedback=feedback,
    )
    virtual = run_virtual(
        peers.make_frames(),
        config,
        channel(),
        peers.KEY,
        peers.make_book(),
        feedback=feedback() if feedback is not None else None,
    )
    assert live.packets == virtual.packets
    assert live.ledger == virtual.ledger
    assert live.counters == virtual.counters
    kinds = {packet.kind for packet in live.packets}
    assert ("parity" in kinds, "retransmission" in kinds) == (
        config.fec is not None,
        config.arq is not None,
    )
    for ours, theirs in zip(live.frames, virtual.frames, strict=True):
        assert ours.grid.indices.tobytes() == theirs.grid.indices.tobytes()
        assert ours.last_arrival_s == theirs.last_arrival_s
        assert ours.recovered == theirs.recovered


def test_receptions_are_merged() -> None:
    """What one of three receivers has, all have; the first loses what it would alone."""
    config = configured()
    alone, merged = (
        run_virtual(
            peers.make_frames(),
            config,
            make_channel(ROUGH["loss"], 5, 0, receivers),  # type: ignore[arg-type]
            peers.KEY,
            peers.make_book(),
        )
        for receivers in (1, 3)
    )
    assert merged.ledger.wire_bytes == alone.ledger.wire_bytes
    assert 0 < merged.ledger.erased < alone.ledger.erased / 3
    assert merged.counters["duplicate"] == merged.ledger.duplicated > 0
    for single, all_three in zip(alone.packets, merged.packets, strict=True):
        assert all_three.copies >= single.copies
    for one, all_of_them in zip(alone.frames, merged.frames, strict=True):
        assert not (one.grid.received & ~all_of_them.grid.received).any()
