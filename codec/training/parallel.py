"""Training in several processes at once, one for each GPU or machine, as torchrun starts them.

Each process takes its part of every batch, which is drawn as for one process. Gradients are
averaged by `codec.training.optimizer`; other sums over a batch are made by `summed` here. The
process of rank 0, the main process, logs, evaluates and saves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from codec.device import Device

_TIMEOUT = timedelta(hours=6)
"""How long processes wait for one of them."""


def processes() -> int:
    """How many processes train together, 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(device: Device) -> Iterator[Device]:
    """The processes that torchrun started train together within the block. Yields this process's
    device: a GPU by its local rank, or the given one."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield device
        return
    if device.where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
        device = replace(device, where=where)
    backend = "nccl" if device.where.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def part(count: int) -> slice:
    """This process's images of a batch of ``count``.

    Raises:
        ValueError: the number of processes does not divide it.
    """
    if count % processes():
        raise ValueError(f"a batch of {count} cannot be divided among {processes()} processes")
    each = count // processes()
    return slice(rank() * each, (rank() + 1) * each)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, of the shape of ``values``."""
    if processes() > 1:
        values = values.detach().clone()
        dist.all_reduce(values)
    return values


def gathered(values: Tensor) -> Tensor:
    """The rows [n,...] of all processes, [n * processes,...], in the order of the batch."""
    if processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(processes())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


@contextmanager
def main_process() -> Iterator[bool]:
    """Yields whether this is the main process. At its end all processes wait for each other."""
    yield rank() == 0
    if processes() > 1:
        dist.barrier()
