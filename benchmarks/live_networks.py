"""The live driver beside the networks alone: a part of `benchmarks.live`."""

from __future__ import annotations

import time
from typing import Any

CODEBOOK, SLICES = 1024, 32


def channel() -> Any:
    """20% loss in bursts of five, the same on every call."""
    from channels import build, read_channel

    loss, link = read_channel({"type": "gilbert_elliott", "loss": 0.2, "mean_burst": 5})
    return build(loss, seed=1, link=link)


def networks(images: int) -> dict[str, float]:
    """Seconds of live streams with networks, and of the forward passes alone."""
    import torch

    from sim.drivers.live import run_live
    from sim.media.frames import Restorer, encode_images, load_model
    from sim.media.images import load_images, samples_folder
    from sim.protocol.config import StreamConfig, StreamKey

    torch.set_num_threads(1)
    config = StreamConfig(codebook_size=CODEBOOK, slices=SLICES)
    model = load_model(None)
    loaded = load_images(["samples"], samples_folder())
    pictures = [loaded[n % len(loaded)] for n in range(images)]
    key = StreamKey(model.fingerprint)
    table = {CODEBOOK: model.frequencies(CODEBOOK)}
    frames = list(encode_images(model, pictures, CODEBOOK))
    restorer = Restorer(model, ["inpaint"])
    times: list[float] = []

    def restore(ready: Any) -> None:
        restorer.restore(ready)
        times.append(time.process_time())

    record = run_live(_Same(frames), config, channel, key, _Book(table), restore, pace=0)
    began = time.process_time()
    for ready in record.frames[1:]:
        restorer.restore(ready)
    bare_s = time.process_time() - began
    return {"live_s": times[-1] - times[0], "bare_s": bare_s, "images": images - 1}


class _Same:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


class _Book(_Same):
    def __call__(self) -> Any:
        from codec.coders import CoderBook

        return CoderBook(self.value)
