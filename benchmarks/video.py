"""Frames of 640x480 a second that one core sends and repairs, beside its networks alone.

    python -m benchmarks.video [--frames 8] [--rounds 3] [--model FOLDER] [--json]

stream    the clip that ships, enlarged: tokens of K=1024, 8 packets a frame, each lost with a
          probability of 20%, repaired and drawn, in virtual time, by the functions that `sim run`
          calls; "refresh" sends what changes (docs/video.md), with hysteresis
networks  on the same frames, on tensors that are ready: a pass of the encoder and one of the
          decoder each, and one of the inpainter over each grid that lacks tokens
share     frames a second of the stream over those of the networks; goal: at least 85%

Times are processor time on one thread, the least of several rounds in which all take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from codec.codebook import log2_sizes
from codec.model import Model
from sim.media.capture import Video, video_path
from sim.media.frames import Restorer, encode_images
from sim.media.images import LoadedImage
from sim.protocol.events import FrameReady
from sim.scenario.schema import Scenario
from sim.stream import CoderTables, StreamSetup, stream_frames

WIDTH, HEIGHT, FPS, CODEBOOK = 640, 480, 15, 1024
CONCEALERS = ("inpaint_memory", "inpaint")
SENT: dict[str, dict[str, dict[str, Any]]] = {
    "all": {"codec": {}, "stream": {}},
    "refresh": {"codec": {"hysteresis": 0.05}, "stream": {"refresh": 30}},
}


def pictures(count: int) -> list[LoadedImage]:
    """The first frames of the clip that ships, cut to 4:3 and enlarged."""
    clip = Video(video_path("samples/book", Path.cwd()), FPS, WIDTH, 0, count)
    found = []
    for image in clip.pictures():
        rows = image.width * HEIGHT // WIDTH
        top = (image.height - rows) // 2
        cut = Image.fromarray(image.pixels[top : top + rows]).resize((WIDTH, HEIGHT))
        found.append(LoadedImage(image.name, image.path, np.asarray(cut)))
    return found


def scenario(sent: str, concealer: str) -> Scenario:
    """What is streamed."""
    return Scenario.model_validate(
        {
            "name": "video",
            "video": {"file": "samples/book"},
            "codec": {"codebook": CODEBOOK, "entropy": "static", **SENT[sent]["codec"]},
            "stream": {"slices": 8, "fps": FPS, **SENT[sent]["stream"]},
            "channel": {"type": "uniform", "loss": 0.2},
            "transport": "virtual",
            "concealers": [concealer],
        }
    )


def stream(model: Model, images: Sequence[LoadedImage], point: Scenario) -> list[FrameReady]:
    """Send and repair the pictures; what came out of the receiver."""
    restorer = Restorer(model, point.concealers, point.decoding_options())
    frames = list(encode_images(model, images, *point.codec.tokenizer_key))
    setup = StreamSetup.of(point, CoderTables.of(model))
    return stream_frames(setup, frames, restorer.restore).frames


def bare(
    model: Model, images: Sequence[LoadedImage], ready: Sequence[FrameReady], concealer: str
) -> Callable[[], None]:
    """The networks' passes of a stream, on tensors made beforehand."""
    assert model.inpainter is not None
    inpainter, level = model.inpainter, log2_sizes(CODEBOOK)
    codewords, share = model.ladder.codewords(CODEBOOK), model.ladder.log_share(CODEBOOK)
    pixels = [
        torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None].float().div(127.5).sub(1)
        for image in images
    ]
    pixels = [each.contiguous(memory_format=torch.channels_last) for each in pixels]
    restorer, lost, drawn = Restorer(model, [concealer]), list[Any](), list[Tensor]()
    memory: Tensor | None = None
    for frame in ready:
        shown = restorer.conceal(frame)[concealer]
        mask = torch.from_numpy(frame.grid.received)
        if not frame.complete:
            tokens = torch.from_numpy(np.where(frame.grid.received, frame.grid.indices, 0))
            lost.append((codewords[tokens][None], mask[None], level, memory))
        drawn.append(torch.from_numpy(shown.codeword_vectors).permute(2, 0, 1)[None])
        if concealer == "inpaint_memory":
            sure = np.dstack([shown.codeword_vectors, shown.probability])
            memory = torch.from_numpy(sure)[None]

    def passes() -> None:
        with torch.inference_mode():
            for each in pixels:
                model.encoder(each, level)
            for given in lost:
                hidden = inpainter.hidden(*given)[~given[1]]
                inpainter.logits(hidden, codewords, share)
            for vectors in drawn:
                model.decoder(vectors)

    return passes


def measure(model: Model, count: int, rounds: int) -> list[dict[str, Any]]:
    """A row for everything that is sent and every repair."""
    images = pictures(count)
    rows: list[dict[str, Any]] = []
    actions: list[tuple[Callable[[], object], Callable[[], object]]] = []
    for sent, concealer in itertools.product(SENT, CONCEALERS):
        point = scenario(sent, concealer)
        rows.append({"sent": sent, "repair": concealer})
        networks = bare(model, images, stream(model, images, point), concealer)
        actions.append((partial(stream, model, images, point), networks))
    best = [[math.inf, math.inf] for _ in rows]
    for _ in range(rounds):
        for pair, least in zip(actions, best, strict=True):
            for which, action in enumerate(pair):
                began = time.process_time()
                action()
                least[which] = min(least[which], time.process_time() - began)
    for row, (stream_s, networks_s) in zip(rows, best, strict=True):
        row["frames_per_s"], row["networks_per_s"] = count / stream_s, count / networks_s
        row["share"] = networks_s / stream_s
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=8, help="of the clip; at most 45")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(Model.load(options.model), options.frames, options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{WIDTH}x{HEIGHT}, K={CODEBOOK}, 8 packets a frame, 20% lost, one thread")
    for row in rows:
        print(
            f"{row['sent']:8} {row['repair']:15} {row['frames_per_s']:5.2f} frames/s of the "
            f"networks' {row['networks_per_s']:5.2f}: {row['share']:.0%}  (goal 85%)"
        )


if __name__ == "__main__":
    main()
