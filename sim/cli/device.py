"""Where networks run: the options that commands share. torch is imported inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sim.errors import UserError

if TYPE_CHECKING:
    from codec.device import Device

DeviceName = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or mps; auto: CUDA if there is one.")
]
DtypeName = Annotated[
    str, typer.Option("--dtype", help="float32, bfloat16; auto: float32, the fastest in training.")
]


def chosen_device(name: str, dtype: str) -> Device:
    """The device; raises UserError where there is none."""
    from codec.device import DeviceError, choose_device

    try:
        return choose_device(name, dtype)
    except DeviceError as error:
        raise UserError(str(error)) from None
