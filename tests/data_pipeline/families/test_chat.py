"""Casual chat: two agents, three pictures, moments drawn at random, three styles."""

from __future__ import annotations

import pytest

from data_pipeline.agents.prompts import STYLES
from data_pipeline.desk import Desk
from data_pipeline.families import chat
from tests.data_pipeline.answers import ANSWERS, Ask
from tests.data_pipeline.families.made import footage, reasons, through, told, world
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth


def test_talks_fit_what_is_seen_and_said() -> None:
    given = footage("chat", world("alerting", range(8), seconds=32))
    shown: list[Ask] = []

    def user(ask: Ask) -> object:
        shown.append(ask)
        return ANSWERS["user_agent"](ask)

    with Oracle(answers={"user_agent": user}) as oracle:
        out = through(oracle, given, chat.stages)
    made = told(out)
    assert len(made) >= 4
    for one in made:
        truth, timeline = Truth(one.timeline), one.timeline
        for query, reply in zip(timeline.of("user"), timeline.of("assistant"), strict=True):
            assert reply.answers == query.id and reply.second == query.second
            assert truth.seen(query.text, query.second)
            meant = truth.meant(query.text)
            assert meant is not None and meant == truth.meant(reply.text)
            assert reply.rule is not None and reply.rule.kind == "judged"
        seconds = [event.second for event in timeline.of("user")]
        assert all(b - a >= chat.APART for a, b in zip(seconds, seconds[1:], strict=False))
    # The three pictures around the moment, and no other.
    for ask in shown:
        second = ask.fields["second"]
        assert ask.seconds == (second - 1, second, second + 1)
    # What was said before is told, and nothing of later.
    assert any(ask.fields["dialogue"] for ask in shown)
    for ask in shown:
        said = [int(line.split()[0]) for line in ask.fields["dialogue"]]
        assert all(at < ask.fields["second"] for at in said)


def test_styles_are_drawn_as_videos_allow() -> None:
    short = footage("chat", world("alerting", range(12), seconds=24))
    long = footage("chat", world("alerting", range(50, 62), seconds=120))
    for given, styles in ((short, {*STYLES} - {"long video"}), (long, {*STYLES})):
        with Oracle() as oracle:
            out = through(oracle, given, lambda desk: chat.stages(desk)[:2])
        assert {one.work["style"] for one in out} == styles
    with Oracle() as oracle:
        out = through(oracle, short[:1], lambda desk: chat.stages(desk, styles=("long video",)))
    assert reasons(out) == {"moments: too short": 1}


def test_who_has_nothing_to_say_keeps_quiet() -> None:
    given = footage("chat", world("alerting", range(3), seconds=24))
    for name in ("user_agent", "companion_agent"):
        quiet = {name: lambda ask: {"speak": "no", "text": ""}}
        with Oracle(answers=quiet) as oracle:
            out = through(oracle, given, chat.stages)
        assert reasons(out) == {"enough said: too little said": 3}


def test_settings_that_make_no_sense() -> None:
    for styles in (("loud",), ()):
        with pytest.raises(ValueError, match="choose from"):
            chat.stages(Desk(lambda timeline: None), styles=styles)  # type: ignore[arg-type]
