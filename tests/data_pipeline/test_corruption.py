"""What damages timelines of the world: it tells what it did, and what it made is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from data_pipeline.candidates import Candidate, id_of
from data_pipeline.corruption import KINDS, MOVES, STAGE, Damaged, corrupting, damage
from data_pipeline.world import scene as world_scene
from data_pipeline.world.streams import FAMILIES, stream
from joyvl_train import content
from joyvl_train.timeline import Clip, Event, Timeline


def made(kind: str, count: int = 3) -> list[tuple[Timeline, Damaged]]:
    """Some streams with what a kind of damage made of them."""
    found: list[tuple[Timeline, Damaged]] = []
    for seed in range(6):
        for family in FAMILIES:
            timeline = stream(family, seed, "train")
            damaged = damage(timeline, kind, 0)
            if damaged is not None:
                found.append((timeline, damaged))
            if len(found) == count:
                return found
    raise AssertionError(f"{kind}: only {len(found)} of {count}")


def changed(before: Timeline, after: Timeline) -> set[str]:
    """Ids of the events that differ, went or came."""
    old, new = ({e.id: e for e in one.events} for one in (before, after))
    return {key for key in old | new if old.get(key) != new.get(key)}


def line(timeline: Timeline, event: str) -> Event:
    return next(e for e in timeline.events if e.id == event)


@pytest.mark.parametrize("kind", KINDS)
def test_one_thing_is_damaged_and_told(kind: str) -> None:
    for timeline, damaged in made(kind):
        wrong = line(damaged.timeline, damaged.event)
        assert wrong.second == damaged.second and wrong.role == "assistant"
        assert damaged.kind == kind and wrong.text[:8] in damaged.detail or wrong.question
        assert damaged.event in changed(timeline, damaged.timeline)
        assert damaged.timeline.clip == timeline.clip
        assert damage(timeline, kind, 0) == damaged


@pytest.mark.parametrize("by", MOVES)
def test_onsets_are_moved_by_so_many_seconds(by: int) -> None:
    for timeline, damaged in made(f"moved {by} s", 8):
        right, wrong = (line(one, damaged.event) for one in (timeline, damaged.timeline))
        assert abs(right.second - wrong.second) == by and right.text == wrong.text
        assert changed(timeline, damaged.timeline) == {damaged.event}


def test_what_is_put_in_is_nowhere_in_the_clip() -> None:
    for kind in ("wrong object", "ungrounded talk"):
        for timeline, damaged in made(kind, 8):
            assert timeline.clip.scene is not None
            shown = {t.picture for t in world_scene.from_json(timeline.clip.scene).tracks}
            before = [e.text for e in timeline.events]
            wrong = line(damaged.timeline, damaged.event)
            assert wrong.text not in before
            assert not any(wrong.text.lower() in (f"a {n} appeared.", n) for n in shown)


def test_wrong_texts_are_not_right_by_the_rules_of_the_gold_line() -> None:
    for kind in ("wrong object", "wrong words", "wrong count", "wrong colour"):
        for timeline, damaged in made(kind, 4):
            right, wrong = (line(one, damaged.event) for one in (timeline, damaged.timeline))
            assert content.right(right.rule, right.text, wrong.text) is False, damaged.detail


def test_answers_come_after_the_question_and_before_what_they_rest_on() -> None:
    for timeline, damaged in made("before evidence", 8):
        right, wrong = (line(one, damaged.event) for one in (timeline, damaged.timeline))
        asked = line(timeline, wrong.answers or "")
        if asked.role == "user":
            assert asked.second < wrong.second
        assert wrong.second <= right.second - 3


def test_what_is_seen_earlier_was_there_when_it_was_asked_for() -> None:
    for timeline, damaged in made("seen earlier", 4):
        right, wrong = (line(one, damaged.event) for one in (timeline, damaged.timeline))
        asked = line(damaged.timeline, wrong.answers or "")
        assert right.until is not None
        assert right.second < asked.second < wrong.second < right.until


def test_easy_questions_are_handed_over_and_come_back() -> None:
    for timeline, damaged in made("easy delegation", 4):
        right, wrong = (line(one, damaged.event) for one in (timeline, damaged.timeline))
        assert right.question is None and wrong.question
        back = [e for e in damaged.timeline.of("background") if e.answers == wrong.id]
        assert [e.text for e in back] == [right.text] and back[0].second > wrong.second


def test_a_known_share_of_a_flow_is_damaged() -> None:
    streams = [stream(FAMILIES[n % 4], n, "train") for n in range(20)]
    given = [Candidate(id_of(n), timeline) for n, timeline in enumerate(streams)]
    name, stage = corrupting(0.4, seed=3)
    out = list(stage(iter(given)))
    hurt = [one for one in out if STAGE in one.work]
    assert name == STAGE and len(out) == 20 and len(hurt) == 8
    assert [one for one in out if one not in hurt] == [one for one in given if one in out]
    assert len({one.id for one in [*out, *given]}) == 28
    kinds = Counter(one.work[STAGE]["kind"] for one in hurt)
    assert len(kinds) >= 6 and max(kinds.values()) <= 2
    for one in hurt:
        assert one.history[-1].detail.startswith(one.work[STAGE]["kind"])
    assert list(corrupting(0.4, seed=3)[1](iter(given))) == out
    assert list(corrupting(0.4, seed=4)[1](iter(given))) != out
    assert list(corrupting(0.0)[1](iter(given))) == given


def test_refused_candidates_and_real_footage_pass_by() -> None:
    timeline = stream("alerting", 0, "train")
    closed = Candidate("a", timeline).rejected("x", "y")
    clip = Clip("v", 9.0, video="v.mp4")
    real = Candidate("b", Timeline(clip, "alerting", "made"))
    assert list(corrupting(1.0)[1](iter([closed, real]))) == [closed, real]
    with pytest.raises(ValueError, match="no scene"):
        damage(real.timeline, "moved 1 s")
    with pytest.raises(ValueError, match="'upside down' is none of"):
        damage(timeline, "upside down")
    with pytest.raises(ValueError, match="share 2"):
        corrupting(2.0)
    with pytest.raises(ValueError, match="upside down"):
        corrupting(0.5, kinds=("upside down",))


def test_nothing_to_damage_is_none() -> None:
    timeline = stream("alerting", 0, "train")
    mute = replace(timeline, events=tuple(timeline.of("user")))
    found = {kind for kind in KINDS if damage(mute, kind) is not None}
    assert found <= {"ungrounded talk"}
