"""A turn becomes a line and is read back as what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.agents.event_lines import EventLine, line_of, read_line
from joyvl_train.timeline import Event

HELD = Event("a", 3.0, "assistant", "It is there.", until=7.0, repeat=True)


def test_a_line_as_a_verifier_reads_it() -> None:
    assert line_of(HELD) == "3 s, again every second until 7 s: assistant: It is there."
    assert read_line(line_of(HELD)) == EventLine(3, "assistant", "It is there.")
    handed = Event("b", 4.2, "assistant", "One moment.", question="What is 3 times 345?")
    told = read_line(line_of(handed))
    assert told == EventLine(4, "assistant", "One moment. [hands over: What is 3 times 345?]")


@given(
    second=st.integers(0, 10**5),
    role=st.sampled_from(["user", "background", "assistant"]),
    text=st.text(min_size=1).filter(str.strip),
    held=st.booleans(),
)
def test_every_turn_is_read_back(second: int, role: str, text: str, held: bool) -> None:
    event = Event("e", float(second), role, text)  # type: ignore[arg-type]
    if held and role == "assistant":
        event = replace(event, until=second + 2.5, repeat=True)
    assert read_line(line_of(event)) == EventLine(second, role, text)


@pytest.mark.parametrize("line", ["before the video: 5 s", "5 s: nobody: x", "s: user: x", ""])
def test_other_lines_are_none(line: str) -> None:
    assert read_line(line) is None
