"""One training loop for every network: schedule, log, samples, checkpoints, exact resume.

A run is a folder: `config.json`, `log.jsonl` (one line per report), `samples/`, and
`checkpoint.pt`, which holds everything a resumed run needs to continue as if it had never stopped.
Batches are pure functions of (seed, step), so no data-loader state has to be saved. What is logged
is written as events of TensorBoard, too, where that is installed.

Several processes may train together (`codec.training.parallel`): all take each step, and the first
does everything else.
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
from codec.training import parallel

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often. The learning rate warms up, stays, and falls linearly to zero over
    the last `decay_steps`, so a run can be prolonged from any checkpoint before its decay.

    A run of some `seconds` ends when they are over if it has not made all of its steps by then, and
    its learning rate follows them as if it made those steps evenly. Its weights depend on how fast
    the machine is."""

    steps: int
    decay_steps: int
    warmup_steps: int = 100
    seconds: float | None = None
    report_every: int = 50
    evaluate_every: int = 250
    checkpoint_seconds: float = 240.0


class Task(Protocol):
    """What is trained. `train_step` runs one optimizer step; tensors in `state` are saved."""

    def train_step(self, step: int, rate: float) -> Mapping[str, Tensor | float]: ...

    def evaluate(self) -> dict[str, float]: ...

    def sample_sheet(self) -> Image.Image: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def describe(self) -> dict[str, Any]: ...


def place_in_run(step: int, seconds: float, config: LoopConfig) -> float:
    """How far a run is after so many steps and seconds, in steps."""
    if config.seconds is None:
        return step
    return max(step, config.steps * seconds / config.seconds)


def learning_rate_factor(step: float, config: LoopConfig) -> float:
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
    """Tensors, on the CPU, and plain containers only; nothing in the file is executed."""
    content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return content


def train(task: Task, folder: Path, config: LoopConfig) -> dict[str, float]:
    """Train `task` in `folder` until `config.steps`, resuming from its checkpoint if there is one.

    Returns:
        The last evaluation of this call; nothing but in the first of several processes.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the checkpoint is saved.
    """
    keep_freed_memory()
    checkpoint, first = folder / CHECKPOINT, parallel.rank() == 0
    step, seconds, window = 0, 0.0, _Window()
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        task.load_state(saved["task"])
        torch.set_rng_state(saved["torch_rng"])
        step, seconds = saved["step"], saved["seconds"]
        window = _Window(*saved.get("window", ()))
    log = _Log(folder, first)
    about = {"loop": asdict(config), **task.describe(), "threads": torch.get_num_threads()}
    log.begin(about | {"processes": parallel.processes()})

    def save() -> None:
        if first:
            content: dict[str, Any] = {"task": task.state(), "torch_rng": torch.get_rng_state()}
            content["window"] = (window.totals, window.count)
            save_checkpoint(checkpoint, {**content, "step": step, "seconds": seconds})

    asked = False

    def request_stop(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True

    previous = {s: signal.signal(s, request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
    evaluation: dict[str, float] = {}
    stop = False
    try:
        with _progress(first) as progress:
            bar = progress.add_task("training", total=config.steps, completed=step, loss="")
            since_save = started = time.monotonic()
            while (place := place_in_run(step, seconds, config)) < config.steps and not stop:
                rate = learning_rate_factor(place, config)
                values, (now, stopped) = _agreed(
                    task.train_step(step, rate), [time.monotonic() - started, float(asked)]
                )
                step, stop = step + 1, stopped > 0
                seconds, started = seconds + now, time.monotonic()
                window.add(values)
                done = min(config.steps, int(place_in_run(step, seconds, config)))
                progress.update(bar, completed=done, loss=f"loss {values['loss']:.4f}")
                if step % config.report_every == 0:
                    log.write("train", step, seconds, window.mean())
                    window = _Window()
                over = place_in_run(step, seconds, config) >= config.steps
                if first and (step % config.evaluate_every == 0 or over):
                    evaluation = task.evaluate()
                    log.write("held_out", step, seconds, evaluation)
                    task.sample_sheet().save(folder / "samples" / f"{step:07d}.webp", quality=90)
                if started - since_save > config.checkpoint_seconds:
                    save()
                    since_save = started
        save()
    finally:
        log.close()
        for which, handler in previous.items():
            signal.signal(which, handler)
    if place < config.steps:
        raise KeyboardInterrupt
    return evaluation


def _agreed(
    values: Mapping[str, Tensor | float], numbers: list[float]
) -> tuple[dict[str, float], list[float]]:
    """What a step reports, and other numbers, as means over all processes. Tensors are fetched from
    their device together."""
    tensors = [value.detach().float() for value in values.values() if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).cpu().tolist() if tensors else ())
    row = [next(fetched) if isinstance(v, Tensor) else float(v) for v in values.values()]
    row += numbers
    if parallel.processes() > 1:
        device = tensors[0].device if tensors else None
        sums = parallel.summed(torch.tensor(row, dtype=torch.float64, device=device))
        row = (sums / parallel.processes()).cpu().tolist()
    return dict(zip(values, row, strict=False)), row[len(values) :]


def _progress(shown: bool) -> Progress:
    """The bar of a run on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=Console(stderr=True),
        disable=not shown,
    )


class _Log:
    """`config.json`, `log.jsonl`, and events of TensorBoard where that is installed."""

    def __init__(self, folder: Path, first: bool) -> None:
        """Only the ``first`` of several processes writes."""
        self._folder, self._first, self._events = folder, first, None
        if first:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            if find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(folder))

    def begin(self, about: dict[str, Any]) -> None:
        """What is run, and how."""
        if self._first:
            (self._folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")

    def write(self, kind: str, step: int, seconds: float, values: dict[str, float]) -> None:
        """A line of the log."""
        if not self._first:
            return
        line = {"step": step, "seconds": round(seconds, 1), "kind": kind}
        rounded = {k: round(v, 5) for k, v in values.items()}
        with (self._folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({**line, **rounded}) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Nothing more will be written."""
        if self._events is not None:
            self._events.close()


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
    return Image.fromarray(sheet.permute(1, 2, 0).cpu().numpy())
