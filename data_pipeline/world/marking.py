"""Marks of the rendered world (`joyvl_train.marks`): which image tokens show what is asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from data_pipeline.world import scene as world_scene
from data_pipeline.world.cells import sought_cells
from data_pipeline.world.pictures import COLOURS, PictureSets, picture_set, sets_of
from data_pipeline.world.stills import Still
from data_pipeline.world.streams import frame_times
from joyvl_train.marks import UNKNOWN
from joyvl_train.rendering import Rendered
from joyvl_train.timeline import Event, Timeline

Sought = tuple[tuple[str, str], ...]
"""Names of pictures, each with a colour or "" for any."""


def still_marks(still: Still, side: int, pictures: PictureSets) -> np.ndarray | None:
    """The marks of a sample's image tokens, at `side` pixels; None where it names nothing."""
    if not still.sought:
        return None
    frames = zip(still.scenes, still.times, strict=True)
    return np.concatenate([sought_cells(*at, side // 32, pictures, still.sought) for at in frames])


def stream_marks(
    timeline: Timeline, seconds: Sequence[int], side: int, pictures: PictureSets
) -> np.ndarray:
    """The marks of the image tokens of these seconds of a stream.

    In a second with a question that names something that is sought; in any other what the
    questions before it name that are not answered at once: what was asked to be looked out for.
    Where that is nothing the marks are unknown.
    """
    scene = world_scene.from_json(timeline.clip.scene or {})
    rate = int(timeline.frames_per_second)
    found = []
    for second in seconds:
        sought = sought_in(timeline, second, pictures)
        for time in frame_times(rate, scene.duration, second):
            cells = sought_cells(scene, time, side // 32, pictures, sought)
            found.append(cells if sought else np.full_like(cells, UNKNOWN))
    return np.concatenate(found)


def sought_in(timeline: Timeline, second: int, pictures: PictureSets) -> Sought:
    """What is asked for in the second `second` of a stream."""
    asked = [e for e in timeline.events if e.role == "user" and int(e.time) <= second]
    now = [n for e in asked if int(e.time) == second for n in named(e.text, pictures)]
    if now:
        return tuple(now)
    at_once = {
        e.answers
        for e in timeline.events
        if e.role == "assistant" and int(e.time) == _asked_at(timeline, e)
    }
    standing = [n for e in asked if e.id not in at_once for n in named(e.text, pictures)]
    return tuple(dict.fromkeys(standing))


def _asked_at(timeline: Timeline, answer: Event) -> int | None:
    for event in timeline.events:
        if event.id == answer.answers:
            return int(event.time)
    return None


@lru_cache(maxsize=8192)
def named(text: str, pictures: PictureSets) -> Sought:
    """The pictures that a text names, each with the colour that stands before its name."""
    pattern, known = _names(pictures)
    found = (
        (known[m["name"].lower()], (m["colour"] or "").lower()) for m in pattern.finditer(text)
    )
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4)
def _names(pictures: PictureSets) -> tuple[re.Pattern[str], dict[str, str]]:
    known: dict[str, str] = {}
    for kind in sets_of(pictures):
        for picture in picture_set(kind):
            for name in (*picture.names, picture.plural):
                known.setdefault(name.lower(), picture.name)
    longest = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    colours = "|".join(COLOURS)
    pattern = re.compile(rf"\b(?:(?P<colour>{colours}) )?(?P<name>{longest})\b", re.IGNORECASE)
    return pattern, known


class MemoryMarks:
    """Marks of text: whether what a name stands for was named in the memory text before it.

    They are of the last token of each name, in questions, answers and the memory text itself, of
    samples that begin with memory text; the marks of all other tokens are unknown.
    """

    def __init__(self, tokenizer: Any, pictures: PictureSets) -> None:
        self._names: dict[int, list[tuple[tuple[int, ...], str]]] = defaultdict(list)
        for name, picture in _names(pictures)[1].items():
            ids = tuple(tokenizer.encode(f" {name}", add_special_tokens=False))
            self._names[ids[0]].append((ids, picture))
        for several in self._names.values():
            several.sort(key=lambda pair: -len(pair[0]))

    def __call__(self, rendered: Rendered) -> np.ndarray:
        """The marks [L] of a sample's tokens."""
        marks = np.full(len(rendered), UNKNOWN)
        known: set[str] = set()
        for span in rendered.spans:
            if span.role == "system" or (known and span.kind == "text"):
                for last, picture in self._mentions(rendered.ids[span.start : span.stop]):
                    marks[span.start + last] = picture in known
                    if span.role == "system":
                        known.add(picture)
        return marks

    def _mentions(self, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
        """(place of its last token, picture) of each name."""
        at = 0
        while at < len(ids):
            for name, picture in self._names.get(ids[at], ()):
                if tuple(ids[at : at + len(name)]) == name:
                    at += len(name) - 1
                    yield at, picture
                    break
            at += 1
