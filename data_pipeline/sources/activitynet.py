"""ActivityNet Captions: `{video: {"duration", "timestamps": [[start, end], ...], "sentences"}}`.

An item is a (video, sentence) pair; a video whose spans and sentences can't be paired is refused
pair by pair, one that holds none is one item. The file is read a video at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.alerts import alert_timeline
from data_pipeline.sources.items import (
    Item,
    candidate,
    duration_of,
    each_item,
    record_id,
    span_of,
    text_of,
)
from data_pipeline.sources.videos import Videos, video_path
from joyvl_train.json_items import json_members
from joyvl_train.timeline import Clip, TimelineError

SOURCE = "ActivityNet Captions"


def read(
    annotations: Path, videos: Videos | None = None, licence: str = "", suffix: str = ".mp4"
) -> Iterator[Candidate | Refused]:
    """The pairs of an annotation file as candidates; videos are called by their id and `suffix`."""

    def make(pair: tuple[str, Any, Any, Any], where: str) -> list[Candidate]:
        name, duration, span, told = pair
        what = text_of(told, where)
        start, end = span_of(span, where)
        path = video_path(name, where, suffix)
        id = record_id(SOURCE, [name, duration, start, end, what])
        clip = Clip(name, duration_of(duration, where), video=path)
        timeline = alert_timeline(id, clip, SOURCE, what, [(start, end)], False, {})
        return [candidate(id, timeline, where, licence=licence)]

    return each_item(_pairs(annotations), make, videos)


def _pairs(path: Path) -> Iterator[Item]:
    for name, member in json_members(path):
        where = f"{path.name} video {member.number} {name[:80]!r}"
        if member.error is not None:
            yield where, member.error
            continue
        told = member.data
        if not isinstance(told, Mapping):
            yield where, TimelineError("no object", f"{where}: {type(told).__name__}")
            continue
        spans, sentences = told.get("timestamps"), told.get("sentences")
        if not isinstance(spans, list) or not isinstance(sentences, list):
            yield where, TimelineError("shape", f"{where}: no lists of timestamps and sentences")
            continue
        if not spans and not sentences:
            yield where, TimelineError("nothing in it", where)
        uneven = TimelineError(
            "spans and sentences differ", f"{where}: {len(spans)} and {len(sentences)}"
        )
        for n in range(max(len(spans), len(sentences))):
            if len(spans) == len(sentences):
                yield f"{where} sentence {n}", (name, told.get("duration"), spans[n], sentences[n])
            else:
                yield f"{where} sentence {n}", uneven
