"""What entropy coding saves, and what dispersing tokens over packets costs it.

Images are tokenized at every level and cut into slices by every interleaver; the bytes of the
slices are counted, headers left out. A slice is coded alone, so the coder of a dispersed slice sees
few near neighbours of a token: what makes losses easy to repair makes tokens dear.

    bits.csv        one row per level, interleaver, number of slices and entropy mode
    manifest.json   what was measured, with which weights
    figures/        drawn from the table
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codec.entropy import ENTROPY_MODES, CoderFor
from sim.errors import os_errors
from sim.figures.style import drawing
from sim.media.images import LoadedImage
from sim.media.token_file import ImageCodec
from sim.progress import ProgressCallback, no_progress
from sim.protocol.config import StreamConfig
from sim.protocol.interleaver import INTERLEAVERS
from sim.protocol.packet import MAX_DATAGRAM_BYTES
from sim.protocol.packetizer import Packetizer
from sim.results.files import CODEC_BITS, FIGURES, MANIFEST, check_target, write_json, write_table
from sim.version import __version__

BITS = "bits.csv"


class BitCount(NamedTuple):
    """What the payloads of one image take, headers left out.

    Attributes:
        slices: asked for; `packets` are how many it became.
    """

    entropy: str
    slices: int
    interleaver: str
    bits: int
    packets: int


def measure_bits(
    codec: ImageCodec,
    image: LoadedImage,
    tokens: NDArray[np.int64],
    level: int,
    slices: Sequence[int],
) -> Iterator[BitCount]:
    """One image's tokens, int64[h,w], cut by every interleaver and coded in every mode that the
    model has a coder for."""
    for count, interleaver, entropy in product(
        slices, INTERLEAVERS, entropy_modes(codec.coders(level), level)
    ):
        config = StreamConfig(
            codebook_size=level,
            entropy=entropy,
            slices=count,
            interleaver=interleaver,
            mtu=MAX_DATAGRAM_BYTES,
        )
        packetizer = Packetizer(config, codec.coders(level))
        _, payloads = packetizer.payloads(tokens, image.width, image.height)
        bits = 8 * sum(map(len, payloads))
        yield BitCount(entropy, count, interleaver, bits, len(payloads))


def entropy_modes(coders: CoderFor, level: int) -> tuple[str, ...]:
    """Those that there are coders for."""
    found = []
    for mode, name in enumerate(ENTROPY_MODES):
        with contextlib.suppress(LookupError):
            coders(mode, level)
            found.append(name)
    return tuple(found)


def bits_study(
    codec: ImageCodec,
    images: Sequence[LoadedImage],
    levels: Sequence[int],
    slices: Sequence[int],
    out: Path,
    progress: ProgressCallback = no_progress,
) -> list[dict[str, Any]]:
    """Measure, write the folder `out`, figure included; returns the rows of the table.

    Args:
        codec: the model; a model without context tables is measured without that mode.
        images: whose tokens are coded.
        levels: codebook sizes.
        slices: numbers of packets per image.
        out: the folder.
        progress: told how far it is.

    Raises:
        UserError: the folder cannot be written or holds something else, or a level that the model
            lacks.
    """
    check_target(out, CODEC_BITS)
    for level in levels:
        codec.check(level, "static")
    sums: dict[tuple[int, str, int, str], list[int]] = {}
    for number, image in enumerate(images):
        for place, level in enumerate(levels):
            progress(
                number * len(levels) + place, len(images) * len(levels), f"{image.name} {level}"
            )
            tokens = codec.model.encode(image.pixels, level)
            for found in measure_bits(codec, image, tokens, level, slices):
                key = level, found.interleaver, found.slices, found.entropy
                total = sums.setdefault(key, [0, 0, 0])
                for at, count in enumerate((found.bits, tokens.size, found.packets)):
                    total[at] += count
    rows = [
        {
            "codebook": level,
            "interleaver": interleaver,
            "slices": count,
            "tokens_per_slice": tokens / packets,
            "entropy": mode,
            "bits_per_token": bits / tokens,
            "saved": 1 - bits / tokens / (level.bit_length() - 1),
        }
        for (level, interleaver, count, mode), (bits, tokens, packets) in sums.items()
    ]
    with os_errors(out, "cannot write results here"):
        (out / FIGURES).mkdir(parents=True, exist_ok=True)
        write_table(out / BITS, rows)
        write_json(
            out / MANIFEST,
            {
                "kind": CODEC_BITS,
                "images": [image.name for image in images],
                "levels": list(levels),
                "slices": list(slices),
                "weights_fingerprint": codec.model.fingerprint,
                "version": __version__,
            },
        )
        draw_bits(rows, len(images), out / FIGURES / "bits.png")
    return rows


@drawing()
def draw_bits(rows: Sequence[Mapping[str, Any]], images: int, path: Path) -> None:
    """Share of log2 K that each mode writes, against K; a panel per number of slices."""
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(row["slices"] for row in rows))
    figure = Figure(figsize=(3.6 * len(counts) + 1, 3.8), layout="constrained")
    all_axes = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    colours = dict(zip(INTERLEAVERS, ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True))
    for axes, count in zip(all_axes, counts, strict=True):
        here = [row for row in rows if row["slices"] == count]
        for interleaver, colour in colours.items():
            for mode, line in (("static", ":"), ("context", "-")):
                points = sorted(
                    (row["codebook"], 100 * (1 - row["saved"]))
                    for row in here
                    if row["interleaver"] == interleaver and row["entropy"] == mode
                )
                if points and (mode == "context" or interleaver == "raster"):
                    axes.plot(
                        *zip(*points, strict=True),
                        line,
                        color="#666666" if mode == "static" else colour,
                        label=mode if mode == "static" else f"context, {interleaver}",
                        marker=".",
                    )
        axes.axhline(100, color="black", linewidth=0.8)
        axes.axhline(80, color="black", linewidth=0.5, linestyle="--")
        axes.set_xscale("log", base=2)
        levels = sorted({row["codebook"] for row in rows})
        axes.set_xticks(levels, [str(level) for level in levels], fontsize=7)
        axes.minorticks_off()
        tokens = np.mean([row["tokens_per_slice"] for row in here])
        axes.set_title(f"{count} slice{'s' * (count > 1)} of {tokens:.0f} tokens", fontsize=9)
        axes.set_xlabel("codebook size K")
        axes.grid(alpha=0.25)
    all_axes[0].set_ylabel("bits per token, % of log2 K")
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    title = f"Entropy coding of {images} image{'s' * (images > 1)}, headers left out"
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=150, metadata={"Software": None})
