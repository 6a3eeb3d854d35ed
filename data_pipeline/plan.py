"""The first phase of a corpus: one pass over a source, into parts that are worked on apart.

    plan/00000.jsonl   a candidate a line, `per_part` of them
    ...
    refused.jsonl      what never became a candidate, and duplicates, each with its reason
    videos.jsonl       the videos that the candidates show (`data_pipeline.shown_files`)
    index.json         the parts with their counts and digests; written last

A plan that was killed starts anew: what takes time in it is reading the source, and the same source
gives the same bytes. Memory doesn't grow with the source: what was met is kept in a table on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipeline.candidates import (
    Candidate,
    Refused,
    candidate_from_json,
    candidate_to_json,
)
from data_pipeline.lines import LinesWriter, read_lines, read_object
from data_pipeline.near_text import NEAR_TEXT, Annotations, said, scratch
from data_pipeline.shown_files import check_files, note_files
from joyvl_train.config import UserError
from joyvl_train.records import footage
from joyvl_train.run import write_text

STAGE = "plan"
SAME_ID = "duplicate id"
SAME_TEXT = "same text"
NEAR_SAME_TEXT = "near-same text"

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a plan: its number, its candidates, and the digest of its file."""

    number: int
    candidates: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A finished plan. `read` = candidates in its parts + what is in `refused`, by reason."""

    folder: Path
    signature: str
    per_part: int
    read: int
    parts: tuple[Part, ...]
    refused: Counter[str]

    @property
    def sizes(self) -> list[int]:
        """The candidates of each part."""
        return [part.candidates for part in self.parts]

    @property
    def candidates(self) -> int:
        return sum(self.sizes)

    @property
    def digest(self) -> str:
        """Of all that is planned."""
        text = json.dumps([self.signature, [part.digest for part in self.parts]])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def path(self, part: int) -> Path:
        return self.folder / f"{part:05d}.jsonl"

    def of(self, part: int) -> Iterator[Candidate]:
        """The candidates of a part, in their order."""
        return map(candidate_from_json, read_lines(self.path(part)))


def make_plan(
    source: Iterable[Candidate | Refused],
    folder: str | os.PathLike[str],
    per_part: int,
    signature: str,
    *,
    root: str | os.PathLike[str] = ".",
    near_text: float = NEAR_TEXT,
) -> Plan:
    """The plan of what `source` yields; the one in `folder`, if it is there, without reading.

    Of candidates with one id, and of those that say the same of the same seconds of one footage
    (`records.footage`, under `root`), word for word or near so, the first stays. The same use and
    family are compared only: a question about a video is no duplicate of a commentary on it, and a
    benchmark's item none of a training clip.

    `signature` names the source and its settings. `UserError` where `folder` holds another plan, or
    one of videos that have changed since.
    """
    if per_part < 1:
        raise ValueError(f"candidates a part: 1 or more, not {per_part!r}")
    place = Path(folder).absolute()
    found = _index(place)
    if found is not None:
        for key, now in (("signature", signature), ("per_part", per_part)):
            if found[key] != now:
                raise UserError(
                    f"{place}: holds the plan of another source or other settings "
                    f"({key} {found[key]!r}, now {now!r}); give another folder"
                )
        check_files(place, root)
        return read_plan(place)
    place.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with (
        scratch(place / ".met.sqlite") as database,
        LinesWriter(place / "refused.jsonl") as refused,
    ):
        met = _Met(database, root, near_text)
        parts = list(_write_parts(source, place, per_part, met, refused, counts))
        note_files(place, root, met.videos())
    for left in place.glob("*.jsonl"):  # of a killed plan that had come further
        if left.stem.isdigit() and int(left.stem) >= len(parts):
            left.unlink()
    index = {
        "version": _VERSION,
        "signature": signature,
        "per_part": per_part,
        "read": sum(part.candidates for part in parts) + counts.total(),
        "refused": dict(sorted(counts.items())),
        "parts": [asdict(part) for part in parts],
    }
    write_text(place / "index.json", json.dumps(index, indent=1) + "\n")
    return read_plan(place)


def read_plan(folder: str | os.PathLike[str]) -> Plan:
    """The finished plan in `folder`; `UserError` where there is none."""
    place = Path(folder).absolute()
    found = _index(place)
    if found is None:
        raise UserError(f"{place}: holds no finished plan; make one first")
    return Plan(
        place,
        found["signature"],
        found["per_part"],
        found["read"],
        tuple(Part(**part) for part in found["parts"]),
        Counter(found["refused"]),
    )


def _index(folder: Path) -> dict[str, Any] | None:
    found = read_object(folder / "index.json")
    if found is not None and found.get("version") != _VERSION:
        raise UserError(
            f"{folder / 'index.json'}: version {found.get('version')!r} of a plan, "
            f"where {_VERSION} is read; give another folder"
        )
    return found


def _write_parts(
    source: Iterable[Candidate | Refused],
    folder: Path,
    per_part: int,
    met: _Met,
    refused: LinesWriter,
    counts: Counter[str],
) -> Iterator[Part]:
    """Writes the parts one after the other; what is refused is counted in `counts`."""
    items = _kept(source, met, refused, counts)
    for number, first in enumerate(items):
        with LinesWriter(folder / f"{number:05d}.jsonl") as lines:
            lines.add(candidate_to_json(first))
            while lines.lines < per_part and (item := next(items, None)) is not None:
                lines.add(candidate_to_json(item))
        yield Part(number, lines.lines, lines.size, lines.digest)


def _kept(
    source: Iterable[Candidate | Refused], met: _Met, refused: LinesWriter, counts: Counter[str]
) -> Iterator[Candidate]:
    for item in source:
        if isinstance(item, Refused):
            counts[item.reason] += 1
            refused.add(asdict(item))
            continue
        twice = met.add(item)
        if twice is None:
            yield item
            continue
        reason, detail = twice
        counts[reason] += 1
        line: dict[str, Any] = {"where": item.id, "reason": reason, "detail": detail}
        if reason != SAME_ID and item.status == "open":
            line["candidate"] = candidate_to_json(item.rejected(STAGE, reason, detail))
        refused.add(line)


class _Met:
    """The candidates met so far: their ids, and what they say of what."""

    def __init__(
        self, database: sqlite3.Connection, root: str | os.PathLike[str], near_text: float
    ) -> None:
        self._root = root
        self._database = database
        self._annotations = Annotations(database, near_text)
        database.execute("CREATE TABLE met (key BLOB PRIMARY KEY, id TEXT) WITHOUT ROWID")
        database.execute("CREATE TABLE videos (path BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, candidate: Candidate) -> tuple[str, str] | None:
        """Enters it, if it is new; else why it isn't, and which one stays.

        One that is no longer open is known by its id alone: it won't stand in the way of another.
        """
        if not self._enter(_key("id", candidate.id), candidate.id):
            return SAME_ID, "met before"
        video = candidate.timeline.clip.video
        if video:
            self._database.execute("INSERT OR IGNORE INTO videos VALUES (?)", (_bytes(video),))
        told = said(candidate)
        if told is None or candidate.status != "open":
            return None
        shown = footage(candidate.timeline.clip, self._root)
        where = (candidate.use, candidate.timeline.family, shown)
        same = _key(*where, told.first, told.last, _texts(candidate))
        if not self._enter(same, candidate.id):
            found = self._database.execute("SELECT id FROM met WHERE key = ?", (same,))
            return SAME_TEXT, f"{found.fetchone()[0]} stays"
        place = place_number(*where)
        first = self._annotations.near(place, told)
        if first is None:
            self._annotations.add(place, told, candidate.id)
            return None
        self._database.execute("UPDATE met SET id = ? WHERE key = ?", (first, same))
        return NEAR_SAME_TEXT, f"{first} stays"

    def videos(self) -> Iterator[str]:
        """What the candidates show, by name."""
        for (video,) in self._database.execute("SELECT path FROM videos ORDER BY path"):
            yield video.decode("utf-8", "surrogatepass")

    def _enter(self, key: bytes, name: str) -> bool:
        """Whether `key` is new."""
        entered = self._database.execute("INSERT OR IGNORE INTO met VALUES (?, ?)", (key, name))
        return entered.rowcount == 1


def _texts(candidate: Candidate) -> list[list[str | None]]:
    events = sorted(candidate.timeline.events, key=lambda event: event.time)
    return [[event.role, event.text, event.question] for event in events]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _key(*what: Any) -> bytes:
    text = json.dumps(what, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def place_number(*what: str) -> int:
    """The signed 64 bits that stand for these names in a table."""
    return int.from_bytes(_key(*what)[:8], "big", signed=True)
