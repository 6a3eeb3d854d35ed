"""Proactive alerts: an instruction, and a response in the second in which its event comes.

Two routes, by what a candidate holds:

- an annotation that a source has converted (instruction, responses held to their end) is put in
  order, and each response is checked and moved to the first frame that shows its target;
- of a video without events, windows are sampled, targets proposed for each, filtered by rules and
  tools, verified, checked in every frame from the instruction to the trigger, and localized.

Negatives, in which nothing is due: a target that fits the scene and never comes, and an instruction
that is given when its event is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial

from data_pipeline.agents.agent import Verdict
from data_pipeline.agents.prompts import KINDS
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Step, asking, child_of, looking, split_into, splitting
from data_pipeline.families.alert_checks import (
    absence,
    asked_too_late,
    hold,
    localize,
    precheck,
    target_text,
    verify_window,
)
from data_pipeline.families.looks import measured, seconds_of, spread
from data_pipeline.families.places import language_of
from data_pipeline.families.targets import (
    Target,
    Tools,
    flaw,
    proposed,
    seen_before,
    target_of,
)
from data_pipeline.families.texts import naming_rule
from data_pipeline.sources.cut import part_of
from joyvl_train.timeline import Event, Rule, Timeline, TimelineError

FAMILY = "alerting"

SHORTEST = 8
"""Seconds of a clip, at least."""

OVERVIEW = 16
"""Pictures of a whole video that its filter is shown."""

LEAST_MOTION = 0.002
"""Share of a picture that moves, in some second of a window, for anything to have come."""


def stages(
    desk: Desk,
    *,
    tools: Tools | None = None,
    lengths: tuple[int, int] = (12, 60),
    most_windows: int = 4,
    most_targets: int = 3,
    kinds: Sequence[str] = KINDS,
    negatives: float = 0.25,
    slack: int = 2,
    rest: int = 30,
) -> list[Step]:
    """The stages of the family, in order.

    lengths: bounds of a window, in seconds; most_windows: of one video; most_targets: of one
    window; kinds: of targets (`agents.prompts.KINDS`); negatives: the share of windows, and of
    alerts, of which a negative is made as well; slack: seconds by which an annotation may be off,
    in which case it is moved; rest: seconds for which what comes after an alert is looked at.
    """
    if not 0 < lengths[0] <= lengths[1] or not 0 <= negatives <= 1:
        raise ValueError(f"lengths {lengths}, negatives {negatives}: wrong")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds {unknown or 'none'}: choose from {', '.join(KINDS)}")
    tools = tools or Tools()
    return [
        looking(desk, "pictures", _own, partial(measured, desk, SHORTEST)),
        # An annotation.
        looking(desk, "normalise", _annotated, normalise),
        # A video without events.
        asking(desk, "video filter", _empty, partial(filter_video, desk)),
        splitting("windows", _empty, partial(windows, desk, lengths, most_windows)),
        looking(desk, "motion", _empty, partial(moving, desk, tools)),
        asking(desk, "propose", _empty, partial(propose, desk, kinds, most_targets, negatives)),
        splitting("targets", _empty, partial(hard_filter, kinds, most_targets)),
        looking(desk, "tools", _drafted, partial(look_with_tools, desk, tools)),
        asking(desk, "window verifier", _reported_draft, partial(verify_window, desk)),
        # Both.
        asking(desk, "precheck", _reported, partial(precheck, desk, slack)),
        asking(desk, "localize", _reported, partial(localize, desk, slack)),
        asking(desk, "hold", _reported, partial(hold, desk, slack, rest)),
        splitting("negatives", _reported, partial(asked_too_late, desk, negatives)),
        asking(desk, "absence", _never, partial(absence, desk)),
    ]


def _own(candidate: Candidate) -> bool:
    """A benchmark's alerts stay as they are."""
    return candidate.timeline.family == FAMILY and candidate.use == "train"


def _empty(candidate: Candidate) -> bool:
    return _own(candidate) and not candidate.timeline.events


def _reported(candidate: Candidate) -> bool:
    return _own(candidate) and bool(candidate.timeline.of("assistant"))


def _drafted(candidate: Candidate) -> bool:
    return _own(candidate) and bool(target_text(candidate))


def _annotated(candidate: Candidate) -> bool:
    return _own(candidate) and bool(candidate.timeline.events) and not _drafted(candidate)


def _reported_draft(candidate: Candidate) -> bool:
    return _drafted(candidate) and _reported(candidate)


def _never(candidate: Candidate) -> bool:
    return _drafted(candidate) and candidate.work["target"]["second"] is None


def normalise(candidate: Candidate) -> Candidate:
    """Each response answers the instruction before it, has a rule, comes after the second of its
    instruction, and holds neither past the clip's end nor past the next of its kind."""
    timeline = candidate.timeline
    seconds, queries = seconds_of(timeline), timeline.of("user")
    if timeline.of("background") or any(e.question is not None for e in timeline.events):
        return candidate.rejected("normalise", "no alert", "it delegates")
    if not timeline.of("assistant"):
        return candidate.rejected("normalise", "nothing reported")
    ready: dict[str, Event] = {}
    later: dict[tuple[str, str], Event] = {}
    for event in reversed(timeline.of("assistant")):
        asked = [q for q in queries if q.id == event.answers] or [
            q for q in queries if q.time <= event.time and event.answers is None
        ]
        if not asked:
            return candidate.rejected("normalise", "no instruction", f"{event.second} s")
        if asked[-1].second >= event.second:
            detail = f"asked in second {asked[-1].second}, there in second {event.second}"
            return candidate.rejected("normalise", "there at once", detail)
        following = later.get((asked[-1].id, event.text))
        ends = [float(seconds), *([] if following is None else [following.time])]
        until = None if event.until is None else max(min(event.until, *ends), event.time)
        ready[event.id] = replace(
            event, answers=asked[-1].id, until=until, rule=event.rule or Rule("similarity")
        )
        later[asked[-1].id, event.text] = ready[event.id]
    events = tuple(ready.get(event.id, event) for event in timeline.events)
    if events == timeline.events:
        return candidate.kept("normalise")
    return candidate.changed("normalise", replace(timeline, events=events))


async def filter_video(desk: Desk, candidate: Candidate) -> Candidate:
    """The video shows a scene in which something comes that can be pointed at."""
    agent, seconds = desk.agent("video_filter"), seconds_of(candidate.timeline)
    shown = desk.shown(candidate.timeline, spread(range(seconds), OVERVIEW))
    verdict: Verdict = await agent.judge({"seconds": seconds}, shown)
    if not verdict.yes:
        return candidate.rejected("video filter", "unfit video", verdict.reason, agent.key)
    return candidate.kept("video filter", verdict.reason, agent.key)


def windows(
    desk: Desk, lengths: tuple[int, int], most: int, candidate: Candidate
) -> list[Candidate]:
    """Windows of drawn lengths and places, no two of which overlap; a short video is one."""
    rng, seconds = desk.chance(candidate, "windows"), seconds_of(candidate.timeline)
    low, high = (min(length, seconds) for length in lengths)
    count = max(1, min(most, seconds // high))
    children = []
    for number in range(count):
        part = range(number * seconds // count, (number + 1) * seconds // count)
        length = rng.randint(min(low, len(part)), min(high, len(part)))
        start = rng.randint(part.start, part.stop - length)
        timeline, place = candidate.timeline, [start, start + length]
        detail, window = f"seconds {start} to {start + length}", place
        if timeline.clip.video is not None:  # nothing but the window is kept of it
            timeline = replace(timeline, clip=part_of(timeline.clip, start, start + length))
            window = [0, length]
        children.append(child_of(candidate, "windows", place, timeline, detail, window=window))
    return split_into("windows", candidate, children)


def _window(candidate: Candidate) -> range:
    return range(*candidate.work["window"])


def moving(desk: Desk, tools: Tools, candidate: Candidate) -> Candidate:
    """Something moves in the window, as far as a tool can tell."""
    if tools.motion is None:
        return candidate
    shown = desk.shown(candidate.timeline, _window(candidate))
    most = max(tools.motion(picture for _, picture in shown), default=0.0)
    detail = f"at most {most:.4f} of a picture"
    if most < LEAST_MOTION:
        return candidate.rejected("motion", "nothing moves", detail, tools.motion.key)
    return candidate.kept("motion", detail, tools.motion.key)


async def propose(
    desk: Desk, kinds: Sequence[str], most: int, negatives: float, candidate: Candidate
) -> Candidate:
    """Targets that come in the window; of a share of windows also one that never does."""
    agents, window = [desk.agent("target_proposer")], _window(candidate)
    language = language_of(candidate)
    shown = desk.shown(candidate.timeline, window)
    found = await proposed(agents[0], window, kinds, most, language, shown)
    absent = []
    if desk.chance(candidate, "absent target").random() < negatives:
        agents.append(desk.agent("absent_proposer"))
        absent = await proposed(agents[1], window, kinds, 1, language, shown)
    work = {**candidate.work, "proposed": [*found, *absent[:1]]}
    detail = f"{len(found)} that come, {len(absent)} that don't"
    keys = " ".join(agent.key for agent in agents)
    return candidate.changed("propose", detail=detail, agent=keys, work=work)


def hard_filter(kinds: Sequence[str], most: int, candidate: Candidate) -> list[Candidate]:
    """A candidate of each target, rejected where the target breaks a rule of its kind; `most` of
    those that come are open."""
    window, children = _window(candidate), list[Candidate]()
    work = {key: value for key, value in candidate.work.items() if key != "proposed"}
    parent = replace(candidate, work=work)
    earlier: list[Target] = []
    taken = 0
    for number, data in enumerate(candidate.work["proposed"]):
        child = child_of(parent, "targets", [number, data], candidate.timeline, target=data)
        try:
            target = target_of(data, f"target {number}")
            timeline = _drafted_timeline(candidate, target, window)
        except TimelineError as error:
            children.append(child.rejected("targets", error.reason, error.detail))
            continue
        broken = flaw(target, window, earlier, candidate.language)
        if target.kind not in kinds:
            broken = "kind not wanted", target.kind
        elif broken is None and target.second is not None:
            taken += 1
            broken = ("too many", f"at most {most}") if taken > most else None
        earlier.append(target)
        plain = {**child.work, "target": asdict(target)}
        child = replace(child, timeline=timeline, work=plain)
        children.append(child if broken is None else child.rejected("targets", *broken))
    return split_into("targets", candidate, children, none="nothing proposed")


def _drafted_timeline(candidate: Candidate, target: Target, window: range) -> Timeline:
    """The window's clip with the instruction at its start, and the alert, if it is to come."""
    timeline = candidate.timeline
    clip = replace(timeline.clip, duration=min(timeline.clip.duration or 0.0, float(window.stop)))
    events = [Event("q0", float(window.start), "user", target.instruction)]
    meta = {**timeline.meta, "kind": target.kind, "target": target.target}
    if target.second is None:
        meta["negative"] = "never comes"
    else:
        rule = naming_rule(target.target, target.response, candidate.language)
        at = float(target.second)
        events.append(Event("r0", at, "assistant", target.response, answers="q0", rule=rule))
    return replace(timeline, clip=clip, events=tuple(events), meta=meta)


def look_with_tools(desk: Desk, tools: Tools, candidate: Candidate) -> Candidate:
    """No tool sees the target before its second, and a text can be read then."""
    if tools.detects is None and tools.reads is None:
        return candidate
    target, timeline = Target(**candidate.work["target"]), candidate.timeline
    (query,) = timeline.of("user")
    stop = seconds_of(timeline) if target.second is None else target.second + 1
    found = seen_before(target, desk.shown(timeline, range(query.second, stop)), tools)
    if found is not None:
        return candidate.rejected("tools", *found)
    return candidate.kept("tools")
