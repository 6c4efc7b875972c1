"""The number format in which this machine multiplies matrices fastest."""

from __future__ import annotations

import time
from functools import cache

import torch


@cache
def fast_dtype() -> torch.dtype:
    """bfloat16 where this CPU multiplies it faster than float32, else float32 (measured, ~0.1 s).

    CPUs without AVX512-BF16 or AMX emulate bfloat16 several hundred times slower; smaller matrices
    cost too little for the difference to show with several threads. The best of several tries, so
    that a busy machine cannot make the wrong one look faster.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(384, 384, dtype=dtype)
        tries = []
        for _ in range(5):
            start = time.perf_counter()
            a @ a
            tries.append(time.perf_counter() - start)
        seconds[dtype] = min(tries)
    return min(seconds, key=lambda dtype: seconds[dtype])


def fast_autocast() -> torch.autocast:
    """Autocast to bfloat16 where `fast_dtype` finds it faster, else a context that does nothing."""
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_dtype() == torch.bfloat16)
