"""Training in several processes at once, one for each GPU or machine, as torchrun starts them.

Each process takes its part of every batch, whose images are drawn as if there was one process, and
gradients are averaged (`codec.training.optimizer`). Whatever else is a mean or a sum over a batch
is made one over all processes here. The first process logs, evaluates and saves.
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

_LONGEST = timedelta(hours=6)
"""That processes wait for one of them."""


def processes() -> int:
    """How many train together; 1 if only this one does."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(device: Device) -> Iterator[Device]:
    """Within the block the processes that torchrun started train together, each on the device that
    it is given; without torchrun, this one alone on its own."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield device
        return
    if device.where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
        device = replace(device, where=where)
    backend = "nccl" if device.where.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_LONGEST)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def part(count: int) -> slice:
    """Which images of a batch are this process's.

    Raises:
        ValueError: they cannot be divided evenly.
    """
    if count % processes():
        raise ValueError(f"a batch of {count} cannot be divided among {processes()} processes")
    each = count // processes()
    return slice(rank() * each, (rank() + 1) * each)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if processes() > 1:
        values = values.detach().clone()
        dist.all_reduce(values)
    return values


def gathered(values: Tensor) -> Tensor:
    """The rows of all processes, in the order of the batch."""
    if processes() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(processes())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


@contextmanager
def first_alone() -> Iterator[bool]:
    """Whether this process is the first. The others wait at the end of the block for it."""
    yield rank() == 0
    if processes() > 1:
        dist.barrier()
