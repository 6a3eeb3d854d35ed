"""Published records, raw and converted, in and out.

The forms are those of `joyvl_train.published`, which training reads as they are: raw records,
converted chats, Streamo's of both, and timelines as plain data. An item is a record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.candidates import EVALUATION, Candidate, Refused
from data_pipeline.sources.items import candidate, each_item, json_records, record_id, text_of
from data_pipeline.sources.videos import Videos, video_path
from joyvl_train.published import timeline_of, to_raw
from joyvl_train.records import Rejects
from joyvl_train.timeline import Timeline, TimelineError


def read(
    annotations: Path,
    videos: Videos | None = None,
    licence: str = "",
    language: str = "en",
    name: str = "published",
) -> Iterator[Candidate | Refused]:
    """The records of a file as candidates. `name` is part of their ids.

    A record of ours that is for evaluation stays so.
    """

    def make(data: Any, where: str) -> list[Candidate]:
        timeline = timeline_of(data, where, evaluation=True)
        for path in (timeline.clip.video, *timeline.clip.images):
            if path:
                video_path(path, where)
        for event in timeline.events:
            text_of(event.text, f"{where}: event {event.id!r}")
        evaluation = timeline.meta.get("use") == EVALUATION
        return [
            candidate(
                record_id(name, data),
                timeline,
                where,
                use=EVALUATION if evaluation else "train",
                licence=licence,
                language=language,
            )
        ]

    return each_item(json_records(annotations), make, videos)


def write_published(candidates: Iterable[Candidate], path: Path, rejects: Rejects) -> int:
    """Write the timelines of open candidates as a JSON list of raw records; how many.

    Each record comes back equal. One that the form can't hold so goes to `rejects` with its reason,
    as do candidates that are not open. The file stands whole or not at all.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    written = 0
    with temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, one in enumerate(candidates):
            try:
                if one.status != "open":
                    raise TimelineError(one.status, one.reason)
                text = raw_text(one.timeline)
            except TimelineError as error:
                rejects.add(f"candidate {number} {one.id}", error.reason, error.detail)
                continue
            file.write((",\n" if written else "\n") + text)
            written += 1
        file.write("\n]\n")
    temporary.replace(path)
    return written


def raw_text(timeline: Timeline) -> str:
    """The raw record of a timeline as JSON. `TimelineError` where it would not come back equal."""
    where = f"clip {timeline.clip.id!r}"
    try:
        text = json.dumps(to_raw(timeline), ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except (TypeError, ValueError) as error:
        if isinstance(error, TimelineError):
            raise
        raise TimelineError("not JSON", f"{where}: {error}") from None
    back = timeline_of(json.loads(text), where, evaluation=True)
    if back != timeline:
        names = ("clip", "family", "source", "events", "frames_per_second", "opening", "meta")
        changed = [name for name in names if getattr(back, name) != getattr(timeline, name)]
        raise TimelineError("not in the published form", f"{where}: {', '.join(changed)}")
    return text
