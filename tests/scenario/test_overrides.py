"""What `--set` and the options beside it hand to a scenario."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.scenario.loader import override_text, parse_override

_ANY_TEXT = st.text(st.characters(codec=None) | st.sampled_from("🎉日\ud800\x7f\x85\u2028\\\"'\n["))


@given(_ANY_TEXT | st.integers(-(2**63), 2**63) | st.lists(_ANY_TEXT) | st.none() | st.booleans())
def test_a_value_comes_through_as_it_was(value: object) -> None:
    assert parse_override(override_text("video.file", value)) == ("video.file", value)
