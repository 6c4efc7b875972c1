"""The link: its two forms agree exactly, its queue is the textbook's, its laws hold."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import (
    CapacityTrace,
    ChannelParameterError,
    DelayLoss,
    EmpiricalJitter,
    GilbertElliott,
    Link,
    NormalJitter,
    ParetoJitter,
    PerfectLoss,
    build,
    loss_mask,
)
from channels.base import Streams
from channels.link import carry, flip_bits

BURSTY = GilbertElliott.from_loss(0.2, 5)
TRACE = CapacityTrace((0, 2, 2, 5, 9, 14), mtu_bytes=300)
LINKS = {
    "free": Link(),
    "delay": Link(delay_s=0.05),
    "queue": Link(delay_s=0.01, rate_bps=1e5, queue_packets=5),
    "bytes": Link(rate_bps=1e5, queue_bytes=900),
    "endless": Link(rate_bps=3e5),
    "capacity": Link(capacity=TRACE, queue_packets=8),
    "normal": Link(delay_s=0.05, jitter=NormalJitter(0.02)),
    "all": Link(
        delay_s=0.02,
        rate_bps=2e5,
        queue_packets=6,
        jitter=ParetoJitter(0.01, 2.5),
        reorder=0.1,
        reorder_s=0.05,
        duplicate=0.1,
        bit_error=2e-4,
        delay_loss=DelayLoss(0.01, 0.1),
    ),
    "measured": Link(jitter=EmpiricalJitter((0.0, 0.001, 0.2)), duplicate=0.5),
}


def packets(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 300, n), np.cumsum(rng.exponential(0.01, n) * (rng.random(n) < 0.7))


@pytest.mark.parametrize("name", LINKS)
@given(cuts=st.lists(st.integers(0, 3000), max_size=6), seed=st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_packets_and_rows_agree_exactly(name, cuts, seed):
    """Any mix of `transmit` and `carry` gives the fates of one `carry`."""
    n = 3000
    sizes, times = packets(n, seed)
    whole = LINKS[name].channel(Streams(seed)).carry(sizes, times)
    link = LINKS[name].channel(Streams(seed))
    edges = sorted({0, *cuts, n})
    for turn, (start, stop) in enumerate(pairwise(edges)):
        if turn % 2:
            part = link.carry(sizes[start:stop], times[start:stop])
            assert np.array_equal(part.arrival_s, whole.arrival_s[start:stop], equal_nan=True)
            assert np.array_equal(part.copies, whole.copies[start:stop])
            assert np.array_equal(part.flipped_bits, whole.flipped_bits[start:stop])
            continue
        for i in range(start, min(stop, start + 400)):
            data = bytes(int(sizes[i]))
            deliveries = link.transmit(data, float(times[i]))
            assert len(deliveries) == whole.copies[i]
            for delivery in deliveries:
                assert delivery.arrival_s == whole.arrival_s[i] >= times[i]
                flipped = sum(b.bit_count() for b in delivery.data) if delivery.data else 0
                assert flipped == whole.flipped_bits[i]
        rest = slice(min(stop, start + 400), stop)
        link.carry(sizes[rest], times[rest])


def test_the_vectorised_channel_is_the_channel():
    sizes, times = packets(2000)
    fates = carry(
        BURSTY.sampler(Streams(9)["loss"]), LINKS["all"].channel(Streams(9)), sizes, times
    )
    channel = build(BURSTY, link=LINKS["all"], seed=9)
    for i in range(2000):
        deliveries = channel.transmit(bytes(int(sizes[i])), float(times[i]))
        assert len(deliveries) == fates.copies[i]
        assert all(d.arrival_s == fates.arrival_s[i] for d in deliveries)


@pytest.mark.parametrize("name", LINKS)
def test_several_packets_at_once_have_the_fates_of_each_by_itself(name):
    """To the last bit of every corrupted copy, in any mix of the two ways."""
    sizes, times = packets(1500)
    datagrams = [np.random.default_rng(size).bytes(size) for size in sizes]
    single, several = (build(BURSTY, link=LINKS[name], seed=6) for _ in range(2))
    for start, stop in pairwise([0, 1, 40, 41, 300, 300, 1500]):
        found = several.transmit_all(datagrams[start:stop], times[start:stop])
        one_by_one = [
            (number, delivery.arrival_s, delivery.data)
            for number in range(stop - start)
            for delivery in single.transmit(datagrams[start + number], float(times[start + number]))
        ]
        changed = [found.changed.get(at) for at in range(found.packet.size)]
        rows = zip(found.packet.tolist(), found.arrival_s.tolist(), changed, strict=True)
        assert list(rows) == one_by_one
    with pytest.raises(ValueError):
        several.transmit_all([b"", b""], np.array([1.0, 0.5]) + times[-1])
    assert several.transmit(b"", float(times[-1])) == single.transmit(b"", float(times[-1]))


@pytest.mark.parametrize("name", LINKS)
def test_no_impairment_changes_which_packets_are_lost_at_random(name):
    sizes, times = packets(1500)
    channel = build(BURSTY, link=LINKS[name], seed=4)
    fates = [channel.transmit(bytes(int(s)), float(t)) for s, t in zip(sizes, times, strict=True)]
    arrived = np.array([bool(f) for f in fates])
    assert not np.any(arrived & loss_mask(BURSTY, 1500, 4))


def test_impairments_do_not_disturb_each_other():
    sizes, times = packets(2000)
    base = {"delay_s": 0.1, "jitter": NormalJitter(0.01)}
    alone = Link(**base).channel(Streams(1)).carry(sizes, times)
    both = Link(**base, duplicate=0.2, bit_error=1e-3).channel(Streams(1)).carry(sizes, times)
    assert np.array_equal(alone.arrival_s, both.arrival_s)
    twice = Link(duplicate=0.2).channel(Streams(1)).carry(sizes, times)
    assert np.array_equal(twice.copies, both.copies)


def simulated_queue(sizes, times, rate, limit):
    """The same queue as a process in simpy: the oracle."""
    import simpy

    env = simpy.Environment()
    waiting: list[tuple[int, int]] = []
    departures = [math.inf] * len(sizes)
    busy, wake = [False], [env.event()]

    def source():
        for i, (size, at) in enumerate(zip(sizes, times, strict=True)):
            if at > env.now:
                yield env.timeout(at - env.now)
            # a departure at this very instant frees its place first
            yield env.timeout(0)
            if len(waiting) + busy[0] < limit:
                waiting.append((i, size))
                if not wake[0].triggered:
                    wake[0].succeed()

    def server():
        while True:
            if not waiting:
                wake[0] = env.event()
                yield wake[0]
            i, size = waiting.pop(0)
            busy[0] = True
            yield env.timeout(size * (8.0 / rate))
            busy[0] = False
            departures[i] = env.now

    env.process(server())
    env.process(source())
    env.run(until=times[-1] + 10.0)
    return departures


def test_the_queue_is_the_queue_of_a_simulator():
    sizes, times = packets(3000, 5)
    times = times + np.arange(times.size) * 1e-9
    link = Link(rate_bps=1e5, queue_packets=7)
    ours = link.channel(Streams(0)).carry(sizes, times)
    theirs = np.array(simulated_queue(sizes.tolist(), times.tolist(), 1e5, 7))
    dropped = np.isinf(theirs)
    assert 100 < dropped.sum() < 2900
    assert np.array_equal(ours.copies == 0, dropped)
    # simpy adds a delay to a clock that it reached by other sums: equal but for rounding
    assert np.allclose(ours.arrival_s[~dropped], theirs[~dropped], rtol=0, atol=1e-9)


def test_lindley_without_limit():
    sizes, times = packets(1000, 2)
    got = Link(rate_bps=1e5).channel(Streams(0)).carry(sizes, times).arrival_s
    service = sizes * 8e-5
    total = np.cumsum(service)
    expected = total + np.maximum.accumulate(times - (total - service))
    assert np.allclose(got, expected, rtol=0, atol=1e-9)


def test_md1_waiting_time():
    """M/D/1: mean wait = u s / (2 (1 - u)) (Pollaczek-Khinchine), utilisation u, service s."""
    n, service, u = 200_000, 0.001, 0.7
    times = np.cumsum(np.random.default_rng(8).exponential(service / u, n))
    arrival = Link(rate_bps=8e5).channel(Streams(0)).carry(np.full(n, 100), times).arrival_s
    waits = arrival - times - service
    batches = waits.reshape(100, -1).mean(axis=1)
    z = (batches.mean() - u * service / (2 * (1 - u))) / (batches.std(ddof=1) / 10)
    assert abs(z) < 3.3


def test_capacity_trace_by_hand():
    """mm-link(1): opportunities of 300 bytes at 0, 2, 2, 5, 9, 14 ms, then again from 14 ms on."""
    link = Link(capacity=TRACE).channel(Streams(0))
    sent = [(0.0, 100), (0.0, 150), (0.0, 100), (0.0, 500), (0.0035, 10), (0.010, 600), (0.1, 1)]
    arrivals = [link.transmit(bytes(size), at)[0].arrival_s for at, size in sent]
    # 100 + 150 leave at 0 with 50 of the 100; the rest and 250 + 250 of 500 at 2, 2;
    # 10 bytes: the next opportunity after 3.5 ms; 600 bytes: 14 and its repetition 14 + 0.
    assert arrivals == [0.0, 0.0, 0.002, 0.002, 0.005, 0.014, 0.1]


def test_a_full_capacity_trace_delivers_its_rate():
    link = Link(capacity=TRACE).channel(Streams(0))
    n = 2000
    arrival = link.carry(np.full(n, 100), np.zeros(n)).arrival_s
    assert n * 800 / arrival[-1] == pytest.approx(TRACE.rate_bps, rel=0.02)


@pytest.mark.parametrize("name", ["normal", "measured", "queue"])
def test_jitter_never_reorders(name):
    sizes, times = packets(5000)
    arrival = LINKS[name].channel(Streams(3)).carry(sizes, times).arrival_s
    arrived = arrival[~np.isnan(arrival)]
    assert np.all(np.diff(arrived) >= 0)


def test_held_back_packets_are_overtaken():
    n = 20_000
    times = np.arange(n) * 0.01
    fates = Link(reorder=0.05, reorder_s=0.025).channel(Streams(3)).carry(np.full(n, 10), times)
    held = fates.arrival_s > times
    assert abs(held.mean() - 0.05) < 4 * math.sqrt(0.05 * 0.95 / n)
    assert np.allclose(fates.arrival_s[held] - times[held], 0.025)
    assert np.any(np.diff(fates.arrival_s) < 0)


def test_rates_of_duplicates_and_bit_errors():
    n, size = 50_000, 100
    link = Link(duplicate=0.03, bit_error=1e-3).channel(Streams(6))
    fates = link.carry(np.full(n, size), np.arange(n) * 1.0)
    assert abs((fates.copies == 2).mean() - 0.03) < 4 * math.sqrt(0.03 * 0.97 / n)
    bits = n * size * 8
    assert abs(fates.flipped_bits.sum() / bits - 1e-3) < 4 * math.sqrt(1e-3 / bits)
    clean = (1 - 1e-3) ** (8 * size)
    assert abs((fates.flipped_bits == 0).mean() - clean) < 4 * math.sqrt(clean * (1 - clean) / n)


def test_jitter_laws():
    n = 400_000
    rng = np.random.default_rng(1)
    normal = NormalJitter(0.02).draw(rng, n)
    assert abs(normal.mean()) < 4 * 0.02 / math.sqrt(n)
    assert normal.std() == pytest.approx(0.02, rel=0.01)
    pareto = ParetoJitter(0.01, 4.0).draw(rng, n)
    assert pareto.min() >= 0
    assert pareto.mean() == pytest.approx(0.01, rel=0.02)
    assert (pareto > 0.03).mean() == pytest.approx((1 + 0.03 / 0.03) ** -4.0, rel=0.05)
    assert set(EmpiricalJitter((0.1, 0.5)).draw(rng, 100)) == {0.1, 0.5}


def test_loss_grows_with_delay():
    n = 40_000
    link = Link(
        jitter=EmpiricalJitter((0.0, 0.05, 0.2)), delay_loss=DelayLoss(0.0, 0.1), delay_s=1.0
    )
    fates = link.channel(Streams(2)).carry(np.full(n, 10), np.arange(n) * 5.0)
    lost = np.isnan(fates.arrival_s).mean()
    expected = (0.0 + 0.5 + 1.0) / 3
    assert abs(lost - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_flipping_is_its_own_inverse():
    assert flip_bits(b"\0\0", [0, 15]) == b"\x80\x01"
    assert flip_bits(flip_bits(b"abc", [3, 9]), [3, 9]) == b"abc"


def test_refused_rows_send_nothing():
    link = Link().channel(Streams(0))
    for times in ([1.0, 0.5], [0.0, math.nan], [0.0, math.inf]):
        with pytest.raises(ValueError, match="times_s"):
            link.carry(np.array([1, 1]), np.array(times))
    with pytest.raises(ValueError, match="need sizes"):
        link.carry(np.array([1, 1]), np.array([0.0]))
    assert link.carry(np.empty(0, np.int64), np.empty(0)).copies.size == 0
    assert link.transmit(b"x", 0.25)[0].arrival_s == 0.25


@pytest.mark.parametrize(
    ("keywords", "parameter"),
    [
        ({"delay_s": -1}, "delay_s"),
        ({"rate_bps": 0}, "rate_bps"),
        ({"rate_bps": 1e6, "capacity": TRACE}, "capacity"),
        ({"queue_packets": 5}, "queue_packets"),
        ({"rate_bps": 1e6, "queue_packets": 0}, "queue_packets"),
        ({"rate_bps": 1e6, "queue_bytes": 1.5}, "queue_bytes"),
        ({"reorder": 0.1}, "reorder_s"),
        ({"duplicate": 2}, "duplicate"),
        ({"bit_error": -0.1}, "bit_error"),
    ],
)
def test_bad_links_are_refused(keywords, parameter):
    with pytest.raises(ChannelParameterError) as caught:
        Link(**keywords)
    assert caught.value.parameter == parameter


def test_bad_parts_are_refused():
    for make in (
        lambda: DelayLoss(0.2, 0.1),
        lambda: ParetoJitter(0.01, 1.0),
        lambda: NormalJitter(-1),
        lambda: EmpiricalJitter(()),
        lambda: CapacityTrace(()),
        lambda: CapacityTrace((5, 3)),
        lambda: CapacityTrace((0, 0)),
    ):
        with pytest.raises(ChannelParameterError):
            make()


def test_a_perfect_channel_with_a_link():
    channel = build(PerfectLoss(), link=Link(delay_s=0.5), seed=0)
    assert channel.transmit(b"x", 1.0)[0].arrival_s == 1.5
