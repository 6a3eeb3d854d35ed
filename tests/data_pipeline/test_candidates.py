"""Candidates keep what was done to them, and come back equal from a JSON line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.candidates import (
    Candidate,
    candidate_from_json,
    candidate_to_json,
    each_open,
    id_of,
)
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError


def candidate(**more) -> Candidate:
    events = (
        Event("q", 0, "user", "Tell me when it burns."),
        Event("a", 4.5, "assistant", "It burns.", until=7, rule=Rule("key_facts", ("burn|fire",))),
    )
    clip = Clip("door", 9.0, video="a/door.mp4")
    return Candidate(id_of("door", 1), Timeline(clip, "alerting", "made", events), **more)


def test_a_refusal_is_final():
    rejected = candidate().kept("filter").rejected("window", "no event", "nothing moves", "w@12")
    assert rejected.status == "rejected" and rejected.reason == "no event"
    assert [note.stage for note in rejected.history] == ["filter", "window"]
    with pytest.raises(ValueError, match="is rejected"):
        rejected.kept("later")
    unverified = candidate().unverified("global", "no answer")
    assert unverified.status == "unverified" and unverified.reason == "no answer"


def test_stages_leave_closed_ones_alone_and_lose_none():
    def look(one: Candidate) -> Candidate:
        if one.work["n"] == 2:
            raise TimelineError("corrupt frame", "second 3")
        return one.kept("look")

    closed = candidate(work={"n": 0}).rejected("before", "too dark")
    given_in = [closed, candidate(work={"n": 1}), candidate(work={"n": 2})]
    out = list(each_open("look", look, given_in))
    assert [one.work["n"] for one in out] == [0, 1, 2]
    assert [one.reason for one in out] == ["too dark", "", "corrupt frame"]
    assert [len(one.history) for one in out] == [1, 1, 1]


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)))
def test_candidates_come_back_equal(value):
    one = candidate(work={"kept": value}, summaries=((0, 100, "A car came."),), use="evaluation")
    one = one.changed("rewrite", detail="shorter", licence="MIT").unverified("local", "cut off")
    assert candidate_from_json(json.loads(json.dumps(candidate_to_json(one)))) == one


@pytest.mark.parametrize("broken", [{}, {"id": 1}, {"timeline": []}])
def test_what_is_no_candidate_says_so(broken):
    with pytest.raises(TimelineError, match="shape"):
        candidate_from_json(broken)


def test_ids_follow_content_alone():
    assert id_of({"b": 1, "a": 2}) == id_of({"a": 2, "b": 1}) != id_of({"a": 2, "b": 2})
    assert id_of("ab", "c") != id_of("a", "bc")
    with pytest.raises(ValueError, match="use 'test'"):
        candidate(use="test")
