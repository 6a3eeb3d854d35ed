"""What went before: the memory that a stream has after minutes or hours, for clips of seconds.

A clip that stands for the latest part of a long stream opens as a chunk of it does: its seconds
count on from there, and its memory text tells of things that came and went. None of them plays a
part in the clip, so that what is due in it stays what it was.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.world.pictures import COLOURS, Picture, picture_set
from data_pipeline.world.words import a, capital
from joyvl_train.memory import (
    NOTHING,
    Limits,
    Memory,
    Summary,
    absorb,
    add_summary,
    log_summary,
    memory_text,
)
from joyvl_train.stream import StreamSettings, Turn
from joyvl_train.timeline import Timeline

ASKED_BACK = ("qa", "recall", "chat")
"""Families whose questions reach back: what memory tells of would be an answer to them."""

LONGEST = 72
"""Chunks that may lie behind a clip: two hours of 100 seconds each."""


OPENING_SECONDS = 400
"""The seconds that an opening tells of, unless its timeline's meta says how many ("before")."""


@dataclass(frozen=True, slots=True)
class Past:
    """The second that a clip begins in, and the text of what was before it."""

    start: int
    memory_text: str


def past(timeline: Timeline, settings: StreamSettings, rng: random.Random) -> Past:
    """A drawn past of this clip; short ones are as likely as long ones, by their order of size.

    A clip that has an opening of its own keeps it as it is, and begins after all that it tells of.
    """
    chunks = long_or_short(LONGEST, rng)
    if timeline.opening:
        told = int(timeline.meta.get("before", OPENING_SECONDS)) + settings.lead
        chunks = max(chunks, -(-told // settings.chunk_seconds))
    stops = [n * settings.chunk_seconds - settings.lead for n in range(1, chunks + 1)]
    if timeline.opening:
        return Past(stops[-1], timeline.opening)
    things = [] if timeline.family in ASKED_BACK else _others(timeline)
    return Past(stops[-1], memory_text(remembered((), stops, things, settings.limits, rng)))


def long_or_short(longest: int, rng: random.Random) -> int:
    """A count from 1 to `longest`: small ones are as likely as large ones, by their order of
    size."""
    return round(math.exp(rng.uniform(0, math.log(longest))))


def remembered(
    turns: Sequence[Turn],
    stops: Sequence[int],
    things: Sequence[Picture],
    limits: Limits,
    rng: random.Random,
) -> Memory:
    """The memory of a stream with a summary up to each of `stops`, in which `turns` were said, and
    some of `things` came and left."""
    # Of long pasts each chunk tells little, so that the text leaves room for the clip.
    most = 5 if len(stops) <= limits.mid else 2
    busy = rng.random() if things else 0.0
    memory, covered = Memory(), 0
    for stop in stops:
        lines = _seen(things, range(covered, stop), busy, most, rng)
        for turn in turns:
            if covered <= turn.second < stop:
                memory, _ = absorb(memory, turn, 0, limits)
                lines.append((turn.second, log_summary((turn,))))
        text = "; ".join(line for _, line in sorted(lines)) or NOTHING
        memory, _ = add_summary(memory, Summary(covered, stop, text), limits)
        covered = stop
    return memory


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


def _seen(
    things: Sequence[Picture], seconds: range, busy: float, most: int, rng: random.Random
) -> list[tuple[int, str]]:
    """What a summary tells of these seconds, as the log of a stream or a model does: `most` lines,
    or as few of them as chance and `busy` say, each with its second."""
    count = sum(rng.random() < busy for _ in range(most))
    if not count or not things:
        return []
    lines = []
    for second in rng.sample(seconds, min(count, len(seconds))):
        thing = rng.choice(things)
        colour = rng.choice(list(COLOURS)) if thing.colours and rng.random() < 0.4 else ""
        noun = f"{colour} {thing.name}".strip()
        told = f"{capital(a(noun, thing.article))} appeared."
        if rng.random() < 0.35:
            told = f"The {noun} left."
        lines.append((second, f"{second} s: {told}"))
    return lines
