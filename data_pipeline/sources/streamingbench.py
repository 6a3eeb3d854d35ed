"""StreamingBench's proactive output, for evaluation alone.

Records `{"video_path", "questions": [{"question", "time_stamp", "ground_truth_time_stamp",
"ground_truth_output"}]}` with clock times "00:10:25". An item is a record; each of its questions
becomes a timeline: asked at the one time stamp, due at the other, right within 2 s to either side
if the output is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    text_of,
    time_of,
)
from data_pipeline.sources.videos import Videos, video_path
from joyvl_train.content import tokens
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError

SOURCE = "StreamingBench"
WINDOW = 2
"""Seconds to either side of the due one that the benchmark takes."""

_KEPT = ("task_type", "required_ability")


def read(
    annotations: Path, videos: Videos | None = None, licence: str = ""
) -> Iterator[Candidate | Refused]:
    """The records of an annotation file as candidates for evaluation."""

    def make(data: Any, where: str) -> list[Candidate]:
        record = object_of(data, where)
        path = video_path(record.get("video_path"), where)
        made = []
        for n, question in enumerate(list_of(record.get("questions"), f"{where}: questions")):
            what = f"{where}: question {n}"
            asked = object_of(question, what)
            id = record_id(SOURCE, [path, n, asked])
            meta = {key: asked[key] for key in _KEPT if key in asked}
            for key in ("time", "video_categories"):
                if key in record:
                    meta[key] = record[key]
            events = _events(asked, what)
            timeline = Timeline(Clip(path, video=path), "alerting", SOURCE, events, meta=meta)
            made.append(candidate(id, timeline, where, use=EVALUATION, licence=licence))
        return made

    return each_item(json_records(annotations), make, videos)


def _events(asked: Mapping[str, Any], what: str) -> tuple[Event, Event]:
    start = time_of(asked.get("time_stamp"), f"{what}: time_stamp")
    due = time_of(asked.get("ground_truth_time_stamp"), f"{what}: ground_truth_time_stamp")
    if due < start:
        raise TimelineError("answer before its question", f"{what}: {due} s before {start} s")
    question = text_of(asked.get("question"), f"{what}: question")
    output = text_of(asked.get("ground_truth_output"), f"{what}: ground_truth_output")
    # A bar tells alternatives apart in a fact, and stands for nothing in what is said.
    fact = output.replace("|", " ")
    rule = Rule("key_facts", (fact,)) if tokens(fact) else Rule("exact")
    return (
        Event("q0", start, "user", question),
        Event("r0", due, "assistant", output, None, None, False, "q0", rule, WINDOW, WINDOW),
    )
