"""Whether an alert comes when it should: looks at every frame from its instruction to its trigger,
and on until what it reports is gone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from data_pipeline.agents.agent import Unverified
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import child_of, split_into
from data_pipeline.families.looks import first, seconds_of
from data_pipeline.sources.wordings import bare
from joyvl_train.timeline import Clip, Event, Timeline

REACH = 4
"""Seconds before and after an alert of which the localizer sees the pictures."""

BEFORE, AFTER = 30, 2
"""Seconds before and after an alert of which the window verifier sees the pictures."""

LEAST_WAIT = 6
"""Seconds that a stream goes on for, at least, after an instruction whose event never comes."""


@dataclass(frozen=True, slots=True)
class Report:
    """An alert, what is to be looked for, and from which second on it must not be seen before.

    `before` is the alert of the same thing that comes before it, None where it is the first.
    """

    event: Event
    target: str
    since: int
    before: Event | None


def reports(candidate: Candidate) -> Iterator[Report]:
    """The alerts of a timeline, by time; each answers an instruction."""
    asked = {event.id: event for event in candidate.timeline.of("user")}
    last: dict[tuple[str, str], Event] = {}
    for event in candidate.timeline.of("assistant"):
        assert event.answers is not None, "an alert answers an instruction"
        before = last.get((event.answers, event.text))
        since = asked[event.answers].second
        if before is not None:
            since = before.second + 1 if before.until is None else math.ceil(before.until)
        yield Report(event, target_text(candidate) or bare(event.text), since, before)
        last[event.answers, event.text] = event


def target_text(candidate: Candidate) -> str:
    """What a proposed alert is about; empty where an annotation tells no more than its words."""
    return str(candidate.work.get("target", {}).get("target", ""))


def slack_of(candidate: Candidate, slack: int) -> int:
    """By how many seconds an alert may be off before it is localized: annotators are rough, and
    what an agent proposes to the second is discarded where it is wrong."""
    return 0 if target_text(candidate) else slack


async def verify_window(desk: Desk, candidate: Candidate) -> Candidate:
    """The alert, with its instruction, fits the stretch that it was drafted for."""
    agent, timeline = desk.agent("window_verifier"), candidate.timeline
    asked = {event.id: event for event in timeline.of("user")}
    for report in reports(candidate):
        second = report.event.second
        start = max(report.since, second - BEFORE)
        stop = min(second + AFTER, seconds_of(timeline) - 1)
        verdict = await agent.judge(
            {
                "start": start,
                "stop": stop,
                "target": report.target,
                "second": second,
                "instruction": asked[report.event.answers or ""].text,
                "response": report.event.text,
            },
            desk.shown(timeline, range(start, stop + 1)),
            marked=(second,),
        )
        if not verdict.yes:
            return candidate.rejected(
                "window verifier", "not as drafted", verdict.reason, agent.key
            )
    return candidate.kept("window verifier", agent=agent.key)


async def precheck(desk: Desk, slack: int, candidate: Candidate) -> Candidate:
    """The target is in no frame from the instruction to the trigger. Where it was reported before,
    it has gone since."""
    slack, key = slack_of(candidate, slack), desk.agent("dense_precheck").key
    for report in reports(candidate):
        start, stop = report.since, report.event.second - slack
        if report.before is None:
            # However rough the annotation, who asks for what is there gets it at once.
            stop = max(stop, start + 1)
        if report.before is not None:
            start += slack if report.before.until is not None else 0
            gone = await first(
                desk, candidate.timeline, report.target, range(start, stop), seen=False
            )
            if gone is None and start < stop:
                detail = f"{report.target!r} from second {start} on"
                return candidate.rejected("precheck", "seen earlier", detail, key)
            start = stop if gone is None else gone
        # What is there too early is most likely there just before.
        nearest = range(start, stop)[::-1]
        seen = await first(desk, candidate.timeline, report.target, nearest)
        if seen is not None:
            detail = f"{report.target!r} in second {seen}"
            return candidate.rejected("precheck", "seen earlier", detail, key)
    return candidate.kept("precheck", agent=key)


async def localize(desk: Desk, slack: int, candidate: Candidate) -> Candidate:
    """Each alert comes in the second of the first frame that shows its target: the localizer, that
    sees the frames around it, and the looks at each by itself agree on it."""
    agent, timeline = desk.agent("localizer"), candidate.timeline
    slack, moved = slack_of(candidate, slack), dict[str, Event]()
    for report in reports(candidate):
        event = report.event
        since = await _since(desk, timeline, report, slack, moved)
        low = max(since, event.second - REACH)
        pictures = desk.shown(timeline, range(low, event.second + REACH + 1))
        fields = {"start": low, "stop": pictures[-1][0] if pictures else low}
        data = await agent.data({**fields, "target": report.target}, pictures)
        verdict = agent.verdict(data)
        if not verdict.yes:
            return candidate.rejected("localize", "not found", verdict.reason, agent.key)
        second = data["second"]
        if second not in [at for at, _ in pictures]:
            raise Unverified("no such second", f"second {second}", agent.key)
        looked = range(max(since, event.second - slack), second + 1)
        seen = await first(desk, timeline, report.target, looked)
        if seen != second:
            detail = f"second {second}, by single frames {'none' if seen is None else seen}"
            raise Unverified("agents disagree", detail, agent.key)
        until = event.until
        if until is not None and second >= math.ceil(until) > event.second:
            if second >= math.ceil(until) + slack:
                detail = f"second {second}, though it ends at {until} s"
                return candidate.rejected("localize", "not found", detail, agent.key)
            until = None  # its end is as rough as its start, and is looked for later
        if second != event.second:
            until = None if until is None else max(until, float(second))
            moved[event.id] = replace(event, time=float(second), until=until)
    if not moved:
        return candidate.kept("localize", agent=agent.key)
    events = tuple(moved.get(event.id, event) for event in timeline.events)
    detail = ", ".join(f"{id} to {event.second} s" for id, event in moved.items())
    return candidate.changed("localize", replace(timeline, events=events), detail, agent.key)


async def _since(
    desk: Desk, timeline: Timeline, report: Report, slack: int, moved: Mapping[str, Event]
) -> int:
    """The second from which on a target may come: that after its instruction, or in which the one
    that was reported before has gone, which may be off like all that is annotated."""
    if report.before is None:
        return report.since + 1
    before = moved.get(report.before.id, report.before)
    low = max(before.second + 1, report.since - slack)
    looked = range(low, report.event.second + 1)
    gone = await first(desk, timeline, report.target, looked, seen=False)
    return report.event.second if gone is None else gone


async def hold(desk: Desk, slack: int, rest: int, candidate: Candidate) -> Candidate:
    """Until when the last alert of each target holds, and where the clip ends: before the target
    comes again unreported, or `rest` seconds after all is over, since no one has looked further.

    `work["unseen"]` tells from where to where nothing that was asked for is there.
    """
    timeline, key = candidate.timeline, desk.agent("dense_precheck").key
    slack, last = slack_of(candidate, slack), dict[str, Report]()
    for report in reports(candidate):
        last[f"{report.event.answers} {report.event.text}"] = report
    held: dict[str, Event] = {}
    over: list[int] = []
    seconds = seconds_of(timeline)
    for report in last.values():
        event = report.event
        if event.until is not None:
            over.append(min(math.ceil(event.until) + slack, seconds))
            continue
        after = range(event.second + 1, seconds)
        gone = await first(desk, timeline, report.target, after, seen=False)
        over.append(seconds if gone is None else gone)
        held[event.id] = replace(event, until=float(over[-1]))
    end = min(max([*over, *(e.second for e in timeline.events)]) + rest, seconds)
    for report, gone in zip(last.values(), over, strict=True):
        again = await first(desk, timeline, report.target, range(gone, end))
        end = end if again is None else again
    events = tuple(held.get(event.id, event) for event in timeline.events)
    if any(event.second >= end for event in events):
        return candidate.rejected("hold", "comes again", f"second {end}", key)
    work = {**candidate.work, "unseen": [max(over), end]}
    timeline = replace(timeline, events=_ending(events, end), clip=_cut(timeline, end))
    if timeline == candidate.timeline:
        return replace(candidate, work=work).kept("hold", agent=key)
    return candidate.changed("hold", timeline, f"the clip ends at {end} s", key, work=work)


def _cut(timeline: Timeline, end: int) -> Clip:
    """The clip up to second `end`."""
    assert timeline.clip.duration is not None, "the clip is measured"
    return replace(timeline.clip, duration=min(timeline.clip.duration, float(end)))


def _ending(events: tuple[Event, ...], end: int) -> tuple[Event, ...]:
    """The events, none of which holds past the end."""
    return tuple(
        e if e.until is None or e.until <= end else replace(e, until=float(end)) for e in events
    )


def asked_too_late(desk: Desk, share: float, candidate: Candidate) -> list[Candidate]:
    """Of some, a further one: the instruction is given when its event is over, and nothing comes.

    That nothing comes was seen when the alert's end was looked for.
    """
    name, timeline = "negatives", candidate.timeline
    rng = desk.chance(candidate, name)
    # Where no one has looked for the end, as without agents, nothing is known to be over.
    gone, end = candidate.work.get("unseen", (0, 0))
    queries, room = timeline.of("user"), range(gone + 1, end - LEAST_WAIT + 1)
    if rng.random() >= share or len(queries) != 1 or not room:
        return split_into(name, candidate, [])
    second = rng.choice(room)
    meta = {**timeline.meta, "negative": "after the event"}
    query = replace(queries[0], time=float(second))
    made = replace(timeline, events=(query,), meta=meta)
    detail = f"asked at {second} s, over at {gone} s"
    return split_into(name, candidate, [child_of(candidate, name, second, made, detail)])


async def absence(desk: Desk, candidate: Candidate) -> Candidate:
    """What is said never to come is in no frame from the instruction to the clip's end."""
    timeline, key = candidate.timeline, desk.agent("dense_precheck").key
    (query,) = timeline.of("user")
    after = range(query.second, seconds_of(timeline))
    seen = await first(desk, timeline, target_text(candidate), after)
    if seen is not None:
        return candidate.rejected("absence", "it comes", f"second {seen}", key)
    return candidate.kept("absence", f"{len(after)} frames", key)
