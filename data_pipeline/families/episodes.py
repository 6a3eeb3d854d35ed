"""Episodes of delegation: how one stands on a timeline, and those of hard problems in text."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from data_pipeline import problems
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import child_of, split_into
from data_pipeline.families.looks import seconds_of, with_length
from data_pipeline.families.places import (
    ASKED,
    REPLIED,
    RETURNED,
    added,
    drawn,
    free,
    prefix,
)
from joyvl_train.background import ERROR_DIGEST
from joyvl_train.timeline import Event, Rule, Timeline

FAMILY = "delegation"

VERSION = 2
"""Part of the ids of copies; grows when the same stream is copied into another one."""

SPACING = 30
"""Seconds of a stream for each hard problem that is put into it."""

NOTES = (
    "Let me work that out.",
    "Let me look into that.",
    "One moment, let me check.",
    "Let me think about that.",
    "I will find out, one moment.",
    "That takes a moment, I will tell you.",
    "Let me see.",
    "I will look at that more closely.",
)
PROMISES = Rule("key_facts", ("let me|moment|will",))

REPLIES = (
    "To your question: {answer}.",
    "The answer is {answer}.",
    "{result}",
    "I have it now: {result}",
)
"""Of a person, a time of day or a number alike, so none says "it"."""

SORRY = ("Sorry, I could not find out.", "I am sorry, no answer came back.", "Sorry, that failed.")


@dataclass(frozen=True, slots=True)
class Episode:
    """One question that is handed over at second `asked`, whose result returns at `back`."""

    asked: int
    back: int
    query: str
    note: str
    question: str
    result: str
    reply: str
    rule: Rule
    note_rule: Rule = PROMISES

    def put(self, timeline: Timeline) -> Timeline:
        """The timeline with the four turns in it."""
        begin = prefix(timeline, "d")
        query, task, result = f"{begin}q", f"{begin}a", f"{begin}b"
        events = (
            Event(query, self.asked + ASKED, "user", self.query),
            Event(
                task,
                self.asked + REPLIED,
                "assistant",
                self.note,
                question=self.question,
                answers=query,
                rule=self.note_rule,
            ),
            Event(result, self.back + RETURNED, "background", self.result, answers=task),
            Event(
                f"{begin}r",
                self.back + REPLIED,
                "assistant",
                self.reply,
                answers=result,
                rule=self.rule,
            ),
        )
        return added(timeline, events)


def place(
    rng: random.Random, timeline: Timeline, delays: tuple[int, int], seconds: range
) -> tuple[int, int] | None:
    """Two seconds out of those that are free: of a question among `seconds`, and of its result."""
    room = free(timeline, seconds)
    rng.shuffle(room)
    for asked in room:
        back = drawn(rng, timeline, asked, delays)
        if back is not None:
            return asked, back
    return None


def insert(
    desk: Desk,
    delays: tuple[int, int],
    most: int,
    easy: float,
    errors: float,
    candidate: Candidate,
) -> list[Candidate]:
    """A copy of a stream with problems between its turns, wherever there is room."""
    timeline = with_length(desk, candidate)
    beside, seconds = timeline.family, seconds_of(timeline)
    rng = desk.chance(candidate, "insert")
    pending: list[range] = []
    for _ in range(min(most, max(1, seconds // SPACING))):
        episode = _problem(rng, timeline, delays, errors)
        if episode is not None:
            timeline = episode.put(timeline)
            pending.append(range(episode.asked + 1, episode.back))
    if not pending:
        return [candidate]
    simple = 0
    for waiting in pending:
        if rng.random() < easy:
            within = waiting if rng.random() < 0.5 else range(seconds)
            room = free(timeline, within) or free(timeline, range(seconds))
            if room:
                timeline, simple = _easy(rng, timeline, rng.choice(room)), simple + 1
    meta = {**timeline.meta, "way": "text", "beside": beside}
    timeline = replace(timeline, family=FAMILY, meta=meta)
    detail = f"{len(pending)} hard, {simple} easy"
    child = child_of(candidate, "insert", [VERSION, desk.seed], timeline, detail)
    return split_into("insert", candidate, [child])


def _problem(
    rng: random.Random, timeline: Timeline, delays: tuple[int, int], errors: float
) -> Episode | None:
    """A problem in a second that has room, and room for its result; None where no second has."""
    places = place(rng, timeline, delays, range(seconds_of(timeline)))
    if places is None:
        return None
    problem, note = problems.hard(rng), rng.choice(NOTES)
    first = all(event.second >= places[0] for event in timeline.of("user"))
    query = problems.asked(rng, problem, first=first)
    if rng.random() < errors:
        sorry = Rule("key_facts", ("sorry",))
        return Episode(
            *places, query, note, problem.question, ERROR_DIGEST, rng.choice(SORRY), sorry
        )
    reply = rng.choice(REPLIES).format(answer=problem.answer, result=problem.result)
    return Episode(*places, query, note, problem.question, problem.result, reply, problem.rule)


def _easy(rng: random.Random, timeline: Timeline, second: int) -> Timeline:
    problem = problems.easy(rng)
    begin = prefix(timeline, "e")
    query = Event(f"{begin}q", second + ASKED, "user", problem.question)
    reply = Event(
        f"{begin}r",
        second + REPLIED,
        "assistant",
        problem.answer,
        answers=query.id,
        rule=problem.rule,
    )
    return added(timeline, (query, reply))
