"""One training loop for every network: schedule, log, samples, checkpoints, exact resume.

A run is a folder: `config.json`, `log.jsonl` (one line per report), `samples/` (sheets of images),
and `checkpoint.pt`, from which a resumed run continues as if it had not stopped. Batches are pure
functions of (seed, step), so no data-loader state is saved. If TensorBoard is installed, the log is
also written as its events.

With several processes (`codec.training.parallel`), all take each step; the main process does
everything else.
"""

from __future__ import annotations

import ctypes
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.files import replacing
from codec.training import parallel
from codec.training.task import Task

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class LoopConfig:
    """Length of a run, and how often it reports.

    The learning rate warms up linearly, stays, and falls linearly to zero over the last
    `decay_steps`, so a run can be prolonged from any checkpoint before its decay.

    Attributes:
        steps: in all, those of a resumed run included.
        decay_steps, warmup_steps: see above.
        seconds: None, or a limit: the run ends at `steps` or when the time is over, and the
            learning rate follows whichever is further on. The weights then depend on the speed of
            the machine.
        report_every, evaluate_every: steps between log lines, and between evaluations.
        checkpoint_seconds: between checkpoints.
    """

    steps: int
    decay_steps: int
    warmup_steps: int = 100
    seconds: float | None = None
    report_every: int = 50
    evaluate_every: int = 250
    checkpoint_seconds: float = 240.0


def effective_step(step: int, seconds: float, config: LoopConfig) -> float:
    """The step in the schedule: `step`, or that for the time passed if it is larger."""
    if config.seconds is None:
        return step
    return max(step, config.steps * seconds / config.seconds)


def learning_rate_factor(step: float, config: LoopConfig) -> float:
    """The factor of the peak learning rates at 0-based `step`, in [0, 1]: a trapezoid."""
    up = min(1.0, (step + 1) / max(1, config.warmup_steps))
    down = min(1.0, (config.steps - step) / max(1, config.decay_steps))
    return max(0.0, min(up, down))


def keep_freed_memory() -> None:
    """Ask glibc to reuse freed memory instead of returning it to the kernel; without it, nothing.

    A training step frees and allocates the same large tensors again. By default each of them is
    mapped and cleared anew, which was measured to take half of the time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
        mallopt(option, value)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write atomically: a crash leaves the previous checkpoint."""
    with replacing(path) as partial:
        torch.save(content, partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors, on the CPU, and plain containers; nothing in the file is executed."""
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return content


def train(task: Task, folder: Path, config: LoopConfig) -> dict[str, float]:
    """Train `task` in `folder` until `config.steps`, resuming from its checkpoint if there is one.

    Returns:
        The last evaluation of this call; {} in other processes than the main one.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the checkpoint is saved.
    """
    keep_freed_memory()
    checkpoint, is_main = folder / CHECKPOINT, parallel.rank() == 0
    step, seconds, window = 0, 0.0, _Window()
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        task.load_state(saved["task"])
        torch.set_rng_state(saved["torch_rng"])
        step, seconds = saved["step"], saved["seconds"]
        window = _Window(*saved.get("window", ()))
    log = _Log(folder, is_main)
    about = {"loop": asdict(config), **task.describe(), "threads": torch.get_num_threads()}
    log.begin(about | {"processes": parallel.processes()})

    def save() -> None:
        if is_main:
            content: dict[str, Any] = {"task": task.state(), "torch_rng": torch.get_rng_state()}
            content["window"] = (window.totals, window.count)
            save_checkpoint(checkpoint, {**content, "step": step, "seconds": seconds})

    stop_requested = False

    def request_stop(signum: int, frame: object) -> None:
        nonlocal stop_requested
        stop_requested = True

    previous = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
    evaluation: dict[str, float] = {}
    stop = False
    try:
        last_save = started = time.monotonic()
        while (place := effective_step(step, seconds, config)) < config.steps and not stop:
            rate = learning_rate_factor(place, config)
            values, (duration, stops) = _mean_over_processes(
                task.train_step(step, rate), [time.monotonic() - started, float(stop_requested)]
            )
            step, stop = step + 1, stops > 0
            seconds, started = seconds + duration, time.monotonic()
            window.add(values)
            after = effective_step(step, seconds, config)
            doing = f"step {step}, loss {values['loss']:.4f}"
            task.options.progress(min(config.steps, int(after)), config.steps, doing)
            if step % config.report_every == 0:
                log.write("train", step, seconds, window.mean())
                window = _Window()
            if is_main and (step % config.evaluate_every == 0 or after >= config.steps):
                evaluation = task.evaluate()
                log.write("held_out", step, seconds, evaluation)
                task.sample_sheet().save(folder / "samples" / f"{step:07d}.webp", quality=90)
            if started - last_save > config.checkpoint_seconds:
                save()
                last_save = started
        save()
    finally:
        log.close()
        for which, handler in previous.items():
            signal.signal(which, handler)
    if place < config.steps:
        raise KeyboardInterrupt
    return evaluation


def _mean_over_processes(
    values: Mapping[str, Tensor | float], numbers: list[float]
) -> tuple[dict[str, float], list[float]]:
    """The means over all processes of what a step reports, and of other numbers. Tensors are copied
    from their device in one transfer."""
    tensors = [value.detach().float() for value in values.values() if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).cpu().tolist() if tensors else ())
    row = [next(fetched) if isinstance(v, Tensor) else float(v) for v in values.values()]
    row += numbers
    if parallel.processes() > 1:
        device = tensors[0].device if tensors else None
        sums = parallel.summed(torch.tensor(row, dtype=torch.float64, device=device))
        row = (sums / parallel.processes()).cpu().tolist()
    return dict(zip(values, row, strict=False)), row[len(values) :]


class _Log:
    """`config.json`, `log.jsonl`, and events of TensorBoard where that is installed."""

    def __init__(self, folder: Path, is_main: bool) -> None:
        """Writes in the main process only."""
        self._folder, self._is_main, self._events = folder, is_main, None
        if is_main:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            if find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(folder))

    def begin(self, about: dict[str, Any]) -> None:
        """Write `config.json`."""
        if self._is_main:
            (self._folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")

    def write(self, kind: str, step: int, seconds: float, values: dict[str, float]) -> None:
        """Write a line of the log; ``kind`` is "train" or "held_out"."""
        if not self._is_main:
            return
        line = {"step": step, "seconds": round(seconds, 1), "kind": kind}
        rounded = {k: round(v, 5) for k, v in values.items()}
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({**line, **rounded}) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()


@dataclass
class _Window:
    """Means of the values reported since the last log line."""

    totals: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        self.count += 1

    def mean(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.totals.items()}
