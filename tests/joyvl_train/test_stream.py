from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.conversation import messages
from joyvl_train.memory import Limits, Memory, Pending, Summary, absorb
from joyvl_train.stream import Stream, StreamSettings, Turn

SHORT = StreamSettings(chunk_seconds=10, lead=3)
WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=9)


def drive(stream: Stream, seconds, action=None) -> None:
    for second in seconds:
        stream.observe(second, (second,))
        stream.act(action or Silence())


def kinds(stream: Stream) -> list[str]:
    return [event.kind for event in stream.take_events()]


def frame(second: int) -> tuple[str, ...]:
    return (f"frame {second}",)


# One second


def test_a_second_is_observed_and_then_answered():
    stream = Stream()
    turn = stream.observe(5, ["a", "b"], ["Hi </silence>\nthere"])
    assert turn == stream.open_turn == Turn(5, ("a", "b"), ("Hi < /silence> there",))
    assert stream.act(Response("Hello.")) is None
    assert stream.turns == (replace(turn, action=Response("Hello.")),)
    assert stream.open_turn is None
    assert (stream.chunk, stream.supervised_from, stream.memory_text) == (0, 5, "")


def test_a_second_without_frames_is_left_out_and_its_texts_move_on():
    stream = Stream()
    stream.observe(0, ["a"])
    stream.act(Delegation("Wait.", "Why?"))
    assert stream.observe(1, [], ["first"], [(1, "done")]) is None
    assert stream.observe(2, [], ["second"]) is None
    assert stream.observe(3, ["b"], ["third"]) == Turn(
        3, ("b",), ("first", "second", "third"), ((1, "done"),)
    )
    stream.act(Silence())
    assert stream.observe(4, ["c"]).queries == ()


def test_calls_out_of_turn_are_errors():
    stream = Stream()
    with pytest.raises(ValueError, match="no turn is open"):
        stream.act(Silence())
    stream.observe(3, ["a"])
    with pytest.raises(ValueError, match="second 4 observed, but 3 has no action yet"):
        stream.observe(4, ["a"])
    stream.act(Silence())
    with pytest.raises(ValueError, match="no turn is open"):
        stream.act(Silence())
    with pytest.raises(ValueError, match="second 3 observed after second 3"):
        stream.observe(3, ["a"])


@pytest.mark.parametrize("second", [-1, 2.0, True, "3", None])
def test_a_second_is_a_whole_number(second):
    with pytest.raises(ValueError, match="a second is a whole number"):
        Stream().observe(second, ["a"])


def test_tasks_count_from_one_and_results_close_them():
    stream = Stream()
    for second, number in [(0, 1), (1, 2), (2, 3)]:
        stream.observe(second, ["a"])
        assert stream.act(Delegation("Wait.", "Why?")) == number
    assert stream.observe(3, ["a"], results=[(2, "So.")]).results == ((2, "So."),)
    stream.act(Silence())
    assert stream.open_tasks == {1, 3}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([(2, "x")], "task 2, which is not pending"),
        ([(1, "x"), (1, "y")], "task 1, which is not pending"),
        ([(1, " ")], "result of task 1 is empty"),
    ],
)
def test_a_bad_result_is_an_error_and_changes_nothing(results, message):
    stream = Stream()
    stream.observe(0, ["a"])
    stream.act(Delegation("Wait.", "Why?"))
    with pytest.raises(ValueError, match=message):
        stream.observe(1, ["b"], ["hi"], results)
    assert stream.observe(1, ["b"], [], [(1, "So.")]) == Turn(1, ("b",), (), ((1, "So."),))


def test_texts_of_one_turn_are_bounded():
    stream = Stream(StreamSettings(limits=Limits(text_chars=20, queries=2)))
    turn = stream.observe(0, ["a"], ["x" * 30, " ", "b", "c", "d"])
    assert turn.queries == ("x" * 19 + "…", "b")
    assert kinds(stream) == ["cut", "empty_query", "query_dropped", "query_dropped"]
    assert stream.counts["query_dropped"] == 2


def test_notes_of_modules_stand_in_the_turn_and_are_bounded():
    stream = Stream(StreamSettings(limits=Limits(text_chars=20, queries=2)))
    turn = stream.observe(0, ["a"], ["Hi."], notes=["x" * 30, " ", "b", "c"])
    assert turn.notes == ("x" * 19 + "…", "b") and turn.queries == ("Hi.",)
    assert kinds(stream) == ["cut", "note_dropped"]
    stream.act(Silence())
    assert stream.observe(1, ["b"]).notes == ()
    # The memory keeps them as what came from behind.
    memory, _ = absorb(Memory(), turn, 0, Limits())
    said = [(line.second, line.who, line.text) for line in memory.dialogue]
    assert said == [(0, "background", "x" * 19 + "…"), (0, "background", "b")]


# Chunks


def test_a_chunk_opens_with_the_lead():
    stream = Stream(SHORT)
    drive(stream, range(5, 15))
    assert (stream.chunk, stream.supervised_from) == (0, 5)
    stream.observe(15, (15,))
    assert (stream.chunk, stream.supervised_from) == (1, 15)
    assert [turn.second for turn in stream.turns] == [12, 13, 14, 15]
    assert stream.open_turn is not None


def test_boundaries_count_from_the_first_second_over_holes():
    stream = Stream(SHORT)
    drive(stream, range(5, 9))
    drive(stream, [37])
    assert (stream.chunk, stream.supervised_from) == (1, 35)
    assert [turn.second for turn in stream.turns] == [37]
    drive(stream, range(38, 46))
    assert (stream.chunk, stream.supervised_from) == (2, 45)


def test_memory_text_is_the_state_before_the_carried_turns():
    stream = Stream(SHORT)
    stream.observe(0, ["a"], ["Count."])
    stream.act(Delegation("Wait.", "How many?"))
    drive(stream, range(1, 7))
    stream.observe(7, ["a"], ["And now?"], [(1, "Three.")])
    stream.act(Response("Three."))
    assert stream.memory_text == ""
    drive(stream, range(8, 11))
    text = "Instructions:\n0 s: Count.\nPending:\n0 s: task 1: How many?\n"
    assert stream.memory_text == text + "Said:\n0 s: assistant: Wait."
    assert stream.turns[0].results == ((1, "Three."),)
    drive(stream, range(11, 21))
    assert "Pending" not in stream.memory_text
    assert "7 s: And now?" in stream.memory_text
    assert "7 s: background: task 1: Three." in stream.memory_text


def test_what_stands_from_the_start():
    memory = Memory(opening="Camera 2.\n", pending=(Pending(4, 0, "Wait.", "Why?"),))
    stream = Stream(SHORT, memory, pins=["Be brief."])
    assert stream.memory_text == (
        "Camera 2.\nInstructions:\nBe brief.\nPending:\n0 s: task 4: Why?"
    )
    stream.observe(0, ["a"], results=[(4, "So.")])
    assert stream.act(Delegation("Wait.", "How?")) == 5
    drive(stream, range(1, 11))
    assert "0 s: task 5: How?" in stream.memory_text
    assert "Be brief." in stream.memory_text


@pytest.mark.parametrize(("chunk", "lead"), [(10, 0), (10, 10), (5, 9)])
def test_a_lead_must_fit_its_chunk(chunk, lead):
    with pytest.raises(ValueError, match=f"lead is {lead} s and a chunk {chunk} s"):
        StreamSettings(chunk, lead)


# Consolidation


def test_a_summary_is_due_from_the_lead_on_and_enters_at_the_boundary():
    stream = Stream(SHORT)
    drive(stream, range(7))
    assert stream.due_summary() is None
    stream.observe(7, (7,))
    assert stream.due_summary() == range(0, 7)
    assert [turn.second for turn in stream.due_turns()] == list(range(7))
    stream.act(Silence())
    assert stream.add_summary(Summary(0, 7, "A van.")) == []
    assert (stream.due_summary(), stream.due_turns(), stream.memory_text) == (None, (), "")
    drive(stream, range(8, 11))
    assert stream.memory_text == "Earlier:\n0 to 7 s: A van."
    drive(stream, range(11, 18))
    assert stream.due_summary() == range(7, 17)


def test_a_late_summary_enters_at_the_next_boundary():
    stream = Stream(SHORT)
    drive(stream, range(13))
    assert stream.due_summary() == range(0, 7)
    (event,) = stream.add_summary(Summary(0, 7, "A van."))
    assert (event.kind, event.second) == ("summary_late", 12)
    assert stream.memory_text == ""
    drive(stream, range(13, 18))
    stream.add_summary(Summary(7, 17, "A bus."))
    drive(stream, range(18, 21))
    assert stream.memory_text == "Earlier:\n0 to 7 s: A van.\n7 to 17 s: A bus."
    assert stream.counts == {"summary_late": 1, "chunk": 2}


def test_a_missing_summary_leaves_a_stated_gap():
    stream = Stream(SHORT)
    drive(stream, range(20))
    stream.add_summary(Summary(7, 17, "A bus."))
    drive(stream, [20])
    assert stream.memory_text == "Earlier:\n7 to 17 s: A bus."
    gap = [event for event in stream.take_events() if event.kind == "summary_gap"]
    assert [event.detail for event in gap] == ["seconds [0, 7)"]
    with pytest.raises(ValueError, match="awaited: none"):
        stream.add_summary(Summary(0, 7, "A van."))


@pytest.mark.parametrize(("start", "stop"), [(0, 6), (0, 10), (1, 7), (7, 17), (-1, 7)])
def test_a_summary_of_other_seconds_is_an_error(start, stop):
    stream = Stream(SHORT)
    drive(stream, range(9))
    with pytest.raises(ValueError, match=r"awaited: \[0, 7\)"):
        stream.add_summary(Summary(start, stop, "x"))
    stream.add_summary(Summary(0, 7, "x"))
    with pytest.raises(ValueError, match="awaited: none"):
        stream.add_summary(Summary(0, 7, "x"))


def test_over_a_hole_one_summary_is_due_for_all_that_was_seen():
    stream = Stream(SHORT)
    drive(stream, range(5))
    drive(stream, [41])
    assert stream.due_summary() == range(0, 37)
    assert [turn.second for turn in stream.due_turns()] == [0, 1, 2, 3, 4]
    assert stream.counts["summary_gap"] == 0


def test_nothing_is_due_where_nothing_was_seen():
    stream = Stream(SHORT)
    for second in range(30):
        stream.observe(second)
    assert stream.due_summary() is None
    assert (stream.chunk, stream.counts["summary_gap"]) == (2, 0)


def test_a_block_can_have_a_text_of_its_own():
    stream = Stream(replace(SHORT, limits=Limits(mid=2)))
    for second in range(51):
        drive(stream, [second])
        due = stream.due_summary()
        if due:
            stream.add_summary(Summary(due.start, due.stop, f"until {due.stop}"))
        mid = stream.due_merge()
        if mid:
            with pytest.raises(ValueError, match=r"no block of seconds \[1, 7\) is due"):
                stream.add_merge(Summary(1, 7, "x"))
            stream.add_merge(Summary(mid[0].start, mid[1].stop, f"both until {mid[1].stop}"))
    blocks = Summary(0, 17, "both until 17"), Summary(17, 37, "both until 37")
    assert stream.memory.long == blocks
    assert stream.memory.mid == (Summary(37, 47, "until 47"),)


# Properties

inputs = st.lists(
    st.tuples(
        st.integers(1, 12) | st.just(1),
        st.booleans(),
        st.lists(WORDS, max_size=2),
        st.sampled_from(["silence", "response", "delegation"]),
        st.booleans(),
    ),
    max_size=40,
)


@given(inputs)
@settings(deadline=None)
def test_inside_a_chunk_the_prompt_only_grows(feed):
    stream, second = Stream(SHORT), -1
    past, past_chunk, past_text = (), 0, ""
    for step, has_frames, queries, kind, summarize in feed:
        second += step
        results = [(n, "done") for n in sorted(stream.open_tasks)[:1]]
        turn = stream.observe(second, frame(second) if has_frames else (), queries, results)
        if stream.chunk == past_chunk:
            assert stream.memory_text == past_text
            assert stream.turns[: len(past)] == past
        else:
            assert all(t.second >= stream.supervised_from - SHORT.lead for t in stream.turns)
        if turn is not None:
            prompt = messages(stream.memory_text, stream.turns)
            stream.act(
                {
                    "silence": Silence(),
                    "response": Response("Hm."),
                    "delegation": Delegation("Wait.", "Why?"),
                }[kind]
            )
            assert messages(stream.memory_text, stream.turns)[: len(prompt)] == prompt
        due = stream.due_summary()
        if due is not None:
            assert all(t.second in due and t.action for t in stream.due_turns())
            if summarize:
                stream.add_summary(Summary(due.start, due.stop, "x"))
        past, past_chunk, past_text = stream.turns, stream.chunk, stream.memory_text
        assert len(stream.turns) <= SHORT.chunk_seconds + SHORT.lead


@given(st.integers(0, 25), st.data())
@settings(deadline=None)
def test_a_fork_lives_on_its_own(seconds, data):
    stream = Stream(SHORT)
    drive(stream, range(seconds), Delegation("Wait.", "Why?"))
    other = data.draw(st.sampled_from([Stream.fork, copy.deepcopy]))(stream)
    state = stream.turns, stream.memory_text, stream.open_tasks, stream.due_summary()
    counts, events = dict(stream.counts), list(stream.fork().take_events())
    drive(other, range(seconds, seconds + 12), Delegation("Hm.", "How?"))
    assert state == (stream.turns, stream.memory_text, stream.open_tasks, stream.due_summary())
    assert (counts, events) == (stream.counts, stream.take_events())
    drive(stream, range(seconds, seconds + 12), Delegation("Hm.", "How?"))
    assert (stream.turns, stream.memory_text) == (other.turns, other.memory_text)


def test_a_fork_shares_its_frames():
    stream, picture = Stream(), object()
    stream.observe(0, [picture])
    assert copy.deepcopy(stream).turns[0].frames[0] is picture
