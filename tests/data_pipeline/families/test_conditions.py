"""Conditions of time in ready timelines: the clock alone says what is due then."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import chained, conditions, splitting
from data_pipeline.world.streams import FAMILIES, stream
from joyvl_train.timeline import Event, Timeline, actions
from tests.data_pipeline.families.made import pictures, world

SOURCES = [stream(family, seed, "train") for family in FAMILIES for seed in range(25)]


def number(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def made(way: str) -> list[tuple[Timeline, Timeline]]:
    weaving = conditions._WEAVING[way]
    both = [(one, weaving(random.Random(n), one)) for n, one in enumerate(SOURCES)]
    found = [(before, woven[0]) for before, woven in both if woven is not None]
    assert len(found) >= 5, way
    for _, after in found:
        assert len(actions(after)) == after.clip.seconds
    return found


def test_an_answer_is_withheld_for_as_long_as_was_asked() -> None:
    for before, after in made("withhold"):
        new = {e.id: e for e in after.events}
        (query,) = [e for e in before.of("user") if new[e.id] != e]
        (answer,) = [e for e in before.of("assistant") if new[e.id] != e]
        assert answer.answers == query.id and answer.second == query.second
        asked, told = new[query.id], new[answer.id]
        assert asked.text.startswith(query.text) and asked.time == query.time
        (wait,) = set(number(asked.text)) - set(number(query.text)) or {told.second - query.second}
        assert told.second == query.second + wait and told.text == answer.text
        assert (told.early, told.late, told.rule) == (1, 1, answer.rule)
        assert len(new) == len(before.events)


def test_a_count_goes_on_beside_all_else() -> None:
    for before, after in made("every"):
        own = [e for e in after.events if e not in before.events]
        assert [e for e in after.events if e not in own] == sorted(
            before.events, key=after.events.index
        )
        query, *said = own
        interval = said[0].second - query.second
        steps = [query.second + interval * n for n in range(1, len(said) + 1)]
        assert [e.second for e in said] == steps
        assert [e.text for e in said] == [str(n) for n in range(1, len(said) + 1)]
        assert {*number(query.text)} - {1} == {interval, len(said)} and interval > 2
        busy = {e.second for e in before.of("assistant", "user", "background")}
        assert not busy & {e.second for e in own}


def test_what_is_due_outside_a_span_falls_silent() -> None:
    sides = set()
    for before, after in made("window"):
        (query,), (asked,) = before.of("user"), after.of("user")
        assert asked.text.startswith(query.text) and asked.time == query.time
        (n,) = number(asked.text.removeprefix(query.text))
        turn = query.second + n
        left = after.of("assistant")
        within = any(
            asked.text == form.format(instruction=query.text, n=n) for form in conditions.WITHIN
        )
        sides.add(within)
        assert left == [e for e in before.of("assistant") if (e.second < turn) == within]
        assert len(left) < len(before.of("assistant"))
        assert all(abs(e.second - turn) >= conditions.EDGE for e in before.of("assistant"))
    assert sides == {True, False}


def alert(*reports: Event, text: str = "Tell me when a dog comes.") -> Timeline:
    (one,) = world("alerting", [0], seconds=24)
    query = Event("q0", 1.0, "user", text)
    return replace(one.timeline, events=(query, *reports))


@pytest.mark.parametrize(
    "timeline",
    [
        alert(),
        alert(Event("r0", 9.0, "assistant", "A dog.", answers="q0", until=12.0, repeat=True)),
        alert(Event("r0", 9.0, "assistant", "A dog.")),
        alert(Event("r0", 9.0, "assistant", "A dog.", answers="q0"), text="For 20 seconds, tell."),
        alert(
            Event("q1", 3.0, "user", "And a cat."),
            Event("r0", 9.0, "assistant", "A dog.", answers="q0"),
        ),
        replace(alert(Event("r0", 9.0, "assistant", "2", answers="q0")), family="recall"),
    ],
)
def test_instructions_that_bear_no_bound(timeline: Timeline) -> None:
    for seed in range(5):
        assert conditions.bounded(random.Random(seed), timeline) is None


def test_a_state_that_holds_over_the_edge_has_no_plain_side() -> None:
    held = alert(Event("r0", 5.0, "assistant", "A dog.", answers="q0", until=22.0))
    for seed in range(20):
        woven = conditions.bounded(random.Random(seed), held)
        if woven is not None:
            assert not woven[0].of("assistant") and "within" in woven[1]


def test_woven_copies_stand_beside_what_they_are_made_of() -> None:
    given = world("qa", range(6)) + world("counting", range(2))
    desk = Desk(pictures)
    stage = splitting(
        "conditions", conditions.fit, lambda one: conditions.weave(desk, conditions.WAYS, one)
    )
    out = list(chained([stage], given))
    copies = [one for one in out if one.work.get("parent")]
    assert len(copies) >= 4 and len(out) == len(given) + len(copies)
    parents = {one.id: one for one in out}
    for one in copies:
        parent = parents[one.work["parent"]]
        assert one.timeline.family == "counting" and parent.timeline in [g.timeline for g in given]
        assert one.timeline.meta["beside"] == "qa" and one.timeline.meta["way"] in conditions.WAYS
        assert parent.history[-1].detail == "1 made of it" and parent.status == "open"
    assert list(chained([stage], given)) == out


def test_what_nothing_may_be_woven_into() -> None:
    (one,) = world("qa", [0])
    assert conditions.fit(one)
    for wrong in (
        replace(one, use="evaluation"),
        replace(one, language="de"),
        replace(one, timeline=replace(one.timeline, family="counting")),
        replace(one, timeline=replace(one.timeline, events=())),
    ):
        assert not conditions.fit(wrong)
    full = Timeline(one.timeline.clip, "qa", "x", (Event("q", 0.0, "user", "Hm?"),))
    desk = Desk(pictures)
    whole: Candidate = replace(one, timeline=full)
    assert len(conditions.weave(desk, ("withhold", "window"), whole)) == 1
