"""Whatever is read or typed: it works, or it is refused in a line or two, and nothing lies about.

Everything is a mutation of something that works, of a fixed seed, so a failure comes again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codec.taming import TamingConfig, TamingDecoder, TamingEncoder

pytestmark = pytest.mark.slow

SCENARIO = """\
# Question: what is lost?
name: small
images: [photo.png]
codec: {codebook: 8, model: random}
stream: {slices: 4, fps: 2.0, playout_delay_s: 1.0, fec: {data: 4, parity: 1}}
channel: {loss: {type: gilbert_elliott, loss: 0.2, mean_burst: 5}, link: {delay_s: 0.02}}
transport: virtual
concealers: [none, nearest]
sweep: {channel.loss.loss: [0.1, 0.2]}
seed: 7
"""
JUNK = (
    *(
        "",
        "-",
        "~",
        "nan",
        "1e999",
        "-1",
        "0x7f",
        "9" * 5000,
        "[",
        "]",
        "{",
        "}}",
        ": ",
        "&a ",
        "*a",
    ),
    *(
        "!!int ",
        "\n",
        "\t",
        "\0",
        "\ufeff",
        "\udce9",
        "日本",
        "🎉",
        "$5_{",
        "[red]",
        "[/x]",
        "../" * 9,
    ),
    *(
        "x" * 300,
        "<<: ",
        "'",
        '"',
        "#",
        "%YAML 9.9\n",
        "---\n",
        "é",
        "\x1b[31m",
        ",",
        ";",
        "=",
        "²",
    ),
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut, doubled or put in."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 1, 4, 30, 400)))
        what = rng.randrange(5)
        junk = rng.choice(JUNK).encode("utf-8", "surrogateescape")
        if what == 0:
            data = data[:at] + junk + data[at:]
        elif what == 1:
            data = data[:at] + data[to:]
        elif what == 2:
            data = data[:to] + data[at:to] * rng.choice((1, 3)) + data[to:]
        elif what == 3:
            data = data[:at] + rng.randbytes(to - at) + data[to:]
        else:
            data = data[:at] + junk + data[to:]
    return data


def words(line: str) -> Callable[[random.Random], Sequence[str]]:
    """A command line, some of its words changed."""

    def typed(rng: random.Random) -> Sequence[str]:
        found = line.split()
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(1, len(found) + 1)
            word = rng.choice(found)
            changed = mutated(word.encode("utf-8", "surrogateescape"), rng).decode(
                "utf-8", "surrogateescape"
            )
            new = rng.choice((rng.choice(JUNK), word, changed)).replace("\0", "")
            found[at : at + rng.randrange(2)] = [new]
        return found

    return typed


@pytest.fixture
def good(cli: Callable[..., object]) -> dict[str, bytes]:
    """What works, by name."""
    Image.fromarray(np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)).save("photo.png")
    for ending in ("jpg", "webp", "gif", "tif", "avif"):
        Image.open("photo.png").convert("RGB").save(f"photo.{ending}")
    mask = np.random.default_rng(1).random(300) < 0.2
    np.save("mask.npy", mask)
    np.save("sequence.npy", np.flatnonzero(~mask) % 64)
    Path("mask.txt").write_text("".join("01"[int(lost)] for lost in mask))
    Path("mask.csv").write_text(
        "time,lost\n" + "".join(f"{n},{int(v)}\n" for n, v in enumerate(mask))
    )
    Path("sequence.csv").write_text("seq\n" + "".join(f"{n % 64}\n" for n in np.flatnonzero(~mask)))
    Path("link.trace").write_text("1\n2\n5\n9\n")
    Path("link.yaml").write_text("link: {capacity: link.trace, queue_packets: 9}\n")
    Path("small.yaml").write_text(SCENARIO)
    torch.manual_seed(0)
    config = TamingConfig(
        channels=32,
        multipliers=(1, 1, 1, 1, 1),
        depth=1,
        attention=(4,),
        latent_dim=8,
        z_channels=8,
    )
    state = {**TamingEncoder(config).state_dict(), **TamingDecoder(config).state_dict()}
    state["quantize.embedding.weight"] = torch.randn(8, 8)
    torch.save({"state_dict": state}, "vqgan.ckpt")
    torch.save({"state_dict": state}, "old.ckpt", _use_new_zipfile_serialization=False)
    cli("codec", "encode", "photo.png", "-o", "photo.tok", "--codebook", 8, "--model", "random")
    return {path.name: path.read_bytes() for path in Path().iterdir()}


COMMANDS = [
    "channel describe gilbert_elliott:loss=0.2,mean_burst=5 -n 10000 --seed 3 --json",
    "channel describe small.yaml -n 10000",
    "channel sample uniform:loss=0.1 -n 100 -o out.npy",
    "channel fit mask.csv --models uniform,gilbert --bits 8 -o out.yaml",
    "codec encode photo.png -o out.tok --codebook 8 --slices 2 --model random",
    "codec decode photo.tok -o out.png --concealer nearest --model random",
    "scenarios burst20 --json",
    "new mine --from small.yaml",
    "run small.yaml --set sweep={} --set concealers=[] --seed 4 --out out",
    "repeats small.yaml --within 0.1 --metric psnr_db",
    "report small.yaml -o out.html",
    "keys out",
    "model show out --json",
]


def cases(rng: random.Random, good: dict[str, bytes]) -> Iterator[tuple[str | None, Sequence[str]]]:
    """For ever: the file to mutate, if any, and the command line."""
    decode = ("codec", "decode", "photo.tok", "-o", "out.png", "--model", "random")
    for number in count():
        share = number % 20
        if share < 7:
            name = "link.yaml" if share == 6 else "small.yaml"
            yield name, ("channel", "describe", name, "-n", "10000")
        elif share < 12:
            name = rng.choice(["mask.npy", "sequence.npy", "mask.txt", "mask.csv", "sequence.csv"])
            yield name, ("channel", "fit", name, "--models", "uniform")
        elif share < 15:
            name = rng.choice(
                [n for n in sorted(good) if n.startswith("photo.") and n[-3:] != "tok"]
            )
            yield (
                name,
                ("codec", "encode", name, "-o", "out.tok", "--codebook", "8", "--model", "random"),
            )
        elif share == 15:
            yield "photo.tok", decode
        elif share == 16:
            name = rng.choice(["vqgan.ckpt", "old.ckpt"])
            yield name, ("model", "import", name, "-o", "out")
        else:
            yield None, words(rng.choice(COMMANDS))(rng)


def test_two_thousand_mutations(cli: Callable[..., object], good: dict[str, bytes]) -> None:
    rng = random.Random(22)
    for number, (name, command) in zip(range(2000), cases(rng, good), strict=False):
        if name is not None:
            Path(name).write_bytes(mutated(good[name], rng))
        before = {path.name for path in Path().iterdir()}
        result = cli(*command)
        about = f"case {number}: {name} {ascii(command)[:300]}\n{result.output[-2000:]}"
        about += f"\n{result.exception!r}"
        assert result.exit_code in (0, 2), about
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        assert len(lines) <= 3 and "Traceback" not in result.stderr, about
        made = {path.name for path in Path().iterdir()} - before
        assert not made or result.exit_code == 0, about
        assert not [path for path in Path().rglob(".*") if path.name not in before], about
        for path in map(Path, made):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for other in good:
            if other == name or not Path(other).exists():
                Path(other).write_bytes(good[other])
