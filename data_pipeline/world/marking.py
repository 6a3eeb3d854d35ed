"""Marks of the rendered world (`joyvl_train.marks`): which image tokens show what is asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from data_pipeline.world import scene as world_scene
from data_pipeline.world.cells import (
    CELL,
    COLOUR_LABELS,
    changed_scene,
    name_labels,
    sought_cells,
)
from data_pipeline.world.pictures import COLOURS, PictureSets, picture_set, sets_of
from data_pipeline.world.stills import Still
from data_pipeline.world.streams import frame_times
from joyvl_train.marks import UNKNOWN
from joyvl_train.rendering import Rendered
from joyvl_train.timeline import Event, Timeline

Sought = tuple[tuple[str, str], ...]
"""Names of pictures, each with a colour or "" for any."""


def still_marks(
    still: Still,
    predicted: Sequence[bool] = (),
    *,
    side: int,
    pictures: PictureSets,
    change_side: int = 0,
) -> np.ndarray | None:
    """The marks of a sample's image tokens, at `side` pixels; None where it names nothing.

    predicted: of each frame, whether it shows a change alone, in a picture of `change_side` pixels:
    what is sought is marked in it where it is new since the frame before, or has changed.
    """
    if not still.sought:
        return None
    found = []
    shown = zip(still.scenes, still.times, predicted or [False] * len(still.times), strict=True)
    for number, (scene, time, change) in enumerate(shown):
        grid = (change_side if change else side) // CELL
        if change:
            # Alone, for of several things in one of its few cells just one would be labelled.
            scene = changed_scene(scene, still.times[number - 1], time)
            tracks = (t for t in scene.tracks if _is_one_of(t, still.sought))
            scene = replace(scene, tracks=tuple(tracks))
        found.append(sought_cells(scene, time, grid, pictures, still.sought))
    return np.concatenate(found)


def _is_one_of(track: world_scene.Track, sought: Sought) -> bool:
    return any(track.picture == name and colour in ("", track.colour) for name, colour in sought)


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
            cells = sought_cells(scene, time, side // CELL, pictures, sought)
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
    """Marks and labels of words that memory text explains, of samples that begin with some.

    The last token of each name, in questions and answers and in the memory text itself, has a mark:
    was the thing named in the memory text before it? Where it came once it has labels: the digits
    of the second in which it came, up to 999, from the first on (10: no more), its colour, and what
    came before and after it. The last digit of the second of a coming has the name of what came.
    """

    def __init__(self, tokenizer: Any, pictures: PictureSets) -> None:
        self._tokenizer = tokenizer
        self._pictures = pictures
        self._labels = name_labels(pictures)
        self.fields = (11, 11, 11, len(COLOUR_LABELS), *[len(self._labels)] * 3)
        self._names: dict[int, list[tuple[tuple[int, ...], str]]] = defaultdict(list)
        for name, picture in _names(pictures)[1].items():
            ids = tuple(tokenizer.encode(f" {name}", add_special_tokens=False))
            self._names[ids[0]].append((ids, picture))
        for several in self._names.values():
            several.sort(key=lambda pair: -len(pair[0]))

    def __call__(self, rendered: Rendered) -> np.ndarray:
        """The marks [L, 1 + fields] of a sample's tokens."""
        marks = np.full((len(rendered), 1 + len(self.fields)), UNKNOWN)
        known: set[str] = set()
        lines: dict[str, np.ndarray] = {}
        at: dict[int, int] = {}
        for span in rendered.spans:
            ids = rendered.ids[span.start : span.stop]
            if span.role == "system":
                lines, at = self._lines(self._tokenizer.decode(ids))
                for last, picture in self._mentions(ids):
                    marks[span.start + last, 0] = picture in known
                    if picture in lines and self._comes(ids, last):
                        marks[span.start + last, 1:6] = lines[picture][:5]  # what came after: later
                    known.add(picture)
            elif known and span.kind == "text":
                for last, picture in self._mentions(ids):
                    marks[span.start + last, 0] = picture in known
                    marks[span.start + last, 1:-1] = lines.get(picture, UNKNOWN)
                for last, second in self._seconds(ids):
                    marks[span.start + last, -1] = at.get(second, UNKNOWN)
        return marks

    def _lines(self, memory: str) -> tuple[dict[str, np.ndarray], dict[int, int]]:
        """Of each thing that came once, its labels; of each second in which one thing came, the
        name's."""
        came = [
            (int(match[1]), *thing)
            for match in _CAME.finditer(memory)
            for thing in named(match[2], self._pictures)[:1]
        ]
        names = [self._labels.index(name) for _, name, _ in came]
        found: dict[str, np.ndarray] = {}
        for i, (second, name, colour) in enumerate(came):
            if names.count(names[i]) > 1:
                continue
            # Of longer ones the first three digits would be those of another second.
            digits = [*map(int, str(second)), 10, 10][:3] if second < 1000 else [UNKNOWN] * 3
            before = names[i - 1] if i else 0
            after = names[i + 1] if i + 1 < len(names) else 0
            labels = [*digits, COLOUR_LABELS.index(colour), before, after]
            found[name] = np.asarray(labels)
        seconds = [second for second, _, _ in came]
        alone = (n for n, second in enumerate(seconds) if seconds.count(second) == 1)
        return found, {seconds[n]: names[n] for n in alone}

    def _comes(self, ids: Sequence[int], last: int) -> bool:
        """Whether the name whose last token this is stands in the line that tells of its coming:
        an instruction before that line names it too, and knows of no second."""
        told = self._tokenizer.decode(ids[max(0, last - _LINE) : last + 1])
        further = self._tokenizer.decode(ids[last + 1 : last + 4])
        return any(match.end(2) == len(told) for match in _CAME.finditer(told + further))

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

    def _seconds(self, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(place of its last digit, value) of each number of seconds: "20 s", "second 20"."""
        words = [self._tokenizer.decode([token]).strip() for token in ids]
        start = 0
        while start < len(words):
            stop = start
            while stop < len(words) and words[stop].isdigit():
                stop += 1
            before, after = words[start - 1 : start], words[stop : stop + 1]
            # A space may be a token of its own.
            if before == [""]:
                before = words[start - 2 : start - 1]
            if stop > start and (after in (["s"], ["seconds"]) or before == ["second"]):
                yield stop - 1, int("".join(words[start:stop]))
            start = max(stop, start + 1)


_LINE = 24
"""Tokens that a line has at most before the name of what came."""

_CAME = re.compile(r"(\d+) s(?: assistant)?: (?:an?|some|the) ([a-z -]+) (?:came|appeared)", re.I)
