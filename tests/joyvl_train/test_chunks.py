"""A gold timeline driven through a stream: its samples, and that none knows what comes later."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.actions import Delegation, Silence
from joyvl_train.chunks import training_chunks
from joyvl_train.conversation import messages
from joyvl_train.memory import Limits, Memory, Summary
from joyvl_train.stream import Stream, StreamSettings, Turn
from joyvl_train.timeline import Clip, Event, Timeline, TimelineError

SHORT = StreamSettings(chunk_seconds=10, lead=3)
WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=9)


def frame(second: int) -> tuple[str, ...]:
    return (f"frame {second}",)


EVENTS = (
    Event("q", 1, "user", "How many bolts?"),
    Event("d", 2, "assistant", "Let me check.", question="Count the bolts.", answers="q"),
    Event("r", 8, "background", "Nine.", answers="d"),
    Event("a", 9, "assistant", "Nine bolts.", answers="r"),
    Event("b", 21, "assistant", "A tenth.", answers="q"),
)


def line(seconds: int, events=EVENTS) -> Timeline:
    return Timeline(Clip("c", float(seconds)), "counting", "test", events, opening="A shop.")


def test_a_clip_of_one_chunk_gives_one_sample():
    (chunk,) = training_chunks(line(25), frame, StreamSettings(25, 5))
    assert (chunk.memory_text, chunk.supervised_from) == ("A shop.", 0)
    assert [turn.second for turn in chunk.turns] == list(range(25))
    assert chunk.turns[8] == Turn(8, frame(8), (), ((1, "Nine."),), Silence())
    assert chunk.turns[2].action == Delegation("Let me check.", "Count the bolts.")


def test_a_longer_clip_is_cut_as_a_stream_is():
    chunks = list(training_chunks(line(25), frame, SHORT))
    assert [chunk.supervised_from for chunk in chunks] == [0, 10, 20]
    spans = [(chunk.turns[0].second, chunk.turns[-1].second) for chunk in chunks]
    assert spans == [(0, 9), (7, 19), (17, 24)]
    assert chunks[1].memory_text == (
        "A shop.\nEarlier:\n"
        "0 to 7 s: 1 s user: How many bolts?; 2 s assistant: Let me check.\n"
        "Instructions:\n1 s: How many bolts?\n"
        "Pending:\n2 s: task 1: Count the bolts.\n"
        "Said:\n2 s: assistant: Let me check."
    )
    supervised = [t.second for c in chunks for t in c.turns if t.second >= c.supervised_from]
    assert supervised == list(range(25))


def test_memory_keeps_the_newest_that_was_said():
    said = tuple(Event(f"a{n}", n, "assistant", f"Bolt {n} is in.", answers="q") for n in range(7))
    tight = replace(SHORT, limits=Limits(summary_chars=64))
    _, chunk = training_chunks(line(15, (EVENTS[0], *said)), frame, tight)
    kept = "…; 5 s assistant: Bolt 5 is in.; 6 s assistant: Bolt 6 is in."
    assert f"0 to 7 s: {kept}\n" in chunk.memory_text


def test_stored_summaries_tell_what_they_can_and_nothing_from_later():
    stored = [Summary(0, 6, "A shop."), Summary(6, 8, "Late."), Summary(9, 17, "Bolts.")]
    chunks = list(training_chunks(line(25), frame, SHORT, summaries=stored))
    # [0, 7) and [7, 17) are summarized. In 8, which no summary has, a result comes.
    assert [chunk.memory_text.split("Instructions:")[0] for chunk in chunks[1:]] == [
        "A shop.\nEarlier:\n0 to 7 s: A shop.\n",
        "A shop.\nEarlier:\n0 to 7 s: A shop.\n7 to 17 s: 8 s background 1: Nine. Bolts.\n",
    ]


def test_a_sample_is_what_serving_would_show():
    chunks = list(training_chunks(line(25), frame, SHORT, lambda turns: f"{len(turns)} turns"))
    stream, gold = Stream(SHORT, Memory(opening="A shop.")), {}
    for chunk in chunks:
        gold |= {turn.second: turn for turn in chunk.turns}
    for second in range(25):
        turn = gold[second]
        stream.observe(second, turn.frames, turn.queries, turn.results)
        chunk = next(c for c in reversed(chunks) if c.supervised_from <= second)
        prompt = messages(stream.memory_text, stream.turns)
        assert messages(chunk.memory_text, chunk.turns)[: len(prompt)] == prompt
        stream.act(turn.action)
        due = stream.due_summary()
        if due:
            stream.add_summary(Summary(due.start, due.stop, f"{len(stream.due_turns())} turns"))


@st.composite
def streams(draw):
    events = [Event("q", draw(st.integers(0, 30)), "user", "Go.")]
    for second in sorted(draw(st.sets(st.integers(0, 33), max_size=8))):
        if draw(st.booleans()):
            events.append(Event(f"a{second}", second, "assistant", draw(WORDS)))
        else:
            events.append(Event(f"d{second}", second, "assistant", "Wait.", question=draw(WORDS)))
            back = second + draw(st.integers(1, 9))
            if back < 35:
                events.append(
                    Event(f"r{second}", back, "background", draw(WORDS), answers=f"d{second}")
                )
    return tuple(events)


@given(streams(), streams(), st.integers(0, 34))
@settings(deadline=None, max_examples=60)
def test_no_prompt_depends_on_what_comes_later(events, others, now):
    """Everything after second `now` is replaced; the prompts of `now` and before stay."""
    ids = {event.id for event in events if event.second <= now}
    kept = tuple(event for event in events if event.id in ids)
    later = tuple(
        replace(e, id=f"x{e.id}", answers=None if e.answers is None else f"x{e.answers}")
        for e in others
        if e.second > now and (e.role != "background" or int(e.id[1:]) > now)
    )

    def prompts(events, frame):
        shown = {}
        for chunk in training_chunks(line(35, events), frame, SHORT):
            for place, turn in enumerate(chunk.turns):
                if chunk.supervised_from <= turn.second <= now:
                    last = replace(turn, action=None)
                    shown[turn.second] = (chunk.memory_text, *chunk.turns[:place], last)
        return shown

    def other_frame(second: int) -> tuple[str, ...]:
        return frame(second) if second <= now else (f"other {second}", "more")

    before = prompts(events, frame)
    assert len(before) == now + 1
    assert prompts((*kept, *later), other_frame) == before


def test_seconds_without_frames_are_left_out_of_a_sample():
    def holes(second: int) -> tuple[str, ...]:
        return () if second in (1, 5, 8) else frame(second)

    (chunk,) = training_chunks(line(22), holes)
    assert {turn.second for turn in chunk.turns} == set(range(22)) - {1, 5, 8}
    moved = {turn.second: turn for turn in chunk.turns}
    assert moved[2].queries == ("How many bolts?",)
    assert moved[9].results == ((1, "Nine."),)


def test_a_chunk_without_a_turn_of_its_own_is_no_sample():
    chunks = training_chunks(line(20, EVENTS[:4]), lambda t: frame(t) if t < 10 else (), SHORT)
    assert [chunk.supervised_from for chunk in chunks] == [0]


@pytest.mark.parametrize(
    ("reason", "events", "frames"),
    [
        ("no frame at a response", EVENTS, lambda t: frame(t) if t < 21 else ()),
        ("text after the last frame", EVENTS[:3], lambda t: frame(t) if t < 8 else ()),
        ("result of no delegation", (Event("r", 3, "background", "x"),), frame),
        (
            "result of no delegation",
            (*EVENTS[:1], Event("r", 3, "background", "x", answers="q")),
            frame,
        ),
        (
            "result before its delegation",
            (*EVENTS[:2], Event("r", 2.9, "background", "x", answers="d")),
            frame,
        ),
        ("second result", (*EVENTS, Event("r2", 12, "background", "x", answers="d")), frame),
    ],
)
def test_a_timeline_that_cannot_be_streamed_is_rejected(reason, events, frames):
    with pytest.raises(TimelineError) as caught:
        list(training_chunks(line(25, events), frames))
    assert caught.value.reason == reason


def test_an_unknown_duration_is_rejected():
    with pytest.raises(TimelineError, match="unknown duration"):
        list(training_chunks(Timeline(Clip("c"), "qa", "test"), frame))
