"""Where networks run, and the number format in which they multiply there.

Training, and the search for better tokens, multiply in the fastest format; encoding, decoding and
repair in float32, so that tokens do not depend on the device. TF32, which CUDA uses for float32
convolutions by default, is off for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from threading import Lock

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")


class DeviceError(ValueError):
    """A device or number format that cannot be used here; the message is one line."""


class _NoTf32:
    """TF32 is off while any thread is within: the flags are the process's, so the first thread to
    enter keeps what a program has set, and the last to leave puts it back."""

    def __init__(self) -> None:
        self._lock, self._threads, self._before = Lock(), 0, (False, False)

    def __enter__(self) -> None:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        with self._lock:
            if not self._threads:
                self._before = matmul.allow_tf32, cudnn.allow_tf32
            matmul.allow_tf32 = cudnn.allow_tf32 = False
            self._threads += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
                matmul.allow_tf32, cudnn.allow_tf32 = self._before


_NO_TF32 = _NoTf32()


@dataclass(frozen=True)
class Device:
    """A device and the number format asked for.

    Attributes:
        where: the torch device.
        dtype: of all matrix products; None: float32 for encoding, decoding and repair, and the
            fastest elsewhere.
    """

    where: torch.device
    dtype: torch.dtype | None = None

    @property
    def fast_dtype(self) -> torch.dtype:
        """The format of training and of the search."""
        return self.dtype or fast_dtype(self.where.type)

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in `fast_dtype` within the block."""
        if self.fast_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.where.type, self.fast_dtype)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """No gradients, and full float32 unless another format was asked for, within the block."""
        exact = self.dtype in (None, torch.float32)
        with torch.inference_mode(), _NO_TF32 if exact else self.autocast():
            yield

    def __str__(self) -> str:
        """Device and format, such as "cpu" or "cuda (NVIDIA H200), bfloat16"."""
        name = self.where.type
        if name == "cuda":
            name += f" ({torch.cuda.get_device_name(self.where)})"
        exact = self.dtype in (None, torch.float32)
        return name if exact else f"{name}, {str(self.dtype).removeprefix('torch.')}"


CPU = Device(torch.device("cpu"))


def choose_device(name: str = "auto", dtype: str = "auto") -> Device:
    """The device by a name in `DEVICES`, with a format of `DTYPES`. ``auto``: CUDA if there is one,
    else the CPU.

    Raises:
        DeviceError: no such name, or no such device here.
    """
    for given, names, what in ((name, DEVICES, "device"), (dtype, DTYPES, "dtype")):
        if given not in names:
            raise DeviceError(f"{what} {given!r}: choose one of {', '.join(names)}")
    has = {"cpu": True, "cuda": torch.cuda.is_available()}
    has["mps"] = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has["cuda"] else "cpu"
    if not has[name]:
        known = ", ".join(each for each, found in has.items() if found)
        raise DeviceError(f"device {name!r}: torch finds none here; there is {known}")
    return Device(torch.device(name), None if dtype == "auto" else getattr(torch, dtype))


@cache
def fast_dtype(kind: str) -> torch.dtype:
    """The format in which a kind of device multiplies matrices fastest.

    CUDA: bfloat16. CPUs: whichever of bfloat16 and float32 is measured to be faster (~0.1 s); those
    without AVX512-BF16 or AMX emulate bfloat16 several hundred times slower. The best of several
    runs counts, so that other load on the machine does not decide. Others: float32.
    """
    if kind == "cuda":
        return torch.bfloat16
    if kind != "cpu":
        return torch.float32
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(384, 384, dtype=dtype)
        tries = []
        for _ in range(5):
            start = time.perf_counter()
            a @ a
            tries.append(time.perf_counter() - start)
        seconds[dtype] = min(tries)
    return min(seconds, key=lambda dtype: seconds[dtype])
