"""What went before: the memory that a stream has after minutes or hours, for clips of seconds.

A clip that stands for the latest part of a long stream opens as a chunk of it does: its seconds
count on from there, and its memory text tells of things that came and went. None of them plays a
part in the clip, so that what is due in it stays what it was.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from data_pipeline.world.pictures import COLOURS, Picture, picture_set
from data_pipeline.world.words import a, capital
from joyvl_train.memory import NOTHING, Memory, Summary, add_summary, memory_text
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Timeline

ASKED_BACK = ("qa", "recall", "chat")
"""Families whose questions reach back: what memory tells of would be an answer to them."""

LONGEST = 72
"""Chunks that may lie behind a clip: two hours of 100 seconds each."""


@dataclass(frozen=True, slots=True)
class Past:
    """The second that a clip begins in, and the text of what was before it."""

    start: int
    memory_text: str


def past(timeline: Timeline, settings: StreamSettings, rng: random.Random) -> Past:
    """A drawn past of this clip; short ones are as likely as long ones, by their order of size.

    A clip that has an opening of its own keeps it as it is, and begins after all that it tells of.
    """
    chunks = round(math.exp(rng.uniform(0, math.log(LONGEST))))
    if timeline.opening:
        chunks = max(chunks, -(-400 // settings.chunk_seconds))
    start = chunks * settings.chunk_seconds - settings.lead
    if timeline.opening:
        return Past(start, timeline.opening)
    things = [] if timeline.family in ASKED_BACK else _others(timeline)
    # Of long pasts each chunk tells little, so that the text leaves room for the clip.
    most = 5 if chunks <= settings.limits.mid else 2
    busy = rng.random() if things else 0.0
    memory = Memory()
    covered = 0
    for chunk in range(1, chunks + 1):
        stop = chunk * settings.chunk_seconds - settings.lead
        text = _told(things, covered, stop, busy, most, rng)
        memory, _ = add_summary(memory, Summary(covered, stop, text), settings.limits)
        covered = stop
    return Past(start, memory_text(memory))


def _others(timeline: Timeline) -> list[Picture]:
    """Things that neither the clip shows nor anybody in it speaks of."""
    pictures = str(timeline.meta.get("pictures", "drawn"))
    tracks = (timeline.clip.scene or {}).get("tracks", ())
    shown = {track["picture"] for track in tracks}
    said = " ".join(event.text.casefold() for event in timeline.events)
    return [
        thing
        for thing in picture_set("photo" if pictures == "photo" else "drawn")
        if thing.name not in shown and not any(name.casefold() in said for name in thing.names)
    ]


def _told(
    things: list[Picture], start: int, stop: int, busy: float, most: int, rng: random.Random
) -> str:
    """The summary of a chunk, as the log of a stream or a model tells it: `most` lines, or as few
    of them as chance and `busy` say."""
    count = sum(rng.random() < busy for _ in range(most))
    if not count or not things:
        return NOTHING
    seconds = sorted(rng.sample(range(start, stop), min(count, stop - start)))
    lines = []
    for second in seconds:
        thing = rng.choice(things)
        colour = rng.choice(list(COLOURS)) if thing.colours and rng.random() < 0.4 else ""
        noun = f"{colour} {thing.name}".strip()
        told = f"{capital(a(noun, thing.article))} appeared."
        if rng.random() < 0.35:
            told = f"The {noun} left."
        lines.append(f"{second} s: {told}")
    return "; ".join(lines)
