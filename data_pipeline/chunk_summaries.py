"""Memory text for every record longer than a chunk, so that training and windows can open anywhere.

    pictures
    stretches  the seconds that a stream would have summarized, as `joyvl_train.stream` cuts them,
               and what is said in each
    summaries  a text for each: of rendered scenes from their own log, of all else from an agent
               that sees the pictures, or the one that a published record tells; checked by rule,
               and all but the log's by another agent

A record with a stretch that nobody can vouch for is unverified, "no summary": in training a text
made from the words alone would stand there, as if nothing had been seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from data_pipeline.agents.agent import Unverified
from data_pipeline.agents.prompts import Field
from data_pipeline.agents.shown import thinned
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from data_pipeline.families import Own, Step, asking, looking
from data_pipeline.families.looks import measured, seconds_of
from data_pipeline.sources.published import TOLD_SUMMARIES
from data_pipeline.sources.wordings import language_name
from data_pipeline.verify import every, newest
from data_pipeline.world.summaries import summarize
from joyvl_train.chunks import training_chunks
from joyvl_train.conversation import clean
from joyvl_train.memory import CHARS, log_summary
from joyvl_train.stream import StreamSettings, Turn
from joyvl_train.timeline import Timeline

NO_SUMMARY = "no summary"

_SECOND = re.compile(r"\b(\d+) ?s\b")

Stretch = tuple[int, int, list[str]]
"""First second, the one after the last, and the lines said between."""


def stages(
    desk: Desk,
    settings: StreamSettings | None = None,
    *,
    words: int = 120,
    tries: int = 2,
    own: Own = every,
) -> list[Step]:
    """The stages that give memory text to candidates that are `own` and longer than a chunk.

    settings: of the streams that will be cut; words: of one text at most; tries: texts that the
    agent may write for one stretch.
    """
    if words < 1 or tries < 1:
        raise ValueError(f"words {words}, tries {tries}: 1 or more")
    cut = settings or StreamSettings()

    def written(candidate: Candidate) -> bool:
        return own(candidate) and "stretches" in candidate.work

    return [
        looking(desk, "pictures", own, partial(measured, desk, 1)),
        looking(desk, "stretches", own, partial(stretches, desk, cut)),
        asking(desk, "summaries", written, partial(summaries, desk, cut, words, tries)),
    ]


def stretches(desk: Desk, settings: StreamSettings, candidate: Candidate) -> Candidate:
    """Which seconds are to be summarized, and what is said in them; the log of a rendered scene
    says the rest."""
    timeline = candidate.timeline
    if seconds_of(timeline) <= settings.chunk_seconds:
        return candidate.kept("stretches", "no longer than a chunk")
    cut = cuts(desk, timeline, settings)
    found: list[Stretch] = [(*_around(turns, settings), _said(turns)) for turns in cut]
    if timeline.clip.scene is None:
        work = {**candidate.work, "stretches": [list(stretch) for stretch in found]}
        return candidate.changed("stretches", detail=f"{len(found)} stretches", work=work)
    room = settings.limits.told_chars
    texts = [summarize(timeline, turns, room) for turns in cut]
    for (start, stop, said), text in zip(found, texts, strict=True):
        wrong = flaw(text, stop, room) or unsaid(text, said, room)
        if wrong:
            return candidate.unverified("stretches", NO_SUMMARY, f"[{start}, {stop}) s: {wrong}")
    told = tuple((start, stop, text) for (start, stop, _), text in zip(found, texts, strict=True))
    return candidate.changed("stretches", detail=f"{len(told)} from the log", summaries=told)


def cuts(desk: Desk, timeline: Timeline, settings: StreamSettings) -> list[tuple[Turn, ...]]:
    """The turns of each stretch that a stream of these settings asks a summary of."""
    found: list[tuple[Turn, ...]] = []

    def note(turns: Sequence[Turn]) -> str:
        found.append(tuple(turns))
        return settings.limits.log(turns)

    frames = None if timeline.clip.scene is not None else desk.frames(timeline)

    def seen(second: int) -> tuple[int, ...]:
        return (second,) if frames is None or frames.frames(second) else ()

    for _ in training_chunks(timeline, seen, settings, note):
        pass
    return found


def _around(turns: Sequence[Turn], settings: StreamSettings) -> tuple[int, int]:
    """The seconds of a stretch: up to `lead` before a boundary, from where the last one ended."""
    number = (turns[0].second + settings.lead) // settings.chunk_seconds + 1
    stop = number * settings.chunk_seconds - settings.lead
    return max(0, stop - settings.chunk_seconds), stop


def _said(turns: Sequence[Turn]) -> list[str]:
    """What is said in each turn in which something is."""
    silent = log_summary(())
    lines = [log_summary((turn,)) for turn in turns]
    return [line for line in lines if line != silent]


async def summaries(
    desk: Desk, settings: StreamSettings, words: int, tries: int, candidate: Candidate
) -> Candidate:
    """An agent writes, another one checks; nothing in a text comes from after its stretch."""
    agents = f"{desk.agent('summarizer').key} {desk.agent('summary_verifier').key}"
    before = {(a, b): text for a, b, text in candidate.work.get(TOLD_SUMMARIES, ())}
    told = []
    for start, stop, said in candidate.work["stretches"]:
        where = f"[{start}, {stop}) s"
        given = before.get((start, stop))
        try:
            text, wrong = await _written(
                desk, settings, words, tries, candidate, start, stop, said, given
            )
        except Unverified as error:
            detail = f"{where}: {error.reason}: {error.detail}"
            return candidate.unverified("summaries", NO_SUMMARY, detail, error.agent)
        if wrong:
            return candidate.unverified("summaries", NO_SUMMARY, f"{where}: {wrong}", agents)
        told.append((start, stop, text))
    kept = sum(before.get((start, stop)) == text for start, stop, text in told)
    detail = f"{len(told) - kept} by an agent" + (f", {kept} of the record's own" if kept else "")
    return candidate.changed("summaries", None, detail, agents, summaries=tuple(told))


async def _written(
    desk: Desk,
    settings: StreamSettings,
    words: int,
    tries: int,
    candidate: Candidate,
    start: int,
    stop: int,
    said: Sequence[str],
    given: str | None = None,
) -> tuple[str, str]:
    """A text that holds, and ""; or the last one with what is wrong with it. One that is `given`
    is tried first."""
    writer, checker = desk.agent("summarizer"), desk.agent("summary_verifier")
    most = min(writer.most_pictures, checker.most_pictures)
    shown = [range(start, stop)[i] for i in thinned(range(start, stop), most)]
    pictures = desk.shown(candidate.timeline, shown)
    span: dict[str, Field] = {"start": start, "stop": stop - 1}
    span["said"] = newest(said, min(writer.most_chars, checker.most_chars))
    asked: dict[str, Field] = {
        **span,
        "words": words,
        "language": language_name(candidate.language),
    }

    async def wrong_with(text: str) -> str:
        found = flaw(text, stop, settings.limits.summary_chars)
        if found:
            return found
        verdict = await checker.judge({**span, "summary": text}, pictures)
        return "" if verdict.yes else f"not right: {verdict.reason}"

    text, wrong = clean(given or ""), "empty"
    if given is not None:
        wrong = await wrong_with(text)
    for sample in range(tries):
        if not wrong:
            break
        data = await writer.data(asked, pictures, sample=sample)
        text = clean(data["summary"])
        wrong = await wrong_with(text)
    return text, wrong


def flaw(text: str, stop: int, most_chars: int) -> str:
    """What is wrong with a text at first sight; empty where nothing is."""
    if not text:
        return "empty"
    if len(text) > most_chars:
        return f"{len(text)} characters, at most {most_chars}"
    later = [second for second in map(int, _SECOND.findall(text)) if second >= stop]
    return f"tells of second {later[0]}" if later else ""


def unsaid(text: str, said: Sequence[str], most_chars: int = CHARS) -> str:
    """The newest line that a log's text leaves out; where that text is full, older ones may go."""
    missing = [line for line in said if line not in text]
    return f"leaves out {missing[-1]!r}" if missing and len(text) < most_chars - 100 else ""
