"""OVO-Bench, for evaluation alone: realtime and backward questions, and the forward tasks.

An item is a record; its fields tell what it is:

- `realtime` with `question`, `options`, `gt`: asked and due in the second of `realtime`; right is
  the option's letter or its text.
- `ask_time`, `clue_time` (CRR): asked at the one, silent until the other.
- `all_steps`, `start_time`, `end_time` (SSR): each step is named at its start, held to its end.
- `activity`, `start_times`, `end_times` (REC): the number so far, each time one has ended.

`meta` keeps `id`, `task`, and the benchmark's own test times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.candidates import EVALUATION, Candidate, Refused
from data_pipeline.sources.items import (
    candidate,
    each_item,
    json_records,
    list_of,
    object_of,
    record_id,
    span_of,
    text_of,
)
from data_pipeline.sources.videos import Videos, video_path
from data_pipeline.sources.wordings import (
    COUNT,
    STEPS,
    bare,
    choice,
    letter,
    pick,
    sentence,
    words_of,
)
from joyvl_train.published_raw import seconds_of
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError

SOURCE = "OVO-Bench"

Told = tuple[str, list[Event]]
"""A family and its events."""


def read(
    annotations: Path, videos: Videos | None = None, licence: str = ""
) -> Iterator[Candidate | Refused]:
    """The records of an annotation file as candidates for evaluation."""

    def make(data: Any, where: str) -> list[Candidate]:
        record = object_of(data, where)
        path = video_path(record.get("video"), where)
        id = record_id(SOURCE, record)
        if "realtime" in record:
            family, events = _realtime(record, where)
        elif "clue_time" in record or "ask_time" in record:
            family, events = _clue(record, where)
        elif "all_steps" in record:
            family, events = _steps(record, id, where)
        elif "activity" in record:
            family, events = _repetitions(record, id, where)
        else:
            keys = ", ".join(key[:40] for key in list(record)[:8])
            raise TimelineError("unknown form", f"{where}: keys {keys}")
        meta = {key: record[key] for key in ("id", "task", "test_info") if key in record}
        timeline = Timeline(Clip(path, video=path), family, SOURCE, tuple(events), meta=meta)
        return [candidate(id, timeline, where, use=EVALUATION, licence=licence)]

    return each_item(json_records(annotations), make, videos)


def _realtime(record: Mapping[str, Any], where: str) -> Told:
    time = seconds_of(record["realtime"], f"{where}: realtime")
    question = text_of(record.get("question"), f"{where}: question")
    options = [
        text_of(option, f"{where}: option {n}")
        for n, option in enumerate(list_of(record.get("options"), f"{where}: options"))
    ]
    right = record.get("gt")
    if type(right) is not int or not 0 <= right < len(options):
        raise TimelineError("no such option", f"{where}: gt {str(right)[:40]}")
    facts = [letter(right), f"{letter(right)}. {options[right]}", options[right]]
    if record.get("answer") is not None:
        facts.append(text_of(record["answer"], f"{where}: answer"))
    rule = Rule("exact", tuple(dict.fromkeys(facts)))
    asked = Event("q0", time, "user", choice(question, options))
    return "qa", [asked, Event("r0", time, "assistant", options[right], answers="q0", rule=rule)]


def _clue(record: Mapping[str, Any], where: str) -> Told:
    asked = seconds_of(record.get("ask_time"), f"{where}: ask_time")
    clue = seconds_of(record.get("clue_time"), f"{where}: clue_time")
    if clue < asked:
        raise TimelineError("answer before its question", f"{where}: {clue} s before {asked} s")
    question = text_of(record.get("question"), f"{where}: question")
    answer = text_of(record.get("answer"), f"{where}: answer")
    rule = Rule("similarity")
    return "qa", [
        Event("q0", asked, "user", question),
        Event("r0", clue, "assistant", answer, answers="q0", rule=rule),
    ]


def _steps(record: Mapping[str, Any], id: str, where: str) -> Told:
    steps = [
        text_of(step, f"{where}: step {n}")
        for n, step in enumerate(list_of(record["all_steps"], f"{where}: all_steps"))
    ]
    spans = _spans(record, "start_time", "end_time", where)
    if len(spans) != len(steps):
        raise TimelineError(
            "spans and steps differ", f"{where}: {len(spans)} spans, {len(steps)} steps"
        )
    what = words_of(text_of(record.get("tutorial"), f"{where}: tutorial"))
    listed = "; ".join(bare(step) for step in steps)
    events = [Event("q0", 0.0, "user", pick(STEPS, id).format(what=what, steps=listed))]
    for n, (step, (start, end)) in enumerate(zip(steps, spans, strict=True)):
        rule = Rule("similarity")
        said = sentence(step)
        events.append(Event(f"r{n}", start, "assistant", said, until=end, answers="q0", rule=rule))
    return "procedure", events


def _repetitions(record: Mapping[str, Any], id: str, where: str) -> Told:
    activity = text_of(record.get("activity"), f"{where}: activity")
    spans = _spans(record, "start_times", "end_times", where)
    events = [Event("q0", 0.0, "user", pick(COUNT, id).format(what=bare(activity)))]
    for n, end in enumerate(sorted(end for _, end in spans), 1):
        rule = Rule("number", (str(n),))
        events.append(Event(f"r{n}", end, "assistant", f"{n}.", answers="q0", rule=rule))
    return "counting", events


def _spans(
    record: Mapping[str, Any], start: str, end: str, where: str
) -> Sequence[tuple[float, float]]:
    """Spans of which starts and ends stand in two lists."""
    starts = list_of(record.get(start), f"{where}: {start}")
    ends = list_of(record.get(end), f"{where}: {end}")
    if len(starts) != len(ends) or not starts:
        raise TimelineError("starts and ends differ", f"{where}: {len(starts)} and {len(ends)}")
    return [
        span_of(list(pair), f"{where}: span {n}")
        for n, pair in enumerate(zip(starts, ends, strict=True))
    ]
