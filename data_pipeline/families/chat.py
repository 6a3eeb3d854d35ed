"""Casual chat of several turns over a playing video, between two agents.

moments    when something is said: seconds drawn at random, and a style
talk       at each of them one agent plays the person who watches, the other one the companion;
           both see the three pictures up to the moment and what was said so far, nothing of later
enough said
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from data_pipeline.agents.prompts import STYLES, Field
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Step, asking, looking
from data_pipeline.families.looks import measured, seconds_of
from data_pipeline.families.places import (
    ASKED,
    REPLIED,
    added,
    enough_said,
    free,
    language_of,
    line,
    prefix,
    said_by,
)
from joyvl_train.timeline import Event, Rule, Timeline

FAMILY = "chat"

MIN_SECONDS = 10
"""Of a clip; less leaves no time for a talk."""

SPACING = {"egocentric": 12, "companionship": 20, "long video": 45}
"""Seconds of a clip for each exchange, by style. A video is long from twice the spacing on."""

FOLLOW = (4, 9)
"""Seconds from one turn of an exchange to the next."""

MOST_FOLLOWING = 3
"""Turns by which an exchange may go on; each is as likely as not."""

APART = 3
"""Seconds between two turns, at least."""

SEEN = 3
"""Pictures that the agents see: those of the last seconds, up to the one in which they speak."""

REMEMBERED = 40
"""Lines of the talk that the agents are told."""

FITS = Rule("judged", ("It answers what was said and fits what was seen so far.",))
"""How a reply in casual talk is judged right: no one text is."""


def stages(
    desk: Desk, *, styles: Sequence[str] = STYLES, most: int = 12, least: int = 2
) -> list[Step]:
    """The stages that make talks over videos without events.

    styles: those to draw from; most: turns of one talk; least: replies that it must hold.
    """
    unknown = set(styles) - set(STYLES)
    if unknown or not styles:
        raise ValueError(f"styles {sorted(unknown)}: choose from {', '.join(STYLES)}")
    return [
        looking(desk, "pictures", _unsaid, partial(measured, desk, MIN_SECONDS)),
        looking(desk, "moments", _unsaid, partial(moments, desk, styles, most)),
        asking(desk, "talk", _unsaid, partial(talk, desk)),
        looking(desk, "enough said", _made, partial(enough_said, least)),
    ]


def _unsaid(candidate: Candidate) -> bool:
    return candidate.timeline.family == FAMILY and not candidate.timeline.events


def _made(candidate: Candidate) -> bool:
    made = any(note.stage == "talk" for note in candidate.history)
    return candidate.timeline.family == FAMILY and made


def moments(desk: Desk, styles: Sequence[str], most: int, candidate: Candidate) -> Candidate:
    """Draws the style of a talk and the seconds of its turns."""
    seconds = seconds_of(candidate.timeline)
    rng = desk.chance(candidate, "moments")
    fitting = [s for s in styles if s != "long video" or seconds >= 2 * SPACING[s]]
    if not fitting:
        return candidate.rejected("moments", "too short", f"{seconds} s for {', '.join(styles)}")
    style = rng.choice(fitting)
    drawn = draw(rng, candidate.timeline, range(SEEN - 1, seconds), SPACING[style], most)
    work = {**candidate.work, "style": style, "moments": drawn}
    return candidate.changed("moments", detail=f"{style}: {len(drawn)} turns", work=work)


def draw(
    rng: random.Random, timeline: Timeline, seconds: range, spacing: int, most: int
) -> list[int]:
    """Seconds of up to `most` turns, in order, out of those that are free: one exchange in
    `spacing` seconds, each with up to `MOST_FOLLOWING` turns more."""
    room = set(free(timeline, seconds))
    starts = rng.sample(sorted(room), min(len(room), max(1, len(seconds) // spacing)))
    wanted = set(starts)
    for second in starts:
        for _ in range(MOST_FOLLOWING):
            second += rng.randint(*FOLLOW)
            if rng.random() < 0.5:
                break
            wanted.add(second)
    kept: list[int] = []
    for second in sorted(wanted & room):
        if not kept or second - kept[-1] >= APART:
            kept.append(second)
    return kept if len(kept) <= most else sorted(rng.sample(kept, most))


async def talk(desk: Desk, candidate: Candidate) -> Candidate:
    """The agents talk at the moments drawn."""
    style, seconds = candidate.work["style"], candidate.work["moments"]
    timeline = await talked(desk, candidate, candidate.timeline, style, seconds)
    turns = len(timeline.events) - len(candidate.timeline.events)
    agents = f"{desk.agent('user_agent').key} {desk.agent('companion_agent').key}"
    timeline = replace(timeline, meta={**timeline.meta, "style": style})
    return candidate.changed("talk", timeline, f"{turns} lines", agents)


async def talked(
    desk: Desk, candidate: Candidate, timeline: Timeline, style: str, seconds: Sequence[int]
) -> Timeline:
    """The timeline with what two agents say at these seconds, where they say something.

    What stands on the timeline already is told them as far as it has come. A line that can't be
    said is a `TimelineError`.
    """
    user, companion = desk.agent("user_agent"), desk.agent("companion_agent")
    language = language_of(candidate)
    begin = prefix(timeline, "c")
    for number, second in enumerate(seconds):
        pictures = desk.shown(timeline, range(second - SEEN + 1, second + 1))
        if all(at != second for at, _ in pictures):
            continue
        fields: dict[str, Field] = {"style": style, "second": second, "language": language}
        asked = await user.data({**fields, "dialogue": _dialogue(timeline, second)}, pictures)
        if asked["speak"] == "no":
            continue
        text = line(asked["text"], f"user at {second} s")
        query = Event(f"{begin}{number}q", second + ASKED, "user", text)
        timeline = added(timeline, [query])
        reply = await companion.data({**fields, "dialogue": _dialogue(timeline, second)}, pictures)
        if reply["speak"] == "no":
            continue
        text = line(reply["text"], f"companion at {second} s")
        event = Event(
            f"{begin}{number}r", second + REPLIED, "assistant", text, answers=query.id, rule=FITS
        )
        timeline = added(timeline, [event])
    return timeline


def _dialogue(timeline: Timeline, second: int) -> list[str]:
    """What was said up to this second. What a background model returned is no line of the talk."""
    said = [said_by(e) for e in timeline.of("user", "assistant") if e.second <= second]
    return said[-REMEMBERED:]
