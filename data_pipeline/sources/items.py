"""What all sources share: items in, candidates out, and nothing lost in between.

An item is what a source's annotations consist of: a line, a record, a (video, sentence) pair, a
cue. It becomes one candidate or several, or is refused as a whole with a reason; a candidate made
of several items (all of one video's events) names each of them in `work["items"]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipeline.candidates import EVALUATION, Candidate, Refused, Use, id_of
from data_pipeline.sources.videos import Videos
from joyvl_train.actions import ActionFormatError, Response
from joyvl_train.config import UserError
from joyvl_train.json_items import json_items
from joyvl_train.published_raw import line_of, seconds_of
from joyvl_train.timeline import MAX_SECONDS, Timeline, TimelineError, to_json

VERSION = 1
"""Part of each candidate's id; grows when the sources turn the same annotation into another
timeline."""

MAX_TEXT = 10_000
"""Characters of one text; more is taken for a broken record."""

MAX_DEPTH = 32
"""Levels of what a record carries along; deeper data would fail in some later stage."""

MAX_LINE_BYTES = 1 << 20

_DETAIL = 300
_CLOCK = re.compile(r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)", re.ASCII)

Item = tuple[str, Any]
"""Where an item stands, and its data, or the `TimelineError` that it is broken with."""


def each_item(
    items: Iterable[Item],
    make: Callable[[Any, str], Sequence[Candidate]],
    videos: Videos | None = None,
) -> Iterator[Candidate | Refused]:
    """The candidates that `make` builds from each item's data and place; all of an item or none.

    `make` raises `TimelineError` for what can't be used. With `videos` the footage is looked at,
    too: it must be there, and nothing may happen after its end.
    """
    for where, data in items:
        try:
            if isinstance(data, TimelineError):
                raise data
            made = [sound(one, videos) for one in make(data, where)]
            if not made:
                raise TimelineError("nothing in it", where)
        except TimelineError as error:
            yield refused(where, error)
        except RecursionError:
            yield Refused(where, "nested too deeply")
        else:
            yield from made


def refused(where: str, error: TimelineError) -> Refused:
    """The item at `where`, refused for `error`."""
    return Refused(where, error.reason, error.detail[:_DETAIL])


def sound(one: Candidate, videos: Videos | None = None) -> Candidate:
    """The candidate, if it can be written as UTF-8 JSON, with its clip's length by the footage."""
    if videos is not None:
        one = replace(one, timeline=videos.settled(one.timeline))
    if any(_deeper(value, MAX_DEPTH) for value in (one.timeline.meta, one.timeline.clip.scene)):
        raise TimelineError("nested too deeply", f"clip {one.timeline.clip.id!r}")
    try:
        json.dumps(to_json(one.timeline), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TimelineError("not UTF-8", str(error)) from None
    except ValueError as error:
        raise TimelineError("not JSON", str(error)) from None
    return one


def _deeper(value: Any, depth: int) -> bool:
    """Whether plain data is nested deeper than this."""
    level = [value]
    for _ in range(depth):
        level = [
            part
            for one in level
            if isinstance(one, list | tuple | Mapping)
            for part in (one.values() if isinstance(one, Mapping) else one)
        ]
    return bool(level)


def record_id(source: str, record: Any) -> str:
    """The id of what `source` makes of a record; wordings are chosen by it, too."""
    return id_of(source, VERSION, record)


def candidate(
    id: str,
    timeline: Timeline,
    where: str | Sequence[str],
    *,
    use: Use = "train",
    licence: str = "",
    language: str = "en",
    **work: Any,
) -> Candidate:
    """The candidate that stands for the item at `where`, or for several.

    What is for evaluation alone says so in the timeline's meta as well, which goes wherever the
    timeline goes.
    """
    if use == EVALUATION:
        timeline = replace(timeline, meta={**timeline.meta, "use": EVALUATION})
    items = [where] if isinstance(where, str) else list(where)
    return Candidate(id, timeline, use, licence, language, {"items": items, **work})


# Items of files.


def json_records(path: Path) -> Iterator[Item]:
    """The items of a JSON list, of JSON lines, or a single object."""
    for item in json_items(path):
        yield f"{path.name} item {item.number}", item.error if item.error else item.data


def text_lines(path: Path) -> Iterator[Item]:
    """The lines of a text file, line ends stripped; blank ones are none."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                where = f"{path.name} line {number}"
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield where, TimelineError("too large", where)
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                try:
                    yield where, line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    yield where, TimelineError("not UTF-8", where)
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be read: {error.strerror}") from None


# Values of items.


def object_of(data: Any, where: str) -> Mapping[str, Any]:
    """An item that must be a JSON object."""
    if not isinstance(data, Mapping):
        raise TimelineError("no object", f"{where}: {type(data).__name__}")
    return data


def list_of(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TimelineError("shape", f"{what} is {type(value).__name__}, no list")
    return value


def text_of(value: Any, what: str) -> str:
    """A text on one line."""
    text = line_of(value, what)
    if len(text) > MAX_TEXT:
        raise TimelineError("text too long", f"{what}: {len(text)} characters")
    return text


def said_of(value: Any, what: str) -> str:
    """A text that can be said as a response."""
    text = text_of(value, what)
    try:
        Response(text)
    except ActionFormatError as error:
        raise TimelineError("format", f"{what}: {error.reason}") from None
    return text


def time_of(value: Any, what: str) -> float:
    """Seconds: a number, a text that is one, or a clock time, "1:05", "00:01:05.5"."""
    found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return seconds_of(value, what)
    hours, minutes, seconds = found.groups()
    whole = int(hours or 0) * 3600 + int(minutes) * 60
    return seconds_of(whole + float(seconds.replace(",", ".")), what)


def span_of(value: Any, what: str) -> tuple[float, float]:
    """A pair [start, end] of seconds."""
    if not isinstance(value, list) or len(value) != 2:
        raise TimelineError("shape", f"{what} is no pair of times")
    start, end = (seconds_of(part, what) for part in value)
    if end < start:
        raise TimelineError("ends before it starts", f"{what}: {start} to {end} s")
    return start, end


def duration_of(value: Any, what: str) -> float | None:
    """A clip's length in seconds; None where it isn't told."""
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value <= MAX_SECONDS:
        raise TimelineError("bad duration", f"{what}: {str(value)[:40]}")
    return float(value)
