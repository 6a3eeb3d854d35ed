"""Perception over time: conditions of time, woven by rule into copies of timelines that are ready.

    withhold   the answer to a question is kept back for n seconds
    every      a count that goes up by one every n seconds, beside all that is going on
    window     what an instruction asks for is wanted within a span of time only, or after it

No agent is asked: what is due follows from the timeline and the clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import child_of, split_into
from data_pipeline.families.looks import seconds_of, with_length
from data_pipeline.families.places import (
    ASKED,
    REPLIED,
    added,
    answered_at_once,
    free,
    prefix,
    without,
)
from data_pipeline.families.texts import english, names_a_time
from joyvl_train.timeline import Event, Rule, Timeline

FAMILY = "counting"

VERSION = 1
"""Part of the ids of copies; grows when a timeline is woven into another one."""

REPORTING = ("alerting", "commentary")
"""Families of which an instruction can be bounded: what is due later does not hang on how much was
due before."""

WITHHELD = (3, 10)
INTERVAL = (3, 10)
BOUND = (5, 60)
"""Bounds of the seconds n in each condition."""

TIMES = (2, 6)
"""How often a count goes up."""

EDGE = 2
"""Seconds around the edge of a span in which nothing is due: the side of a report must be plain."""

KEEP = (
    "{question} Keep the answer to yourself for {n} seconds, then tell me.",
    "{question} I mean right now, but hold your answer back for {n} seconds.",
    "{question} Remember it as it is now, and tell me in {n} seconds.",
    "{question} Don't say it yet, say it {n} seconds from now.",
)
COUNT_UP = (
    "Count up from 1, one number every {n} seconds, until {k}.",
    "Every {n} seconds from now on, add one and tell me the number. Stop at {k}.",
    "Add one every {n} seconds and say how many it makes, up to {k}.",
    "On the side, count the {n}-second steps from now on for me, {k} of them.",
)
WITHIN = (
    "{instruction} Only for the next {n} seconds.",
    "{instruction} After {n} seconds I don't need it any more.",
    "{instruction} That goes for the coming {n} seconds and no longer.",
)
AFTER = (
    "{instruction} But leave out the next {n} seconds.",
    "{instruction} Begin with that only after {n} seconds.",
    "{instruction} Not in the first {n} seconds from now, though.",
)


def fit(candidate: Candidate) -> bool:
    """Whether something may be woven into it; a count beside a count would only confuse."""
    timeline = candidate.timeline
    ready = candidate.use == "train" and timeline.family != FAMILY
    return ready and bool(timeline.of("assistant")) and english(candidate.language)


def weave(desk: Desk, ways: Sequence[str], candidate: Candidate) -> list[Candidate]:
    """A copy with one of the conditions, drawn among those that find a place."""
    name, rng = "conditions", desk.chance(candidate, "conditions")
    timeline = with_length(desk, candidate)
    for way in rng.sample(ways, len(ways)):
        made = _WEAVING[way](rng, timeline)
        if made is not None:
            woven, detail = made
            meta = {**woven.meta, "way": way, "beside": timeline.family}
            woven = replace(woven, family=FAMILY, meta=meta)
            child = child_of(candidate, name, [VERSION, desk.seed], woven, f"{way}: {detail}")
            return split_into(name, candidate, [child])
    return [candidate]


Woven = tuple[Timeline, str] | None
"""The timeline with the condition in it, and what was done; None where there is no place."""


def withhold(rng: random.Random, timeline: Timeline) -> Woven:
    """An answer that was given at once comes n seconds later, and still tells of the moment of the
    question."""
    pairs = [
        (query, answer)
        for query, answer in answered_at_once(timeline)
        if "?" in query.text and not names_a_time(query.text)
    ]
    for query, answer in rng.sample(pairs, len(pairs)):
        rest = without(timeline, (query, answer))
        waits = list(range(WITHHELD[0], WITHHELD[1] + 1))
        rng.shuffle(waits)
        wait = next((n for n in waits if _open(rest, query.second + n)), None)
        if wait is None:
            continue
        text = rng.choice(KEEP).format(question=query.text, n=wait)
        asked = replace(query, text=text)
        due = query.second + wait + REPLIED
        told = replace(answer, time=due, until=None, early=1, late=1)
        return added(rest, (asked, told)), f"{wait} s, asked at {query.second} s"
    return None


def count_up(rng: random.Random, timeline: Timeline) -> Woven:
    """A count beside all else; each of its seconds is one in which nothing else is said."""
    seconds = seconds_of(timeline)
    room = set(free(timeline, range(seconds)))
    fits = {second for second in room if second - 1 in room}
    found = [
        (asked, n, k)
        for asked in sorted(room)
        for n in range(INTERVAL[0], INTERVAL[1] + 1)
        for k in range(TIMES[0], TIMES[1] + 1)
        if asked + n * k < seconds and all(asked + n * i in fits for i in range(1, k + 1))
    ]
    if not found:
        return None
    asked, n, k = rng.choice(found)
    begin = prefix(timeline, "t")
    text = rng.choice(COUNT_UP).format(n=n, k=k)
    query = Event(f"{begin}q", asked + ASKED, "user", text)
    numbers = [
        Event(
            f"{begin}r{i}",
            asked + n * i + REPLIED,
            "assistant",
            str(i),
            answers=query.id,
            rule=Rule("number", (str(i),)),
            early=1,
            late=1,
        )
        for i in range(1, k + 1)
    ]
    return added(timeline, (query, *numbers)), f"{n} s, {k} times from {asked} s"


def bounded(rng: random.Random, timeline: Timeline) -> Woven:
    """What is due outside a span falls silent. The one instruction must bear it: nothing hangs on
    its reports, and none of them holds over the edge of the span."""
    users, reports = timeline.of("user"), timeline.of("assistant")
    if timeline.family not in REPORTING or len(users) != 1 or timeline.of("background"):
        return None
    (query,) = users
    plain = all(e.answers == query.id and e.question is None and not e.repeat for e in reports)
    if not plain or not reports or names_a_time(query.text):
        return None
    sides = [WITHIN, AFTER] if timeline.family == "alerting" else [WITHIN]
    wording = rng.choice(sides)
    lengths = range(BOUND[0], min(BOUND[1], seconds_of(timeline) - query.second - EDGE) + 1)
    spans = [n for n in lengths if all(_plain(e, query.second + n, wording) for e in reports)]
    # One that leaves all as it is teaches nothing.
    telling = [n for n in spans if any(_outside(e, query.second + n, wording) for e in reports)]
    if not telling:
        return None
    n = rng.choice(telling)
    gone = [e for e in reports if _outside(e, query.second + n, wording)]
    asked = replace(query, text=rng.choice(wording).format(instruction=query.text, n=n))
    left = tuple(asked if e is query else e for e in timeline.events if e not in gone)
    side = "within" if wording is WITHIN else "after"
    return replace(
        timeline, events=left
    ), f"{side} {n} s of {query.second} s, {len(gone)} of {len(reports)} fall silent"


def _plain(report: Event, turn: int, wording: Sequence[str]) -> bool:
    """Whether it is plain on which side of the turn a report lies."""
    if abs(report.second - turn) < EDGE:
        return False
    # A state that holds on when the span begins would have to be told then.
    return not (wording is AFTER and report.second < turn <= report.held_seconds[-1] + EDGE)


def _outside(report: Event, turn: int, wording: Sequence[str]) -> bool:
    return (report.second >= turn) == (wording is WITHIN)


def _open(timeline: Timeline, second: int) -> bool:
    """Whether something may be due in this second, or one earlier or later."""
    return len(free(timeline, (second - 1, second))) == 2


Weaving = Callable[[random.Random, Timeline], Woven]
_WEAVING: Mapping[str, Weaving] = {"withhold": withhold, "every": count_up, "window": bounded}
WAYS = tuple(_WEAVING)
