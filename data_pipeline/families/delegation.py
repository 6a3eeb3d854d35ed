"""Delegation: what is too hard to answer at once is handed to a background model, and told when the
result is back. Between the two the stream goes on.

Three ways to come by such an episode:

    insert      hard problems in text, whose answers are known, are put into a copy of any stream

    hand over   a question on a video, with its answer, is handed over in a copy of its timeline
    plan        or an agent finds a moment in a video without events, and what is asked in it
    timestamp   is that when one would ask it, and could it be known by then? (the whole clip)
    visual      planned: is what it points at in the picture? (the one of its second)
    difficulty  is it hard enough?
    background  planned: the background model's work, from the pictures so far
    delay       drawn at random
    rewrite     the result, worded for who goes on watching
    meanwhile   if wanted, two agents chat while the result is awaited
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from data_pipeline.agents.agent import Agent, Verdict
from data_pipeline.agents.prompts import Field
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Step, asking, chat, child_of, looking, split_into, splitting
from data_pipeline.families.episodes import (
    FAMILY,
    NOTES,
    PROMISES,
    VERSION,
    Episode,
    insert,
    place,
)
from data_pipeline.families.looks import measured, seconds_of, with_length
from data_pipeline.families.places import LATE, across, answered_at_once, drawn, language_of, line
from data_pipeline.families.texts import answer_rule, english
from joyvl_train.background import DIGEST_CHARS
from joyvl_train.content import numbers, right
from joyvl_train.conversation import clean, cut
from joyvl_train.timeline import Rule

QUESTIONS = "qa"


def stages(
    desk: Desk,
    *,
    text: float = 0.1,
    questions: float = 0.1,
    delays: tuple[int, int] = (3, 12),
    most: int = 3,
    easy: float = 0.25,
    errors: float = 0.05,
    stretch: int = 60,
    meanwhile: bool = False,
) -> list[Step]:
    """The stages that make delegation episodes.

    text: share of streams of other families that are copied with hard problems in them, `most` in
    one; easy: share of easy ones beside them, which are answered at once; errors: share of them
    that come back with an error. questions: share of timelines with questions of which one is
    handed over in a copy. delays: seconds from a question to its result, the least and the most.
    stretch: seconds that the planner is shown. meanwhile: a chat while the result is awaited.
    """
    if not LATE < delays[0] <= delays[1]:
        raise ValueError(f"delays {delays!r}: whole seconds above {LATE}, the lower one first")

    def other(candidate: Candidate) -> bool:
        timeline = candidate.timeline
        fit = candidate.use == "train" and timeline.family != FAMILY and timeline.events
        return bool(fit) and english(candidate.language) and chosen(candidate, "text", text)

    def asked(candidate: Candidate) -> bool:
        fit = candidate.use == "train" and candidate.timeline.family == QUESTIONS
        return fit and chosen(candidate, "questions", questions)

    def chosen(candidate: Candidate, what: str, share: float) -> bool:
        return desk.chance(candidate, what).random() < share

    steps = [
        splitting("insert", other, partial(insert, desk, delays, most, easy, errors)),
        splitting("hand over", asked, partial(hand_over, desk, delays)),
        looking(desk, "pictures", _unplanned, partial(measured, desk, delays[0] + 2)),
        asking(desk, "plan", _unplanned, partial(plan, desk, delays, stretch)),
        asking(desk, "timestamp", _handed, partial(timestamp, desk)),
        asking(desk, "visual", _planned, partial(visual, desk)),
        asking(desk, "difficulty", _handed, partial(difficulty, desk)),
        asking(desk, "background", _planned, partial(background, desk)),
        looking(desk, "delay", _handed, partial(delay, desk, delays)),
        asking(desk, "rewrite", _handed, partial(rewrite, desk)),
    ]
    if meanwhile:
        steps.append(asking(desk, "meanwhile", _handed, partial(talk_meanwhile, desk)))
    return steps


def _unplanned(candidate: Candidate) -> bool:
    timeline = candidate.timeline
    return timeline.family == FAMILY and not timeline.events and "handed" not in candidate.work


def _handed(candidate: Candidate) -> bool:
    return candidate.timeline.family == FAMILY and "handed" in candidate.work


def _planned(candidate: Candidate) -> bool:
    return _handed(candidate) and bool(candidate.work["handed"]["planned"])


# A question on a video


def hand_over(desk: Desk, delays: tuple[int, int], candidate: Candidate) -> list[Candidate]:
    """A copy of a timeline without one of its questions and the answer to it, which is to be handed
    over.

    One about the whole video, which leaves no time for a result, is asked sooner; whether all that
    it needs has been seen by then is for the timestamp verifier to say.
    """
    timeline = with_length(desk, candidate)
    seconds, rng = seconds_of(timeline), desk.chance(candidate, "hand over")
    pairs = answered_at_once(timeline)
    rng.shuffle(pairs)
    for query, answer in pairs:
        events = tuple(e for e in timeline.events if e not in (query, answer))
        rest = replace(timeline, events=events)
        if query.second + delays[0] >= seconds:
            found = place(rng, rest, delays, range(seconds // 2, seconds))
        else:
            found = place(rng, rest, delays, range(query.second, query.second + 1))
        if found is None:
            continue
        handed = {
            "second": found[0],
            "query": query.text,
            "note": rng.choice(NOTES),
            "question": query.text,
            "planned": False,
        }
        moved = "" if found[0] == query.second else f", was at {query.second} s"
        child = child_of(
            candidate,
            "hand over",
            [VERSION, desk.seed],
            replace(rest, family=FAMILY),
            f"at {found[0]} s{moved}",
            handed=handed,
            result=answer.text,
        )
        return split_into("hand over", candidate, [child])
    return [candidate]


# What agents make and check


async def plan(
    desk: Desk, delays: tuple[int, int], stretch: int, candidate: Candidate
) -> Candidate:
    """The planner finds a moment of a stretch, drawn at random, and what is asked in it."""
    agent = desk.agent("planner")
    timeline = candidate.timeline
    last = seconds_of(timeline) - delays[0]  # later ones leave no time for a result
    start = desk.chance(candidate, "stretch").randint(0, max(0, last - stretch))
    stop = min(start + stretch, last) - 1
    fields: dict[str, Field] = {
        "start": start,
        "stop": stop,
        "language": language_of(candidate),
    }
    data = await agent.data(fields, desk.shown(timeline, range(start, stop + 1)))
    second = data["second"]
    if not start <= second <= stop:
        return candidate.rejected("plan", "outside the stretch", f"{second} s", agent.key)
    texts = {name: line(data[name], name) for name in ("query", "note", "question")}
    work = {**candidate.work, "handed": {"second": second, **texts, "planned": True}}
    return candidate.changed("plan", detail=f"at {second} s", agent=agent.key, work=work)


def _judged(
    candidate: Candidate, stage: str, fault: str, agent: Agent, verdict: Verdict
) -> Candidate:
    """Kept by the verdict's yes, else rejected for `fault`."""
    if verdict.yes:
        return candidate.kept(stage, verdict.reason, agent.key)
    return candidate.rejected(stage, fault, verdict.reason, agent.key)


async def timestamp(desk: Desk, candidate: Candidate) -> Candidate:
    """Over the whole clip: is this the moment at which one would ask it, and could it be known?"""
    agent, handed = desk.agent("timestamp_verifier"), candidate.work["handed"]
    seconds = seconds_of(candidate.timeline)
    pictures = across(desk, agent, candidate.timeline, seconds, handed["second"])
    fields = {name: handed[name] for name in ("second", "query", "question")}
    verdict = await agent.judge(fields, pictures, marked={handed["second"]})
    return _judged(candidate, "timestamp", "wrong moment", agent, verdict)


async def visual(desk: Desk, candidate: Candidate) -> Candidate:
    """On the one picture of its second: is there what the question points at?"""
    agent, handed = desk.agent("visual_verifier"), candidate.work["handed"]
    pictures = desk.shown(candidate.timeline, [handed["second"]])
    if not pictures:
        return candidate.rejected("visual", "no picture", f"at {handed['second']} s")
    fields = {name: handed[name] for name in ("second", "query")}
    verdict = await agent.judge(fields, pictures)
    return _judged(candidate, "visual", "not in the picture", agent, verdict)


async def difficulty(desk: Desk, candidate: Candidate) -> Candidate:
    """Is it hard enough to be handed over?"""
    agent, handed = desk.agent("difficulty_verifier"), candidate.work["handed"]
    pictures = across(desk, agent, candidate.timeline, handed["second"] + 1, handed["second"])
    fields = {name: handed[name] for name in ("second", "query", "question")}
    verdict = await agent.judge(fields, pictures, marked={handed["second"]})
    return _judged(candidate, "difficulty", "too easy", agent, verdict)


async def background(desk: Desk, candidate: Candidate) -> Candidate:
    """The background model works on it, from the pictures up to the second of the question."""
    agent, handed = desk.agent("background"), candidate.work["handed"]
    pictures = across(desk, agent, candidate.timeline, handed["second"] + 1, handed["second"])
    fields = {name: handed[name] for name in ("query", "question")}
    data = await agent.data(fields, pictures, marked={handed["second"]})
    if not agent.verdict({**data, "reason": data["work"]}).yes:
        return candidate.rejected("background", "no answer", cut(clean(data["work"]), 300))
    result = cut(clean(data["answer"]), DIGEST_CHARS)
    if not result:
        return candidate.rejected("background", "empty text", "result", agent.key)
    work = {**candidate.work, "result": result}
    return candidate.changed("background", detail=result, agent=agent.key, work=work)


def delay(desk: Desk, delays: tuple[int, int], candidate: Candidate) -> Candidate:
    """Draws when the result comes back."""
    asked = candidate.work["handed"]["second"]
    rng = desk.chance(candidate, "delay")
    back = drawn(rng, candidate.timeline, asked, delays)
    if back is None:
        return candidate.rejected("delay", "no room", f"after {asked} s")
    work = {**candidate.work, "back": back}
    return candidate.changed("delay", detail=f"{back - asked} s", work=work)


async def rewrite(desk: Desk, candidate: Candidate) -> Candidate:
    """Words the result for who goes on watching, and puts the episode on the timeline."""
    agent, timeline = desk.agent("foreground_rewriter"), candidate.timeline
    handed, result, back = (candidate.work[name] for name in ("handed", "result", "back"))
    fields = {name: handed[name] for name in ("query", "note")}
    pictures = desk.shown(timeline, [back])
    more = {"second": back, "language": language_of(candidate), "result": result}
    data = await agent.data({**fields, **more}, pictures)
    reply = line(data["text"], "reply")
    rule = Rule("similarity") if handed["planned"] else answer_rule(result, candidate.language)
    new = set(numbers(reply)) - set(numbers(f"{result} ; {handed['query']}")) - {1}  # "this one"
    if new or (rule.kind != "similarity" and not right(rule, result, reply)):
        return candidate.rejected("rewrite", "result changed", f"{result!r}: {reply!r}", agent.key)
    episode = Episode(
        handed["second"],
        back,
        handed["query"],
        handed["note"],
        handed["question"],
        result,
        reply,
        rule,
        Rule("similarity") if handed["planned"] else PROMISES,
    )
    way = "planned" if handed["planned"] else "question"
    timeline = replace(episode.put(timeline), meta={**timeline.meta, "way": way})
    return candidate.changed("rewrite", timeline, reply, agent.key)


async def talk_meanwhile(desk: Desk, candidate: Candidate) -> Candidate:
    """A chat between question and result, which goes on as if nothing were awaited."""
    asked, back = candidate.work["handed"]["second"], candidate.work["back"]
    rng = desk.chance(candidate, "meanwhile")
    moments = chat.draw(rng, candidate.timeline, range(asked + 1, back), back - asked, 2)
    if not moments:
        return candidate.kept("meanwhile", "no room")
    timeline = await chat.talked(desk, candidate, candidate.timeline, "companionship", moments)
    agents = f"{desk.agent('user_agent').key} {desk.agent('companion_agent').key}"
    lines = len(timeline.events) - len(candidate.timeline.events)
    return candidate.changed("meanwhile", timeline, f"{lines} lines", agents)
