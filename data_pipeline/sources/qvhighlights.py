"""QVHighlights: records `{"qid", "query", "duration", "vid", "relevant_windows": [[s, e], ...]}`.

An item is a record: one timeline for its video and query, with a held response for each window.
The records of the test split, which tell no windows, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.alerts import alert_timeline
from data_pipeline.sources.items import (
    candidate,
    duration_of,
    each_item,
    json_records,
    list_of,
    object_of,
    record_id,
    span_of,
    text_of,
)
from data_pipeline.sources.videos import Videos, video_path
from joyvl_train.timeline import Clip, TimelineError

SOURCE = "QVHighlights"


def read(
    annotations: Path, videos: Videos | None = None, licence: str = "", suffix: str = ".mp4"
) -> Iterator[Candidate | Refused]:
    """The records of an annotation file as candidates; videos are called by `vid` and `suffix`."""

    def make(data: Any, where: str) -> list[Candidate]:
        record = object_of(data, where)
        name = record.get("vid")
        path = video_path(name, where, suffix)
        what = text_of(record.get("query"), f"{where}: query")
        windows = record.get("relevant_windows")
        if windows is None or windows == []:
            raise TimelineError("no windows", where)
        spans = [
            span_of(window, f"{where}: window {n}")
            for n, window in enumerate(list_of(windows, f"{where}: relevant_windows"))
        ]
        duration = duration_of(record.get("duration"), where)
        id = record_id(SOURCE, [name, duration, what, spans])
        meta = {"qid": record["qid"]} if "qid" in record else {}
        clip = Clip(str(name), duration, video=path)
        timeline = alert_timeline(id, clip, SOURCE, what, spans, True, meta)
        return [candidate(id, timeline, where, licence=licence)]

    return each_item(json_records(annotations), make, videos)
