"""Published VQGAN checkpoints: their tensors by name and shape, safe reading, the model folder."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from codec.checkpoint import ModelError
from codec.import_taming import read_checkpoint
from codec.model import Model
from codec.taming import TamingConfig, TamingDecoder, TamingEncoder, read_config
from sim.media.token_file import ImageCodec

Cli = Callable[..., Any]


def convolution(name: str, outputs: int, inputs: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def block(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    shapes = norm(f"{name}.norm1", inputs) | convolution(f"{name}.conv1", outputs, inputs, 3)
    shapes |= norm(f"{name}.norm2", outputs) | convolution(f"{name}.conv2", outputs, outputs, 3)
    if inputs != outputs:
        shapes |= convolution(f"{name}.nin_shortcut", outputs, inputs, 1)
    return shapes


def attention(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    shapes = norm(f"{name}.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= convolution(f"{name}.{part}", channels, channels, 1)
    return shapes


def published(words: int, ch: int = 128, latent: int = 256) -> dict[str, tuple[int, ...]]:
    """Names and shapes in vqgan_imagenet_f16_1024 and _16384, written out from their model.yaml
    (ch_mult 1,1,2,2,4; num_res_blocks 2; attn_resolutions 16; resolution 256)."""
    widths = [ch, ch, 2 * ch, 2 * ch, 4 * ch]
    top = widths[-1]
    shapes = convolution("encoder.conv_in", ch, 3, 3)
    before = ch
    for level, width in enumerate(widths):
        for number in range(2):
            shapes |= block(f"encoder.down.{level}.block.{number}", before, width)
            before = width
            if level == 4:
                shapes |= attention(f"encoder.down.4.attn.{number}", width)
        if level < 4:
            shapes |= convolution(f"encoder.down.{level}.downsample.conv", width, width, 3)
    for half in ("encoder", "decoder"):
        shapes |= block(f"{half}.mid.block_1", top, top) | attention(f"{half}.mid.attn_1", top)
        shapes |= block(f"{half}.mid.block_2", top, top)
    shapes |= norm("encoder.norm_out", top) | convolution("encoder.conv_out", latent, top, 3)
    shapes |= convolution("decoder.conv_in", top, latent, 3)
    before = top
    for level in (4, 3, 2, 1, 0):
        for number in range(3):
            shapes |= block(f"decoder.up.{level}.block.{number}", before, widths[level])
            before = widths[level]
            if level == 4:
                shapes |= attention(f"decoder.up.4.attn.{number}", before)
        if level > 0:
            shapes |= convolution(f"decoder.up.{level}.upsample.conv", before, before, 3)
    shapes |= norm("decoder.norm_out", ch) | convolution("decoder.conv_out", 3, ch, 3)
    shapes |= {"quantize.embedding.weight": (words, latent)}
    shapes |= convolution("quant_conv", latent, latent, 1)
    return shapes | convolution("post_quant_conv", latent, latent, 1)


def random_state(words: int = 32, ch: int = 32) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = published(words, ch, 16)
    state = {name: 0.05 * torch.randn(shape) for name, shape in shapes.items()}
    return state | {"loss.perceptual_loss.lin0.model.1.weight": torch.ones(1, 64, 1, 1)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vqgan") / "last.ckpt"
    torch.save({"state_dict": random_state(), "global_step": 7, "epoch": 1, "lr": None}, path)
    return path


@pytest.mark.parametrize("words", [1024, 16384])
def test_names_and_shapes_are_those_of_the_published_models(words: int) -> None:
    shapes = published(words)
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        config = read_config(state)
        assert config == TamingConfig()
        networks: list[nn.Module] = [TamingEncoder(config), TamingDecoder(config)]
    ours = {n: tuple(t.shape) for net in networks for n, t in net.state_dict().items()}
    del shapes["quantize.embedding.weight"]
    assert ours == shapes


def test_layers_compute_what_their_formulas_say() -> None:
    """Against plain arithmetic: normalisation, swish, attention, and where strides begin."""
    from codec.taming import AttnBlock, Downsample, ResnetBlock

    torch.manual_seed(1)
    x = torch.randn(1, 64, 6, 5)
    attn, res, down = AttnBlock(64), ResnetBlock(64, 32), Downsample(64)
    with torch.no_grad():
        groups = x.view(32, -1)
        mean, var = groups.mean(1, keepdim=True), groups.var(1, keepdim=True, unbiased=False)
        plain = ((groups - mean) / (var + 1e-6).sqrt()).view_as(x)
        torch.testing.assert_close(attn.norm(x), plain, rtol=1e-4, atol=1e-5)
        q, k, v = (f(plain).view(64, 30) for f in (attn.q, attn.k, attn.v))
        weights = torch.softmax(q.t() @ k / 8, dim=1)  # 8 = sqrt(64)
        expected = x + attn.proj_out((v @ weights.t()).view_as(x))
        torch.testing.assert_close(attn(x), expected, rtol=1e-4, atol=1e-5)
        y = res.conv1(plain * torch.sigmoid(plain))
        y = res.norm2(y)
        expected = res.nin_shortcut(x) + res.conv2(y * torch.sigmoid(y))
        torch.testing.assert_close(res(x), expected, rtol=1e-4, atol=1e-5)
        corner = (x[0, :, :3, :3] * down.conv.weight[5]).sum() + down.conv.bias[5]
        torch.testing.assert_close(down(x)[0, 5, 0, 0], corner, rtol=1e-4, atol=1e-5)
        assert down(x).shape == (1, 64, 3, 2)


def test_an_imported_model_codes_images(
    cli: Cli, checkpoint: Path, photo: Path, tmp_path: Path
) -> None:
    done = cli("model", "import", checkpoint, "-o", "vq", "--images", photo, "--json")
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert about["levels"] == [8, 16, 32]
    assert about["ignored"] == ["epoch", "global_step", "lr", "loss.*"]
    assert [line.split()[2] for line in about["to_train"]] == ["inpainter", "context"]
    model = Model.load(Path("vq"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    tokens = model.encode(pixels, 32)
    assert tokens.shape == (3, 4)
    assert np.array_equal(model.ladder.shrink(torch.from_numpy(tokens), 8), model.encode(pixels, 8))
    state = random_state()
    words = state["quantize.embedding.weight"].numpy()
    assert np.array_equal(model.codewords(32), words)
    codec = ImageCodec(model)
    restored = codec.decode(codec.encode(pixels, 16, "static").file)
    assert np.array_equal(restored.image, model.decode(model.encode(pixels, 16), 16, 40, 56))
    with pytest.raises(ModelError, match="no inpainter"):
        model.inpaint(tokens, np.zeros(tokens.shape, bool), 32)
    done = cli("codec", "encode", photo, "--model", "vq", "--codebook", 32, "-o", "a.tok")
    assert done.exit_code == 0, done.output
    done = cli(
        "codec",
        "encode",
        photo,
        "--model",
        "vq",
        "--entropy",
        "context",
        "-o",
        "b.tok",
        "--codebook",
        32,
    )
    assert done.exit_code == 2 and "context" in done.stderr
    shown = json.loads(cli("model", "show", "vq", "--json").stdout)
    assert shown["kind"] == "taming" and shown["to_train"] == ["inpainter", "context"]
    assert shown["files"][0]["about"]["source"]["usage_images"] == 1
    assert [row["codebook"] for row in shown["levels"]] == [8, 16, 32]
    assert "not trained yet" in cli("model", "show", "vq").stdout
    listed = cli("model", "list", ".")
    assert "shipped" in listed.stdout and "vq: " in listed.stdout, listed.output
    again = cli("model", "import", checkpoint, "-o", "vq")
    assert again.exit_code == 2 and "--force" in again.stderr


class Foreign:
    """Stands for what Lightning pickles beside the weights."""

    def __init__(self) -> None:
        self.best = 1


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch ran",)


class Sneaky:
    def __reduce__(self) -> tuple[Any, tuple[list[str]]]:
        return subprocess.check_call, (["touch", "ran"],)


def test_foreign_objects_are_read_as_nothing_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = random_state()
    torch.save({"state_dict": state, "callbacks": {Foreign: Foreign()}}, "odd.ckpt")
    assert len(read_checkpoint(Path("odd.ckpt")).codewords) == 32
    for bad in (Evil(), Sneaky()):
        torch.save({"state_dict": state, "hyper_parameters": bad}, "evil.ckpt")
        try:
            read_checkpoint(Path("evil.ckpt"))
        except ModelError as error:
            assert "safely" in str(error)
        assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda s: s.pop("quant_conv.bias"), "lacks quant_conv.bias"),
        (lambda s: s.update({"decoder.tanh": torch.ones(1)}), "unknown decoder.tanh"),
        (
            lambda s: s.update({"quant_conv.bias": torch.ones(3)}),
            r"quant_conv.bias: \(3,\) instead of \(16,\)",
        ),
        (lambda s: s.pop("quantize.embedding.weight"), "not those of a taming"),
        (lambda s: s.update({"quantize.embedding.weight": torch.ones(12, 16)}), "power of two"),
        (lambda s: s.clear(), "not those of a taming"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], part: str
) -> None:
    state = random_state()
    change(state)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(ModelError, match=part) as caught:
        read_checkpoint(tmp_path / "a.ckpt")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(cli: Cli, tmp_path: Path) -> None:
    Path("text.ckpt").write_text("no checkpoint")
    Path("empty.ckpt").write_bytes(b"")
    Path("list.ckpt").write_bytes(pickle.dumps([1, 2]))
    torch.save([1], "torch.ckpt")
    for name in ("text.ckpt", "empty.ckpt", "list.ckpt", "torch.ckpt", "none.ckpt"):
        done = cli("model", "import", name, "-o", "out")
        assert done.exit_code == 2 and done.stderr.startswith(name), done.output
        assert done.stderr.count("\n") == 1 and not Path("out").exists()
