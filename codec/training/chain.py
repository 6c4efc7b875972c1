"""All training runs one after the other, from photographs to a model folder, in a given time.

Each stage is a run in a folder of its own. It starts from the model folder, which holds what the
stages before it have trained, and its weights files are copied there. Each stage gets a share of
the time that is left, for all its work, tokens and pairs of pictures included. `plan.json` says
which stages are finished and how long the present one may take; from it a stopped chain resumes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codec.enhance import weights_path
from codec.files import replacing
from codec.inpainting import InpainterConfig
from codec.lpips import Lpips
from codec.model_files import CONTEXT_FILE, INPAINTER_FILE, TOKENIZER_FILE
from codec.perceptual import FeaturesMissing, check_features
from codec.tokenizer import TokenizerConfig
from codec.training import parallel
from codec.training.context import ContextConfig, ContextTraining, SliceSource
from codec.training.inpainter import InpainterTraining
from codec.training.joint import JointTraining
from codec.training.loop import LoopConfig
from codec.training.options import DEFAULT_OPTIONS, TrainingOptions
from codec.training.runs import (
    CacheConfig,
    TrainingRun,
    train_context,
    train_inpainter,
    train_joint,
    train_tokenizer,
    train_upsampler,
)
from codec.training.tokenizer import TokenizerTraining
from codec.training.tokens import MaskSource
from codec.training.upsampler import UpsamplerTraining

PLAN = "plan.json"
FILES = (TOKENIZER_FILE, INPAINTER_FILE, CONTEXT_FILE)

# (photos, model folder, folder to write): writes an inpainter with calibrated temperatures
Calibrate = Callable[[Path, Path, Path], object]
# runs a stage; returns its last evaluation
Stage = Callable[[TrainingRun], dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of each stage.

    Attributes:
        tokenizer, ..., context: of the training stages, in order; "encoder", "quarter" (pictures of
            a quarter of each side), "windows" (of the full size) and "repair" (with lost tokens)
            are joint runs.
        encoder_depth: residual blocks of the encoder at stride 16.
        upsampler_depth: hidden convolutions of the upsampler.
        side: of tokenized crops, in pixels.
    """

    tokenizer: TokenizerTraining
    encoder: JointTraining
    upsampler: UpsamplerTraining
    quarter: JointTraining
    windows: JointTraining
    inpainter: InpainterTraining
    repair: JointTraining
    context: ContextTraining
    encoder_depth: int = 4
    upsampler_depth: int = 16
    side: int = 256

    def with_all(self, **changes: Any) -> Recipe:
        """A copy with other hyper-parameters in every stage."""
        stages = {name: getattr(self, name) for name in _SHARES if hasattr(self, name)}
        return replace(self, **{name: replace(one, **changes) for name, one in stages.items()})


def standard_recipe() -> Recipe:
    """The recipe for networks of the default shapes."""
    losses = {"lpips_weight": 3.0, "layers": 5, "features_weight": 0.2, "spectrum_weight": 0.3}
    whole: Any = {"batch": 8, "window": 128, **losses}
    return Recipe(
        TokenizerTraining(TokenizerConfig(), ladder_from=1000),
        JointTraining(batch=8, crop=192, rate=0.0, upsampler_rate=0.0),
        UpsamplerTraining(),
        JointTraining(batch=8, lpips_weight=2.0),
        JointTraining(**whole, adversarial_from=200),
        InpainterTraining(InpainterConfig()),
        JointTraining(**whole, adversarial_from=50, rate=1e-4, encoder_rate=0, upsampler_rate=1e-4),
        ContextTraining(ContextConfig()),
    )


_SHARES = {  # of the time
    "tokenizer": 0.28,
    "encoder": 0.05,
    "upsampler": 0.08,
    "quarter": 0.17,
    "windows": 0.17,
    "inpainter": 0.08,
    "repair": 0.08,
    "context": 0.05,
    "calibration": 0.04,
}


def train_all(
    photos: Path,
    out: Path,
    hours: float,
    masks: MaskSource,
    slices: SliceSource,
    calibrate: Calibrate,
    recipe: Recipe,
    *,
    options: TrainingOptions = DEFAULT_OPTIONS,
    log: Callable[[str], object] = lambda line: None,
) -> dict[str, float]:
    """Train a model from random weights, or resume, and leave its three files in `out`.

    Args:
        photos: a folder or a pack.
        out: the model folder; the stages' runs are below it.
        hours: for all that is left to do. Each stage makes at least one step.
        masks, slices, calibrate: see `codec.training.runs` and `Calibrate`.
        recipe: see `Recipe`.
        options: how the runs are carried out.
        log: called with lines for the user: which stage begins, what is missing.

    Returns:
        The last evaluation of every training stage of this call, by "stage: value".

    Raises:
        ValueError: photos that cannot be used.
        FeaturesMissing: weights that the losses need are not installed.
        KeyboardInterrupt: stopped and saved.
    """
    check_features()
    if recipe.quarter.lpips_weight:
        Lpips("vgg16", 1)
    stages = _stages(out, recipe, masks, slices, calibrate)
    cache = replace(_cache(hours, options), side=recipe.side)
    started = time.monotonic()
    evaluations: dict[str, float] = {}
    for number, (name, share) in enumerate(_SHARES.items()):
        with parallel.main_process() as is_main:
            if is_main:
                left = max(0.0, 3600 * hours - (time.monotonic() - started))
                shares_left = sum(list(_SHARES.values())[number:])
                _begin(out, name, left * share / shares_left)
        plan = _plan(out)
        if name in plan["finished"]:
            continue
        log(f"{number + 1} of {len(_SHARES)}: {name}, {plan['seconds']:.0f} s")
        if name == "upsampler" and not _has_enhancer():
            log("  Real-ESRGAN is not installed: from random weights, by the photos themselves")
        folder = out / "runs" / name
        held_out = stages[name](TrainingRun(photos, folder, _loop(plan["seconds"]), cache, options))
        evaluations |= {f"{name}: {what}": value for what, value in held_out.items()}
        with parallel.main_process() as is_main:
            if is_main:
                _finish(out, name, folder)
    return evaluations


def _stages(
    out: Path, recipe: Recipe, masks: MaskSource, slices: SliceSource, calibrate: Calibrate
) -> dict[str, Stage]:
    """The stages by name; each trains for the model in `out` as it is then."""

    def joint(config: JointTraining, depth: int | None = None) -> Stage:
        def stage(run: TrainingRun) -> dict[str, float]:
            # The crops only serve to count how often tokens are used.
            fewer = replace(run.cache, crops=max(32, run.cache.crops // 8))
            return train_joint(replace(run, cache=fewer), masks, out, config, encoder_depth=depth)

        return stage

    def upsampler(run: TrainingRun) -> dict[str, float]:
        seconds = run.loop.seconds or 0.0
        run = replace(run, loop=_loop(0.6 * seconds))
        return train_upsampler(
            run,
            out,
            recipe.upsampler,
            depth=recipe.upsampler_depth,
            pair_seconds=0.4 * seconds,
            enhanced=_has_enhancer(),
        )

    def calibration(run: TrainingRun) -> dict[str, float]:
        if parallel.rank() == 0:
            calibrate(run.images, out, run.folder)
        return {}

    return {
        "tokenizer": lambda run: train_tokenizer(run, recipe.tokenizer),
        "encoder": joint(recipe.encoder, recipe.encoder_depth),
        "upsampler": upsampler,
        "quarter": joint(recipe.quarter),
        "windows": joint(recipe.windows),
        "inpainter": lambda run: train_inpainter(run, masks, out, recipe.inpainter),
        "repair": joint(recipe.repair),
        "context": lambda run: train_context(run, slices, out, recipe.context),
        "calibration": calibration,
    }


def _loop(seconds: float) -> LoopConfig:
    return LoopConfig(
        steps=100_000,
        decay_steps=30_000,
        warmup_steps=2_000,
        evaluate_every=1_000,
        checkpoint_seconds=60.0,
        seconds=max(1e-3, seconds),
    )


def _has_enhancer() -> bool:
    """Whether the weights of Real-ESRGAN are installed."""
    try:
        weights_path()
    except FeaturesMissing:
        return False
    return True


def _cache(hours: float, options: TrainingOptions) -> CacheConfig:
    """As many tokenized crops as there is time for."""
    each_hour = 1_500 if options.device.where.type == "cpu" else 20_000
    crops = int(min(12_000, max(64, hours * each_hour)))
    return CacheConfig(crops=crops, held_out=min(128, crops // 4))


def _plan(out: Path) -> dict[str, Any]:
    path = out / PLAN
    if not path.exists():
        return {"finished": [], "stage": "", "seconds": 0.0}
    plan: dict[str, Any] = json.loads(path.read_text())
    return plan


def _begin(out: Path, name: str, seconds: float) -> None:
    """Write a stage's seconds into the plan, unless it is finished or has begun."""
    plan = _plan(out)
    if name not in plan["finished"] and name != plan["stage"]:
        (out / "runs" / name).mkdir(parents=True, exist_ok=True)
        _write(out, plan | {"stage": name, "seconds": round(seconds, 1)})


def _finish(out: Path, name: str, folder: Path) -> None:
    """Copy a stage's weights into the model folder and mark it as finished."""
    for file in FILES:
        if (folder / file).exists():
            with replacing(out / file) as partial:
                shutil.copyfile(folder / file, partial)
    plan = _plan(out)
    _write(out, plan | {"finished": [*plan["finished"], name]})


def _write(out: Path, plan: dict[str, Any]) -> None:
    with replacing(out / PLAN) as partial:
        partial.write_text(json.dumps(plan, indent=2) + "\n")
