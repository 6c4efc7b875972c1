"""Speed of coding a 768x512 image, as shares of the same networks' bare forward passes.

    python -m benchmarks.codec [--rounds 5] [--codebook 1024] [--model FOLDER] [--json]

share     time of one pass of the encoder and one of the decoder, on tensors that are ready, over
          that of image -> file -> image: what tokenizing, entropy coding, packets and pixels leave
          of the networks' speed; goal: at least 85%. context/5 is a file of five packets, as
          streams have them, whose tokens are decoded in step
against   VVC (libvvenc, medium) at the largest quality within the same bytes: its encoding alone,
VVC       in ours; both ways of ours are counted
search    what 16 steps of the search for better tokens take (`codec.search`), and VVC's encoding
          as a share of it: both look for what looks best

Times are processor time, children's included, the best of several rounds in which all take turns.
The image is a shipped photograph, cropped and enlarged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from codec.codebook import log2_sizes
from codec.model import Model
from codec.perceptual import FeaturesMissing, check_features
from codec.tokenizer import STRIDE
from sim.baselines import RateSearch, find_baselines
from sim.media.images import load_images
from sim.media.token_file import ImageCodec

WIDTH, HEIGHT = 768, 512
SEARCH_STEPS = 16
PACKETS = 5


def processor_s() -> float:
    """Seconds that this process and its finished children have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def best_times(rounds: int, actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least processor time of each action, in seconds."""
    best = dict.fromkeys(actions, math.inf)
    for _ in range(rounds):
        for name, action in actions.items():
            start = processor_s()
            action()
            best[name] = min(best[name], processor_s() - start)
    return best


def measure(model: Model, codebook: int, rounds: int) -> dict[str, Any]:
    """All times and ratios."""
    photo = load_images(["samples"], Path.cwd())[0].pixels
    pixels = np.asarray(Image.fromarray(photo).resize((WIDTH, HEIGHT)))
    codec = ImageCodec(model)
    images = torch.zeros(1, 3, HEIGHT, WIDTH).contiguous(memory_format=torch.channels_last)
    dim = model.codewords(codebook).shape[1]
    words = torch.zeros(1, dim, HEIGHT // STRIDE, WIDTH // STRIDE)

    level_bits = log2_sizes(codebook)

    def bare() -> None:
        with torch.inference_mode():
            model.encoder(images, level_bits)
            model.decoder(words)

    modes: dict[str, tuple[str, int]] = {"fixed": ("fixed", 1), "static": ("static", 1)}
    if model.context is not None:
        modes |= {"context": ("context", 1), f"context/{PACKETS}": ("context", PACKETS)}
    files = {mode: codec.encode(pixels, codebook, *how).file for mode, how in modes.items()}
    actions: dict[str, Callable[[], object]] = {"bare": bare}
    for mode, how in modes.items():
        actions[f"encode {mode}"] = lambda how=how: codec.encode(pixels, codebook, *how)
        actions[f"decode {mode}"] = lambda mode=mode: codec.decode(files[mode])
    with contextlib.suppress(FeaturesMissing):
        check_features()
        actions["search"] = lambda: model.encode(pixels, codebook, search=SEARCH_STEPS)
    found, notes = find_baselines(("vvc",))
    if "vvc" in found:
        setting = RateSearch(found["vvc"], pixels).at_most(len(files["static"])) or 0
        actions["vvc encode"] = lambda: found["vvc"].encode(pixels, setting)
    times = best_times(rounds, actions)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "seconds": times, "modes": {}}
    for mode in modes:
        both = times[f"encode {mode}"] + times[f"decode {mode}"]
        result["modes"][mode] = {
            "bytes": len(files[mode]),
            "share": times["bare"] / both,
            "megapixels_per_s": WIDTH * HEIGHT / 1e6 / both,
        }
        if "vvc encode" in times:
            result["modes"][mode]["vvc_encode_over_ours"] = times["vvc encode"] / both
    return result | ({} if "vvc" in found else {"skipped": notes})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--codebook", type=int, default=1024)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(Model.load(options.model), options.codebook, options.rounds)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    seconds = result["seconds"]
    print(f"{WIDTH}x{HEIGHT}, K={options.codebook}, {result['threads']} threads, processor time")
    print(f"bare encoder + decoder  {seconds['bare']:.3f} s")
    for mode, row in result["modes"].items():
        parts = f"{seconds[f'encode {mode}']:.3f} + {seconds[f'decode {mode}']:.3f} s"
        vvc = row.get("vvc_encode_over_ours")
        against = "" if vvc is None else f"; VVC's encoder takes {vvc:.2f} times that"
        print(f"{mode:9} {row['bytes']:5} bytes  {parts}  share {row['share']:.0%}{against}")
    if "search" in seconds:
        vvc = seconds.get("vvc encode")
        share = "" if vvc is None else f"; VVC's encoder takes {vvc / seconds['search']:.2f} of it"
        print(f"search of {SEARCH_STEPS} steps  {seconds['search']:.3f} s{share}")
    for name, why in result.get("skipped", {}).items():
        print(f"skipped {name}: {why}")


if __name__ == "__main__":
    main()
