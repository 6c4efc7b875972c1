"""All training runs one after the other, from photographs to a finished model folder, within some
hours.

Each stage is a run in a folder of its own and starts from the model folder as the stages before it
left it, which at any time holds the best so far. A stage is given its share of the time that is
left, whatever the others took: what is made beside the training (tokens, pictures to learn from)
counts, too. `plan.json` says which are finished and how long the present one may take; a chain that
was stopped goes on from there.
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
from codec.model import CONTEXT_FILE, INPAINTER_FILE, TOKENIZER_FILE
from codec.perceptual import FeaturesMissing, check_features
from codec.tokenizer import TokenizerConfig
from codec.training import parallel, runs
from codec.training.context import ContextConfig, ContextTraining, SliceSource
from codec.training.data import PLAIN, Setup
from codec.training.inpainter import InpainterTraining
from codec.training.joint import JointTraining
from codec.training.loop import LoopConfig
from codec.training.tokenizer import TokenizerTraining
from codec.training.tokens import MaskSource
from codec.training.upsampler import UpsamplerTraining

PLAN = "plan.json"
FILES = (TOKENIZER_FILE, INPAINTER_FILE, CONTEXT_FILE)

# (photos, model folder, folder to write): an inpainter with calibrated temperatures
Calibrate = Callable[[Path, Path, Path], object]


@dataclass(frozen=True)
class Recipe:
    """What each stage trains with.

    `encoder_depth`, `upsampler_depth`: blocks at stride 16 and convolutions. `side`: pixels of
    tokenized crops.
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
        """With other values in every stage."""
        stages = {name: getattr(self, name) for name in _SHARES if hasattr(self, name)}
        return replace(self, **{name: replace(one, **changes) for name, one in stages.items()})


def standard_recipe() -> Recipe:
    """For networks of the default shapes."""
    whole: Any = {"batch": 8, "window": 128}
    return Recipe(
        TokenizerTraining(TokenizerConfig(), ladder_from=1000),
        JointTraining(batch=8, crop=192, rate=0.0, upsampler_rate=0.0),
        UpsamplerTraining(),
        JointTraining(batch=8),
        JointTraining(**whole, adversarial_from=200),
        InpainterTraining(InpainterConfig()),
        JointTraining(**whole, adversarial_from=50, rate=1e-4, encoder_rate=0, upsampler_rate=1e-4),
        ContextTraining(ContextConfig()),
    )


_SHARES = {
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
    setup: Setup = PLAIN,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, float]:
    """Train a model from random weights, or go on, and leave its three files in `out`.

    Args:
        photos: a folder or a pack.
        out: the model folder; the stages' runs are below it.
        hours: of all that is left to do. Each stage makes at least one step.
        masks, slices, calibrate: see `codec.training.runs` and `Calibrate`.
        recipe: see `Recipe`.
        setup: how.
        say: told which stage begins, and what is missing.

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
    stages = _stages(photos, out, recipe, masks, slices, calibrate, _cache(hours, setup), setup)
    started = time.monotonic()
    found: dict[str, float] = {}
    for number, (name, share) in enumerate(_SHARES.items()):
        with parallel.first_alone() as mine:
            if mine:
                left = max(0.0, 3600 * hours - (time.monotonic() - started))
                later = sum(list(_SHARES.values())[number:])
                _begin(out, name, left * share / later)
        plan = _plan(out)
        if name in plan["finished"]:
            continue
        folder = out / "runs" / name
        say(f"{number + 1} of {len(_SHARES)}: {name}, {plan['seconds']:.0f} s")
        if name == "upsampler" and not _enhancer():
            say("  Real-ESRGAN is not installed: from random weights, by the photos themselves")
        held_out = stages[name](folder, plan["seconds"])
        found |= {f"{name}: {what}": value for what, value in held_out.items()}
        with parallel.first_alone() as mine:
            if mine:
                _finish(out, name, folder)
    return found


def _stages(
    photos: Path,
    out: Path,
    recipe: Recipe,
    masks: MaskSource,
    slices: SliceSource,
    calibrate: Calibrate,
    cache: runs.CacheConfig,
    setup: Setup,
) -> dict[str, Callable[[Path, float], dict[str, float]]]:
    """(run folder, seconds) -> the held-out evaluation, by name."""
    cache = replace(cache, side=recipe.side)
    few = replace(cache, crops=max(32, cache.crops // 8))  # to count how often tokens are used

    def loop(seconds: float) -> LoopConfig:
        return LoopConfig(
            steps=100_000,
            decay_steps=30_000,
            warmup_steps=2_000,
            evaluate_every=1_000,
            checkpoint_seconds=60.0,
            seconds=max(1e-3, seconds),
        )

    def tokenizer(folder: Path, seconds: float) -> dict[str, float]:
        return runs.train_tokenizer(
            photos, folder, loop(seconds), recipe.tokenizer, cache=cache, setup=setup
        )

    def joint(
        config: JointTraining, depth: int | None = None
    ) -> Callable[[Path, float], dict[str, float]]:
        def stage(folder: Path, seconds: float) -> dict[str, float]:
            options: Any = {"depth": depth, "cache": few, "setup": setup}
            return runs.train_joint(photos, folder, loop(seconds), masks, out, config, **options)

        return stage

    def upsampler(folder: Path, seconds: float) -> dict[str, float]:
        return runs.train_upsampler(
            photos,
            folder,
            loop(0.6 * seconds),
            out,
            recipe.upsampler,
            depth=recipe.upsampler_depth,
            pair_seconds=0.4 * seconds,
            enhanced=_enhancer(),
            setup=setup,
        )

    def inpainter(folder: Path, seconds: float) -> dict[str, float]:
        return runs.train_inpainter(
            photos, folder, loop(seconds), masks, out, recipe.inpainter, cache=cache, setup=setup
        )

    def context(folder: Path, seconds: float) -> dict[str, float]:
        return runs.train_context(
            photos, folder, loop(seconds), slices, out, recipe.context, cache=cache, setup=setup
        )

    def calibration(folder: Path, seconds: float) -> dict[str, float]:
        if parallel.rank() == 0:
            calibrate(photos, out, folder)
        return {}

    return {
        "tokenizer": tokenizer,
        "encoder": joint(recipe.encoder, recipe.encoder_depth),
        "upsampler": upsampler,
        "quarter": joint(recipe.quarter),
        "windows": joint(recipe.windows),
        "inpainter": inpainter,
        "repair": joint(recipe.repair),
        "context": context,
        "calibration": calibration,
    }


def _enhancer() -> bool:
    """Whether the weights of Real-ESRGAN are installed."""
    try:
        weights_path()
    except FeaturesMissing:
        return False
    return True


def _cache(hours: float, setup: Setup) -> runs.CacheConfig:
    """As many tokenized crops as there is time for."""
    each_hour = 1_500 if setup.device.where.type == "cpu" else 20_000
    crops = int(min(12_000, max(64, hours * each_hour)))
    return runs.CacheConfig(crops=crops, held_out=min(128, crops // 4))


def _plan(out: Path) -> dict[str, Any]:
    path = out / PLAN
    if not path.exists():
        return {"finished": [], "stage": "", "seconds": 0.0}
    plan: dict[str, Any] = json.loads(path.read_text())
    return plan


def _begin(out: Path, name: str, seconds: float) -> None:
    """Give a stage its time, unless it is finished or has begun already."""
    plan = _plan(out)
    if name not in plan["finished"] and name != plan["stage"]:
        (out / "runs" / name).mkdir(parents=True, exist_ok=True)
        _write(out, plan | {"stage": name, "seconds": round(seconds, 1)})


def _finish(out: Path, name: str, folder: Path) -> None:
    """Take a stage's files over into the model folder."""
    for file in FILES:
        if (folder / file).exists():
            with replacing(out / file) as partial:
                shutil.copyfile(folder / file, partial)
    plan = _plan(out)
    _write(out, plan | {"finished": [*plan["finished"], name]})


def _write(out: Path, plan: dict[str, Any]) -> None:
    with replacing(out / PLAN) as partial:
        partial.write_text(json.dumps(plan, indent=2) + "\n")
