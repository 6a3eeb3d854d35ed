"""Charades-STA: `VIDEO start end##sentence`, a line each.

    AO8RW 0.0 6.9##a person is putting a book on a shelf.

An item is a line. Each becomes an alert for its sentence: one timeline a (video, sentence), due at
the start, held to the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources.alerts import alert_timeline
from data_pipeline.sources.items import (
    candidate,
    each_item,
    record_id,
    text_lines,
    text_of,
)
from data_pipeline.sources.videos import Videos, video_path
from joyvl_train.published_raw import seconds_of
from joyvl_train.timeline import Clip, TimelineError

SOURCE = "Charades-STA"


def read(
    annotations: Path, videos: Videos | None = None, licence: str = "", suffix: str = ".mp4"
) -> Iterator[Candidate | Refused]:
    """The lines of an annotation file as candidates; videos are called by their id and `suffix`."""

    def make(line: str, where: str) -> list[Candidate]:
        head, marks, told = line.partition("##")
        fields = head.split()
        if not marks or len(fields) != 3:
            raise TimelineError("shape", f"{where} is no 'VIDEO start end##sentence'")
        name, start, end = fields[0], *(seconds_of(field, where) for field in fields[1:])
        what = text_of(told, where)
        id = record_id(SOURCE, [name, start, end, what])
        clip = Clip(name, video=video_path(name, where, suffix))
        timeline = alert_timeline(id, clip, SOURCE, what, [(start, end)], False, {})
        return [candidate(id, timeline, where, licence=licence)]

    return each_item(text_lines(annotations), make, videos)
