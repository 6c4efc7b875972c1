"""Checks of user-given parameters, and the one error they raise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_MAX_LENGTH = 300


class ChannelParameterError(ValueError):
    """A channel parameter cannot be used.

    ``parameter`` names the offending parameter as the user wrote it; ``str(error)`` is one line
    that says what is wrong and how to mend it.
    """

    def __init__(self, parameter: str, problem: str) -> None:
        if len(problem) > _MAX_LENGTH:  # it quotes what was given
            problem = f"{problem[: _MAX_LENGTH // 2]} ... {problem[-_MAX_LENGTH // 2 :]}"
        super().__init__(f"{parameter}: {problem}")
        self.parameter = parameter
        self.problem = problem


def number(parameter: str, value: object) -> float:
    """`value` as a finite float; bool and str are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ChannelParameterError(parameter, f"must be a number, got {value!r}")
    try:
        result = float(value)
    except OverflowError:  # a whole number beyond 10^308
        result = math.inf
    if not math.isfinite(result):
        raise ChannelParameterError(parameter, f"must be finite, got {value!r}")
    return result


def probability(parameter: str, value: object) -> float:
    """`value` as a float in [0, 1]."""
    result = number(parameter, value)
    if not 0.0 <= result <= 1.0:
        hint = f" (did you mean {result / 100:g}?)" if 1.0 < result <= 100.0 else ""
        raise ChannelParameterError(
            parameter, f"is a probability and must lie in [0, 1], got {value!r}{hint}"
        )
    return result


def at_least(parameter: str, value: object, minimum: float) -> float:
    """`value` as a finite float >= minimum."""
    result = number(parameter, value)
    if result < minimum:
        raise ChannelParameterError(parameter, f"must be at least {minimum:g}, got {value!r}")
    return result


def above(parameter: str, value: object, bound: float) -> float:
    """`value` as a finite float > bound."""
    result = number(parameter, value)
    if result <= bound:
        raise ChannelParameterError(parameter, f"must be greater than {bound:g}, got {value!r}")
    return result


def whole(parameter: str, value: object, minimum: int) -> int:
    """`value` as an int >= minimum; 5.0 is refused so that typing errors show."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ChannelParameterError(parameter, f"must be a whole number, got {value!r}")
    if value < minimum:
        raise ChannelParameterError(parameter, f"must be at least {minimum}, got {value!r}")
    return value


def choice(parameter: str, value: object, choices: Sequence[str]) -> str:
    """`value` as one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ChannelParameterError(
            parameter, f"must be one of {', '.join(choices)}; got {value!r}"
        )
    return value


def as_list(parameter: str, value: object) -> list[Any]:
    """`value` as a list."""
    if not isinstance(value, (list, tuple)):
        raise ChannelParameterError(parameter, f"must be a list, got {value!r}")
    return list(value)
