"""Two looks at each candidate, whatever made it; who fails either is rejected.

    rules   what needs no look: nothing is said before what it answers, nothing easy is handed over
    tools   cheap ones next, where there are any: texts on screen, things by name, movement
    local   each line, with the pictures of its second and those before it
    global  the whole annotation with its seconds, with all pictures

What an agent can't settle leaves a candidate unverified.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from data_pipeline.agents.agent import Agent, Unverified
from data_pipeline.agents.event_lines import line_of, line_since, said_in
from data_pipeline.agents.prompts import Field
from data_pipeline.agents.shown import Pictures, thinned
from data_pipeline.candidates import Candidate
from data_pipeline.claims import USUAL, Thresholds, misplaced, refuted
from data_pipeline.desk import Desk
from data_pipeline.families import Own, Step, asking, looking
from data_pipeline.families.looks import measured, seconds_of
from data_pipeline.families.targets import Tools
from joyvl_train.conversation import clean
from joyvl_train.timeline import Event, Timeline


def every(candidate: Candidate) -> bool:
    """All candidates are to be verified."""
    return True


def stages(
    desk: Desk,
    *,
    tools: Tools | None = None,
    thresholds: Thresholds = USUAL,
    before: int = 4,
    context: int = 12,
    own: Own = every,
) -> list[Step]:
    """The stages that verify the candidates that are `own`.

    thresholds: of what the tools find; before: seconds of pictures ahead of a line's own; context:
    pictures, spread over all that came earlier, that stand before these.
    """
    steps = [
        looking(desk, "rules", own, by_rules),
        looking(desk, "pictures", own, partial(measured, desk, 1)),
    ]
    if tools is not None and tools != Tools():
        look = partial(by_tools, desk, tools, thresholds, before)
        steps.append(looking(desk, "tools", own, look))
    return [
        *steps,
        asking(desk, "local", own, partial(local, desk, before, context)),
        asking(desk, "global", own, partial(whole, desk, context)),
    ]


def by_rules(candidate: Candidate) -> Candidate:
    """Looks at the words and seconds alone."""
    timeline = candidate.timeline
    for event in timeline.of("assistant"):
        wrong = misplaced(timeline, event, candidate.language)
        if wrong is not None:
            reason, detail, key = wrong
            return candidate.rejected("rules", reason, f"{event.second} s: {detail}", key)
    return candidate.kept("rules")


def by_tools(
    desk: Desk, tools: Tools, thresholds: Thresholds, before: int, candidate: Candidate
) -> Candidate:
    """Looks up what can be looked up without a model."""
    timeline = candidate.timeline
    for event in timeline.of("assistant"):
        pictures = desk.shown(timeline, range(event.second - before, event.second + 1))
        wrong = refuted(timeline, event, candidate.language, pictures, tools, thresholds)
        if wrong is not None:
            reason, detail, key = wrong
            return candidate.rejected("tools", reason, f"{event.second} s: {detail}", key)
    return candidate.kept("tools")


async def local(desk: Desk, before: int, context: int, candidate: Candidate) -> Candidate:
    """Each line that the assistant says, by the pictures up to its second and no later one.

    One that is repeated is looked at in the last second of its state, too.
    """
    agent, timeline = desk.agent("local_verifier"), candidate.timeline
    lines = timeline.of("assistant")
    for event in lines:
        for second in dict.fromkeys((event.second, _last(event))):
            start = max(0, second - before)
            pictures = _shown(desk, timeline, start, second + 1, context)
            if not pictures or pictures[-1][0] != second:
                return candidate.rejected("local", "no picture", f"{second} s")
            verdict = await agent.judge(_local_fields(agent, timeline, event, second), pictures)
            if not verdict.yes:
                detail = f"{second} s: {verdict.reason}"
                return candidate.rejected("local", "not right at its second", detail, agent.key)
    return candidate.kept("local", f"{len(lines)} lines", agent.key)


def _last(event: Event) -> int:
    return event.held_seconds[-1] if event.repeat else event.second


def _local_fields(agent: Agent, timeline: Timeline, event: Event, second: int) -> dict[str, Field]:
    turns = timeline.of("user", "background", "assistant")
    past = [e for e in turns if e.time <= event.time and e is not event]
    asked = [line_of(e) for e in past if e.role == "user"]
    said = [*_opening(timeline), *(line_of(e) for e in past if e.role != "user")]
    if second > event.second:
        said.append(line_since(event))
    return {
        "second": second,
        "instruction": newest(asked, agent.most_chars),
        "earlier": newest(said, agent.most_chars),
        "text": said_in(event),
    }


async def whole(desk: Desk, context: int, candidate: Candidate) -> Candidate:
    """The whole annotation with all pictures; where those are more than the agent is shown at a
    time, one stretch after the other, each after pictures of what came earlier."""
    agent, timeline = desk.agent("global_verifier"), candidate.timeline
    if not timeline.of("assistant") and not agent.judges_silence:
        return _silent(candidate, agent.key)
    seconds, most = seconds_of(timeline), agent.most_pictures
    step = seconds if seconds <= most else max(1, most - context)
    turns = timeline.of("user", "background", "assistant")
    for start in range(0, seconds, step):
        stop = min(start + step, seconds)
        lines = [*_opening(timeline), *(line_of(e) for e in turns if e.second < stop)]
        told = newest(lines, agent.most_chars)
        judged = sum(start <= e.second < stop for e in turns)
        if len(told) < judged:  # what isn't read can't be passed
            detail = f"{len(told)} of {judged} lines of seconds {start} to {stop - 1} can be shown"
            raise Unverified("too long", detail, agent.key)
        fields: dict[str, Field] = {
            "seconds": seconds,
            "start": start,
            "stop": stop - 1,
            "annotation": told,
        }
        pictures = _shown(desk, timeline, start, stop, most - step)
        verdict = await agent.judge(fields, pictures)
        if not verdict.yes:
            return candidate.rejected("global", "not right as a whole", verdict.reason, agent.key)
    return candidate.kept("global", agent=agent.key)


def _silent(candidate: Candidate, key: str) -> Candidate:
    """A clip in which nothing is to be said: its family's own stages have looked at every frame, or
    nobody can tell."""
    if not any(note.stage in ("absence", "negatives") for note in candidate.history):
        raise Unverified("unsure", "that nothing is to be said, no plain question asks", key)
    return candidate.kept("global", "silent; looked at frame by frame before", key)


def _shown(desk: Desk, timeline: Timeline, start: int, stop: int, context: int) -> Pictures:
    """The pictures of [start, stop), after up to `context` of those before."""
    earlier = [range(start)[i] for i in thinned(range(start), context)] if context else []
    return desk.shown(timeline, [*earlier, *range(start, stop)])


def _opening(timeline: Timeline) -> list[str]:
    return [f"before the video: {text}" for text in timeline.opening.splitlines() if text.strip()]


def newest(lines: Sequence[str], chars: int) -> list[str]:
    """The last of the lines that fit into a field of a prompt, where each stands quoted."""
    kept: list[str] = []
    for line in reversed(lines):
        chars -= len(json.dumps(clean(line), ensure_ascii=False)) + len("\n- ")
        if chars < 0:
            break
        kept.append(line)
    return kept[::-1]
