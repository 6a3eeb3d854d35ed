"""What is handed over and what is talked about: delegation and chat, read off their events."""

from __future__ import annotations

import itertools
import re

import pytest

from data_pipeline.world.stories import delegation
from data_pipeline.world.streams import kinds

from .watching import present, told, watch


def test_delegations_return_and_are_answered() -> None:
    delays, easy, alerts, pending_replies = set(), 0, 0, 0
    for kind in kinds("delegation"):
        for timeline, _ in told("delegation", kind, 15):
            by_id = {e.id: e for e in timeline.events}
            tasks = [e for e in timeline.of("assistant") if e.question]
            assert tasks
            spans = []
            for task in tasks:
                query = by_id[task.answers or ""]
                assert query.role == "user" and query.second == task.second
                assert task.text in delegation.NOTES.values()
                back = [e for e in timeline.of("background") if e.answers == task.id]
                assert len(back) <= 1
                for result in back:
                    delays.add(result.second - task.second)
                    (answer,) = [e for e in timeline.of("assistant") if e.answers == result.id]
                    assert answer.second == result.second
                    spans.append((task.second, result.second))
                    digits = "".join(c for c in answer.text if c.isdigit())
                    assert digits in result.text
            for event in timeline.of("assistant"):
                query = by_id.get(event.answers or "")
                if event.question or query is None or query.role != "user":
                    continue
                easy += event.second == query.second
                alerts += event.second > query.second
                pending_replies += any(a < event.second < b for a, b in spans)
    assert min(delays) >= 3 and max(delays) <= 14 and len(delays) > 6
    assert easy > 50 and alerts > 20 and pending_replies > 30


def test_every_coming_of_what_is_watched_for_is_told_beside_delegations() -> None:
    for kind in ("beside_alerts", "mixed"):
        for timeline, scene in told("delegation", kind, 60):
            watched = timeline.of("user")[0]
            name = next(
                key.split(" | ")[1]
                for key in timeline.meta["compositions"]
                if key.startswith("appear")
            )
            came = [
                s for s, h in watch(scene) for _, t, w in h if w == "came" and t.picture == name
            ]
            alerts = [e.second for e in timeline.of("assistant") if e.answers == watched.id]
            assert alerts == came, timeline.clip.id


@pytest.mark.parametrize("kind", ["backward", "mixed"])
def test_nobody_asks_again_what_was_answered_of_the_past(kind: str) -> None:
    past, asked = {"was_there", "before", "left_last", "came_first"}, 0
    for timeline, _ in told("qa", kind, 60):
        turns = [key.rpartition(" | ")[0] for key in timeline.meta["compositions"]]
        turns = [turn for turn in turns if turn.split(" | ")[0] in past]
        assert len(set(turns)) == len(turns), timeline.clip.id
        asked += len(turns)
    assert asked > 80


def test_what_is_looked_up_could_be_so_and_nothing_is_asked_twice() -> None:
    years = 0
    for timeline, _ in told("delegation", "lookups", 60):
        questions = [e.question for e in timeline.of("assistant") if e.question]
        assert len(set(questions)) == len(questions)
        for result in timeline.of("background"):
            if "bridge" in result.text:
                years += 1
                assert 1750 <= int(result.text.rstrip(".").split(" ")[-1]) <= 1995
    assert years > 3


def test_what_is_counted_and_handed_over_is_more_than_one() -> None:
    counted = 0
    for timeline, scene in told("delegation", "seen_sums", 60):
        for event in timeline.of("assistant"):
            asked = re.fullmatch(r"What is (\d\d?) times (\d+)\?", event.question or "")
            if asked:
                counted += 1
                here = present(scene, event.second)
                assert int(asked[1]) > 1 and int(asked[1]) in map(here.count, here)
    assert counted > 20


def test_a_plan_is_told_in_its_order() -> None:
    results = 0
    for timeline, _ in told("delegation", "plans", 20):
        by_id = {e.id: e for e in timeline.events}
        for event in timeline.of("assistant"):
            result = by_id.get(event.answers or "")
            if result and result.role == "background" and result.text.startswith("Plan"):
                one, two, three = result.text.removeprefix("Plan: ").rstrip(".").split(", ")
                assert event.text == f"First the {one}, then the {two}, then the {three}."
                results += 1
    assert results > 10


def test_talk_begins_with_a_greeting_or_none_and_is_about_what_was_named_last() -> None:
    replies = {"hello": "Hello!", "thanks": "You are welcome."}
    refers = 0
    for kind in kinds("chat"):
        for timeline, _ in told("chat", kind, 60):
            said = timeline.meta["compositions"]
            if kind == "long_ago":  # what was told before the clip goes first
                assert len(said) > len(timeline.of("assistant"))
                said = said[-len(timeline.of("assistant")) :]
            turns = [key.split(" | ")[0] for key in said]
            assert len(turns) == len(timeline.of("assistant"))
            assert replies["hello"] not in [
                e.text
                for e, turn in zip(timeline.of("assistant")[1:], turns[1:], strict=True)
                if turn != "again"
            ]
            assert turns.count("thanks") <= 1 and turns[0] not in ("thanks", "again")
            assert all(one != other for one, other in itertools.pairwise(turns))
            about = [key.split(" | ")[:2] for key in said]
            assert not [
                it for it in about if it[0].startswith(("it_", "like")) and "person" in it[1]
            ]
            subject = ""
            for turn, reply in zip(turns, timeline.of("assistant"), strict=True):
                if turn in ("see", "like", "like_back"):
                    subject = turn
                if turn.startswith("it_"):
                    refers += 1
                    assert subject == "see", timeline.clip.id
                if reply.text.startswith("No, "):  # it has left
                    subject = ""
    assert refers > 40


def test_what_was_told_long_ago_stands_in_memory_alone() -> None:
    asked, told_at = {"name_back": 0, "like_back": 0}, []
    for timeline, _ in told("chat", "long_ago", 60):
        memory, before = timeline.opening, timeline.meta["before"]
        assert f" to {before} s: " in memory
        lines = memory.split("Instructions:\n")[1].splitlines()
        pinned = lines[: lines.index("Said:")]
        assert all(int(line.split(" s: ")[0]) < before for line in pinned)
        known = {}
        for key in timeline.meta["compositions"][: -len(timeline.of("assistant"))]:
            event, thing, wording = key.split(" | ")
            (line,) = [line for line in pinned if line.endswith(f" s: {wording.format(x=thing)}")]
            known[f"{event}_back"] = thing
            told_at.append(before - int(line.split(" s: ")[0]))
        for event in known.keys() & asked.keys():
            replies = {"name_back": "You are {}.", "like_back": "The {}."}
            said = [e.text for e in timeline.of("assistant")]
            asked[event] += said.count(replies[event].format(known[event]))
    assert min(asked.values()) > 40
    assert min(told_at) < 100 and max(told_at) > 1500


def test_hard_sums_are_right() -> None:
    checked = 0
    for timeline, _ in told("delegation", "sums", 20):
        for result in timeline.of("background"):
            if result.text.startswith("Error"):
                continue
            x, sign, y, _, value = result.text.rstrip(".").split(" ")
            right = {"times": int(x) * int(y), "plus": int(x) + int(y), "minus": int(x) - int(y)}
            assert int(value) == right[sign]
            checked += 1
    assert checked > 15
