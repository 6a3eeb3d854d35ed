"""Verification: what is right passes, what is damaged does not, what nobody can settle is kept
apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from PIL import Image

from data_pipeline.agents.asking import wait_for
from data_pipeline.agents.detector import Found
from data_pipeline.agents.event_lines import line_of
from data_pipeline.agents.plain import PlainAgent
from data_pipeline.candidates import Candidate
from data_pipeline.corruption import corrupting, damage
from data_pipeline.desk import Desk
from data_pipeline.families import chained
from data_pipeline.families.targets import Tools
from data_pipeline.verify import newest, stages
from data_pipeline.world.streams import FAMILIES, kinds
from joyvl_train.config import UserError
from joyvl_train.timeline import Clip, Event, Timeline
from tests.data_pipeline.agents.endpoint import Endpoint, client
from tests.data_pipeline.answers import Ask, verdict
from tests.data_pipeline.families.made import pictures, world
from tests.data_pipeline.oracle import Oracle


def gold_only(ask: Ask) -> Any:
    """A verifier of whole annotations that knows each line with its second, and misses none."""
    stop = ask.fields["stop"]
    told = set(ask.fields["annotation"])
    right = {line_of(e) for g in ask.gold for e in g.events if e.second <= stop}
    return verdict(told == right)


GOLD = {"global_verifier": gold_only}


def verified(
    given: list[Candidate], oracle: Oracle, right: list[Candidate] | None = None, **settings: Any
) -> list[Candidate]:
    for one in right or given:
        oracle.knows(one.timeline, pictures(one.timeline))
    desk = Desk(pictures, oracle.agents(most_pictures=40), window=4)
    return list(chained(stages(desk, **settings), given))


def streams(count: int = 2) -> list[Candidate]:
    families = ("alerting", "qa", "commentary", "delegation")
    return [one for family in families for one in world(family, range(count), seconds=14)]


def test_what_is_right_passes_both_levels() -> None:
    given = streams(1)
    with Oracle(answers=GOLD) as oracle:
        out = verified(given, oracle)
    assert [one.status for one in out] == ["open"] * len(given)
    for one in out:
        stages_seen = [note.stage for note in one.history]
        assert stages_seen == ["rules", "pictures", "local", "global"]
        assert one.history[-1].agent.startswith("global_verifier@")
    lines = sum(len(one.timeline.of("assistant")) for one in given)
    assert oracle.asked["local_verifier"] >= lines
    assert oracle.asked["global_verifier"] == len(given)


def test_the_oracle_passes_every_kind_of_stream_and_no_damaged_one() -> None:
    given = [
        one
        for family in FAMILIES
        for kind in kinds(family)
        for one in world(family, [3], kind=kind, seconds=16)
    ]
    assert any(e.repeat for one in given for e in one.timeline.events)
    hurt = list(corrupting(1.0)[1](iter(given)))
    with Oracle() as oracle:
        assert {one.status for one in verified(given, oracle)} == {"open"}
        assert {one.status for one in verified(hurt, oracle, given)} == {"rejected"}


def test_what_is_damaged_is_rejected_with_its_reason() -> None:
    given = streams()
    hurt = list(corrupting(1.0)[1](iter(given)))
    with Oracle(answers=GOLD) as oracle:
        out = verified(hurt, oracle, given)
    assert {one.status for one in out} == {"rejected"}
    assert {one.reason for one in out} <= {
        "not right at its second", "before what it answers", "too easy to hand over",
        "not right as a whole",
    }  # fmt: skip


def test_lines_that_the_whole_look_cannot_be_shown_leave_a_clip_unverified() -> None:
    (one,) = world("qa", range(1), seconds=14)
    lines = [Event(f"u{n}", n + 0.5, "user", f"{n} {'very ' * 60}long") for n in range(2, 12)]
    timeline = replace(one.timeline, events=(*one.timeline.events, *lines))
    one = one.changed("made longer", timeline)
    for most_chars, status in ((8000, "open"), (2000, "unverified")):
        with Oracle() as oracle:
            oracle.knows(timeline, pictures(timeline))
            agents = oracle.agents(most_pictures=40, most_chars=most_chars)
            (out,) = chained(stages(Desk(pictures, agents, window=4)), [one])
        assert out.status == status, out.history[-1]
    assert (out.history[-1].stage, out.reason) == ("global", "too long")


def test_what_is_left_out_is_found_as_a_whole() -> None:
    """Each line by itself is right; one is missing."""
    (given,) = world("alerting", [43], seconds=16)
    first = given.timeline.of("assistant")[0]
    events = tuple(e for e in given.timeline.events if e != first)
    lacking = replace(given, timeline=replace(given.timeline, events=events))
    with Oracle(answers=GOLD) as oracle:
        (out,) = verified([lacking], oracle, [given])
    assert (out.reason, out.history[-1].stage) == ("not right as a whole", "global")


def test_pictures_of_the_future_are_not_shown() -> None:
    (given,) = world("commentary", [0], seconds=14)
    seen: list[tuple[int, tuple[int, ...]]] = []

    def note(ask: Ask) -> Any:
        seen.append((ask.fields["second"], ask.seconds))
        return verdict(True)

    with Oracle(answers={**GOLD, "local_verifier": note}) as oracle:
        verified([given], oracle, before=2, context=3)
    assert seen
    for second, shown in seen:
        assert max(shown) == second and set(range(max(0, second - 2), second + 1)) <= set(shown)
        assert len(shown) <= 6


def test_long_clips_are_judged_in_stretches() -> None:
    (given,) = world("commentary", [41], seconds=30)
    asked: list[tuple[int, int]] = []

    def note(ask: Ask) -> Any:
        asked.append((ask.fields["start"], ask.fields["stop"]))
        return gold_only(ask)

    with Oracle(answers={**GOLD, "global_verifier": note}) as oracle:
        oracle.knows(given.timeline, pictures(given.timeline))
        desk = Desk(pictures, oracle.agents(most_pictures=16), window=1)
        (out,) = chained(stages(desk, context=4), [given])
    assert out.status == "open"
    assert asked == [(0, 11), (12, 23), (24, 29)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no JSON", "unparsed"),
        ('{"reason": "?", "verdict": "unsure"}', "unsure"),
        ((500, {}), "agent failed"),
        (b"garbage", "agent failed"),
    ],
)
@pytest.mark.parametrize("agent", ["local_verifier", "global_verifier"])
def test_what_nobody_can_settle_is_unverified(agent: str, fault: Any, reason: str) -> None:
    given = world("alerting", [42], seconds=10)
    faults = {agent: (1.0, fault)}
    with Oracle(faults=faults, answers=GOLD, retries=0) as oracle:
        (out,) = verified(given, oracle)
    assert (out.status, out.reason) == ("unverified", reason)
    assert out.history[-1].stage == agent.partition("_")[0]


@pytest.mark.parametrize(("stage", "status"), [("absence", "open"), ("pictures", "unverified")])
def test_silence_passes_where_every_frame_was_looked_at(stage: str, status: str) -> None:
    """No plain question asks whether nothing is to be said."""
    (one,) = world("alerting", [42], seconds=10)
    events = tuple(event for event in one.timeline.events if event.role == "user")
    silent = replace(one, timeline=replace(one.timeline, events=events)).kept(stage)
    with Endpoint("No.") as endpoint:
        asked = client(endpoint)
        agents = {name: PlainAgent(name, asked) for name in ("local_verifier", "global_verifier")}
        (out,) = chained(stages(Desk(pictures, agents, window=4)), [silent])
        wait_for(asked.close())
    assert out.status == status and not endpoint.seen
    assert out.reason == ("" if status == "open" else "unsure")


def test_an_endless_liar_admits_what_it_likes_but_the_rules_hold() -> None:
    """Agents that say yes to everything admit no line that answers the future."""
    given = world("qa", range(50, 54), seconds=20)
    hurt = []
    for one in given:
        event = one.timeline.of("assistant")[0]
        query = next(e for e in one.timeline.events if e.id == event.answers)
        moved = replace(query, time=event.time + 1.2)
        events = tuple(moved if e == query else e for e in one.timeline.events)
        hurt.append(replace(one, timeline=replace(one.timeline, events=events)))
    liar: Callable[[Ask], Any] = lambda ask: verdict(True)  # noqa: E731
    with Oracle(answers={"local_verifier": liar, "global_verifier": liar}) as oracle:
        out = verified(hurt, oracle, given)
    assert [one.reason for one in out] == ["before what it answers"] * 4
    assert not oracle.asked


@dataclass
class Blind:
    key: str = "blind@1"

    def __call__(self, picture: Image.Image) -> list[Found]:
        return []


def test_tools_reject_before_a_model_is_asked() -> None:
    damaged = damage(world("alerting", [44], seconds=12)[0].timeline, "ungrounded talk")
    assert damaged is not None
    line = Event("x", damaged.second + 0.5, "assistant", "A zebra appeared.")
    events = tuple(line if e.id == damaged.event else e for e in damaged.timeline.events)
    timeline = replace(damaged.timeline, events=events)
    with Oracle() as oracle:
        (out,) = verified([Candidate("c", timeline)], oracle, tools=Tools(detects=Blind()))
    assert (out.reason, out.history[-1].agent) == ("not in the picture", "blind@1")
    assert not oracle.asked


def test_others_pass_by_and_missing_agents_are_named() -> None:
    given = world("alerting", [42], seconds=10)
    with Oracle() as oracle:
        assert verified(given, oracle, own=lambda candidate: False) == given
    with pytest.raises(UserError, match="no agent 'local_verifier'"):
        list(chained(stages(Desk(pictures)), given))


def test_lines_as_a_verifier_reads_them() -> None:
    handed = Event("a", 3.2, "assistant", "One moment.", question="What is 3 times 345?")
    held = Event("b", 3.2, "assistant", "It is there.", until=7.0, repeat=True)
    assert line_of(handed).endswith("One moment. [hands over: What is 3 times 345?]")
    assert line_of(held) == "3 s, again every second until 7 s: assistant: It is there."
    lines = ["a" * 20, "b" * 20, "c" * 20]
    assert newest(lines, 60) == lines[1:]
    assert newest(lines, 10) == [] and newest(lines, 10**6) == lines
    assert len("".join("\n- " + json.dumps(line) for line in newest(lines, 60))) <= 60


def test_a_clip_without_pictures_is_rejected() -> None:
    class Nothing:
        seconds = 5

        def frames(self, second: int) -> tuple[Image.Image, ...]:
            return ()

    line = Event("a", 2.0, "assistant", "A dog appeared.")
    given = Candidate("c", Timeline(Clip("v", 5.0, video="v.mp4"), "alerting", "made", (line,)))
    with Oracle() as oracle:
        desk = Desk(lambda timeline: Nothing(), oracle.agents())
        (out,) = chained(stages(desk), [given])
    assert (out.status, out.reason) == ("rejected", "no picture")
