"""Clips cut around what is annotated: of an hour of footage the minute that is told of is kept.

What sources ask for themselves (`sources.wordings.asked_at`) moves to the start of the cut clip;
what an annotation tells keeps its place in the video.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from data_pipeline.candidates import Candidate, Refused, id_of
from data_pipeline.sources.wordings import LATEST_ASK
from joyvl_train.timeline import Clip, Event

STAGE = "cut"


def cut_around(
    candidates: Iterable[Candidate | Refused], before: int, after: int
) -> Iterator[Candidate | Refused]:
    """Each clip from at most `before` seconds before the first thing said on it to `after` seconds
    after all that is told of it, with instructions of the source's own, which come at its start.

    Of a video that begins earlier, a drawn share of `before` is kept, half of it at least: did all
    clips begin as long before, how long they have run would tell what comes.
    """
    for one in candidates:
        if isinstance(one, Refused) or not one.timeline.of("assistant"):
            yield one
            continue
        first = min(event.second for event in one.timeline.of("assistant", "background"))
        yield _cut(one, 0 if first <= before else first - _kept(one.id, before), after)


def _kept(id: str, before: int) -> int:
    """Seconds that the clip of this id has before the first thing said on it: enough to ask in."""
    least = min(before, max(LATEST_ASK + 1, before // 2))
    return least + int(id[16:24], 16) % (before - least + 1)


def cut_after(
    candidates: Iterable[Candidate | Refused], after: int
) -> Iterator[Candidate | Refused]:
    """Each clip up to `after` seconds after all that is told of it; what a question is about may
    lie anywhere before."""
    for one in candidates:
        yield one if isinstance(one, Refused) or not one.timeline.events else _cut(one, 0, after)


def part_of(clip: Clip, start: int, stop: int) -> Clip:
    """Seconds [start, stop) of a clip of a video, or up to its end."""
    assert clip.duration is not None, "the clip's length is known"
    duration = min(clip.duration - start, float(stop - start))
    return replace(clip, duration=duration, offset=clip.offset + start)


def _cut(one: Candidate, start: int, after: int) -> Candidate:
    timeline = one.timeline
    clip = timeline.clip
    if clip.video is None or clip.duration is None:
        return one
    stop = max(event.held_seconds.stop for event in timeline.events) + after
    if not start and stop >= clip.duration:
        return one
    clip = part_of(clip, start, stop)
    events = tuple(_moved(event, start) for event in timeline.events) if start else timeline.events
    end = clip.offset + math.ceil(clip.duration or 0)
    return replace(one, id=id_of(one.id, STAGE, [clip.offset, end])).changed(
        STAGE,
        replace(timeline, clip=clip, events=events),
        f"seconds {clip.offset} to {end} of the video",
    )


def _moved(event: Event, start: int) -> Event:
    """The event as the clip from `start` on tells it; whole seconds move to the last digit."""
    if event.role == "user":
        return event
    until = None if event.until is None else event.until - start
    return replace(event, time=event.time - start, until=until)
