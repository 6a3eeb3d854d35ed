"""Raw published records in and out, and what all published forms share.

`joyvl_train.published` says what the forms are.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from joyvl_train.actions import ActionFormatError, fold
from joyvl_train.chunks import results_by_second, task_numbers
from joyvl_train.frames import inside
from joyvl_train.published_exact import (
    event_told,
    exact_times,
    timeline_told,
    told_event,
    told_timeline,
)
from joyvl_train.timeline import (
    MAX_SECONDS,
    Clip,
    Event,
    Timeline,
    TimelineError,
    action_of,
    action_seconds,
)

Root = str | os.PathLike[str] | None

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def from_raw(item: Mapping[str, Any], where: str, root: Root) -> Timeline:
    offset = offset_of(item, where)
    asked: list[tuple[float, str]] = []
    spoken: list[Event] = []
    seconds: list[int] = []
    exact: list[Event] = []
    for n, entry in enumerate(_entries(item, "question", where)):
        what = f"{where}: question {n}"
        text = line_of(entry.get("content"), what)
        if "event" in entry:
            plain = {"role": "user", "text": text}
            exact.append(told_event(entry["event"], plain, _times(entry, what, offset), what))
        else:
            asked += [(time, text) for time in _times(entry, what, offset)]
    for n, entry in enumerate(_entries(item, "response", where)):
        what = f"{where}: response {n}"
        times = _times(entry, what, offset)
        seconds += map(math.floor, times)
        found = _responses(entry, times, f"r{n}", what, offset)
        spoken += found
        exact += found if "event" in entry else []
    spoken.sort(key=lambda event: event.time)
    for second, count in Counter(seconds).items():
        if count > 1:
            raise TimelineError("two in one second", f"{where}: second {second}")
    delegations = [event.id for event in spoken if event.question is not None]
    queries, repeated = query_events(asked, [event.time for event in spoken])
    queries += [event for event in exact if event.role == "user"]
    queries.sort(key=lambda event: event.time)
    results: list[Event] = []
    for n, entry in enumerate(_entries(item, "background", where)):
        what = f"{where}: background {n}"
        number = entry.get("delegation")
        if type(number) is not int or not 1 <= number <= len(delegations):
            raise TimelineError("answers nothing", f"{what}: delegation {number!r}")
        text = line_of(entry.get("content"), what)
        if "event" in entry:
            plain = {"role": "background", "text": text}
            results.append(told_event(entry["event"], plain, _times(entry, what, offset), what))
            exact.append(results[-1])
            continue
        for k, time in enumerate(_times(entry, what, offset)):
            id = f"b{n}" + (f".{k}" if k else "")
            results.append(Event(id, time, "background", text, answers=delegations[number - 1]))
    duration = item.get("duration")
    if duration is not None and type(duration) not in (int, float):
        raise TimelineError("bad duration", f"{where}: {duration!r} s")
    if duration is not None and offset:
        duration -= offset
    as_told = {event.id: event for event in exact}
    events = linked(queries, spoken, results)
    timeline = Timeline(
        clip=Clip(clip_id(item, where), duration, video=video_of(item, root), offset=offset),
        family=family_of(item),
        source=str(item.get("source") or ""),
        events=tuple(as_told.get(event.id, event) for event in events),
        opening=opening_of(item, where),
        meta=kept_meta(item, repeated),
    )
    if "timeline" in item:
        return told_timeline(item["timeline"], timeline, where, root)
    return timeline


def _entries(item: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    entries = item.get(key)
    if entries is None:
        return []
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise TimelineError("shape", f"{where}: {key} is no list of objects")
    return entries


def line_of(value: Any, what: str) -> str:
    """Text on one line, that can be written as UTF-8."""
    if not isinstance(value, str):
        raise TimelineError("shape", f"{what}: content is {type(value).__name__}, no text")
    text = fold(value)
    if not text:
        raise TimelineError("empty text", what)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise TimelineError("not UTF-8", what) from None
    return text


def offset_of(item: Mapping[str, Any], where: str) -> int:
    """The second of the video at which a record's clip begins (our extension)."""
    offset = item.get("clip_offset", 0)
    if type(offset) is not int or not 0 <= offset <= MAX_SECONDS:
        raise TimelineError("bad offset", f"{where}: {str(offset)[:40]}")
    return offset


def _times(entry: Mapping[str, Any], what: str, offset: int) -> list[float]:
    """The times of an entry, told from the video's start, as those of a clip that begins at
    `offset`, ascending; `end_time` where `time` names none."""
    value = entry.get("time")
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        value = entry.get("end_time")
    parts = value.split(",") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list) else [parts]
    told = [seconds_of(part, what) for part in parts or [None]]
    if not offset:
        return sorted(told)
    times = sorted(time - offset for time in told)
    if times and times[0] < 0:
        raise TimelineError("negative time", f"{what}: before the clip, which begins at {offset} s")
    return exact_times(entry.get("event"), times, what)


def seconds_of(value: Any, what: str) -> float:
    """A time: a number, or a text that is one, from 0 s to a day."""
    told = str(value)[:40]
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TimelineError("time is no number", f"{what}: {told}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TimelineError("time is no number", f"{what}: {told}")
    if value < 0:
        raise TimelineError("negative time", f"{what}: {told} s")
    if value > MAX_SECONDS:
        raise TimelineError("past the end", f"{what}: {told} s is more than a day")
    return value


def _responses(
    entry: Mapping[str, Any], times: Sequence[float], id: str, what: str, offset: int
) -> list[Event]:
    """A response's events: a run of consecutive seconds is one event that repeats to its end."""
    text = line_of(entry.get("content"), what)
    question = entry.get("delegation")
    if question is not None:
        question = line_of(question, f"{what}: delegation")
    until = entry.get("until")
    if until is not None:
        until = seconds_of(until, f"{what}: until")
        until = until - offset if offset else until
    if "event" in entry:
        plain = {"role": "assistant", "text": text, "question": question, "until": until}
        event = told_event(entry["event"], plain, times, what)
        _check_action(event, what)
        return [event]
    for before, after in pairwise(times):
        if math.floor(before) == math.floor(after):
            raise TimelineError("two in one second", f"{what}: {before} and {after} s")
    runs: list[list[float]] = []
    for time in times:
        if runs and question is None and math.floor(time) == math.floor(runs[-1][-1]) + 1:
            runs[-1].append(time)
        else:
            runs.append([time])
    if until is not None and len(runs) > 1:
        raise TimelineError("shape", f"{what}: until with several times")
    events = []
    for k, run in enumerate(runs):
        repeat = len(run) > 1
        end = float(math.floor(run[-1]) + 1) if repeat else until
        name = f"{id}.{k}" if k else id
        event = Event(name, run[0], "assistant", text, question, until=end, repeat=repeat)
        _check_action(event, what)
        events.append(event)
    return events


def _check_action(event: Event, what: str) -> None:
    try:
        action_of(event)
    except ActionFormatError as error:
        raise TimelineError("format", f"{what}: {error}") from None


def query_events(
    asked: Iterable[tuple[float, str]], answered: Sequence[float]
) -> tuple[list[Event], int]:
    """User events, and how many repeats were left out.

    The same question again, before anything was said in between, is one query (Streamo writes the
    question at the start and once more when it matters).
    """
    events: list[Event] = []
    repeated = 0
    last: dict[str, float] = {}
    for time, text in sorted(asked):
        before = last.get(text)
        if before is not None and not any(before <= answer < time for answer in answered):
            repeated += 1
            continue
        last[text] = time
        events.append(Event(f"q{len(events)}", time, "user", text))
    return events, repeated


def linked(
    queries: Sequence[Event], spoken: Sequence[Event], results: Sequence[Event]
) -> tuple[Event, ...]:
    """All events by time, with `answers` set where there is no doubt.

    A response answers the only query so far; where there are as many queries as responses, and
    each is followed by its own, the one before it. Otherwise it is left open.
    """
    nexts = [query.time for query in queries[1:]] + [math.inf]
    turn_about = len(queries) == len(spoken) and all(
        query.time <= event.time < following
        for query, event, following in zip(queries, spoken, nexts, strict=False)
    )
    linked = []
    for n, event in enumerate(spoken):
        before = [q for q in queries if q.second <= event.second]
        if turn_about:
            event = replace(event, answers=queries[n].id)
        elif len(before) == 1:
            event = replace(event, answers=before[0].id)
        linked.append(event)
    order = {"user": 0, "background": 1, "assistant": 2}
    everything = [*queries, *results, *linked]
    return tuple(sorted(everything, key=lambda e: (e.second, order[e.role], e.time)))


def clip_id(item: Mapping[str, Any], where: str) -> str:
    """What a record calls its clip, or by what it shows; `where` it stands if it tells neither."""
    name = item.get("video_name") or item.get("video_path") or item.get("id")
    for key in ("videos", "images"):
        files = item.get(key)
        if not name and isinstance(files, list) and files:
            name = files[0]
    return str(name or where)


def told_clip(item: Any) -> Clip | None:
    """What a record that is rejected says that it shows; None where it doesn't."""
    if not isinstance(item, Mapping):
        return None
    plain = item.get("clip")
    if isinstance(plain, Mapping) and "events" in item:
        return _told_plainly(plain)
    extension = item.get("timeline")
    told = extension if isinstance(extension, Mapping) else {}
    images = item.get("images") if "messages" in item else told.get("images")
    named = [i for i in images if isinstance(i, str)] if isinstance(images, list) else []
    scene = told.get("scene") if isinstance(told.get("scene"), Mapping) else None
    video = None if named else video_of(item, None)
    return _if_told(Clip(clip_id(item, ""), video=video, images=(*named,), scene=scene))


def _told_plainly(told: Mapping[str, Any]) -> Clip | None:
    """The clip of a record of our own plain form, however wrong the rest of it is."""
    images, scene = told.get("images"), told.get("scene")
    return _if_told(
        Clip(
            str(told.get("id") or ""),
            video=told["video"] if isinstance(told.get("video"), str) else None,
            images=tuple(i for i in images if isinstance(i, str))
            if isinstance(images, list)
            else (),
            scene=scene if isinstance(scene, Mapping) else None,
        )
    )


def _if_told(clip: Clip) -> Clip | None:
    """The clip, where anything of it is known."""
    return clip if clip.id or clip.video or any(clip.images) or clip.scene else None


def video_of(item: Mapping[str, Any], root: Root) -> str | None:
    """A record's video, if it names one; inside `root` where one is given."""
    path = item.get("video_path")
    videos = item.get("videos")
    if not path and isinstance(videos, list) and len(videos) == 1:
        path = videos[0]
    if not isinstance(path, str) or not path:
        return None
    if root is not None:
        inside(root, path)
    return path


def family_of(item: Mapping[str, Any]) -> str:
    """The task type as a name that a metric's key can hold."""
    name = re.sub(r"[^a-z0-9]+", "_", str(item.get("task_type") or "").lower()).strip("_")
    return name or "unknown"


def opening_of(item: Mapping[str, Any], where: str) -> str:
    """The memory text that the stream starts with (our extension)."""
    text = item.get("opening") or ""
    if not isinstance(text, str):
        raise TimelineError("shape", f"{where}: opening is no text")
    return text


def kept_meta(item: Mapping[str, Any], repeated: int = 0) -> dict[str, Any]:
    """What a timeline has no field for: the task type as written, repeated queries left out."""
    kept = {"task_type": item["task_type"]} if item.get("task_type") else {}
    return {**kept, "repeated_queries": repeated} if repeated else kept


def to_raw(timeline: Timeline) -> dict[str, Any]:
    """The raw record of a timeline, with our extensions: `from_raw` reads an equal one from it.

    It folds texts, and holds plain data alone; what else there may be (a query of several lines)
    comes back changed. Raises `TimelineError` for results that answer no delegation.
    """
    offset = timeline.clip.offset
    due = action_seconds(timeline.events, f"clip {timeline.clip.id!r}")
    results_by_second(timeline)
    numbers = task_numbers(timeline)

    def entry_of(event: Event) -> dict[str, Any]:
        time = _written(event.time + offset if offset else event.time)
        return {"content": event.text, "time": time, "event": event_told(event, offset)}

    responses = []
    for event in timeline.of("assistant"):
        entry = entry_of(event)
        told = entry.pop("event")
        if event.repeat:
            again = [t + offset for t, e in due.items() if e is event and t > event.second]
            entry["time"] = ",".join([entry["time"], *map(str, sorted(again))])
        elif event.until is not None:
            entry["until"] = event.until + offset if offset else event.until
        if event.question is not None:
            entry["delegation"] = event.question
        responses.append({**entry, "event": told})
    item: dict[str, Any] = {
        "video_name": timeline.clip.id,
        "video_path": timeline.clip.video or "",
        "task_type": timeline.meta.get("task_type", timeline.family),
        "source": timeline.source,
        "question": [entry_of(event) for event in timeline.of("user")],
        "response": responses,
    }
    results = timeline.of("background")
    if results:
        item["background"] = []
        for event in results:
            entry = entry_of(event)
            told = entry.pop("event")
            number = numbers[event.answers or ""]
            item["background"].append({**entry, "delegation": number, "event": told})
    if timeline.clip.duration is not None:
        item["duration"] = timeline.clip.duration
    if offset:
        item["clip_offset"] = offset
        if "duration" in item:
            item["duration"] += offset
    if timeline.opening:
        item["opening"] = timeline.opening
    told = timeline_told(timeline, from_raw(item, "record", None))
    return {**item, "timeline": told} if told else item


def _written(time: float) -> str:
    return str(int(time)) if time == int(time) else repr(float(time))
