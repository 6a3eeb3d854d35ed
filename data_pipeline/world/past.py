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


TELLING = Limits(summary_chars=400, dialogue_tokens=150)
"""Limits of the memories that stories of their own begin with: small models read them, too."""


@dataclass(frozen=True, slots=True)
class Past:
    """The second that a clip begins in, and the text of what was before it."""

    start: int
    memory_text: str


def past(timeline: Timeline, settings: StreamSettings, rng: random.Random) -> Past:
    """A drawn past of this clip; short ones are as likely as long ones, by their order of size.

    A clip that has an opening of its own keeps it as it is, and begins after all that it tells of:
    at once, where its meta says up to when it tells ("before").
    """
    chunks = long_or_short(LONGEST, rng)
    if timeline.opening:
        before = timeline.meta.get("before")
        told = OPENING_SECONDS if before is None else int(before)
        least = -(-(told + settings.lead) // settings.chunk_seconds)
        # A memory that tells up to when reaches up to the clip, as a stream's does.
        chunks = least if before is not None else max(chunks, least)
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
    full: bool = False,
) -> Memory:
    """The memory of a stream with a summary up to each of `stops`, in which `turns` were said, and
    some of `things` came and left. full: what was seen is told as a model does that is asked of
    every ten seconds, and what was said after it; not with few lines a chunk, by their seconds."""
    # Of long pasts each chunk tells little, so that the text leaves room for the clip.
    most = 5 if len(stops) <= limits.mid else 2
    busy = rng.random() if things else 0.0
    memory, covered = Memory(), 0
    for stop in stops:
        seconds = range(covered, stop)
        here = [turn for turn in turns if turn.second in seconds]
        for turn in here:
            memory, _ = absorb(memory, turn, 0, limits)
        said = [(turn.second, log_summary((turn,))) for turn in here]
        if full:
            lines = _by_stretches(things, seconds, rng) + said
        else:
            lines = sorted(_seen(things, seconds, busy, most, rng) + said)
        text = "; ".join(line for _, line in lines) or NOTHING
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
    found = rng.sample(seconds, min(count, len(seconds)))
    return [(second, f"{second} s: {_came_or_left(things, rng)}") for second in found]


def _by_stretches(
    things: Sequence[Picture], seconds: range, rng: random.Random
) -> list[tuple[int, str]]:
    """The same of every ten seconds in which something is seen."""
    lines = []
    for second in seconds[::10]:
        told = [_came_or_left(things, rng) for _ in range(rng.randint(0, 3))]
        if told:
            lines.append((second, f"{second} s: {' '.join(told)}"))
    return lines


def _came_or_left(things: Sequence[Picture], rng: random.Random) -> str:
    thing = rng.choice(things)
    colour = rng.choice(list(COLOURS)) if thing.colours and rng.random() < 0.4 else ""
    noun = f"{colour} {thing.name}".strip()
    if rng.random() < 0.35:
        return f"The {noun} left."
    return f"{capital(a(noun, thing.article))} appeared."
