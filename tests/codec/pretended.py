"""A device that is not there: tensors that say they are on "lazy" and compute on the CPU, and an
error wherever one meets a tensor that was forgotten on the CPU, as CUDA would raise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

PRETENDED = torch.device("lazy")
_ACROSS = ("aten::_to_copy", "aten::copy_", "aten::index")  # CUDA takes CPU tensors here, too


class Elsewhere(torch.Tensor):
    """A tensor on the pretended device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=PRETENDED,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _carry_out(function, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as what it holds."""
        return self.inner.detach().clone().__reduce_ex__(protocol)


class PretendedDevice(TorchDispatchMode):
    """Within the block the device is there. Inference mode is without gradients only: it cannot
    hold tensors of other kinds than torch's own."""

    def __enter__(self) -> Any:
        def no_gradients(mode: bool = True) -> AbstractContextManager[Any]:
            return torch.no_grad() if mode else nullcontext()

        self._patched = patch("torch.inference_mode", no_gradients)
        self._patched.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patched.stop()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _carry_out(function, args, kwargs or {})


def _carry_out(function: Any, args: Any, kwargs: Any) -> Any:
    name = function.name().partition(".")[0]
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    there = {id(each.inner): each for each in tensors if isinstance(each, Elsewhere)}
    here = [each for each in tensors if not isinstance(each, Elsewhere) and each.ndim > 0]
    if there and here and name not in _ACROSS and not name.startswith("aten::index_put"):
        raise RuntimeError(f"{name}: tensors on two devices")
    if kwargs.get("device") is not None:
        moved = torch.device(kwargs["device"]) == PRETENDED
        kwargs = {**kwargs, "device": torch.device("cpu")}
    else:
        moved = isinstance(args[0], Elsewhere) if name == "aten::copy_" else bool(there)
    inner = tree_map(_unwrapped, (args, kwargs))
    result = function(*inner[0], **inner[1])
    return tree_map(_wrapper(there), result) if moved else result


def _unwrapped(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def _wrapper(there: dict[int, Elsewhere]) -> Callable[[Any], Any]:
    """What wraps results; what was changed in place stays the same tensor."""

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, Elsewhere):
            return value
        return there.get(id(value)) if id(value) in there else Elsewhere(value)

    return wrap
