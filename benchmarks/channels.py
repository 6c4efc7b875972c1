"""Speed of the channels, each as a ratio to a named reference measured in the same run.

Run from the root: ``python -m benchmarks.channels [--json]``. Times are processor time (so that a
busy machine matters less), the best of several rounds in which reference and subject take turns.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Callable

import numpy as np

from channels import GilbertElliott, Link, OrderN, SemiMarkov, UniformErasure, build
from channels.base import Streams
from channels.markov import FourState

N = 1 << 21
ROUNDS = 7


def best_times(*actions: Callable[[], object]) -> list[float]:
    """Least processor time of each action, in seconds, over alternating rounds."""
    best = [math.inf] * len(actions)
    for _ in range(ROUNDS):
        for index, action in enumerate(actions):
            start = time.process_time()
            action()
            best[index] = min(best[index], time.process_time() - start)
    return best


def python_loop(n: int) -> list[bool]:
    """Gilbert-Elliott packet by packet with the fastest generator of the standard library."""
    draw, bad, fates = random.Random(1).random, False, []
    append = fates.append
    for _ in range(n):
        bad = draw() >= 0.2 if bad else draw() < 0.05
        append(bad)
    return fates


def simpy_queue(sizes: list[int], times: list[float], rate: float, limit: int) -> list[float]:
    """A drop-tail queue as simpy processes; departures, inf if dropped."""
    import simpy

    env = simpy.Environment()
    line = simpy.Store(env)
    departures = [math.inf] * len(sizes)
    inside = [0]

    def source():
        for index, at in enumerate(times):
            yield env.timeout(at - env.now)
            if inside[0] < limit:
                inside[0] += 1
                line.put(index)

    def server():
        while True:
            index = yield line.get()
            yield env.timeout(sizes[index] * (8.0 / rate))
            inside[0] -= 1
            departures[index] = env.now

    env.process(server())
    env.process(source())
    env.run()
    return departures


def main() -> None:
    rng = np.random.default_rng(1)
    rows: list[tuple[str, str, float, str, float]] = []

    def row(name: str, reference: str, ratio: float, bound: str, rate: float) -> None:
        rows.append((name, reference, ratio, bound, rate))

    def uniforms() -> object:
        return rng.random(N, dtype=np.float32)

    models = {
        "Gilbert-Elliott 20%/5": (GilbertElliott.from_loss(0.2, 5), "<= 1.5"),
        "Gilbert-Elliott 5%/2": (GilbertElliott.from_loss(0.05, 2), "<= 1.5"),
        "Gilbert-Elliott 30%/3": (GilbertElliott.from_loss(0.3, 3), ""),
        "Gilbert-Elliott 50%/3": (GilbertElliott.from_loss(0.5, 3), "<= 1.5"),
        "Gilbert-Elliott, anti-bursty": (GilbertElliott(0.6, 0.9), "<= 1.5"),
        "Gilbert-Elliott, loss_bad .7": (GilbertElliott(0.05, 0.2, 0.0, 0.7), "<= 1.5"),
        "Gilbert-Elliott, 4 parameters": (GilbertElliott(0.05, 0.2, 0.02, 0.7), "<= 1.5"),
        "uniform 20%": (UniformErasure(0.2), ""),
        "four states": (FourState(0.04, 0.3, 0.6, 0.4, 0.01), ""),
        "order 3": (OrderN((0.05, 0.5, 0.2, 0.6, 0.1, 0.4, 0.3, 0.8)), ""),
        "heavy tail 5%/5": (SemiMarkov.heavy_tailed(0.05, 5.0), ""),
    }
    for name, (model, bound) in models.items():
        sampler = model.sampler(np.random.default_rng(2))
        reference, mask, runs = best_times(
            uniforms, lambda s=sampler: s.mask(N), lambda s=sampler: s.runs(N)
        )
        row(f"{name}: mask", "float32 uniforms", mask / reference, bound, N / mask)
        limit = "< 1" if name == "Gilbert-Elliott 20%/5" else ""
        row(f"{name}: intervals", "float32 uniforms", runs / reference, limit, N / runs)

    sampler = models["Gilbert-Elliott 20%/5"][0].sampler(np.random.default_rng(2))
    part = N // 16
    loop, mask = best_times(lambda: python_loop(part), lambda: sampler.mask(part))
    row("Gilbert-Elliott 20%/5: mask", "Python loop", mask / loop, "<= 0.1", part / mask)

    count = 30_000
    sizes = rng.integers(50, 1500, count)
    times = np.cumsum(rng.exponential(0.008 * 775 / 1000, count))
    link = Link(rate_bps=1e6, queue_packets=20)
    arguments = (sizes.tolist(), times.tolist(), 1e6, 20)
    simulated, ours = best_times(
        lambda: simpy_queue(*arguments), lambda: link.channel(Streams(0)).carry(sizes, times)
    )
    theirs = np.array(simpy_queue(*arguments))
    arrival = link.channel(Streams(0)).carry(sizes, times).arrival_s
    same = np.array_equal(np.isnan(arrival), np.isinf(theirs)) and np.allclose(
        arrival[~np.isnan(arrival)], theirs[np.isfinite(theirs)], rtol=0, atol=1e-9
    )
    dropped = int(np.isinf(theirs).sum())
    name = (
        f"drop-tail queue, {dropped} of {count} dropped, {'same' if same else 'OTHER'} departures"
    )
    row(name, "simpy", ours / simulated, "<= 0.05", count / ours)

    channel = build(GilbertElliott.from_loss(0.2, 5), link=Link(delay_s=0.02), seed=1)
    clock = iter(range(10**9))

    def packets() -> None:
        for _ in range(part):
            channel.transmit(b"", next(clock) * 1e-3)

    loop, one = best_times(lambda: python_loop(part), packets)
    row("Gilbert-Elliott + delay: transmit", "Python loop", one / loop, "", part / one)

    if "--json" in sys.argv:
        keys = ("name", "reference", "ratio", "bound", "packets_per_s")
        print(json.dumps([dict(zip(keys, values, strict=True)) for values in rows], indent=1))
        return
    print(f"{'subject':62} {'reference':17} {'time ratio':>10} {'bound':>8} {'M packets/s':>12}")
    for name, reference, ratio, bound, rate in rows:
        print(f"{name:62} {reference:17} {ratio:10.3f} {bound:>8} {rate / 1e6:12.2f}")


if __name__ == "__main__":
    main()
