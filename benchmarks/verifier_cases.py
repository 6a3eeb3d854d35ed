"""The cases of `verifiers.py`: rendered streams, right and damaged, and their pictures.

A family's clips are the same whenever they are drawn by the same seed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock

from data_pipeline.candidates import Candidate, id_of
from data_pipeline.corruption import KINDS, damage
from data_pipeline.sources.wordings import READ
from data_pipeline.world import scene as world_scene
from data_pipeline.world.pictures import PictureSet
from data_pipeline.world.splits import Split
from data_pipeline.world.streams import WorldFrames, stream
from joyvl_train.timeline import Timeline

READING = "reading"
RIGHT = "right"
"""The kind of a candidate that nothing was done to."""

_KEPT_CLIPS = 40  # more than there are questions in flight


@dataclass(frozen=True)
class Case:
    """A candidate, right or damaged in one way."""

    family: str
    clip: str
    kind: str
    candidate: Candidate


def read_out(timeline: Timeline) -> Timeline | None:
    """On-screen words, read out instead of translated; None where they are not in one line."""
    assert timeline.clip.scene is not None
    captions = world_scene.from_json(timeline.clip.scene).captions
    events = []
    for event in timeline.events:
        if event.role == "user":
            event = replace(event, text=READ[len(timeline.clip.id) % len(READ)])
        elif event.role == "assistant":
            shown = [c.text for c in captions if c.start == event.time]
            if len(shown) != 1 or "\n" in shown[0]:
                return None
            event = replace(event, text=shown[0], rule=None)
        events.append(event)
    return replace(timeline, family=READING, events=tuple(events))


def streams(family: str, split: Split, seed: int, photo: bool) -> Iterator[Timeline]:
    """Endless streams of a family, in turn of drawn and of photographic things."""
    for number in range(seed * 1_000_003, (seed + 1) * 1_000_003):
        pictures: PictureSet = "photo" if photo and number % 2 else "drawn"
        told = "translation" if family == READING else family
        timeline: Timeline | None = stream(told, number, split, pictures=pictures)
        if family == READING and timeline is not None:
            timeline = read_out(timeline)
        if timeline is not None:
            yield timeline


def cases(family: str, split: Split, seed: int, clips: int, photo: bool) -> list[Case]:
    """Each clip right, and in every way in which it can be damaged."""
    made = []
    for _, timeline in zip(range(clips), streams(family, split, seed, photo), strict=False):
        clip = f"{family} {timeline.clip.id}"
        candidates = {RIGHT: Candidate(id_of(clip, RIGHT), timeline)}
        for kind in KINDS:
            damaged = damage(timeline, kind, seed)
            if damaged is not None:
                candidates[kind] = Candidate(id_of(clip, kind), damaged.timeline)
        made += [Case(family, clip, kind, one) for kind, one in candidates.items()]
    return made


class Shown:
    """The pictures of clips, drawn once for all candidates on one; the last few clips are kept."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._kept: OrderedDict[str, WorldFrames] = OrderedDict()
        self._lock = Lock()  # tools look in one thread, questions are made in another

    def __call__(self, timeline: Timeline) -> WorldFrames:
        clip = timeline.clip.id
        with self._lock:
            drawn = self._kept.pop(clip, None) or WorldFrames(timeline, self.side)
            if not hasattr(drawn.frames, "cache_info"):
                drawn.frames = cache(drawn.frames)  # type: ignore[method-assign]
            self._kept[clip] = drawn
            if len(self._kept) > _KEPT_CLIPS:
                self._kept.popitem(last=False)
        return drawn
