"""What a timeline holds and the raw published form has no field for: our extension of it.

An entry's `event` tells of its event all but time, text and delegation; an item's `timeline` what
else there is to tell of the whole. Readers of the published form pass over both. With them a
timeline comes back equal from its raw record.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from joyvl_train.pictures import inside
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError

Root = str | os.PathLike[str] | None

_OF_EVENT = ("id", "time", "until", "repeat", "answers", "rule", "early", "late")
_OF_TIMELINE = ("family", "frames_per_second", "meta", "order", "images", "scene", "duration")
_ROUNDING = 1e-6  # seconds: what moving a time to the video's start and back may cost


def event_told(event: Event, offset: int = 0) -> dict[str, Any]:
    """An entry's `event`: its id, and what differs from the default.

    The entry tells times from the video's start, of which a clip from `offset` on is a part; the
    event its own time where that doesn't give it back to the last digit.
    """
    plain = asdict(event)
    told = {name: plain[name] for name in _OF_EVENT}
    if _comes_back(event.time, offset):
        del told["time"]
    if event.rule is not None:
        told["rule"] = {"kind": event.rule.kind, "facts": list(event.rule.facts)}
    if event.role == "assistant" and not event.repeat and _comes_back(event.until, offset):
        del told["until"]  # the entry itself tells it
    return {k: v for k, v in told.items() if k == "id" or (v is not None and v is not False)}


def _comes_back(time: float | None, offset: int) -> bool:
    return not offset or time is None or time + offset - offset == time


def exact_times(told: Any, times: list[float], what: str) -> list[float]:
    """An entry's times, the first one to the last digit where its `event` tells that."""
    exact = told.get("time") if isinstance(told, Mapping) else None
    if exact is None:
        return times
    near = type(exact) in (int, float) and times[0] - _ROUNDING <= exact <= times[0] + _ROUNDING
    if not near:
        raise TimelineError("shape", f"{what}: its event is at another time, {str(exact)[:40]}")
    return [exact, *times[1:]]


def told_event(told: Any, plain: Mapping[str, Any], times: Sequence[float], what: str) -> Event:
    """The event of an entry that has an `event`, at the first of its `times`."""
    fields = _fields(told, _OF_EVENT, what)
    for name in ("id", "answers"):
        if not isinstance(fields.get(name, ""), str):
            raise TimelineError("shape", f"{what}: {name} is no text")
    if not fields.get("id") or not isinstance(fields.get("repeat", False), bool):
        raise TimelineError("shape", f"{what}: an event without an id, or whose repeat is no bool")
    if "rule" in fields:
        fields["rule"] = _rule(fields["rule"], what)
    fields = {**plain, **fields, "time": times[0]}
    until = fields.get("until")
    finite = type(until) is int or (isinstance(until, float) and math.isfinite(until))
    if until is not None and not finite:
        raise TimelineError("time is no number", f"{what}: until {str(until)[:40]}")
    event = Event(**fields)
    if len(times) > 1 and not (event.repeat and math.floor(times[-1]) in event.held_seconds):
        raise TimelineError("shape", f"{what}: one event at several times")
    return event


def _fields(told: Any, known: Sequence[str], what: str) -> dict[str, Any]:
    if not isinstance(told, Mapping):
        raise TimelineError("shape", f"{what}: {type(told).__name__} is no object")
    strange = [str(key)[:40] for key in told if key not in known]
    if strange:
        raise TimelineError("shape", f"{what}: {strange[0]!r} is not known")
    return dict(told)


def _rule(told: Any, what: str) -> Rule:
    fields = _fields(told, ("kind", "facts"), f"{what}: rule")
    facts = fields.get("facts", [])
    if not isinstance(facts, list) or not all(isinstance(fact, str) for fact in facts):
        raise TimelineError("shape", f"{what}: the rule's facts are no list of texts")
    return Rule(fields.get("kind", ""), tuple(facts))


def timeline_told(timeline: Timeline, read: Timeline) -> dict[str, Any]:
    """An item's `timeline`: what differs from what would be read without it."""
    told: dict[str, Any] = {}
    if timeline.family != read.family:
        told["family"] = timeline.family
    if timeline.frames_per_second != 1:
        told["frames_per_second"] = timeline.frames_per_second
    if timeline.meta != read.meta:
        told["meta"] = dict(timeline.meta)
    order = [event.id for event in timeline.events]
    if order != [event.id for event in read.events]:
        told["order"] = order
    if timeline.clip.duration != read.clip.duration:
        told["duration"] = timeline.clip.duration
    if timeline.clip.images:
        told["images"] = list(timeline.clip.images)
    if timeline.clip.scene is not None:
        told["scene"] = dict(timeline.clip.scene)
    return told


def told_timeline(told: Any, read: Timeline, where: str, root: Root) -> Timeline:
    """`read`, with what the item's `timeline` tells in its place."""
    fields = _fields(told, _OF_TIMELINE, where)
    clip = told_clip_of(told, read.clip)
    for image in clip.images:
        if image:
            inside(root if root is not None else ".", image)
    family, meta = fields.get("family", read.family), fields.get("meta", read.meta)
    if not isinstance(family, str) or not isinstance(meta, Mapping):
        raise TimelineError("shape", f"{where}: family is no text, or meta no object")
    events = {event.id: event for event in read.events}
    order = fields.get("order", list(events))
    if not isinstance(order, list) or sorted(map(repr, order)) != sorted(map(repr, events)):
        raise TimelineError("shape", f"{where}: order names other events")
    return Timeline(
        clip,
        family,
        read.source,
        tuple(events[id] for id in order),
        fields.get("frames_per_second", 1.0),
        read.opening,
        dict(meta),
    )


def told_clip_of(told: Any, clip: Clip) -> Clip:
    """`clip`, with the pictures or the scene that an item's `timeline` tells."""
    images = told.get("images", []) if isinstance(told, Mapping) else []
    scene = told.get("scene") if isinstance(told, Mapping) else None
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise TimelineError("shape", f"clip {clip.id!r}: images is no list of paths")
    if scene is not None and not isinstance(scene, Mapping):
        raise TimelineError("shape", f"clip {clip.id!r}: scene is no object")
    duration = told.get("duration", clip.duration) if isinstance(told, Mapping) else clip.duration
    return Clip(clip.id, duration, clip.video, tuple(images), scene, clip.offset)
