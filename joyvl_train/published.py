"""Published annotation forms in and out: raw records, converted chats, and Streamo's of both.

Raw: `{"video_name", "video_path", "task_type", "source", "question": [{"content", "time"}],
"response": [{"content", "time"}]}`; a time is a number or a string of one or several ("5,6,7"), and
a response may carry `st_time` and `end_time` in its place, of which it is due at the second. Our
extension, where there is something to tell: `delegation` (the question handed over) and `until` in
a response, and a list `background` of `{"content", "time", "delegation": n}`.

Converted: `{"messages": [...], "images": [paths], ...}`, a user and an assistant turn a second in
the grammar of `joyvl_train.actions`. Streamo's training form (`<5s-6s>`, `<stream>`) is read too.

Nothing is lost silently: an item becomes one timeline, or is rejected with a reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from joyvl_train.frames import Frames, encode
from joyvl_train.json_items import json_items
from joyvl_train.published_chat import from_chat, to_chat
from joyvl_train.published_raw import Root, from_raw, to_raw, told_clip
from joyvl_train.records import RecordError, Rejects, check_repeats, settle
from joyvl_train.stream import results_by_second
from joyvl_train.timeline import Timeline, TimelineError
from joyvl_train.video import FrameError

__all__ = ["read_published", "timeline_of", "to_chat", "to_raw", "told_clip", "write_published"]


def read_published(
    path: str | os.PathLike[str],
    rejects: Rejects,
    root: Root = None,
) -> Iterator[Timeline]:
    """The timelines of a published file of any mix of forms; `rejects` takes what can't be used.

    Items read = timelines yielded + rejected. Given a `root`, videos and pictures must lie in it.
    """
    for item in json_items(path):
        where = f"{Path(path).name} item {item.number}"
        try:
            if item.error is not None:
                raise item.error
            timeline = timeline_of(item.data, where, root)
        except (TimelineError, RecordError, FrameError) as error:
            rejects.add(where, error.reason, error.detail)
        else:
            yield timeline


def timeline_of(item: Any, where: str = "item", root: Root = None) -> Timeline:
    """The timeline of one published record. `TimelineError` or `FrameError` with the reason."""
    if not isinstance(item, Mapping):
        raise TimelineError("no object", f"{where}: {type(item).__name__}")
    if "messages" in item:
        timeline = from_chat(item, where, root)
    elif "question" in item or "response" in item:
        timeline = from_raw(item, where, root)
    else:
        keys = ", ".join(map(str, list(item)[:8]))
        raise TimelineError("unknown form", f"{where}: keys {keys}")
    # What can't be streamed is rejected here already.
    results_by_second(timeline)
    check_repeats(timeline)
    return timeline


def write_published(
    records: Iterable[tuple[Timeline, Frames]],
    directory: str | os.PathLike[str],
    rejects: Rejects,
    quality: int = 90,
) -> int:
    """Write `data.json` in the converted form and its pictures under `images/`; how many records.

    A record that the form can't hold, or without pictures, goes to `rejects`.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "data.json.tmp"
    written = 0
    with temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, (timeline, frames) in enumerate(records):
            try:
                timeline = settle(timeline, frames)
                item = to_chat(timeline, _write_pictures(frames, folder, number, quality))
            except (TimelineError, FrameError, RecordError) as error:
                rejects.add(f"record {number}", error.reason, error.detail)
                continue
            file.write(",\n" if written else "\n")
            json.dump(item, file, ensure_ascii=False)
            written += 1
        file.write("\n]\n")
    temporary.replace(folder / "data.json")
    return written


def _write_pictures(frames: Frames, folder: Path, number: int, quality: int) -> list[list[str]]:
    """Paths, relative to `folder`, of the pictures of each second."""
    paths = []
    (folder / f"images/{number:06d}").mkdir(parents=True, exist_ok=True)
    for second in range(frames.seconds):
        names = []
        for i, picture in enumerate(frames.frames(second)):
            names.append(f"images/{number:06d}/{second:05d}.{i}.jpg")
            (folder / names[-1]).write_bytes(encode(picture.convert("RGB"), quality))
        paths.append(names)
    return paths
