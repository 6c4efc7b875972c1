"""One training loop for every network: schedule, log, samples, checkpoints, exact resume.

A run is a folder: `config.json`, `log.jsonl` (one line per report), `samples/`, and
`checkpoint.pt`, which holds everything a resumed run needs to continue as if it had never stopped.
Batches are pure functions of (seed, step), so no data-loader state has to be saved.
"""

from __future__ import annotations

import ctypes
import json
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from codec.files import replacing

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often. The learning rate warms up, stays, and falls linearly to zero over
    the last `decay_steps`, so a run can be prolonged from any checkpoint before its decay."""

    steps: int
    decay_steps: int
    warmup_steps: int = 100
    report_every: int = 50
    evaluate_every: int = 250
    checkpoint_seconds: float = 240.0


class Task(Protocol):
    """What is trained. `train_step` runs one optimiser step; tensors in `state` are saved."""

    def train_step(self, step: int, rate: float) -> dict[str, float]: ...

    def evaluate(self) -> dict[str, float]: ...

    def sample_sheet(self) -> Image.Image: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def describe(self) -> dict[str, Any]: ...


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Warm-up, plateau, linear decay to zero: the factor for 0-based `step`."""
    up = min(1.0, (step + 1) / max(1, config.warmup_steps))
    down = min(1.0, (config.steps - step) / max(1, config.decay_steps))
    return max(0.0, min(up, down))


def keep_freed_memory() -> None:
    """Ask glibc to reuse freed memory instead of returning it to the kernel.

    A training step frees and takes the same large tensors again; by default each of them is mapped
    and cleared anew, which was measured to take half of the time. Does nothing elsewhere.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
        mallopt(option, value)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write with an atomic replace: a crash leaves the previous checkpoint."""
    with replacing(path) as partial:
        torch.save(content, partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors and plain containers only; nothing in the file is executed."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def train(task: Task, folder: Path, config: LoopConfig) -> dict[str, float]:
    """Train `task` in `folder` until `config.steps`, resuming from its checkpoint if there is one.

    Returns:
        The last evaluation of this call.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the checkpoint is saved.
    """
    keep_freed_memory()
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    step, seconds, window = 0, 0.0, _Window()
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        task.load_state(saved["task"])
        torch.set_rng_state(saved["torch_rng"])
        step, seconds = saved["step"], saved["seconds"]
        window = _Window(*saved.get("window", ()))
    about = {"loop": asdict(config), **task.describe(), "threads": torch.get_num_threads()}
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")

    def save() -> None:
        content: dict[str, Any] = {"task": task.state(), "torch_rng": torch.get_rng_state()}
        content["window"] = (window.totals, window.count)
        save_checkpoint(checkpoint, {**content, "step": step, "seconds": seconds})

    def log(kind: str, values: dict[str, float]) -> None:
        line = {"step": step, "seconds": round(seconds, 1), "kind": kind}
        rounded = {k: round(v, 5) for k, v in values.items()}
        with (folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({**line, **rounded}) + "\n")

    stop = False

    def request_stop(signum: int, frame: object) -> None:
        nonlocal stop
        stop = True

    previous = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=Console(stderr=True),
    )
    evaluation: dict[str, float] = {}
    try:
        with progress:
            bar = progress.add_task("training", total=config.steps, completed=step, loss="")
            since_save = started = time.monotonic()
            while step < config.steps and not stop:
                values = task.train_step(step, learning_rate_factor(step, config))
                step += 1
                now = time.monotonic()
                seconds, started = seconds + now - started, now
                window.add(values)
                progress.update(bar, completed=step, loss=f"loss {values['loss']:.4f}")
                if step % config.report_every == 0:
                    log("train", window.mean())
                    window = _Window()
                if step % config.evaluate_every == 0 or step == config.steps:
                    evaluation = task.evaluate()
                    log("held_out", evaluation)
                    task.sample_sheet().save(folder / "samples" / f"{step:07d}.webp", quality=90)
                if now - since_save > config.checkpoint_seconds:
                    save()
                    since_save = now
        save()
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
    if step < config.steps:
        raise KeyboardInterrupt
    return evaluation


@dataclass
class _Window:
    """Running mean of the values reported since the last log line."""

    totals: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        self.count += 1

    def mean(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.totals.items()}


def image_sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of images float[B,3,H,W] in [-1, 1] stacked into one picture."""
    strips = [torch.cat(list(row.float().clamp(-1, 1)), dim=2) for row in rows]
    sheet = torch.cat(strips, dim=1).add(1).mul(127.5).round().byte()
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())
