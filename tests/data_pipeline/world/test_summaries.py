"""What memory says of a rendered past: all that came and left and was said, and nothing later."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.world.streams import FAMILIES, stream
from data_pipeline.world.summaries import summarize
from joyvl_train.actions import Silence, spoken
from joyvl_train.chunks import training_chunks
from joyvl_train.stream import StreamSettings, Turn
from joyvl_train.timeline import Clip, Timeline


def turns_of(timeline: Timeline) -> tuple[Turn, ...]:
    whole = StreamSettings(chunk_seconds=1000)
    (chunk,) = training_chunks(timeline, lambda second: (second,), whole)
    return chunk.turns


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FAMILIES), st.integers(0, 10**6), st.integers(1, 11))
def test_it_tells_what_the_turns_hold_and_nothing_else(family: str, seed: int, cut: int) -> None:
    timeline = stream(family, seed, "train")
    turns = turns_of(timeline)
    first, second = summarize(timeline, turns[:cut]), summarize(timeline, turns[cut:])
    assert len(first) <= 1000 and len(second) <= 1000
    for turn in turns[:cut]:
        if turn.action is not None and not isinstance(turn.action, Silence):
            assert f"{turn.second} s assistant: {spoken(turn.action)}" in first
        for query in turn.queries:
            assert f"{turn.second} s user: {query}" in first
    told = [int(line.split(" s")[0]) for line in first.split("; ") if line[:1].isdigit()]
    assert told == sorted(told) and all(at < cut for at in told)
    later = [int(line.split(" s")[0]) for line in second.split("; ") if line[:1].isdigit()]
    assert all(at >= cut for at in later)


def test_comings_and_goings_are_told_by_the_second() -> None:
    timeline = stream("commentary", 3, "train", kind="describe")
    text = summarize(timeline, turns_of(timeline))
    came = [e for e in timeline.events if e.role == "assistant" and e.text.endswith("appeared.")]
    left = [e for e in timeline.events if e.role == "assistant" and e.text.endswith("left.")]
    assert came and left
    for event in came:
        noun = event.text.split(" ", 1)[1]
        assert any(
            line.startswith(f"{int(event.time)} s: ") and line.endswith(noun)
            for line in text.split("; ")
        )
    assert all(f"{int(e.time)} s: The" in text for e in left)


def test_the_oldest_goes_first_and_no_scene_is_an_error() -> None:
    timeline = stream("commentary", 5, "train", seconds=400)
    text = summarize(timeline, turns_of(timeline)[:100])
    assert 800 < len(text) <= 1000 and not text.startswith("0 s")
    with pytest.raises(ValueError, match="'x'"):
        summarize(Timeline(Clip("x", 3.0), "qa", "test", (), 1.0), ())
    assert summarize(timeline, ()) == "Nothing was said."
