"""New turns on a timeline: the seconds with room for them, and the timeline that holds them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_pipeline.agents.agent import Agent
from data_pipeline.agents.shown import thinned
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families.looks import seconds_of
from data_pipeline.sources.wordings import language_name
from joyvl_train.conversation import clean
from joyvl_train.timeline import Event, Timeline, TimelineError, action_seconds

if TYPE_CHECKING:
    from PIL import Image

ASKED, RETURNED, REPLIED = 0.2, 0.4, 0.9
"""Where inside its second a query comes, a result returns, and the reply to either is due: a reply
may use all that is seen in the second, so it stands at its end."""

LATE = 1
"""Seconds by which a response may come late where its event says nothing else."""

MOST_CHARS = 600
"""Characters of a line that is said; more is no line for a second."""


def taken(timeline: Timeline) -> set[int]:
    """The seconds that a new turn must leave alone: in them something is asked, returns, is said,
    or may still be said on time."""
    seconds: set[int] = set()
    for event in timeline.events:
        if event.role != "assistant":
            seconds.add(event.second)
            continue
        late = LATE if event.late is None else event.late
        seconds.update(range(event.second - (event.early or 0), event.second + late + 1))
    return seconds.union(action_seconds(timeline.events))


def free(timeline: Timeline, seconds: Iterable[int]) -> list[int]:
    """Those of `seconds` in which something new may be asked and answered: they lie inside the
    clip, and neither they nor the window after them are taken."""
    length, busy = seconds_of(timeline), taken(timeline)
    return [
        s for s in seconds if 0 <= s < length and not any(s + n in busy for n in range(LATE + 1))
    ]


def drawn(
    rng: random.Random, timeline: Timeline, asked: int, delays: tuple[int, int]
) -> int | None:
    """The second in which the result of what is handed over at `asked` returns: any free one whose
    delay lies in `delays`, both ends included; None where there is none."""
    low, high = delays
    # What is asked and said at `asked` itself is not on the timeline yet.
    found = [s for s in free(timeline, range(asked + low, asked + high + 1)) if s > asked + LATE]
    return rng.choice(found) if found else None


def prefix(timeline: Timeline, letter: str) -> str:
    """The beginning of ids that no event of the timeline has: "d0.", "d1.", ..."""
    number = 0
    while any(event.id.startswith(f"{letter}{number}.") for event in timeline.events):
        number += 1
    return f"{letter}{number}."


def added(timeline: Timeline, events: Iterable[Event], **changes: Any) -> Timeline:
    """The timeline with more events, in order of time, and with other fields as told."""
    order = {"user": 0, "background": 1, "assistant": 2}
    every = sorted((*timeline.events, *events), key=lambda e: (e.time, order[e.role]))
    return replace(timeline, events=tuple(every), **changes)


def line(text: str, what: str) -> str:
    """What an agent wrote, as it can be said: on one line, with no marker in it.

    `TimelineError` "empty text" or "too long" where it can't.
    """
    said = clean(text)
    if not said:
        raise TimelineError("empty text", what)
    if len(said) > MOST_CHARS:
        raise TimelineError("too long", f"{what}: {len(said)} characters, at most {MOST_CHARS}")
    return said


def said_by(event: Event) -> str:
    """A turn as agents read it: with its second and who says it.

    >>> said_by(Event("a0", 4.9, "assistant", "A dog!"))
    '4 s assistant: A dog!'
    """
    return f"{event.second} s {event.role}: {event.text}"


def answered_at_once(timeline: Timeline) -> list[tuple[Event, Event]]:
    """Questions that get one answer, in the same second, and on which nothing else hangs."""
    follows: dict[str, list[Event]] = {}
    for event in timeline.events:
        if event.answers is not None:
            follows.setdefault(event.answers, []).append(event)
    found = []
    for query in timeline.of("user"):
        answers = follows.get(query.id, [])
        if len(answers) == 1 and answers[0].id not in follows:
            (answer,) = answers
            if answer.second == query.second and answer.question is None and not answer.repeat:
                found.append((query, answer))
    return found


def without(timeline: Timeline, events: Collection[Event]) -> Timeline:
    """The timeline less some of its events, on which no other one hangs."""
    return replace(timeline, events=tuple(e for e in timeline.events if e not in events))


def language_of(candidate: Candidate) -> str:
    """The name of its language, as agents are told it."""
    return language_name(candidate.language)


def enough_said(least: int, candidate: Candidate) -> Candidate:
    """A stage: the assistant says something at least so many times."""
    lines = len(candidate.timeline.of("assistant"))
    if lines < least:
        return candidate.rejected("enough said", "too little said", f"{lines} of {least} lines")
    return candidate.kept("enough said")


def across(
    desk: Desk, agent: Agent, timeline: Timeline, stop: int, second: int
) -> list[tuple[int, Image.Image]]:
    """Pictures of [0, stop), as many as the agent is shown, evenly spread, `second` among them."""
    chosen = thinned(range(stop), agent.most_pictures, {second})
    return desk.shown(timeline, chosen)
