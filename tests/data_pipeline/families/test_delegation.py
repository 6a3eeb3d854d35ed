"""Delegation: what is hard is handed over, comes back later, and is told as it came back."""

from __future__ import annotations

import pytest

from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import delegation
from data_pipeline.families.places import taken
from joyvl_train import content
from joyvl_train.background import ERROR_DIGEST
from joyvl_train.timeline import Event
from tests.data_pipeline.families.made import footage, reasons, through, told, world
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth

DELAYS = (3, 9)


def episodes(one: Candidate) -> list[tuple[Event, Event, Event, Event]]:
    """Question, delegation, result and reply of each, whose order is right."""
    events = {event.id: event for event in one.timeline.events}
    found = []
    for result in one.timeline.of("background"):
        task = events[result.answers or ""]
        query = events[task.answers or ""]
        (reply,) = [e for e in one.timeline.events if e.answers == result.id]
        assert task.question and query.time < task.time < result.time < reply.time
        assert query.second == task.second and result.second == reply.second
        assert DELAYS[0] <= result.second - task.second <= DELAYS[1]
        found.append((query, task, result, reply))
    return found


def test_planned_episodes_point_at_what_is_there() -> None:
    given = footage("delegation", world("alerting", range(6), seconds=24))
    with Oracle() as oracle:
        out = through(oracle, given, lambda d: delegation.stages(d, delays=DELAYS, stretch=12))
    made = told(out)
    assert len(made) >= 4
    for one in made:
        ((query, _, result, reply),) = episodes(one)
        assert Truth(one.timeline).seen(query.text, query.second)
        assert result.text in reply.text
    assert [note.stage for note in made[0].history] == [
        "pictures", "plan", "timestamp", "visual", "difficulty", "background", "delay", "rewrite",
    ]  # fmt: skip
    assert len({episodes(one)[0][2].second - episodes(one)[0][0].second for one in made}) > 1


def test_plans_that_do_not_fit_are_found_out() -> None:
    given = footage("delegation", world("alerting", range(8), seconds=24))
    with Oracle(errs={"planner": 1.0, "foreground_rewriter": 0.5}) as oracle:
        out = through(oracle, given, lambda d: delegation.stages(d, delays=DELAYS))
    assert len(reasons(out)) >= 2
    for one in told(out):
        ((query, _, result, reply),) = episodes(one)
        assert Truth(one.timeline).seen(query.text, query.second) and result.text in reply.text


def test_a_background_model_without_an_answer() -> None:
    given = footage("delegation", world("alerting", [1], seconds=24))
    for verdict, found in (("no", "rejected"), ("unsure", "unverified")):
        told = {"work": "I tried.", "verdict": verdict, "answer": "Hm."}
        with Oracle(answers={"background": lambda ask, told=told: told}) as oracle:  # type: ignore[misc]
            (one,) = through(oracle, given, delegation.stages)
        assert one.status == found


def test_hard_problems_are_put_into_copies_of_streams() -> None:
    given = [one for family in ("alerting", "qa", "chat") for one in world(family, range(3))]
    with Oracle() as oracle:
        out = through(
            oracle,
            given,
            lambda d: delegation.stages(
                d, text=1.0, questions=0.0, delays=DELAYS, easy=1.0, errors=0.3
            ),
        )
        assert not oracle.asked
    copies = [one for one in out if "parent" in one.work]
    assert len(copies) >= 6 and len(out) == len(given) + len(copies)
    by_id = {one.id: one for one in out}
    errors = easy = 0
    for one in copies:
        parent = by_id[one.work["parent"]]
        assert set(parent.timeline.events) <= set(one.timeline.events)
        assert one.timeline.meta["way"] == "text" and one.timeline.family == "delegation"
        before = taken(parent.timeline)
        for query, task, result, reply in episodes(one):
            if result in parent.timeline.events:
                continue
            assert not {query.second, reply.second} & before
            assert task.question and task.question in query.text
            assert content.right(reply.rule, reply.text, reply.text)
            # "How old is Ben?" is not answered by "It is 21.".
            assert "It is" not in reply.text
            failed = result.text == ERROR_DIGEST
            errors += failed
            assert failed or content.right(reply.rule, result.text, reply.text)
        easy += any(e.id.startswith("e0.") for e in one.timeline.of("user"))
    assert errors and easy > len(copies) / 2


def test_who_says_something_first_does_not_turn_to_something_else() -> None:
    with Oracle() as oracle:
        out = through(
            oracle,
            world("alerting", range(60)),
            lambda d: delegation.stages(d, text=1.0, questions=0.0, delays=DELAYS),
        )
    firsts, turns = 0, 0
    for one in out:
        if "parent" in one.work:
            first, *later = one.timeline.of("user")
            assert not first.text.startswith(("Something else", "By the way")), first.text
            firsts += first.id.startswith("d")
            turns += any(e.text.startswith(("Something else", "By the way")) for e in later)
    assert firsts and turns


def test_questions_on_videos_are_handed_over_in_copies() -> None:
    given = world("qa", range(10))
    with Oracle() as oracle:
        out = through(
            oracle,
            given,
            lambda d: delegation.stages(d, text=0.0, questions=1.0, delays=DELAYS),
        )
    copies = [one for one in told(out) if "parent" in one.work]
    assert len(copies) >= 3
    by_id = {one.id: one for one in out}
    for one in copies:
        parent = by_id[one.work["parent"]].timeline
        ((query, task, result, reply),) = episodes(one)
        asked = [e for e in parent.of("user") if e.text == query.text]
        assert asked and task.question == query.text
        answers = [e.text for e in parent.of("assistant") if e.answers in {q.id for q in asked}]
        assert result.text in answers and result.text in reply.text
        assert one.timeline.meta["way"] == "question"


def test_a_talk_goes_on_while_the_result_is_awaited() -> None:
    given = footage("delegation", world("alerting", range(8), seconds=32))
    with Oracle() as oracle:
        out = through(
            oracle,
            given,
            lambda d: delegation.stages(d, delays=(9, 12), meanwhile=True),
        )
    talks = 0
    for one in told(out):
        (back,) = one.timeline.of("background")
        (task,) = [e for e in one.timeline.of("assistant") if e.question]
        lines = [e for e in one.timeline.events if e.id.startswith("c")]
        assert all(task.second < e.second < back.second for e in lines)
        talks += bool(lines)
    assert talks >= 2


def test_delays_that_leave_no_time() -> None:
    for delays in ((1, 5), (6, 4)):
        with pytest.raises(ValueError, match="delays"):
            delegation.stages(Desk(lambda timeline: None), delays=delays)  # type: ignore[arg-type]
