"""Published annotation forms in and out: raw records, converted chats, and Streamo's of both.

Raw: `{"video_name", "video_path", "task_type", "source", "question": [{"content", "time"}],
"response": [{"content", "time"}]}`; a time is a number or a string of one or several ("5,6,7"), and
a response may carry `st_time` and `end_time` in its place, of which it is due at the second. Our
extension, where there is something to tell: `delegation` (the question handed over) and `until` in
a response, and a list `background` of `{"content", "time", "delegation": n}`; what else a timeline
holds stands in `event` and `timeline` (`published_exact`), so that ours come back equal. Published
times are told from the video's start; `clip_offset` says at which of its seconds a clip of ours
begins that is a part of it.

Converted: `{"messages": [...], "images": [paths], ...}`, a user and an assistant turn a second in
the grammar of `joyvl_train.actions`. Streamo's training form (`<5s-6s>`, `<stream>`) is read too,
and timelines as plain data (`timeline.to_json`), as `recipe=corpus command=convert` writes them.

Nothing is lost silently: an item becomes one timeline, or is rejected with a reason.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from joyvl_train.chunks import results_by_second
from joyvl_train.frames import Frames, encode
from joyvl_train.json_items import json_items
from joyvl_train.pictures import inside
from joyvl_train.published_chat import from_chat, to_chat
from joyvl_train.published_raw import Root, from_raw, to_raw, told_clip
from joyvl_train.records import RecordError, Rejects, check_repeats, settle
from joyvl_train.timeline import Timeline, TimelineError, from_json
from joyvl_train.video import FrameError

__all__ = ["read_published", "timeline_of", "to_chat", "to_raw", "told_clip", "write_published"]

EVALUATION = "evaluation"
"""What `meta["use"]` says of a benchmark's record."""

EVALUATION_ONLY = "evaluation only"
"""The reason for which such a record is refused."""


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


def timeline_of(
    item: Any, where: str = "item", root: Root = None, evaluation: bool = False
) -> Timeline:
    """The timeline of one published record. `TimelineError` or `FrameError` with the reason.

    What stems from a benchmark (`meta["use"]`) is refused unless `evaluation` asks for it, so that
    no way into training leaves it in.
    """
    if not isinstance(item, Mapping):
        raise TimelineError("no object", f"{where}: {type(item).__name__}")
    try:
        timeline = _read(item, where, root)
    except RecursionError:
        raise TimelineError("nested too deeply", where) from None
    if timeline.meta.get("use") == EVALUATION and not evaluation:
        raise TimelineError(EVALUATION_ONLY, f"{where}: it is a benchmark's, never for training")
    # What can't be streamed is rejected here already.
    results_by_second(timeline)
    check_repeats(timeline)
    return timeline


def _read(item: Mapping[str, Any], where: str, root: Root) -> Timeline:
    if "messages" in item:
        return from_chat(item, where, root)
    if "question" in item or "response" in item:
        return from_raw(item, where, root)
    if "clip" in item and "events" in item:
        return _from_plain(item, where, root)
    keys = ", ".join(str(key)[:40] for key in list(item)[:8])
    raise TimelineError("unknown form", f"{where}: keys {keys}")


def _from_plain(item: Mapping[str, Any], where: str, root: Root) -> Timeline:
    timeline = from_json(item)
    clip = timeline.clip
    told = item["clip"]
    lists = [told.get("images")] if isinstance(told, Mapping) else ["no object"]
    lists += [e["rule"].get("facts") for e in item["events"] if isinstance(e.get("rule"), Mapping)]
    if not all(isinstance(value, list | tuple | None) for value in lists):
        raise TimelineError("shape", f"{where}: clip, images or facts are none")
    texts = [timeline.family, timeline.source, timeline.opening, clip.id, *clip.images]
    texts += [event.id for event in timeline.events]
    texts += [fact for event in timeline.events if event.rule for fact in event.rule.facts]
    if clip.video is not None:
        texts.append(clip.video)
    flags = [event.repeat for event in timeline.events]
    if not all(isinstance(text, str) for text in texts) or not {*map(type, flags)} <= {bool}:
        raise TimelineError("shape", f"{where}: a text that is none")
    if not isinstance(timeline.meta, Mapping) or not isinstance(clip.scene, Mapping | None):
        raise TimelineError("shape", f"{where}: meta or scene is no object")
    for path in (*clip.images, *filter(None, [clip.video])):
        if path and (root is not None or clip.images):
            inside(root if root is not None else ".", path)
    return timeline


def write_published(
    records: Iterable[tuple[Timeline, Frames]],
    directory: str | os.PathLike[str],
    rejects: Rejects,
    quality: int = 90,
) -> int:
    """Write `data.json` in the converted form and its pictures under `images/`; how many records.

    A record that the form can't hold, or without pictures, goes to `rejects`. Pictures of records
    that were written into `directory` before are taken away in the end.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    named: set[str] = set()
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
            named.add(f"{number:06d}")
            file.write(",\n" if written else "\n")
            json.dump(item, file, ensure_ascii=False)
            written += 1
        file.write("\n]\n")
    temporary.replace(folder / "data.json")
    for left in folder.glob("images/" + "[0-9]" * 6):
        if left.name not in named:
            shutil.rmtree(left)
    return written


def _write_pictures(frames: Frames, folder: Path, number: int, quality: int) -> list[list[str]]:
    """Paths, relative to `folder`, of the pictures of each second."""
    paths = []
    place = folder / f"images/{number:06d}"
    place.mkdir(parents=True, exist_ok=True)
    for second in range(frames.seconds):
        names = []
        for i, picture in enumerate(frames.frames(second)):
            names.append(f"images/{number:06d}/{second:05d}.{i}.jpg")
            (folder / names[-1]).write_bytes(encode(picture.convert("RGB"), quality))
        paths.append(names)
    named = {Path(name).name for names in paths for name in names}
    for left in place.glob("*.jpg"):
        if left.name not in named:
            left.unlink()
    return paths
