"""Annotations alone -> timelines as JSON lines, and what can't be used with its reason.

    counts = write(convert("charades_sta", Path("charades_sta_train.txt")), Path("out"))

Counted in input items: a line of Charades-STA, a (video, sentence) pair of ActivityNet Captions, a
row of a table of events, a record of the others. Each is written or rejected, never both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.sources import (
    activitynet,
    charades_sta,
    events,
    ovo_bench,
    published,
    qvhighlights,
    streamingbench,
    subtitles,
    video_qa,
)
from data_pipeline.sources.videos import Videos
from joyvl_train.config import UserError, nearest
from joyvl_train.records import Rejects
from joyvl_train.timeline import to_json

SOURCES = (
    "charades_sta activitynet qvhighlights ovo_bench streamingbench_proactive joyai streamo events "
    "video_qa subtitles"
).split()

TIMELINES = "timelines.jsonl"
REJECTS = "rejects.jsonl"


def convert(
    source: str,
    annotations: Path,
    videos: Path | None = None,
    licence: str = "",
    language: str = "en",
    task: subtitles.Task = "read",
    room: Path | None = None,
    due: subtitles.Due = "start",
) -> Iterator[Candidate | Refused]:
    """What a file of annotations holds, by the name of what published it.

    Where a folder of `videos` is given they are looked at; else frames may come later. `language`
    is that of the texts, where the source doesn't fix it; `task` what is asked for, of subtitles,
    and `due` when.
    `room` is a folder for what doesn't fit into memory; by default the system's for such files.
    Raises `UserError` for an unknown source or files that can't be read.
    """
    folder = None if videos is None else Videos(videos)
    match source:
        case "charades_sta":
            return charades_sta.read(annotations, folder, licence)
        case "activitynet":
            return activitynet.read(annotations, folder, licence)
        case "qvhighlights":
            return qvhighlights.read(annotations, folder, licence)
        case "ovo_bench":
            return ovo_bench.read(annotations, folder, licence)
        case "streamingbench_proactive":
            return streamingbench.read(annotations, folder, licence)
        case "joyai" | "streamo":
            return published.read(annotations, folder, licence, language, source)
        case "events":
            return events.read(annotations, folder, licence, language, room)
        case "video_qa":
            return video_qa.read(annotations, folder, licence, language)
        case "subtitles":
            return subtitles.read(annotations, folder, task, due, licence, language)
    raise UserError(
        f"source={source!r} is none that can be converted.{nearest(source, SOURCES)} "
        f"There are {', '.join(SOURCES)}"
    )


def write(results: Iterable[Candidate | Refused], directory: Path) -> dict[str, int]:
    """Write `timelines.jsonl` and `rejects.jsonl`; what was counted, by the keys of metrics.json.

    `convert/read` = `convert/written` + `convert/rejected`, in items; `convert/timelines` may be
    fewer or more; `convert/rejected/<reason>` parts the rejected. Both files stand whole or not at
    all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    temporary = [directory / f".{name}.tmp" for name in (TIMELINES, REJECTS)]
    temporary[1].write_bytes(b"")
    rejects = Rejects(temporary[1])
    written = timelines = 0
    before: list[str] = []
    with temporary[0].open("w", encoding="utf-8") as file:
        for result in results:
            if isinstance(result, Refused):
                rejects.add(result.where, result.reason, result.detail)
                continue
            line = json.dumps(to_json(result.timeline), ensure_ascii=False, allow_nan=False)
            file.write(line + "\n")
            timelines += 1
            # Several timelines of one item come one after the other.
            if result.work["items"] != before:
                before = list(result.work["items"])
                written += len(before)
    temporary[1].replace(directory / REJECTS)
    temporary[0].replace(directory / TIMELINES)
    counts = {
        "convert/read": written + rejects.total,
        "convert/written": written,
        "convert/rejected": rejects.total,
        "convert/timelines": timelines,
    }
    for reason, count in sorted(rejects.counts.items()):
        counts[f"convert/rejected/{reason.replace(' ', '_')}"] = count
    return counts
