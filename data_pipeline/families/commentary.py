"""Commentary: what is said while a video plays, with the silence between.

From speech (a video's sound track or subtitles), where the speaker's pauses are the silence:

    sentences    what no pause parts is joined up to the end of the sentence
    grounding    what can't be seen in the pictures up to its second is dropped

From an agent, over a video without events:

    commentator  second by second it is shown what has played, and speaks or keeps silent; what it
                 says is looked up as above before it counts as said

Last, `enough said`: a clip on which next to nothing is left is no commentary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from data_pipeline.agents.agent import Unverified
from data_pipeline.agents.prompts import Field
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Step, asking, looking
from data_pipeline.families.looks import measured, seconds_of
from data_pipeline.families.places import (
    ASKED,
    REPLIED,
    added,
    enough_said,
    language_of,
    line,
    said_by,
)
from data_pipeline.sources import speech, subtitles
from data_pipeline.sources.speech import LONGEST, PAUSE, Utterance, space_of, utterances
from data_pipeline.sources.wordings import COMMENT, asked_at, pick
from joyvl_train.timeline import Event, Rule, Timeline, TimelineError

FAMILY = "commentary"
SPEECH = (speech.SOURCE, subtitles.SOURCE)

MIN_SECONDS = 5
"""Of a clip; there is no commentary on less."""

WORDS_A_SECOND = 2.5
LETTERS_A_SECOND = 15.0
"""How fast a line is spoken; whichever says that it takes longer."""

REMEMBERED = 20
"""Lines that the commentator is told of what it said."""


def stages(
    desk: Desk,
    *,
    before: int = 8,
    least: int = 2,
    every: int = 1,
    pause: float = PAUSE,
    longest: float = LONGEST,
) -> list[Step]:
    """The stages that make commentaries.

    before: seconds of pictures that agents see ahead of a line's own; least: lines that must be
    left; every: seconds from one question to the commentator to the next; pause, longest: of speech
    (`sources.speech`), in seconds.
    """
    return [
        looking(desk, "pictures", _ours, partial(measured, desk, MIN_SECONDS)),
        looking(desk, "sentences", _spoken, partial(sentences, pause, longest)),
        asking(desk, "grounding", _spoken, partial(grounding, desk, before)),
        asking(desk, "commentator", _unsaid, partial(commentator, desk, before, every)),
        looking(desk, "enough said", _made, partial(enough_said, least)),
    ]


def _spoken(candidate: Candidate) -> bool:
    """A commentary from what somebody said; subtitles that are only read out are none."""
    timeline = candidate.timeline
    asked = {event.text for event in timeline.of("user")}
    return timeline.family == FAMILY and timeline.source in SPEECH and bool(asked & {*COMMENT})


def _unsaid(candidate: Candidate) -> bool:
    return candidate.timeline.family == FAMILY and not candidate.timeline.events


def _ours(candidate: Candidate) -> bool:
    return _spoken(candidate) or _unsaid(candidate)


def _made(candidate: Candidate) -> bool:
    made = any(note.stage in ("grounding", "commentator") for note in candidate.history)
    return candidate.timeline.family == FAMILY and made


def sentences(pause: float, longest: float, candidate: Candidate) -> Candidate:
    """Lines that no pause parts become one, up to the end of the sentence."""
    timeline = candidate.timeline
    lines = timeline.of("assistant")
    spans = [Utterance(e.time, e.until, e.text, (e.id,)) for e in lines if e.until is not None]
    joined = utterances(spans, pause, longest, space_of(candidate.language))
    if len(joined) == len(spans):
        return candidate.kept("sentences")
    by_id = {event.id: event for event in timeline.events}
    merged = {
        one.items[0]: replace(by_id[one.items[0]], text=one.text, until=one.stop) for one in joined
    }
    gone = {id for one in joined for id in one.items[1:]}
    events = tuple(merged.get(e.id, e) for e in timeline.events if e.id not in gone)
    detail = f"{len(lines)} segments, {len(lines) - len(gone)} sentences"
    return candidate.changed("sentences", replace(timeline, events=events), detail)


async def grounding(desk: Desk, before: int, candidate: Candidate) -> Candidate:
    """Each line is looked up in the pictures up to its second; those not found there go."""
    checker = desk.agent("grounding_checker")
    timeline, dropped = candidate.timeline, list[Event]()
    lines = timeline.of("assistant")
    for event in lines:
        if not await grounded(desk, timeline, event.second, event.text, before):
            dropped.append(event)
    if not dropped:
        return candidate.kept("grounding", agent=checker.key)
    events = tuple(event for event in timeline.events if event not in dropped)
    return candidate.changed(
        "grounding",
        replace(timeline, events=events),
        f"{len(dropped)} of {len(lines)} lines dropped",
        checker.key,
        work={**candidate.work, "dropped": _told(dropped)},
    )


async def grounded(desk: Desk, timeline: Timeline, second: int, text: str, before: int) -> bool:
    """Whether the checker finds a line in the pictures up to its second; not sure counts as no,
    because the line can go and leave the rest whole."""
    pictures = desk.shown(timeline, range(second - before, second + 1))
    if not pictures:
        return False
    try:
        checker = desk.agent("grounding_checker")
        return (await checker.judge({"second": second, "text": text}, pictures)).yes
    except Unverified as error:
        if error.reason == "unsure":
            return False
        raise


async def commentator(desk: Desk, before: int, every: int, candidate: Candidate) -> Candidate:
    """A commentary by an agent, which at each second knows what has played, and no more.

    While a line is being spoken nobody is asked. A line that is not grounded is not said, so that
    no later one builds on it.
    """
    agent, checker = desk.agent("commentator"), desk.agent("grounding_checker")
    timeline, seconds = candidate.timeline, seconds_of(candidate.timeline)
    language = language_of(candidate)
    asked = asked_at(candidate.id, seconds - 1)
    query = Event("q0", asked + ASKED, "user", pick(COMMENT, candidate.id))
    said, dropped = list[Event](), list[Event]()
    second = asked
    while second < seconds:
        pictures = desk.shown(timeline, range(second - before, second + 1))
        if not pictures or pictures[-1][0] != second:  # there is nothing to be seen in it
            second += 1
            continue
        told = [said_by(event) for event in said[-REMEMBERED:]]
        fields: dict[str, Field] = {"second": second, "language": language, "said": told}
        data = await agent.data(fields, pictures, marked={second})
        if data["speak"] == "no":
            second += every
            continue
        event = _said(data["text"], len(said) + len(dropped), second)
        if event is not None and await grounded(desk, timeline, second, event.text, before):
            said.append(event)
            second += max(every, spoken_seconds(event.text))
        else:
            dropped.append(event or Event("", second, "assistant", data["text"]))
            second += every
    return candidate.changed(
        "commentator",
        added(timeline, (query, *said)),
        f"{len(said)} lines, {len(dropped)} dropped",
        f"{agent.key} {checker.key}",
        work={**candidate.work, "dropped": _told(dropped)},
    )


def _said(text: str, number: int, second: int) -> Event | None:
    """The line as an event; None where it can't be said."""
    try:
        text = line(text, f"line at {second} s")
    except TimelineError:
        return None
    rule = Rule("similarity")
    return Event(f"r{number}", second + REPLIED, "assistant", text, answers="q0", rule=rule)


def spoken_seconds(text: str) -> int:
    """The whole seconds that a line takes to say."""
    takes = max(len(text.split()) / WORDS_A_SECOND, len(text) / LETTERS_A_SECOND)
    return max(1, math.ceil(takes))


def _told(events: Sequence[Event]) -> list[list[object]]:
    return [[event.second, event.text] for event in events]
