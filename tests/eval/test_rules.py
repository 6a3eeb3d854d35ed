"""The rule judge: worked examples, and what no change of a trace may do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grades import Grade, Unscored, mean, outcome
from eval.rules import EARLY_BY, LATE_BY, guarded, judge
from joyvl_train.actions import Delegation, Response, Silence
from joyvl_train.heldout import Step, Trace
from joyvl_train.timeline import Rule
from joyvl_train.timing import Onset

SECONDS = 40
DOG = Rule("key_facts", ("dog",))


def trace(
    onsets: list[Onset], said: dict[int, str], delegated: frozenset[int] = frozenset()
) -> Trace:
    steps = []
    for t in range(SECONDS):
        action = Response(said[t]) if t in said else Silence()
        if t in delegated:
            action = Delegation(said[t], "What is it?")
        steps.append(Step(t, action))
    return Trace("case", "monitoring", "eval", "x", tuple(steps), tuple(onsets))


def dog(second: int, **more) -> Onset:
    return Onset(second, "A dog appeared.", rule=DOG, **more)


@pytest.mark.parametrize(
    ("said", "quality", "timing"),
    [
        ({10: "A dog."}, 2, 2),
        ({11: "A dog."}, 2, 2),  # in its window
        ({12: "A dog."}, 2, 0),  # right, and late
        ({8: "A dog."}, 2, 0),  # right, and early
        ({7: "A dog."}, 0, 0),  # too early to be about it
        ({11 + LATE_BY: "A dog."}, 2, 0),
        ({12 + LATE_BY: "A dog."}, 0, 0),
        ({10: "A cat."}, 0, 2),
        ({}, 0, 0),
        ({10: "A dog.", 20: "A dog."}, 1, 1),  # 2 / 3
        ({10: "A dog.", 20: "A dog.", 30: "A dog."}, 1, 1),  # 2 / 4
        (dict.fromkeys(range(0, 40, 4), "A dog.") | {10: "A dog."}, 0, 0),
    ],
)
def test_one_thing_due(said: dict[int, str], quality: int, timing: int) -> None:
    assert judge(trace([dog(10)], said)) == Grade(quality, timing)


def test_where_nothing_is_due_silence_is_good() -> None:
    assert judge(trace([], {})) == Grade(2, 2)
    assert judge(trace([], {3: "Well."})) == Grade(1, 1)
    assert judge(trace([], {3: "Well.", 9: "Well."})) == Grade(0, 0)


def test_a_response_in_every_second_counts_by_its_seconds() -> None:
    held = dog(10, until=20, repeat=True)
    assert judge(trace([held], dict.fromkeys(range(10, 20), "A dog."))) == Grade(2, 2)
    assert judge(trace([held], dict.fromkeys(range(10, 16), "A dog."))) == Grade(1, 1)
    assert judge(trace([held], {10: "A dog."})) == Grade(0, 0)
    once = dog(10, until=20)
    assert judge(trace([once], dict.fromkeys(range(10, 20), "A dog."))) == Grade(0, 0)


def test_a_note_needs_no_rule_but_must_hand_over() -> None:
    task = Onset(10, "Let me see.", delegation=True)
    assert judge(trace([task], {10: "One moment."}, frozenset({10}))) == Grade(2, 2)
    assert judge(trace([task], {10: "It is 12."})) == Grade(0, 1)  # it was kept
    told = replace(task, rule=Rule("key_facts", ("let me",)))
    assert judge(trace([told], {10: "Let me see."}, frozenset({10}))) == Grade(2, 2)
    assert judge(trace([told], {10: "Let me see."})) == Grade(0, 1)


def test_a_text_that_only_a_model_can_judge_is_unscored() -> None:
    judged = Onset(10, "A dog runs.", rule=Rule("judged", ("Tells of the run.",)))
    assert judge(trace([judged], {10: "It runs."})) == Unscored(
        "content needs a judge", "case case"
    )
    assert judge(trace([judged], {})) == Grade(0, 0)  # silence needs none


def test_scores_are_compared_by_their_mean() -> None:
    assert outcome(Grade(2, 0), Grade(0, 2)) == "tie"
    assert (
        outcome(Grade(2, 1), Grade(1, 1)) == "win" and outcome(Grade(0, 0), Grade(0, 1)) == "loss"
    )
    assert mean([Grade(2, 1), Grade(1, 2)]) == Grade(1.5, 1.5)
    with pytest.raises(ValueError):
        Grade(3, 0)
    with pytest.raises(ValueError):
        mean([])


def test_who_speaks_where_silence_is_the_point_is_fair_at_best() -> None:
    due = [dog(10), dog(20), dog(30)]
    said = dict.fromkeys((10, 20, 30), "A dog.")
    assert judge(trace(due, said), quiet=[range(12, 18)]) == Grade(2, 2)
    more = {**said, 14: "A dog."}
    assert judge(trace(due, more)) == Grade(2, 2)  # 6 of 7
    assert judge(trace(due, more), quiet=[range(12, 18)]) == Grade(1, 1)


@pytest.mark.parametrize(
    ("facts", "gold", "said", "right"),
    [
        (("dog|puppy",), "A dog appeared.", "A dog appeared beside a cat.", True),
        (("dog|puppy",), "A dog appeared.", "A dog, a cat and a car.", False),
        (("dog|puppy",), "A dog appeared.", "A puppy appeared.", True),
        (("house", "dog"), "A house and a dog.", "A house, a dog and a kitten.", True),
        (("house", "dog"), "A house and a dog.", "A house, a dog, a cat and a car.", False),
        (("red",), "It was red.", "Red.", True),
        (("red",), "It was red.", "Red, blue or green.", False),
        (("yes",), "Yes, it is.", "Yes.", True),
        (("yes",), "Yes, it is.", "Yes and no.", False),
        (("door", "open"), "The door is open.", "The door is open or closed.", False),
        (("door", "open"), "The door is open.", "The open door.", True),
    ],
)
def test_several_answers_at_once_are_none(facts, gold: str, said: str, right: bool) -> None:
    names = [("dog", "puppy"), ("cat", "kitten"), ("car",), ("house",), ("door",)]
    check = guarded(names, [("closed", "open")])
    assert check(Onset(0, gold, rule=Rule("key_facts", facts)), said) is right


texts = st.sampled_from(["A dog.", "A cat."])
spoken = st.dictionaries(st.integers(0, SECONDS - 1), texts, max_size=8)
onset_lists = st.lists(st.integers(0, SECONDS - 8), max_size=5, unique=True).map(
    lambda seconds: [replace(dog(t), id=str(t)) for t in sorted(seconds)]
)


@given(onset_lists, spoken, st.integers(0, SECONDS - 1), texts)
def test_talk_that_nothing_called_for_never_helps(onsets, said, second, text) -> None:
    near = {t for o in onsets for t in range(o.second - EARLY_BY, o.second + LATE_BY + 3)}
    if second in said or second in near:
        return
    before, after = judge(trace(onsets, said)), judge(trace(onsets, {**said, second: text}))
    assert after.quality <= before.quality and after.timing <= before.timing


@given(onset_lists, st.integers(1, 12))
def test_delay_never_improves_timing(onsets, delay) -> None:
    """Of answers given when they are due."""
    said = {o.second: "A dog." for o in onsets}
    late = {t + delay: text for t, text in said.items() if t + delay < SECONDS}
    before, after = judge(trace(onsets, said)), judge(trace(onsets, late))
    assert before == Grade(2, 2)
    assert after.timing <= before.timing and after.quality <= before.quality


@given(onset_lists, spoken)
def test_a_right_answer_in_time_never_hurts(onsets, said) -> None:
    for onset in onsets:
        windows = {t for o in onsets if o is not onset for t in range(o.second - 2, o.second + 7)}
        reach = set(range(onset.second - EARLY_BY, onset.second + LATE_BY + 2))
        if reach & set(said) or onset.second in windows:
            continue
        before = judge(trace(onsets, said))
        after = judge(trace(onsets, {**said, onset.second: "A dog."}))
        assert after.quality >= before.quality and after.timing >= before.timing
