"""Videos and a table of their events: CSV, JSON or JSON lines of `video,start,end,text`.

    video,start,end,text,instruction
    yard/gate.mp4,12.5,18,A van stops at the gate.,Tell me when a vehicle stops at the gate.

start, end: seconds or clock times ("1:05", "00:01:05.5"); end is left out or empty where nothing is
held. Further columns: instruction, made from the text where it is left out; family ("alerting" by
default). A CSV may be separated by commas, semicolons or tabs, and holds an event a line. Other
columns are passed over.

An item is a row. All rows of one video, instruction and family make one timeline: the instruction
before, a response at each start, held to its end. An event in a second in which the same timeline
has spoken already is refused, as is one said before.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from data_pipeline.candidates import Candidate, Refused
from data_pipeline.near_text import scratch
from data_pipeline.sources.items import (
    Item,
    candidate,
    json_records,
    object_of,
    record_id,
    refused,
    sound,
    text_lines,
    text_of,
    time_of,
)
from data_pipeline.sources.videos import Videos, video_path
from data_pipeline.sources.wordings import alert, asked_at, sentence
from joyvl_train.config import UserError
from joyvl_train.timeline import Clip, Event, Rule, Timeline, TimelineError

SOURCE = "events"
NEEDED = ("video", "start", "text")
COLUMNS = (*NEEDED, "end", "instruction", "family")


@dataclass(frozen=True, slots=True)
class Row:
    """One event. An empty `instruction` is to be made from the text."""

    where: str
    video: str
    start: float
    end: float | None
    text: str
    instruction: str = ""
    family: str = "alerting"

    @property
    def group(self) -> tuple[str, str, str]:
        """What rows of one timeline share; those without an instruction share their text."""
        asked = f"= {self.instruction}" if self.instruction else f"~ {self.text.casefold()}"
        return self.video, asked, self.family


def read(
    annotations: Path,
    videos: Videos | None = None,
    licence: str = "",
    language: str = "en",
    room: Path | None = None,
) -> Iterator[Candidate | Refused]:
    """The events of a table as candidates, a timeline a video and instruction, in the table's order
    of their first rows.

    Rows are gathered on disk, in the folder `room`, so that memory stays flat. With `videos` each
    video is looked at.
    """
    with contextlib.ExitStack() as held:
        if room is None:
            room = Path(held.enter_context(tempfile.TemporaryDirectory()))
        room.mkdir(parents=True, exist_ok=True)
        database = held.enter_context(scratch(room / ".events.sqlite"))
        groups = _Groups(database)
        for where, data in _records(annotations):
            try:
                if isinstance(data, TimelineError):
                    raise data
                row = _row(data, where)
                if videos is not None:
                    _check_end(row, videos)
                groups.add(row)
            except TimelineError as error:
                yield refused(where, error)
            except RecursionError:
                yield Refused(where, "nested too deeply")
        for rows in groups.each():
            yield from _timeline(rows, videos, licence, language)


def _check_end(row: Row, videos: Videos) -> None:
    length = videos.duration(row.video)
    if row.start >= length:
        raise TimelineError("past the end", f"{row.where}: {row.start} s of {length:.3f} s")


def _row(data: Any, where: str) -> Row:
    record = object_of(data, where)
    start = time_of(record.get("start"), f"{where}: start")
    end = record.get("end")
    if end is not None and not (isinstance(end, str) and not end.strip()):
        end = time_of(end, f"{where}: end")
        if end < start:
            raise TimelineError("ends before it starts", f"{where}: {start} to {end} s")
    else:
        end = None
    told = {}
    for name in ("instruction", "family"):
        value = record.get(name)
        if value is not None and value != "":
            told[name] = text_of(value, f"{where}: {name}")
    text = text_of(record.get("text"), f"{where}: text")
    row = Row(where, video_path(record.get("video"), where), start, end, text, **told)
    # What no stream can hold is refused here, so that it takes no other row with it.
    sound(candidate("", _built("0" * 32, [row]), where))
    return row


def _built(id: str, rows: Sequence[Row]) -> Timeline:
    first = rows[0]
    asked = first.instruction or alert(id, first.text, several=True)
    events = [Event("q0", float(asked_at(id, first.start)), "user", asked)]
    for n, row in enumerate(rows):
        said, rule = sentence(row.text), Rule("similarity")
        events.append(
            Event(f"r{n}", row.start, "assistant", said, until=row.end, answers="q0", rule=rule)
        )
    return Timeline(Clip(first.video, video=first.video), first.family, SOURCE, tuple(events))


def _timeline(
    rows: Sequence[Row], videos: Videos | None, licence: str, language: str
) -> Iterator[Candidate | Refused]:
    """The candidate of one group's rows, and those that it has no room for."""
    kept: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row.start):
        second = int(row.start)
        before = kept.setdefault(second, row)
        if before is row:
            continue
        same = (before.start, before.end, before.text) == (row.start, row.end, row.text)
        reason = "said already" if same else "two in one second"
        yield Refused(row.where, reason, f"{row.where}: second {second} is {before.where}'s")
    told = list(kept.values())
    id = record_id(SOURCE, [told[0].group, [[row.start, row.end, row.text] for row in told]])
    where = [row.where for row in told]
    one = candidate(id, _built(id, told), where, licence=licence, language=language)
    try:
        yield sound(one, videos)
    except TimelineError as error:
        yield from (refused(name, error) for name in where)


class _Groups:
    """Rows by what they share, on disk."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._base = database
        self._base.execute("CREATE TABLE groups (name TEXT PRIMARY KEY, number INTEGER)")
        self._base.execute("CREATE TABLE rows (number INTEGER, place INTEGER, row TEXT)")
        self._rows = 0

    def add(self, row: Row) -> None:
        name = json.dumps(row.group)
        self._base.execute("INSERT OR IGNORE INTO groups VALUES (?, ?)", (name, self._rows))
        fields = (row.where, row.video, row.start, row.end, row.text, row.instruction, row.family)
        self._base.execute(
            "INSERT INTO rows SELECT number, ?, ? FROM groups WHERE name = ?",
            (self._rows, json.dumps(fields), name),
        )
        self._rows += 1

    def each(self) -> Iterator[list[Row]]:
        """The rows of each group, both in the order in which they came."""
        found = self._base.execute("SELECT number, row FROM rows ORDER BY number, place")
        for _, rows in groupby(found, key=lambda pair: int(pair[0])):
            yield [Row(*json.loads(text)) for _, text in rows]


def _records(path: Path) -> Iterator[Item]:
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError as error:
        raise UserError(f"{str(path)!r} can't be read: {error.strerror}") from None
    return json_records(path) if head in (b"[", b"{") else _table(path)


def _table(path: Path) -> Iterator[Item]:
    """The rows of a CSV file, a line each, so that an open quote spoils no line but its own."""
    lines = text_lines(path)
    where, head = next(lines, ("", ""))
    if isinstance(head, TimelineError):
        raise UserError(f"{str(path)!r}: its first line can't be read ({head.reason}); mend it")
    mark = max(",;\t", key=head.count)
    try:
        names = [name.strip().lower() for name in next(csv.reader([head], delimiter=mark), [])]
    except csv.Error as error:
        raise UserError(f"{str(path)!r}: its first line is no CSV ({error}); mend it") from None
    lacking = [name for name in NEEDED if name not in names]
    twice = [name for name in COLUMNS if names.count(name) > 1]
    if lacking or twice:
        raise UserError(
            f"{str(path)!r}: the first line names the columns {', '.join(names)[:200] or 'not'}; "
            + (f"add {', '.join(lacking)}" if lacking else f"leave one {twice[0]}")
        )
    for where, line in lines:
        if isinstance(line, TimelineError):
            yield where, line
            continue
        try:
            cells = next(csv.reader([line], delimiter=mark, strict=True))
        except csv.Error as error:
            yield where, TimelineError("not CSV", f"{where}: {error}")
            continue
        if len(cells) > len(names):
            yield where, TimelineError("shape", f"{where}: {len(cells)} cells in {len(names)}")
        else:
            yield where, dict(zip(names, cells, strict=False))
