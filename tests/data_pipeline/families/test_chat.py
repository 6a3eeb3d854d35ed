"""Casual chat: two agents, three pictures, moments drawn at random, three styles."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.agents.prompts import STYLES
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import chained, chat
from joyvl_train.timeline import Clip, Timeline
from tests.data_pipeline.answers import ANSWERS, Ask
from tests.data_pipeline.families.made import footage, reasons, through, told, world
from tests.data_pipeline.oracle import Oracle
from tests.data_pipeline.truth import Truth


def test_talks_fit_what_is_seen_and_said() -> None:
    given = footage("chat", world("alerting", range(12), seconds=32))
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
    # The three pictures up to the moment, and no other.
    for ask in shown:
        second = ask.fields["second"]
        assert ask.seconds == (second - 2, second - 1, second)
    # What was said before is told, and nothing of later.
    assert any(ask.fields["dialogue"] for ask in shown)
    for ask in shown:
        said = [int(line.split()[0]) for line in ask.fields["dialogue"]]
        assert all(at < ask.fields["second"] for at in said)


SECONDS = 60


class Noise:
    """Pictures that differ in every second; from `changed` on they are others."""

    seconds = SECONDS

    def __init__(self, changed: int) -> None:
        self.changed = changed

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        seed = [second, second >= self.changed]
        noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        return (Image.fromarray(noise),)


class Talkative:
    """An agent whose words hang on all that it is told and shown."""

    key = "talkative@0"

    async def data(self, fields: Any, pictures: Any) -> dict[str, str]:
        shown = [(second, picture.tobytes()) for second, picture in pictures]
        digest = hashlib.sha256(repr((sorted(fields.items()), shown)).encode()).hexdigest()
        return {"speak": "no" if digest[0] == "0" else "yes", "text": f"It is {digest}."}


def talked(changed: int) -> Timeline:
    """A talk over pictures of which those from second `changed` on are others."""
    agents: Any = dict.fromkeys(("user_agent", "companion_agent"), Talkative())
    desk = Desk(lambda timeline: Noise(changed), agents)
    clip = Clip("c", float(SECONDS), video="c.mp4")
    one = Candidate("0" * 32, Timeline(clip, "chat", "footage"))
    (out,) = chained(chat.stages(desk, styles=("egocentric",)), [one])
    assert out.status == "open"
    return out.timeline


def test_nothing_is_said_for_what_is_seen_later() -> None:
    whole = talked(SECONDS)
    seconds = sorted({event.second for event in whole.events})
    assert len(seconds) >= 4
    for second in seconds:
        other = talked(second + 1)
        assert [e for e in other.events if e.second <= second] == [
            e for e in whole.events if e.second <= second
        ]
        # What is seen in the second itself does change what is said.
        now = talked(second)
        assert [e for e in now.events if e.second == second] != [
            e for e in whole.events if e.second == second
        ]


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
