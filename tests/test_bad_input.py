"""Mistakes: each is told in one clear line, exits with code 2, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from codec.checkpoint import ModelError, load_weights, save_weights
from codec.training.data import PhotoDataset

Cli = Callable[..., Any]

GOOD = """\
name: test
images: [../photo.png]
channel: {type: gilbert_elliott, loss: 0.2, mean_burst: 5}
transport: virtual
"""


def scenario(text: str) -> Path:
    """A scenario file in the working directory."""
    path = Path("test.yaml")
    path.write_text(text)
    return path


def everything() -> list[tuple[Path, bytes]]:
    """Every file below the test's folder, with its content, and every folder."""
    found = sorted(Path("..").rglob("*"))
    return [(path, path.read_bytes() if path.is_file() else b"") for path in found]


def refused(cli: Cli, *arguments: object) -> str:
    """The one line that a command answers with."""
    before = everything()
    result = cli(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert everything() == before, "something was written"
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return str(lines[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sede: 1\n", "test.yaml:1: sede: unknown key; did you mean seed?"),
        ("seed: 1\nstream:\n  slice: 8\n", "test.yaml:3: stream.slice: unknown key; did you mean"),
        ("codec: {codebok: 8}\n", "test.yaml:1: codec.codebok: unknown key; did you mean codebook"),
        ("codec:\n  codebook: 1000\n", "test.yaml:2: codec.codebook: must be one of 8, 16, 32"),
        (
            "codec: {entropy: huffman}\n",
            "codec.entropy: must be one of fixed, static, context; got",
        ),
        ("stream: {interleaver: none}\n", "must be one of raster, checkerboard, low_discrepancy"),
        (
            "concealers: [none, magic]\n",
            "concealers[1]: must be one of none, most_frequent, nearest",
        ),
        ("concealers: [none, none]\n", "concealers: names one concealer twice"),
        ("metrics: [ssim, ssim]\n", "metrics: names one metric twice"),
        ("metrics: [vmaf]\n", "metrics[0]: must be one of psnr_db, ssim"),
        ("metrics: [ssim]\nuntil: {ci: 1}\n", "until.metric psnr_db is not among the metrics"),
        ("transport: tcp\n", "transport: must be one of zeromq, udp, virtual; got 'tcp'"),
        ("\nchannel: {type: uniform, loss: 1.5}\n", "test.yaml:2: channel.loss: is a probability"),
        ("channel:\n  type: uniform\n", "test.yaml:1: channel.loss: is missing"),
        (
            "channel:\n  type: bursty\n",
            "test.yaml:2: channel.type: 'bursty' is unknown; choose one",
        ),
        ("channel: {type: uniform, loss: .1, p: 1}\n", "channel.p: is not a parameter of uniform"),
        (
            "channel:\n  type: gilbert_elliott\n  loss: 0.9\n  mean_burst: 5\n",
            "test.yaml:4: channel.mean_burst: of 5 cannot give a loss of 0.9",
        ),
        ("repeats: 0\n", "repeats: input should be greater than or equal to 1, got 0"),
        ("seed: 1.5\n", "seed: input should be a valid integer"),
        ("seed: yes\n", "seed: input should be a valid integer"),
        ("stream: {fps: .inf}\n", "stream.fps: input should be a finite number"),
        ("stream:\n  fec: {parity: 2}\n", "test.yaml:2: stream.fec.data: is missing"),
        ("stream: {fec: {data: 9, parity: 2, dept: 3}}\n", "fec.dept: unknown key; did you mean"),
        ("stream: {fec: {data: 250, parity: 6}}\n", "stream.fec.parity: 250 data + 6 parity"),
        ("stream: {fec: {data: 32, parity: 4, depth: 9}}\n", "stream.fec.depth: 9 x 32 packets"),
        ("stream: {fec: {data: 8, parity: 2, code: rs}}\n", "stream.fec.code: must be one of"),
        ("stream: {arq: {delay_s: 1.0}}\n", "stream.arq.delay_s: of 1 s: no retransmission can"),
        ("stream: {packing: 9}\n", "stream.packing: a pack of 9 images leaves 4 s after its"),
        (
            "stream: {fec: {data: 8, parity: 2}}\nsweep: {stream.fec.parity: [0, 300]}\n",
            "sweep.stream.fec.parity[1]: stream.fec.parity: input should",
        ),
        ("stream: {fps: 1000, playout_delay_s: 3600}\n", "stream.playout_delay_s: "),
        ("name: ../escape\n", "name: must start with a letter or digit"),
        ("images: []\n", "images: list should have at least 1 item"),
        ("seed: 1\nseed: 2\n", 'test.yaml:2: found duplicate key "seed"'),
        ("seed: [1\n", "test.yaml:"),
        ("- seed\n", "test.yaml:1: a scenario is a mapping"),
        ("", "test.yaml:1: a scenario is a mapping"),
        ("sweep: {seed: [1, 2]}\n", "sweep.seed: only keys of channel, codec"),
        ("sweep: {stream.slices: []}\n", "sweep.stream.slices: has no values"),
        (
            "sweep:\n  stream.slices: [8, 0]\n",
            "sweep.stream.slices[1]: stream.slices: input should",
        ),
        ("stream: {mtu: 99}\nsweep:\n  stream.mtu.x: [8]\n", "test.yaml:2: sweep: mtu is not a"),
    ],
)
def test_scenario_mistakes(cli: Cli, text: str, expected: str) -> None:
    assert expected in refused(cli, "run", scenario(text))


def test_every_mistake_of_a_file_is_told(cli: Cli) -> None:
    text = "codec: {codebook: 9}\nstream: {slices: 0, fsp: 2}\nchannel: {type: uniform, loss: 2}\n"
    found = cli("run", scenario(text))
    assert found.exit_code == 2
    lines = found.stderr.splitlines()
    starts = ("1: codec.codebook", "2: stream.slices", "2: stream.fsp", "3: channel.loss")
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"test.yaml:{start}")
    assert "and 3 more" in lines[0], "for those who see one line"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("channel.loss=1.5", "--set channel.loss: is a probability and must lie in"),
        ("channel.loss", "--set channel.loss: write key=value"),
        ("=3", "--set =3: write key=value"),
        ("seed=[", "--set seed=[: the value is not YAML ("),
        ("seed.low=3", "--set seed.low: seed is not a section"),
        ("sead=3", "--set sead: unknown key; did you mean seed?"),
    ],
)
def test_override_mistakes(cli: Cli, override: str, expected: str) -> None:
    path = scenario(GOOD + "seed: 1\n")
    assert expected in refused(cli, "run", path, "--set", override)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
            + "\n".join(
                f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]"
                for old, new in pairwise("abcdefghij")
            ),
            "holds more than 100,000 values",
        ),
        ("channel: " + "{a: " * 90 + "1" + "}" * 90, "nested more than 40 levels deep"),
        ("channel: " + "[" * 3000, "nested more than"),
        ("channel: &c [*c]\n", "channel: "),
        ("seed: 0x" + "f" * 5000, "a number of more than 300 digits"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("name: !!timestamp x\n", ""),
        ("seed: !!int x\n", ""),
        ("channel: {type: trace, path: 20240102}\n", "path: must be the path of a file"),
        ("channel: {type: any, of: 3}\n", "of: must be a list"),
        ("channel: {link: {jitter: {type: empirical, samples_s: 0.1}}}\n", "must be a list"),
        ("channel: {type: uniform, loss: 1" + "0" * 290 + "}\n", "channel.loss: is a probability"),
        ("images: ['a\\0b']\n", ""),
        ('images: ["' + "x" * 5000 + '"]\n', "too long"),
    ],
)
def test_files_that_would_break_the_reader(cli: Cli, text: str, says: str) -> None:
    told = refused(cli, "run", scenario(text))
    assert says in told and len(told) <= 380


def test_what_is_not_weights_is_called_so(cli: Cli) -> None:
    for name, content, says in (
        ("a.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("b.ckpt", b"404: Not Found\n", "a text file"),
        ("c.safetensors", b"<html>\n" * 99, "a text file"),
        ("d.ckpt", b"PK\3\4" + bytes(range(256)) * 9, "not a checkpoint that can be read safely"),
        ("e.ckpt", b"\x80\x02cposix\nsystem\n(X\2\0\0\0lstR.", "not a checkpoint"),
    ):
        Path(name).write_bytes(content)
        told = refused(cli, "model", "import", name, "-o", "out")
        assert says in told and "torch.load" not in told


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    words = torch.ones(3, 4)
    words[1, 2] = value
    save_weights(tmp_path / "a.safetensors", {}, {"words": words})
    with pytest.raises(ModelError, match="words holds values that are not finite"):
        load_weights(tmp_path / "a.safetensors")


def test_missing_or_unreadable_scenario(cli: Cli, tmp_path: Path) -> None:
    assert "no such scenario file" in refused(cli, "run", "nowhere.yaml")
    assert "is a folder" in refused(cli, "run", tmp_path)
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(cli, "run", "binary.yaml")


def test_seed_out_of_range(cli: Cli) -> None:
    assert "'--seed'" in refused(cli, "run", scenario(GOOD), "--seed", -1)


def make_unusable(name: str) -> None:
    """One image, or what stands where one should, that cannot be used."""
    path = Path(name)
    if name in ("empty-folder", "folder.png"):
        path.mkdir()
    elif name == "text.png":
        path.write_text("this is no picture")
    elif name == "cut.png":
        Image.new("RGB", (64, 64)).save(path)
        path.write_bytes(path.read_bytes()[:-40])
    elif name == "16-bit.png":
        Image.new("I;16", (32, 32)).save(path)
    elif name[0].isdigit():
        width, height = map(int, path.stem.split("x"))
        Image.new("1", (width, height)).save(path, compress_level=1)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("missing.png", "missing.png: no such image"),
        ("empty-folder", "empty-folder: no images in this folder"),
        ("folder.png", "folder.png: no images in this folder"),
        ("none-*.png", "none-*.png: no image matches this pattern"),
        ("text.png", "text.png: not an image in a format that can be read"),
        ("cut.png", "cut.png: corrupt image"),
        ("1x1.png", "1x1.png: 1 x 1 pixels is too small: each side must be at least 16"),
        ("20000x20000.png", "20000x20000.png: too large: each side must be at most 8,192"),
        ("8193x16.png", "8193 x 16 pixels is too large: each side must be at most 8,192"),
        ("8100x8100.png", "8100 x 8100 pixels is too large: at most 64,000,000"),
        ("16-bit.png", "16-bit.png: pixel format I;16 is not supported"),
    ],
)
def test_unusable_images(cli: Cli, source: str, expected: str) -> None:
    make_unusable(source)
    path = scenario(GOOD.replace("../photo.png", source))
    assert expected in refused(cli, "run", path)


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    from sim.errors import UserError
    from sim.media.images import load_image

    with pytest.raises(UserError, match="is a folder, not an image"):
        load_image(tmp_path)


@pytest.mark.usefixtures("photo")
def test_unwritable_output(cli: Cli) -> None:
    path = scenario(GOOD + "codec: {model: random}\n")
    Path("file").write_text("mine")
    assert "is a file" in refused(cli, "run", path, "--out", "file")
    assert "cannot write results here" in refused(cli, "run", path, "--out", "file/below")
    assert "cannot write results here" in refused(cli, "run", path, "--out", "/proc/run")
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("mine")
    assert "holds no run; choose another" in refused(cli, "run", path, "--out", "full")


@pytest.mark.usefixtures("photo")
def test_packets_that_do_not_fit(cli: Cli) -> None:
    path = scenario(GOOD + "stream: {slices: 1, mtu: 64}\ncodec: {codebook: 2048, model: random}\n")
    Image.new("RGB", (160, 160)).save("../photo.png")
    assert "mtu" in refused(cli, "run", path, "--set", "codec.entropy=fixed")


@pytest.mark.usefixtures("photo")
def test_unusable_weights(cli: Cli) -> None:
    from codec.checkpoint import save_weights

    path = scenario(GOOD)
    choose = ("--set", "codec.model=weights")
    assert "no such weights file" in refused(cli, "run", path, *choose)

    Path("weights").mkdir()
    file = Path("weights/tokenizer.safetensors")
    file.write_bytes(b"not tensors")
    assert "a text file, not weights" in refused(cli, "run", path, *choose)

    file.unlink()
    save_weights(file, {"network": {}}, {"encoder.weight": torch.ones(3)})
    with safe_open(file, "pt") as saved:
        about = saved.metadata()
    altered = {name: tensor + 1e-3 for name, tensor in load_file(file).items()}
    save_file(altered, file, about)
    assert "fingerprint mismatch" in refused(cli, "run", path, *choose)


def test_plot_of_something_else(cli: Cli) -> None:
    assert "holds no run" in refused(cli, "plot", "nowhere")
    Path("run").mkdir()
    Path("run/manifest.json").write_text('{"kind": "baselines"}')
    assert "run: holds no run (but: baselines)" in refused(cli, "plot", "run")
    Path("run/manifest.json").write_text('{"kind": "run"}')
    assert "run/summary.json: cannot be read" in refused(cli, "plot", "run")
    Path("run/summary.json").write_text("{")
    assert "not valid JSON" in refused(cli, "plot", "run")


@pytest.mark.usefixtures("photo")
def test_a_stream_that_could_not_be_written_is_not_taken(cli: Cli) -> None:
    path = scenario(GOOD)
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("mine")
    listening = ("receive", path, "--set", "codec.model=random", "--at", "tcp://127.0.0.1:*")
    found = cli(*listening, "--out", "full")
    assert found.exit_code == 2 and "holds no run; choose another" in found.stderr
    assert "did you mean burst20" in refused(cli, "demo", "burst02")


@pytest.mark.usefixtures("photo")
def test_dask_workers_stream_in_virtual_time(cli: Cli) -> None:
    path = scenario(GOOD.replace("virtual", "zeromq"))
    assert "--set transport=virtual" in refused(cli, "run", path, "--dask", "local")


def test_studies_of_what_cannot_be_studied(cli: Cli) -> None:
    from codec.model import PRETRAINED
    from codec.model_files import TOKENIZER_FILE

    Path("bare").mkdir()
    Path("bare", TOKENIZER_FILE).symlink_to(PRETRAINED / TOKENIZER_FILE)
    Image.new("RGB", (64, 64)).save("photo.png")
    study = ("study", "schedules", "--images", "photo.png", "--out", "s")
    assert "has no inpainter" in refused(cli, *study, "--model", "bare")
    assert "at least 16 pixels" in refused(cli, *study, "--model", "random", "--side", "8")


def test_photographs_that_cannot_be_trained_on(cli: Cli) -> None:
    Path("photos").mkdir()
    for number in range(9):
        Image.new("RGB", (300, 300)).save(f"photos/{number}.png")
    train = ("train", "calibrate", "--images", "photos", "--model", "nowhere")
    assert "holds no calibration" in refused(cli, *train, "--out", "photos")
    for write, expected in (
        (lambda path: path.write_bytes(b"no picture"), "photos/x.png: cannot be read"),
        (Image.new("I;16", (300, 300)).save, "photos/x.png: more than 8 bits"),
    ):
        write(Path("photos/x.png"))
        with pytest.raises(ValueError, match=expected):
            PhotoDataset(Path("photos"), min_side=256)
    whole = Path("photos/0.png").read_bytes()
    Path("photos/x.png").write_bytes(whole[: len(whole) // 2])
    photos = PhotoDataset(Path("photos"), min_side=256)
    with pytest.raises(ValueError, match=r"photos/x.png: cannot be read"):
        photos.photo(len(photos) - 1)
    with pytest.raises(ValueError, match=r"10 photos none held out .* 100 photos are needed"):
        PhotoDataset(Path("photos"), held_out=True, min_side=256)


def test_a_device_that_is_not_there(cli: Cli) -> None:
    encode = ("codec", "encode", "nothing.png", "-o", "x", "--model", "random")
    Image.new("RGB", (32, 32)).save("nothing.png")
    for command in (
        encode,
        ("train", "joint", "--images", "."),
        ("run", "burst20"),
        ("page",),
        ("demo", "burst20"),
        ("optimise", "burst20", "--bpp-wire", 0.1),
    ):
        assert "device 'gpu': choose one of auto, cpu" in refused(cli, *command, "--device", "gpu")
        assert "dtype 'half': choose one of" in refused(cli, *command, "--dtype", "half")
    assert not Path("x").exists() and not Path("results").exists()


def test_training_without_photographs(cli: Cli) -> None:
    assert "nowhere" in refused(cli, "train", "tokenizer", "--images", "nowhere")
