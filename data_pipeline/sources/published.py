"""Published records, raw and converted, in and out.

The forms are those of `joyvl_train.published`, which training reads as they are: raw records,
converted chats, Streamo's of both, and timelines as plain data. An item is a record.

A raw record of ours tells in `record` what a corpus knows beside the timeline: its language, the
licence of its footage, and its memory text by stretch of seconds, [[start, stop, text], ...].
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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
)
from data_pipeline.sources.videos import Videos, video_path
from joyvl_train.published import timeline_of, to_raw
from joyvl_train.records import Rejects
from joyvl_train.timeline import Timeline, TimelineError

TOLD_SUMMARIES = "told_summaries"
"""The key of a candidate's `work` under which a record's own memory text stands. Nobody here has
vouched for it: `data_pipeline.chunk_summaries` has it checked as if an agent had just written
it."""

_OF_RECORD = ("language", "licence", "summaries")


def read(
    annotations: Path,
    videos: Videos | None = None,
    licence: str = "",
    language: str = "en",
    name: str = "published",
) -> Iterator[Candidate | Refused]:
    """The records of a file as candidates. `name` is part of their ids; `licence` and `language`
    are of those that don't tell it.

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
        told = _told(data, where)
        work = {TOLD_SUMMARIES: told["summaries"]} if told.get("summaries") else {}
        return [
            candidate(
                record_id(name, data),
                timeline,
                where,
                use=EVALUATION if evaluation else "train",
                licence=told.get("licence", licence),
                language=told.get("language", language),
                **work,
            )
        ]

    return each_item(json_records(annotations), make, videos)


def _told(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a record tells beside its timeline; `TimelineError` where that has another shape."""
    if "record" not in data:
        return {}
    what = f"{where}: record"
    told = dict(object_of(data["record"], what))
    strange = [str(key)[:40] for key in told if key not in _OF_RECORD]
    if strange:
        raise TimelineError("shape", f"{what}: {strange[0]!r} is not known")
    for key in {"language", "licence"} & set(told):
        told[key] = text_of(told[key], f"{what}: {key}")
    for summary in list_of(told.get("summaries", []), f"{what}: summaries"):
        if not isinstance(summary, list) or [type(part) for part in summary] != [int, int, str]:
            raise TimelineError("shape", f"{what}: summaries are no [start, stop, text]")
        text_of(summary[2], f"{what}: summaries")
    return told


def write_published(candidates: Iterable[Candidate], path: Path, rejects: Rejects) -> int:
    """Write open candidates as a JSON list of raw records; how many.

    Each timeline comes back equal, with language, licence and memory text. One that the form can't
    hold so goes to `rejects` with its reason, as do candidates that are not open. The file stands
    whole or not at all.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    written = 0
    with temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, one in enumerate(candidates):
            try:
                if one.status != "open":
                    raise TimelineError(one.status, one.reason)
                text = raw_text(one.timeline, record=_record(one))
            except TimelineError as error:
                rejects.add(f"candidate {number} {one.id}", error.reason, error.detail)
                continue
            file.write((",\n" if written else "\n") + text)
            written += 1
        file.write("\n]\n")
    temporary.replace(path)
    return written


def _record(one: Candidate) -> dict[str, Any]:
    """What is known of a candidate beside its timeline."""
    summaries = [list(summary) for summary in one.summaries]
    told = {"language": one.language, "licence": one.licence, "summaries": summaries}
    return {key: value for key, value in told.items() if value}


def raw_text(timeline: Timeline, *, record: Mapping[str, Any] | None = None) -> str:
    """The raw record of a timeline as JSON, with what `record` tells beside it. `TimelineError`
    where it would not come back equal."""
    where = f"clip {timeline.clip.id!r}"
    item = {**to_raw(timeline), "record": dict(record)} if record else to_raw(timeline)
    try:
        text = json.dumps(item, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except (TypeError, ValueError) as error:
        if isinstance(error, TimelineError):
            raise
        raise TimelineError("not JSON", f"{where}: {error}") from None
    read_back = json.loads(text)
    _told(read_back, where)
    back = timeline_of(read_back, where, evaluation=True)
    if back != timeline:
        names = ("clip", "family", "source", "events", "frames_per_second", "opening", "meta")
        changed = [name for name in names if getattr(back, name) != getattr(timeline, name)]
        raise TimelineError("not in the published form", f"{where}: {', '.join(changed)}")
    return text
