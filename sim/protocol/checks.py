"""Checks of stream settings, and the error that they raise."""

from __future__ import annotations


class StreamConfigError(ValueError):
    """A stream setting that cannot work.

    ``parameter`` names the field of `StreamConfig`, with a dot where it lies in a section:
    "fec.depth".
    """

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter
        self.message = message


def one_of(parameter: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise StreamConfigError unless the value is one of the choices."""
    if value not in choices:
        raise StreamConfigError(
            parameter, f"must be one of {', '.join(map(str, choices))}; got {value!r}"
        )


def within(parameter: str, value: float, low: float, high: float) -> None:
    """Raise StreamConfigError unless low <= value <= high; NaN is not."""
    if not low <= value <= high:
        raise StreamConfigError(parameter, f"must be from {low:g} to {high:g}, got {value!r}")
