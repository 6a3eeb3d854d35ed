"""Looks at single frames, by the agent that says of one picture whether a target is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from data_pipeline.agents.agent import Unverified, Verdict
from data_pipeline.agents.shown import thinned
from data_pipeline.candidates import Candidate
from data_pipeline.desk import Desk
from joyvl_train.records import settle
from joyvl_train.timeline import Timeline

TOGETHER = 8
"""Frames of one candidate that are asked about at a time."""


def measured(desk: Desk, least: int, candidate: Candidate) -> Candidate:
    """A stage: the clip's length is known from its pictures, which are decoded here, outside the
    questions; a clip of fewer than `least` seconds is too short."""
    timeline = settle(candidate.timeline, desk.frames(candidate.timeline))
    seconds = seconds_of(timeline)
    if seconds < least:
        return candidate.rejected("pictures", "too short", f"{seconds} s of {least} s")
    if timeline == candidate.timeline:
        return candidate.kept("pictures", f"{seconds} s")
    return candidate.changed("pictures", timeline, f"{seconds} s")


def with_length(desk: Desk, candidate: Candidate) -> Timeline:
    """The candidate's timeline, its length known; its pictures are only opened to learn it."""
    timeline = candidate.timeline
    return timeline if timeline.clip.seconds else settle(timeline, desk.frames(timeline))


def seconds_of(timeline: Timeline) -> int:
    """The whole seconds of a clip whose length is known."""
    assert timeline.clip.seconds is not None, "the clip is measured"
    return timeline.clip.seconds


def spread(seconds: range, most: int) -> list[int]:
    """At most `most` of the seconds, evenly spread, the first and the last among them."""
    return [seconds[i] for i in thinned(seconds, most)]


async def first(
    desk: Desk, timeline: Timeline, target: str, seconds: Sequence[int], *, seen: bool = True
) -> int | None:
    """The first of `seconds`, in their order, whose picture shows the target; with `seen` False,
    the first whose picture doesn't. None where there is none.

    Each picture is looked at by itself, a few at a time, until one is found. Seconds without a
    picture are passed over. `Unverified` where the agent can't tell of one that comes before.
    """
    agent = desk.agent("dense_precheck")

    async def look(second: int) -> Verdict | None:
        pictures = desk.shown(timeline, [second])
        return await agent.judge({"target": target}, pictures) if pictures else None

    for start in range(0, len(seconds), TOGETHER):
        batch = seconds[start : start + TOGETHER]
        # All of a batch have ended before one is looked into, so that none is left in flight.
        found = await asyncio.gather(*map(look, batch), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException) and not isinstance(error, Unverified):
                raise error
        for second, verdict in zip(batch, found, strict=True):
            if isinstance(verdict, BaseException):
                raise verdict
            if verdict is not None and verdict.yes is seen:
                return second
    return None
