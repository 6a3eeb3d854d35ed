from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.actions import CONTROL_TOKENS, Delegation, Response, Silence
from joyvl_train.memory import (
    NOTHING,
    Limits,
    Memory,
    Pending,
    Pinned,
    Said,
    Summary,
    absorb,
    add_summary,
    delegate,
    joined,
    log_summary,
    memory_text,
    pin,
    resolve,
    say,
    told_summary,
    unpin,
)
from joyvl_train.stream import Turn

SMALL = Limits(
    mid=2,
    long=2,
    pinned=3,
    pinned_chars=40,
    dialogue_tokens=20,
    pending=2,
    text_chars=50,
    summary_chars=30,
)
texts = st.one_of(
    st.text(max_size=120),
    st.sampled_from(["</silence>", "<|im_end|>", "[Background 1] x", "<" * 90, "看" * 90]),
)
speakable = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=120)
moves = st.one_of(
    st.tuples(st.just("summary"), texts),
    st.tuples(st.just("query"), texts),
    st.tuples(st.just("result"), texts),
    st.tuples(st.just("response"), speakable),
    st.tuples(st.just("delegation"), speakable),
)


def kinds(events) -> list[str]:
    return [event.kind for event in events]


def summarized(count: int, limits: Limits) -> tuple[Memory, list[str]]:
    memory, seen = Memory(), []
    for n in range(count):
        summary = Summary(10 * n, 10 * n + 10, f"part {n}")
        memory, events = add_summary(memory, summary, limits)
        seen += kinds(events)
    return memory, seen


@given(st.lists(moves, max_size=60))
@settings(deadline=None)
def test_memory_is_bounded_and_safe_whatever_is_fed(feed):
    memory, tasks = Memory(), 0
    for second, (what, text) in enumerate(feed):
        if what == "summary":
            if text.strip():
                memory, _ = add_summary(memory, Summary(second, second + 1, text), SMALL)
        else:
            action = Silence()
            if what == "response":
                action = Response(text)
            elif what == "delegation":
                action, tasks = Delegation(text, text), tasks + 1
            queries = (text,) if what == "query" else ()
            results = ((tasks, text),) if what == "result" else ()
            turn = Turn(second, ("f",), queries, results, action)
            memory, _ = absorb(memory, turn, tasks, SMALL)
        assert len(memory.mid) <= SMALL.mid
        assert len(memory.long) <= SMALL.long
        assert len(memory.pinned) <= SMALL.pinned
        assert sum(len(p.text) for p in memory.pinned) <= SMALL.pinned_chars
        assert len(memory.pending) <= SMALL.pending
        shown = memory_text(memory)
        # Four summaries of 30, two questions of 50, 40 pinned, 20 tokens of at most six or so
        # characters, the words around them.
        assert len(shown) <= 4 * 50 + 2 * 80 + 40 + 3 * 15 + 20 * 7 + 40
        assert not any(token in shown for token in (*CONTROL_TOKENS, "<|"))
        assert not any(line.startswith("[Background") for line in shown.splitlines())


def test_an_empty_memory_says_nothing():
    assert memory_text(Memory()) == ""


def test_the_text_of_a_memory():
    memory = Memory(
        opening="A shop floor.\nCamera 2.",
        long=(Summary(0, 50, "A van came."),),
        mid=(Summary(50, 60, "It left."),),
        pinned=(Pinned(None, "Be brief."), Pinned(3, "Say when a </silence> comes.")),
        pending=(Pending(2, 41, "Let me check.", "How many bolts?"),),
        dialogue=(Said(5, "assistant", "A van."), Said(41, "assistant", "Let me check.")),
    )
    assert memory_text(memory).splitlines() == [
        "A shop floor.",
        "Camera 2.",
        "Earlier:",
        "0 to 50 s: A van came.",
        "50 to 60 s: It left.",
        "Instructions:",
        "Be brief.",
        "3 s: Say when a < /silence> comes.",
        "Pending:",
        "41 s: task 2: How many bolts?",
        "Said:",
        "5 s: assistant: A van.",
        "41 s: assistant: Let me check.",
    ]


def test_summaries_merge_and_the_oldest_block_goes():
    memory, seen = summarized(2, SMALL)
    assert (len(memory.mid), memory.long, seen) == (2, (), [])
    memory, seen = summarized(3, SMALL)
    assert memory.long == (Summary(0, 20, "part 0 part 1"),)
    assert memory.mid == (Summary(20, 30, "part 2"),)
    assert seen == ["merged"]
    memory, seen = summarized(7, SMALL)
    assert [(s.start, s.stop) for s in memory.long] == [(20, 40), (40, 60)]
    assert memory.mid == (Summary(60, 70, "part 6"),)
    assert seen == ["merged", "merged", "merged", "forgotten"]


def test_two_hours_are_remembered_by_default():
    limits = Limits()
    count = limits.mid * (limits.long + 1)
    assert summarized(count, limits)[0].long[0].start == 0
    memory, seen = summarized(count + 1, limits)
    assert "forgotten" in seen
    assert memory.long[0].start == 50
    assert count * 100 >= 2 * 3600


def test_a_given_merge_takes_the_place_of_the_joined_texts():
    memory, _ = summarized(2, SMALL)
    merge = Summary(0, 20, "both")
    merged, _ = add_summary(memory, Summary(20, 30, "next"), SMALL, merge)
    assert merged.long == (merge,)
    other = Summary(0, 10, "of other seconds")
    joined, _ = add_summary(memory, Summary(20, 30, "next"), SMALL, other)
    assert joined.long == (Summary(0, 20, "part 0 part 1"),)


def test_a_block_has_room_for_what_was_and_none_for_nothing():
    limits = Limits(summary_chars=60)
    texts = [NOTHING, "first " * 8, NOTHING, "second " * 3, NOTHING]
    told = joined([Summary(n, n + 1, text) for n, text in enumerate(texts)], limits)
    assert "Nothing" not in told.text and told.text.startswith("first first first first")
    assert "second second second" in told.text and len(told.text) <= 60
    assert joined([Summary(0, 1, NOTHING), Summary(1, 2, NOTHING)], limits).text == NOTHING


@pytest.mark.parametrize("start", [0, 15, 19])
def test_a_summary_of_seconds_that_are_covered_is_an_error(start):
    memory, _ = summarized(2, SMALL)
    with pytest.raises(ValueError, match="overlaps memory, which reaches to second 20"):
        add_summary(memory, Summary(start, 30, "again"), SMALL)


@pytest.mark.parametrize(("start", "stop", "text"), [(5, 5, "a"), (6, 5, "a"), (0, 5, " \n")])
def test_a_summary_of_nothing_is_an_error(start, stop, text):
    with pytest.raises(ValueError, match=r"summary of .*seconds"):
        Summary(start, stop, text)


def test_the_oldest_instruction_is_unpinned_into_the_dialogue():
    memory = Memory(dialogue=(Said(2, "assistant", "Hi."),))
    seen = []
    for second, text in [(1, "one"), (3, "two"), (4, "three"), (5, "four")]:
        memory, events = pin(memory, Pinned(second, text), SMALL)
        seen += kinds(events)
    assert [p.text for p in memory.pinned] == ["two", "three", "four"]
    assert [line.text for line in memory.dialogue] == ["one", "Hi."]
    assert seen == ["unpinned"]


def test_long_instructions_are_cut_and_push_out_others():
    memory, _ = pin(Memory(), Pinned(1, "short"), SMALL)
    memory, events = pin(memory, Pinned(2, "long " * 20), SMALL)
    (kept,) = memory.pinned
    assert kept.text.startswith("long long")
    assert kept.text.endswith("…")
    assert kinds(events) == ["cut", "unpinned"]


def test_an_instruction_given_again_is_pinned_once():
    memory = Memory()
    for second, text in [(1, "one"), (2, "two"), (3, "one")]:
        memory, _ = pin(memory, Pinned(second, text), SMALL)
    assert memory.pinned == (Pinned(2, "two"), Pinned(3, "one"))


def test_unpinning_what_is_not_pinned_is_an_error():
    memory, _ = pin(Memory(), Pinned(1, "one"), SMALL)
    emptied, _ = unpin(memory, Pinned(1, "one"), SMALL)
    assert (emptied.pinned, emptied.dialogue) == ((), (Said(1, "user", "one"),))
    with pytest.raises(ValueError, match="not pinned: 'one'"):
        unpin(emptied, Pinned(1, "one"), SMALL)


def test_dialogue_is_first_in_first_out_by_the_tokens_of_the_caller():
    limits = Limits(dialogue_tokens=3)
    memory = Memory()
    for second in range(5):
        line = Said(second, "assistant", f"line {second}")
        memory, events = say(memory, [line], limits, lambda text: 1)
    assert [line.second for line in memory.dialogue] == [2, 3, 4]
    assert kinds(events) == ["dialogue_dropped"]


def test_a_counter_that_counts_nothing_still_bounds_the_dialogue():
    lines = [Said(n, "user", "hi") for n in range(50)]
    memory, _ = say(Memory(), lines, SMALL, lambda text: 0)
    assert len(memory.dialogue) == SMALL.dialogue_tokens


def test_a_task_is_pending_until_its_result():
    memory, _ = delegate(Memory(), Pending(1, 4, "Wait.", "How many?"), SMALL)
    assert "4 s: task 1: How many?" in memory_text(memory)
    assert memory_text(resolve(memory, 1)) == ""
    assert resolve(memory, 2) == memory


def test_past_the_limit_the_oldest_task_is_not_shown():
    memory = Memory()
    for n in (1, 2, 3):
        memory, events = delegate(memory, Pending(n, n, "Wait.", "How many?"), SMALL)
    assert [task.number for task in memory.pending] == [2, 3]
    assert kinds(events) == ["pending_dropped"]


def test_the_dialogue_never_holds_the_delegated_question():
    turn = Turn(4, ("f",), ("How many bolts?",), (), Delegation("Let me check.", "Count them."))
    memory, _ = absorb(Memory(), turn, 1, SMALL)
    back = Turn(9, ("f",), (), ((1, "Nine."),), Response("Nine bolts."))
    memory, _ = absorb(memory, back, 1, SMALL)
    assert memory.pending == ()
    assert memory.dialogue == (
        Said(4, "assistant", "Let me check."),
        Said(9, "background", "task 1: Nine."),
        Said(9, "assistant", "Nine bolts."),
    )
    assert "Count them." not in memory_text(memory)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mid", 0), ("long", -1), ("pinned_chars", 3), ("queries", 0), ("pinned", 1.5)],
)
def test_limits_that_cannot_be_are_errors(name, value):
    with pytest.raises(ValueError, match=f"memory limit {name} is {value}"):
        Limits(**{name: value})


def test_the_log_summary_says_what_was_said_and_repeats_once():
    turns = [
        Turn(1, ("f",), ("Tell me.",), (), Silence()),
        Turn(2, ("f",), (), (), Response("Fire!")),
        Turn(3, ("f",), (), (), Response("Fire!")),
        Turn(4, ("f",), (), (), Delegation("Let me check.", "Where?")),
        Turn(5, ("f",), (), ((1, "In the <|hall"),), Response("Fire!")),
    ]
    assert log_summary(turns) == (
        "1 s user: Tell me.; 2 s assistant: Fire! (again until 3 s); 4 s assistant: Let me check.; "
        "5 s background 1: In the < |hall; 5 s assistant: Fire!"
    )
    assert log_summary([Turn(1, ("f",), action=Silence())]) == "Nothing was said."


def test_the_log_tells_what_modules_noted():
    turns = [
        Turn(1, ("f",), ("Tell me.",), (), Silence(), notes=("door: open <|result",)),
        Turn(2, ("f",), (), (), Response("Open."), notes=("door: shut",)),
    ]
    assert log_summary(turns) == (
        "1 s user: Tell me.; 1 s note: door: open < |result; "
        "2 s note: door: shut; 2 s assistant: Open."
    )


def test_a_long_log_keeps_its_end():
    turns = [Turn(n, ("f",), action=Response(f"number {n}")) for n in range(100)]
    text = log_summary(turns, chars=200)
    assert text.startswith("…; ")
    assert text.endswith("99 s assistant: number 99")
    assert len(text) <= 200


stretches = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 12)).map(lambda at: (at[0], sum(at))), max_size=8
)


@given(stretches, st.integers(0, 20), st.integers(1, 15), st.sets(st.integers(0, 34)))
def test_a_told_summary_tells_each_second_once_and_none_from_outside(
    stretches, start, length, said
):
    seconds = range(start, start + length)
    action = {True: Response("x"), False: Silence()}
    turns = [Turn(t, ("f",), action=action[t in said]) for t in seconds]
    stored = [Summary(a, b, f"{a}-{b}") for a, b in stretches]

    def summarize(left):
        return ",".join(str(turn.second) for turn in left)

    told = []
    for piece in told_summary(seconds, turns, stored, summarize).split():
        first, _, stop = piece.partition("-")
        told += range(int(first), int(stop)) if stop else map(int, piece.split(","))
    assert told == sorted(set(told)) and set(told) <= set(seconds)
    assert said & set(seconds) <= set(told), "what is said is never lost"
    if not any(start <= a and b <= start + length for a, b in stretches):
        assert told == list(seconds)
