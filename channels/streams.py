"""One of the streams that a capture or a log holds, chosen by name."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TypeVar

from channels.parameters import ChannelParameterError

_SHOWN = 8

S = TypeVar("S", bound=Sized)


def chosen_stream(streams: Mapping[str, S], wanted: str | None) -> tuple[str, S]:
    """The stream whose name holds a text, upper or lower case; without one, the only one.

    Args:
        streams: what was found, by name; at least one.
        wanted: SSRC, address, host, or any part of a name.

    Raises:
        ChannelParameterError: ("stream") none or several are meant; they are listed.
    """
    names = [name for name in streams if wanted is None or wanted.lower() in name.lower()]
    names = [name for name in names if name == wanted] or names
    if len(names) == 1:
        return names[0], streams[names[0]]
    told = sorted(names or streams, key=lambda name: -len(streams[name]))
    problem = (
        f"holds {len(told)} streams; choose one by a part of its name"
        if names
        else f"has none named {str(wanted)[:80]!r}; there are"
    )
    listed = "; ".join(f"{name} ({len(streams[name])} packets)" for name in told[:_SHOWN])
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    raise ChannelParameterError("stream", f"{problem}: {listed}{more}")
