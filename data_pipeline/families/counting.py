"""Counting and perception over time.

Counting, of a video without events, in two passes:

    reappearance  pass one: do things of one kind come again and again, and which?
    things        each kind becomes a candidate of its own
    seconds       pass two: each second is labelled: how many are in sight, how many of them are new
    agreement     both passes find about as many
    questions     from the labels, what is asked and due: a running count, or the sum when asked

Perception over time, of any timeline that is ready:

    conditions    a copy into which a condition of time is woven (`families.conditions`)
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

from data_pipeline.agents.agent import Unverified
from data_pipeline.agents.prompts import Field
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Step, asking, child_of, looking, split_into, splitting
from data_pipeline.families.conditions import FAMILY, WAYS, fit, weave
from data_pipeline.families.looks import measured, seconds_of, spread
from data_pipeline.families.places import ASKED, REPLIED, added, line
from data_pipeline.families.texts import content_words, english, names_a_time, same
from data_pipeline.sources.wordings import bare
from joyvl_train.timeline import Event, Rule, TimelineError

MIN_SECONDS = 10
"""Of a clip; less leaves no time for things to come again."""

MOST_VISIBLE = 30
"""Things in sight at once up to which a count is believed."""

LATEST_ASK = 3
"""A running count is asked for in one of the first seconds, this one at the latest."""

APART = 4
"""Seconds between two questions for the sum, at least."""

RUNNING = (
    "From now on, say the number each time one more of these comes into view: {thing}.",
    "Count along from here, each time another one comes: {thing}.",
    "Each time one more of these appears from now on, tell me how many it makes: {thing}.",
    "Keep a running count for me, starting at zero now, and speak at each new one: {thing}.",
    "I want these counted as they come in from now on, number by number: {thing}.",
)
SUM = (
    "How many of these have been in the video up to now: {thing}?",
    "How often have we had this so far, each one counted once: {thing}?",
    "What is the count of these until now: {thing}?",
    "Up to this point, how many of these were there in all: {thing}?",
)
SAID = ("{n}", "{n}.", "That is {n}.", "{n} so far.", "That makes {n}.")


def stages(
    desk: Desk,
    *,
    overview: int = 64,
    most_things: int = 2,
    before: int = 3,
    least: int = 2,
    off: int = 1,
    sums: float = 0.3,
    most_questions: int = 3,
    woven: float = 0.1,
    ways: tuple[str, ...] = WAYS,
) -> list[Step]:
    """The stages that make counts, and those that weave conditions of time into what is ready.

    overview: pictures of a video that pass one is shown; most_things: kinds that are counted of one
    video; before: seconds of pictures that pass two sees ahead of each; least: times that a thing
    must come; off: by how much the passes may differ; sums: the share of counts that are asked for
    as a sum, up to `most_questions` times. woven: the share of ready timelines of other families
    that are copied with a condition of time, out of `ways`.
    """
    unknown = set(ways) - set(WAYS)
    if unknown or not ways:
        raise ValueError(f"ways {sorted(unknown)}: choose from {', '.join(WAYS)}")
    if not (0 <= sums <= 1 and 0 <= woven <= 1) or least < 1:
        raise ValueError(f"sums {sums}, woven {woven}, least {least}: wrong")

    def ready(candidate: Candidate) -> bool:
        return fit(candidate) and desk.chance(candidate, "woven").random() < woven

    return [
        looking(desk, "pictures", _uncounted, partial(measured, desk, MIN_SECONDS)),
        asking(desk, "reappearance", _uncounted, partial(reappearance, desk, overview)),
        splitting("things", _named, partial(things, most_things)),
        asking(desk, "seconds", _unlabelled, partial(label_seconds, desk, before)),
        looking(desk, "agreement", _labelled, partial(agreement, least, off)),
        looking(desk, "questions", _labelled, partial(questions, desk, sums, most_questions)),
        splitting("conditions", ready, partial(weave, desk, ways)),
    ]


def _empty(candidate: Candidate) -> bool:
    return candidate.timeline.family == FAMILY and not candidate.timeline.events


def _uncounted(candidate: Candidate) -> bool:
    return _empty(candidate) and not {"things", "thing"} & set(candidate.work)


def _named(candidate: Candidate) -> bool:
    return _empty(candidate) and "things" in candidate.work


def _unlabelled(candidate: Candidate) -> bool:
    return _empty(candidate) and "thing" in candidate.work and "labels" not in candidate.work


def _labelled(candidate: Candidate) -> bool:
    return _empty(candidate) and "labels" in candidate.work


async def reappearance(desk: Desk, overview: int, candidate: Candidate) -> Candidate:
    """Pass one: things of one kind come again and again, each time so that it can be told."""
    agent, seconds = desk.agent("reappearance_filter"), seconds_of(candidate.timeline)
    shown = desk.shown(candidate.timeline, spread(range(seconds), overview))
    data = await agent.data({"seconds": seconds}, shown)
    verdict = agent.verdict(data)
    if not verdict.yes:
        return candidate.rejected("reappearance", "nothing to count", verdict.reason, agent.key)
    work = {**candidate.work, "things": data["things"]}
    told = f"{len(data['things'])} kinds"
    return candidate.changed("reappearance", detail=told, agent=agent.key, work=work)


def things(most: int, candidate: Candidate) -> list[Candidate]:
    """A candidate of each kind, rejected where it can't be counted; `most` of them are open."""
    work = {key: value for key, value in candidate.work.items() if key != "things"}
    parent, timeline = replace(candidate, work=work), candidate.timeline
    children: list[Candidate] = []
    earlier: list[str] = []
    taken = 0
    for number, data in enumerate(candidate.work["things"]):
        seconds = sorted({s for s in data["seconds"] if s < seconds_of(timeline)})
        child = child_of(parent, "things", [number, data], timeline)
        try:
            thing = bare(line(data["thing"], f"thing {number}"))
            flaw = _flaw(thing, seconds, earlier, candidate.language)
        except TimelineError as error:
            children.append(child.rejected("things", error.reason, error.detail))
            continue
        if flaw is None:
            taken += 1
            flaw = "too many" if taken > most else None
        earlier.append(thing)
        detail = f"{thing}, at {', '.join(map(str, seconds))} s"[:300]
        plain = {"thing": thing, "seconds": seconds}
        child = child_of(parent, "things", [number, data], timeline, detail, thing=plain)
        children.append(child if flaw is None else child.rejected("things", flaw, detail))
    return split_into("things", candidate, children, none="nothing to count")


def _flaw(thing: str, seconds: list[int], earlier: list[str], language: str) -> str | None:
    """Why a kind of thing is not to be counted."""
    if english(language) and not content_words(thing):
        return "too generic"
    if names_a_time(thing):
        return "names a time"
    if same(thing, earlier):
        return "proposed twice"
    return "comes once" if len(seconds) < 2 else None


async def label_seconds(desk: Desk, before: int, candidate: Candidate) -> Candidate:
    """Pass two: how many are in sight in each second, and how many of them are new.

    A count is as good as its worst second, so one second that the agent can't tell leaves all of it
    unverified. In the first second all that are in sight count.
    """
    agent, timeline = desk.agent("second_labeller"), candidate.timeline
    labels: list[list[int]] = []
    counted = 0
    for second in range(seconds_of(timeline)):
        pictures = desk.shown(timeline, range(second - before, second + 1))
        if not pictures or pictures[-1][0] != second:
            labels.append([0, 0])  # nothing is shown in it
            continue
        fields: dict[str, Field] = {
            "thing": candidate.work["thing"]["thing"],
            "second": second,
            "counted": counted,
        }
        data = await agent.data(fields, pictures, marked={second})
        visible, new = data["visible"], data["new"] if labels else data["visible"]
        told = f"second {second}: {str(visible)[:20]} in sight, {str(new)[:20]} new"
        if not agent.verdict({**data, "reason": data["reason"] or told}).yes:
            raise Unverified("unsure", told, agent.key)
        if new > visible:
            raise Unverified("contradicts itself", told, agent.key)
        if visible > MOST_VISIBLE:
            return candidate.rejected("seconds", "too many at once", told, agent.key)
        counted += new
        labels.append([visible, new])
    work = {**candidate.work, "labels": labels}
    return candidate.changed("seconds", detail=f"{counted} in all", agent=agent.key, work=work)


def agreement(least: int, off: int, candidate: Candidate) -> Candidate:
    """Enough come after the first second, and both passes find about as many of them."""
    claimed = sum(second > 0 for second in candidate.work["thing"]["seconds"])
    found = sum(new for _, new in candidate.work["labels"][1:])
    detail = f"{claimed} by the first pass, {found} by the second"
    if abs(claimed - found) > off:
        return candidate.rejected("agreement", "passes disagree", detail)
    if found < least:
        return candidate.rejected("agreement", "too few", detail)
    return candidate.kept("agreement", detail)


def questions(desk: Desk, sums: float, most: int, candidate: Candidate) -> Candidate:
    """What is asked, and due by the labels: a running count, or now and then the sum."""
    rng, thing = desk.chance(candidate, "questions"), candidate.work["thing"]["thing"]
    new = [one for _, one in candidate.work["labels"]]
    events: list[Event] = []
    way = "sum" if rng.random() < sums else "running count"
    if way == "sum":
        events = _sums(rng, thing, new, most)
    way, events = (way, events) if events else ("running count", _running(rng, thing, new))
    meta = {**candidate.timeline.meta, "way": way, "thing": thing}
    work: dict[str, Any] = {k: v for k, v in candidate.work.items() if k != "labels"}
    return candidate.changed(
        "questions", added(candidate.timeline, events, meta=meta), way, work=work
    )


def _running(rng: random.Random, thing: str, new: list[int]) -> list[Event]:
    """The number at each coming after the question, which stands before the first of them."""
    comings = [second for second, more in enumerate(new) if second and more]
    asked = rng.randint(0, min(LATEST_ASK, comings[0] - 1))
    events = [Event("q0", asked + ASKED, "user", rng.choice(RUNNING).format(thing=thing))]
    said, count = rng.choice(SAID), 0
    for second in comings:
        count += new[second]
        events.append(_number(f"r{len(events)}", second, said, count, "q0"))
    return events


def _sums(rng: random.Random, thing: str, new: list[int], most: int) -> list[Event]:
    """The sum whenever it is asked for, in seconds around which none comes; may be empty."""
    steady = [s for s in range(2, len(new) - 1) if not any(new[s - 1 : s + 2]) and sum(new[:s]) > 0]
    rng.shuffle(steady)
    chosen: list[int] = []
    for second in steady:
        if len(chosen) < most and all(abs(second - other) >= APART for other in chosen):
            chosen.append(second)
    events: list[Event] = []
    said = rng.choice(SAID)
    for number, second in enumerate(sorted(chosen)):
        query = Event(f"q{number}", second + ASKED, "user", rng.choice(SUM).format(thing=thing))
        so_far: int = sum(new[: second + 1])
        events += [query, _number(f"r{number}", second, said, so_far, query.id)]
    return events


def _number(id: str, second: int, said: str, count: int, query: str) -> Event:
    rule = Rule("number", (str(count),))
    at = second + REPLIED
    return Event(id, at, "assistant", said.format(n=count), answers=query, rule=rule)
