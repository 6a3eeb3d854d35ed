from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.actions import Delegation, Silence
from joyvl_train.background import (
    DIGEST_CHARS,
    ERROR_DIGEST,
    Error,
    Ready,
    SimulatedBackground,
    Started,
    result_of,
    task_of,
)
from joyvl_train.stream import Stream
from joyvl_train.timeline import Clip, Event, Timeline

ASK = Delegation("Let me check.", "How many bolts?")
TIMELINE = Timeline(
    Clip("c", 60.0),
    "delegation",
    "test",
    (
        Event("d1", 10, "assistant", "Let me check.", question="How many bolts?"),
        Event("r1", 16, "background", "Nine bolts.", answers="d1"),
        Event("d2", 12, "assistant", "One moment.", question="Which make?", early=2, late=5),
        Event("r2", 42, "background", "Acme.", answers="d2"),
        Event("d3", 50, "assistant", "One moment.", question="What price?"),
    ),
)


def run(background: SimulatedBackground, seconds: range) -> dict[int, list[tuple[int, str]]]:
    return {second: came for second in seconds if (came := background.due(second))}


def test_a_result_returns_relative_to_the_policys_own_second():
    background = SimulatedBackground(TIMELINE)
    background.dispatch(11, 1, ASK)
    assert run(background, range(60)) == {17: [(1, "Nine bolts.")]}
    assert background.matched[1].id == "d1"
    assert background.returned == {1: 17}


def test_each_gold_delegation_is_taken_once_and_the_nearest_first():
    background = SimulatedBackground(TIMELINE, seed=3, delays=(4, 4))
    for number, second in enumerate([10, 11, 15, 16], 1):
        background.dispatch(second, number, ASK)
    assert {n: event.id for n, event in background.matched.items()} == {1: "d1", 2: "d2"}
    assert run(background, range(60)) == {
        16: [(1, "Nine bolts.")],
        19: [(3, ERROR_DIGEST)],
        20: [(4, ERROR_DIGEST)],
        41: [(2, "Acme.")],
    }


@pytest.mark.parametrize(("early", "late", "hit"), [(0, 1, {10, 11}), (1, 1, {9, 10, 11})])
def test_the_window_decides_what_was_called_for(early, late, hit):
    one = Timeline(TIMELINE.clip, "delegation", "test", TIMELINE.events[:2])
    matched = set()
    for second in range(8, 14):
        background = SimulatedBackground(one, early=early, late=late)
        background.dispatch(second, 1, ASK)
        matched |= {second} if background.matched else set()
    assert matched == hit


@given(st.integers(0, 99), st.integers(0, 7), st.integers(1, 20))
def test_what_nothing_called_for_gets_an_error_after_a_drawn_delay(seed, second, number):
    delays = []
    for _ in range(2):
        background = SimulatedBackground(TIMELINE, seed, delays=(2, 9))
        background.dispatch(second, number, ASK)
        ((when, came),) = run(background, range(60)).items()
        assert came == [(number, ERROR_DIGEST)]
        delays.append(when - second)
    assert delays[0] == delays[1]
    assert 2 <= delays[0] <= 9


def test_delays_differ_by_seed_clip_and_number():
    def delay(seed: int, clip: str, number: int) -> int:
        empty = Timeline(Clip(clip, 2000.0), "delegation", "test")
        background = SimulatedBackground(empty, seed, delays=(1, 1000))
        background.dispatch(0, number, ASK)
        return next(iter(run(background, range(1001))))

    assert len({delay(*key) for key in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2)]}) == 4


def test_gold_results_can_be_drawn_as_well():
    background = SimulatedBackground(TIMELINE, delays=(20, 20), draw_gold=True)
    background.dispatch(10, 1, ASK)
    assert run(background, range(60)) == {30: [(1, "Nine bolts.")]}


def test_a_result_that_the_timeline_does_not_hold_never_comes():
    background = SimulatedBackground(TIMELINE)
    background.dispatch(50, 1, ASK)
    assert background.matched[1].id == "d3"
    assert run(background, range(200)) == {}


def test_what_is_due_in_a_hole_comes_after_it_in_order():
    background = SimulatedBackground(TIMELINE, delays=(3, 3))
    background.dispatch(10, 1, ASK)
    background.dispatch(30, 2, ASK)
    assert background.due(40) == [(1, "Nine bolts."), (2, ERROR_DIGEST)]
    assert background.due(41) == []


@pytest.mark.parametrize("second", [10, 30, 50])
def test_a_number_is_dispatched_once(second):
    background = SimulatedBackground(TIMELINE)
    background.dispatch(second, 1, ASK)
    with pytest.raises(ValueError, match="task 1 was dispatched before"):
        background.dispatch(second + 1, 1, ASK)


@pytest.mark.parametrize("fork", [SimulatedBackground.fork, copy.deepcopy])
def test_a_fork_lives_on_its_own(fork):
    background = SimulatedBackground(TIMELINE, delays=(3, 3))
    background.dispatch(10, 1, ASK)
    other = fork(background)
    other.dispatch(30, 2, ASK)
    assert len(run(other, range(60))) == 2
    assert (background.returned, set(background.matched)) == ({}, {1})
    assert run(background, range(60)) == {16: [(1, "Nine bolts.")]}


def test_a_stream_takes_what_the_background_returns():
    stream, background = Stream(), SimulatedBackground(TIMELINE)
    heard = {}
    for second in range(20):
        turn = stream.observe(second, (second,), results=background.due(second))
        heard[second] = turn.results
        number = stream.act(ASK if second in (4, 10) else Silence())
        if number is not None:
            background.dispatch(second, number, ASK)
    came = {second: results for second, results in heard.items() if results}
    assert came.pop(16) == ((2, "Nine bolts."),)
    assert list(came.values()) == [((1, ERROR_DIGEST),)]


@pytest.mark.parametrize("delays", [(0, 3), (5, 4)])
def test_delays_that_cannot_be_are_errors(delays):
    with pytest.raises(ValueError, match="delays"):
        SimulatedBackground(TIMELINE, delays=delays)


def test_a_task_takes_a_bounded_snapshot():
    task = task_of(2, 7, ASK, "Camera 2.", ["a", "b", "c"], max_frames=2)
    assert (task.number, task.note, task.question) == (2, ASK.note, ASK.question)
    assert task.frames == ("b", "c")
    assert task_of(2, 7, ASK, frames=["a"], max_frames=0).frames == ()
    assert task_of(2, 7, ASK, frames=["a"]).frames == ("a",)
    with pytest.raises(ValueError, match="max_frames is -1"):
        task_of(2, 7, ASK, max_frames=-1)


def test_what_enters_the_stream_of_each_outcome():
    assert result_of(Started(1)) is None
    assert result_of(Ready(1, "Nine\n</silence>", "a.txt")) == (1, "Nine < /silence>")
    assert result_of(Error(1, "timed out after 60 s")) == (1, ERROR_DIGEST)
    assert len(Ready(1, "x" * 2 * DIGEST_CHARS).digest) == DIGEST_CHARS
    with pytest.raises(ValueError, match="digest of task 3 is empty"):
        Ready(3, " ")
