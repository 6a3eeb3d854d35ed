"""Questions in time: about what was seen, what is seen, and what is still to be seen.

Of a video without events:

    moments    when questions are asked, and in which direction: backward, present, forward
    ask        an agent writes each with its answer; of a forward one it sees what comes
    evidence   single frames: what the answer rests on is gone (backward), there (present), or there
               in the second of the answer and in no frame before, from the question on (forward)
    check      a second agent, that sees nothing from after the answer, finds it right
    enough asked

A question that fails is dropped from its timeline, and `work["dropped"]` and the history tell why.
Questions that a source brings are let by: their answers are known.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data_pipeline.agents.agent import Unverified
from data_pipeline.agents.prompts import DIRECTIONS, Field
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Step, asking, looking
from data_pipeline.families.looks import first, measured, seconds_of
from data_pipeline.families.places import (
    ASKED,
    LATE,
    REPLIED,
    across,
    added,
    language_of,
    line,
    without,
)
from data_pipeline.families.texts import answer_rule, content_words, english, names_a_time, same
from joyvl_train.timeline import Event, Timeline, TimelineError

FAMILY = "qa"

MIN_SECONDS = 10
"""Of a clip; less leaves nothing to look back on."""

PAST = 6
"""Seconds of a clip that a backward question must be able to look back on, at least."""

WAIT = 3
"""Seconds that a forward question must leave for its answer, at least."""


def stages(
    desk: Desk,
    *,
    directions: Sequence[str] = DIRECTIONS,
    most: int = 4,
    spacing: int = 12,
    reach: int = 30,
    least: int = 1,
) -> list[Step]:
    """The stages that make questions on videos without events.

    directions: those to draw from; most: questions on one video, one in `spacing` seconds; reach:
    seconds that a forward question may wait; least: questions that must be left.
    """
    unknown = set(directions) - set(DIRECTIONS)
    if unknown or not directions:
        raise ValueError(f"directions {sorted(unknown)}: choose from {', '.join(DIRECTIONS)}")
    if most < 1 or spacing < PAST or reach < WAIT:
        raise ValueError(f"most {most}, spacing {spacing}, reach {reach}: too little")
    return [
        looking(desk, "pictures", _unasked, partial(measured, desk, MIN_SECONDS)),
        looking(desk, "moments", _unasked, partial(moments, desk, directions, most, spacing)),
        asking(desk, "ask", _unasked, partial(ask, desk, reach)),
        asking(desk, "evidence", _asked, partial(evidence, desk)),
        asking(desk, "check", _asked, partial(check, desk)),
        looking(desk, "enough asked", _asked, partial(enough_asked, least)),
    ]


def _unasked(candidate: Candidate) -> bool:
    timeline = candidate.timeline
    return timeline.family == FAMILY and not timeline.events and "asked" not in candidate.work


def _asked(candidate: Candidate) -> bool:
    return candidate.timeline.family == FAMILY and "asked" in candidate.work


def moments(
    desk: Desk, directions: Sequence[str], most: int, spacing: int, candidate: Candidate
) -> Candidate:
    """Draws a second and a direction for each question; each has a part of the video to itself."""
    seconds = seconds_of(candidate.timeline)
    rng = desk.chance(candidate, "moments")
    count = max(1, min(most, seconds // spacing))
    offered = [way for way in DIRECTIONS if way in directions]
    rng.shuffle(offered)
    drawn: list[list[Any]] = []
    for number in range(count):
        # An answer may come LATE seconds late, and must not meet the next question.
        part = range(max(1, number * seconds // count), (number + 1) * seconds // count - LATE)
        for turn in range(len(offered)):
            way = offered[(number + turn) % len(offered)]
            second = _second(rng, way, part)
            if second is not None:
                drawn.append([way, second, part[-1] if way == "forward" else second])
                break
    if not drawn:
        return candidate.rejected("moments", "too short", f"{seconds} s")
    told = ", ".join(f"{way} at {second} s" for way, second, _ in drawn)
    return candidate.changed("moments", detail=told, work={**candidate.work, "moments": drawn})


def _second(rng: random.Random, way: str, part: range) -> int | None:
    """A second of the part in which such a question may be asked."""
    low = max(part.start, PAST) if way == "backward" else part.start
    # A forward question comes early in its part, which leaves it time.
    high = min(part.start + len(part) // 2, part[-1] - WAIT) if way == "forward" else part[-1]
    return rng.randint(low, high) if low <= high else None


async def ask(desk: Desk, reach: int, candidate: Candidate) -> Candidate:
    """An agent writes the questions, one after the other, each with its answer.

    The pictures end with the question's second, but for a forward one `reach` seconds later.
    """
    agent, timeline = desk.agent("asker"), candidate.timeline
    asked: dict[str, dict[str, str]] = {}
    earlier: list[str] = []
    dropped: list[list[Any]] = []
    for number, (way, second, end) in enumerate(candidate.work["moments"]):
        stop = min(end, second + reach)
        pictures = across(desk, agent, timeline, stop + 1, second)
        fields: dict[str, Field] = {
            "direction": way,
            "second": second,
            "stop": stop,
            "language": language_of(candidate),
            "earlier": earlier,
        }
        data = await agent.data(fields, pictures, marked={second})
        try:
            pair = _pair(candidate, f"q{number}", data, way, range(second, stop + 1), earlier)
            sees = line(data["evidence"], f"evidence at {second} s")
        except TimelineError as error:
            dropped.append(["ask", second, error.reason, error.detail[:200]])
            continue
        timeline = added(timeline, pair)
        asked[pair[0].id] = {"direction": way, "evidence": sees}
        earlier.append(pair[0].text)
    work = {key: value for key, value in candidate.work.items() if key != "moments"}
    work |= {"asked": asked, "dropped": dropped}
    return candidate.changed("ask", timeline, _told(asked, dropped), agent.key, work=work)


def _pair(
    candidate: Candidate,
    id: str,
    data: dict[str, Any],
    way: str,
    span: range,
    earlier: Sequence[str],
) -> tuple[Event, Event]:
    """Question and answer as events; `TimelineError` with what is wrong with them."""
    second, due = span.start, data["answer_second"]
    question = line(data["question"], f"question at {second} s")
    answer = line(data["answer"], f"answer to {question!r}")
    if names_a_time(question):
        raise TimelineError("names a time", question)
    if same(question, earlier):
        raise TimelineError("asked twice", question)
    if english(candidate.language) and _given_away(question, answer):
        raise TimelineError("gives it away", f"{question!r}: {answer!r}")
    if way != "forward" and due != second:
        raise TimelineError("not answered at once", f"asked at {second} s, due at {due} s")
    if way == "forward" and (due == second or due not in span):
        raise TimelineError("outside its time", f"asked at {second} s, due at {due} s")
    return (
        Event(id, second + ASKED, "user", question),
        Event(
            f"r{id[1:]}",
            due + REPLIED,
            "assistant",
            answer,
            answers=id,
            rule=answer_rule(answer, candidate.language),
        ),
    )


def _given_away(question: str, answer: str) -> bool:
    """Whether all that the answer says stands in the question, which offers no choice."""
    words = set(content_words(answer))
    return bool(words) and words <= set(content_words(question)) and " or " not in question


def _answers(candidate: Candidate) -> list[tuple[Event, Event, dict[str, str]]]:
    """The questions with their answers, and what is known of each."""
    asked, events = candidate.work["asked"], candidate.timeline.events
    queries = {event.id: event for event in events if event.id in asked}
    return [
        (queries[event.answers], event, asked[event.answers])
        for event in candidate.timeline.of("assistant")
        if event.answers in queries
    ]


async def evidence(desk: Desk, candidate: Candidate) -> Candidate:
    """What each answer rests on is there when it should be, and not before."""
    key = desk.agent("dense_precheck").key

    async def wrong(query: Event, answer: Event, known: dict[str, str]) -> tuple[str, str]:
        sees, timeline = known["evidence"], candidate.timeline
        asked, due = query.second, answer.second
        there = await first(desk, timeline, sees, [due]) is not None
        match known["direction"]:
            case "present":
                return ("", "") if there else ("not there", f"{sees!r} in second {due}")
            case "backward":
                if there:
                    return "still there", f"{sees!r} in second {due}"
                before = await first(desk, timeline, sees, range(asked)[::-1])
                return ("", "") if before is not None else ("never there", repr(sees))
        if not there:
            return "not there", f"{sees!r} in second {due}"
        before = await first(desk, timeline, sees, range(asked, due)[::-1])
        return ("", "") if before is None else ("there before", f"{sees!r} in second {before}")

    return await _sifted("evidence", candidate, key, wrong)


async def check(desk: Desk, candidate: Candidate) -> Candidate:
    """A second agent finds each answer right, by the pictures up to it and no later one."""
    agent = desk.agent("answer_checker")

    async def wrong(query: Event, answer: Event, known: dict[str, str]) -> tuple[str, str]:
        pictures = across(desk, agent, candidate.timeline, answer.second + 1, query.second)
        fields: dict[str, Field] = {
            "direction": known["direction"],
            "second": query.second,
            "question": query.text,
            "answer": answer.text,
            "answer_second": answer.second,
        }
        marked = {query.second, answer.second}
        verdict = await agent.judge(fields, pictures, marked=marked)
        return ("", "") if verdict.yes else ("answer wrong", verdict.reason)

    return await _sifted("check", candidate, agent.key, wrong)


Wrong = Callable[[Event, Event, dict[str, str]], Awaitable[tuple[str, str]]]
"""(question, answer, what is known of it) -> (why it is dropped, detail); empty: it stays."""


async def _sifted(name: str, candidate: Candidate, key: str, wrong: Wrong) -> Candidate:
    """The candidate less the questions that something is wrong with; where an agent is not sure
    the question goes, because the rest stays whole without it."""
    dropped: list[list[Any]] = []
    gone: list[Event] = []
    for query, answer, known in _answers(candidate):
        try:
            reason, detail = await wrong(query, answer, known)
        except Unverified as error:
            if error.reason != "unsure":
                raise
            reason, detail = error.reason, error.detail
        if reason:
            dropped.append([name, query.second, reason, f"{query.text!r}: {detail}"[:300]])
            gone += [query, answer]
    if not gone:
        return candidate.kept(name, agent=key)
    timeline, lost = without(candidate.timeline, gone), {event.id for event in gone}
    asked = {id: known for id, known in candidate.work["asked"].items() if id not in lost}
    work = {
        **candidate.work,
        "asked": asked,
        "dropped": [*candidate.work["dropped"], *dropped],
    }
    return candidate.changed(name, timeline, _told(asked, dropped), key, work=work)


def _told(asked: dict[str, Any], dropped: Sequence[Sequence[Any]]) -> str:
    """How many questions are left, and why the others went."""
    counts = Counter(str(reason) for _, _, reason, _ in dropped)
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))
    return f"{len(asked)} questions" + (f"; dropped: {why}" if why else "")


def enough_asked(least: int, candidate: Candidate) -> Candidate:
    """Questions are left, and the timeline tells the direction of each."""
    asked = candidate.work["asked"]
    if len(asked) < least:
        detail = f"{len(asked)} of {least} questions"
        return candidate.rejected("enough asked", "too little asked", detail)
    ways = {id: known["direction"] for id, known in asked.items()}
    timeline: Timeline = candidate.timeline
    timeline = replace(timeline, meta={**timeline.meta, "directions": ways})
    return candidate.changed("enough asked", timeline)
