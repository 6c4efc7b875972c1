"""Speed and memory of filling lost tokens, as ratios to references measured in the same run.

    python -m benchmarks.inpainting [--largest 4096] [--rounds 5] [--json] [--model FOLDER]

fill / forward   a 768x512 image (1,536 tokens, 20% lost) filled by a schedule, over the forward
                 passes that this schedule asks for and nothing else; goal: at most 1.5
tokens/s         of the whole grid, and what share of the speed of a plain matrix product (1,536 x
                 192 by 192 x 768, in float32 and in bfloat16) the network's own products reach
growth           processor time from 256x256 to 4096x4096 pixels; the exponent of a power law fitted
                 to it (1 = linear in the number of tokens)
peak memory      of a process that fills and decodes an image of the largest size; goal: below 4 GB

Times are processor time, the best of several rounds in which subject and reference take turns.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.decoding import Decoding
from codec.inpainting import WINDOW
from codec.model import Model

LEVEL = 1024
LOST = 0.2
GRID = (32, 48)
SCHEDULES = (Decoding(), Decoding("halton", 4), Decoding("confidence", 4))


def best_times(rounds: int, *actions: Callable[[], object]) -> list[float]:
    """Least processor time of each action, in seconds."""
    best = [math.inf] * len(actions)
    for _ in range(rounds):
        for index, action in enumerate(actions):
            start = time.process_time()
            action()
            best[index] = min(best[index], time.process_time() - start)
    return best


def sample(grid: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Random tokens, and which of them are there."""
    rng = np.random.default_rng(1)
    return rng.integers(0, LEVEL, grid), rng.random(grid) >= LOST


def fill_over_forward(model: Model, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of every schedule and of its forward passes alone."""
    indices, received = sample(GRID)
    found = {}
    for decoding in SCHEDULES:
        asked: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []
        plain = model.logits

        def noted(
            i: Any, k: Any, level: int, memory: Any, plain: Any = plain, asked: Any = asked
        ) -> Any:
            asked.append((i.copy(), k.copy()))
            return plain(i, k, level, memory)

        model.logits = noted  # type: ignore[method-assign]
        model.inpaint(indices, received, LEVEL, decoding)
        model.logits = plain  # type: ignore[method-assign]

        def fill(decoding: Decoding = decoding) -> object:
            return model.inpaint(indices, received, LEVEL, decoding)

        def forward(asked: Any = asked) -> object:
            return [model.logits(i, k, LEVEL) for i, k in asked]

        fill_s, forward_s = best_times(rounds, fill, forward)
        found[f"{decoding.order} {decoding.steps}"] = {
            "passes": len(asked),
            "fill_s": fill_s,
            "forward_s": forward_s,
            "ratio": fill_s / forward_s,
        }
    return found


def network_products(model: Model) -> float:
    """Multiply-adds of one forward pass over GRID, times two: floating-point operations."""
    assert model.inpainter is not None
    config = model.inpainter.config
    width, tokens = config.width, GRID[0] * GRID[1]
    layer = (4 + 2 * config.expansion) * width**2 + 2 * WINDOW**2 * width + 9 * width
    lost = round(LOST * tokens)
    scores = lost * (width + config.latent_dim) * LEVEL + LEVEL * width**2
    return 2.0 * (tokens * config.depth * layer + scores)


def matmul_limit(rounds: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a plain product of the network's own shape."""
    a, b = torch.randn(1536, 192).to(dtype), torch.randn(192, 768).to(dtype)
    times = 4 if dtype == torch.float32 else 1
    (seconds,) = best_times(rounds, lambda: [a @ b for _ in range(times)])
    return 2.0 * 1536 * 192 * 768 * times / seconds


def growth(model: Model, largest: int, rounds: int) -> tuple[list[dict[str, float]], float]:
    """Seconds of filling by image size, and the exponent over the number of tokens."""
    rows = []
    side = 256
    while side <= largest:
        indices, received = sample((side // 16, side // 16))
        few = max(1, rounds * 256 // side)
        (seconds,) = best_times(few, lambda i=indices, k=received: model.inpaint(i, k, LEVEL))  # type: ignore[misc]
        rows.append({"side": side, "tokens": indices.size, "seconds": seconds})
        side *= 2
    tokens, seconds = (np.log([row[key] for row in rows]) for key in ("tokens", "seconds"))
    return rows, float(np.polyfit(tokens, seconds, 1)[0])


def peak_memory(largest: int, folder: Path | None) -> float:
    """Peak resident bytes of a fresh process that fills and decodes one image."""
    command = [sys.executable, "-m", "benchmarks.inpainting", "--largest", str(largest), "--child"]
    command += [] if folder is None else ["--model", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def child(model: Model, largest: int) -> None:
    """Fill and decode; print this process's own peak in bytes."""
    indices, received = sample((largest // 16, largest // 16))
    filled = model.inpaint(indices, received, LEVEL)
    model.decode_codewords(filled.codeword_vectors, largest, largest)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's fork too
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(1024 * int(peak.split()[1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--largest", type=int, default=4096, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Model.load(options.model)
    if options.child:
        child(model, options.largest)
        return
    schedules = fill_over_forward(model, options.rounds)
    one = schedules["confidence 1"]
    speed = network_products(model) / one["forward_s"]
    limits = {
        name: matmul_limit(4 * options.rounds, dtype)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    rows, exponent = growth(model, options.largest, options.rounds)
    result = {
        "schedules": schedules,
        "tokens_per_s": GRID[0] * GRID[1] / one["fill_s"],
        "lost_tokens_per_s": round(LOST * GRID[0] * GRID[1]) / one["fill_s"],
        "network_gflops": speed / 1e9,
        "matmul_gflops": {name: limit / 1e9 for name, limit in limits.items()},
        "share_of_matmul": {name: speed / limit for name, limit in limits.items()},
        "growth": rows,
        "exponent": exponent,
        "peak_bytes": peak_memory(options.largest, options.model),
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, found in schedules.items():
        print(
            f"{name:14} {found['passes']:2} passes  fill {found['fill_s']:.3f} s  "
            f"forward {found['forward_s']:.3f} s  ratio {found['ratio']:.2f}  (goal 1.5)"
        )
    print(f"{result['tokens_per_s']:,.0f} tokens/s; network {speed / 1e9:.0f} GFLOP/s")
    for name, limit in limits.items():
        print(f"plain {name} product {limit / 1e9:.0f} GFLOP/s: {speed / limit:.0%} of it")
    for row in rows:
        print(
            f"{row['side']:5} x {row['side']:<5} {row['tokens']:6} tokens {row['seconds']:8.3f} s"
        )
    print(f"time grows as tokens^{exponent:.2f}")
    peak = float(result["peak_bytes"])  # type: ignore[arg-type]
    print(f"peak memory of filling and decoding {options.largest}^2: {peak / 1e9:.2f} GB (goal 4)")


if __name__ == "__main__":
    main()
