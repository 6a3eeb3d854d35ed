"""Which annotations say near the same of near the same seconds; kept in a table on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.candidates import Candidate
from joyvl_train.timeline import Event

NEAR_TEXT = 0.9
"""Of the words of two annotations together, the share that both have, from which on they are
near-same (Jaccard)."""

EXCHANGED = 0.02
"""Of the words of both together, the share that each may have for others of the other one's: "red"
for "green" makes another question, a word more or less doesn't."""

SLACK = 1.0
"""Seconds by which a stretch is widened on both sides before two are compared: two annotators of
one moment differ by a second."""

# Han, kana, Thai, Lao, Khmer and Burmese are written without spaces: there, pairs of characters.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_PIECE = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


@dataclass(frozen=True, slots=True)
class Said:
    """What an annotation says, for comparison.

    first, last: seconds of the footage, from the first thing the assistant says to the end of the
    last one. words: hashes of the different words of all events, packed. numbers: what must be
    equal: the words with a digit ("player 7" is not "player 8"), and those of the assistant where
    it says none but the user's, as one that chooses among options does.
    """

    first: float
    last: float
    words: bytes
    numbers: int

    @property
    def count(self) -> int:
        return len(self.words) // 4


def words_of(texts: Iterable[str]) -> list[str]:
    """The words of texts, lower-case; of scripts without spaces, pairs of characters.

    >>> words_of(["A red car!", "红色汽车"])
    ['a', 'red', 'car', '红色', '色汽', '汽车']
    """
    found: list[str] = []
    for text in texts:
        for piece in _PIECE.findall(text.lower()):
            if len(piece) > 1 and _IS_UNSPACED.match(piece):
                found += [piece[i : i + 2] for i in range(len(piece) - 1)]
            else:
                found.append(piece)
    return found


def span(events: Iterable[Event]) -> tuple[float, float] | None:
    """From the first to the last second of what the assistant says; of all events where it is
    silent; None without any event."""
    events = list(events)
    told = [event for event in events if event.role == "assistant"] or events
    if not told:
        return None
    first = min(event.time for event in told)
    return float(first), float(max(event.held_seconds.stop for event in told))


def said(candidate: Candidate) -> Said | None:
    """What a candidate's annotation says; None where it has no event yet."""
    events = candidate.timeline.events
    stretch = span(events)
    if stretch is None:
        return None
    words = set(words_of(text for e in events for text in (e.text, e.question) if text))
    answers = set(words_of(e.text for e in events if e.role == "assistant"))
    chosen = answers <= set(words_of(e.text for e in events if e.role == "user"))
    hashes = array("I", sorted({zlib.crc32(word.encode("utf-8", "replace")) for word in words}))
    exact = {word for word in words if any(map(str.isdigit, word))}
    numbers = " ".join(sorted(exact | answers if chosen else exact))
    first, last = (time + candidate.timeline.clip.offset for time in stretch)
    return Said(first, last, hashes.tobytes(), zlib.crc32(numbers.encode("utf-8", "replace")))


def near_words(one: bytes, other: bytes, share: float = NEAR_TEXT) -> bool:
    """Whether two packed sets of words are near-same."""
    a, b = array("I", one), array("I", other)
    return enough(len(set(a).intersection(b)), len(a), len(b), share)


def enough(both: int, one: int, other: int, share: float = NEAR_TEXT) -> bool:
    """Whether two sets of so many words, of which they share `both`, are near-same. With each word
    more that is shared they come nearer."""
    whole = one + other - both
    return both >= share * whole and min(one, other) - both <= EXCHANGED * whole


class Annotations:
    """The annotations met so far by what they tell of (`place`: 64 bits), in a table on disk."""

    def __init__(self, database: sqlite3.Connection, share: float = NEAR_TEXT) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"near-same texts share 0 to 1 of their words, not {share!r}")
        self._share = share
        self._database = database
        self._number = 0
        database.execute(
            "CREATE TABLE annotations (place INTEGER, number INTEGER, first REAL, last REAL,"
            " count INTEGER, numbers INTEGER, id TEXT, words BLOB,"
            " PRIMARY KEY (place, numbers, first, number)) WITHOUT ROWID"
        )

    def near(self, place: int, annotation: Said) -> str | None:
        """The id of the earliest one that is near-same, of near the same seconds; None without.

        One without a word, such as a lone sign, is near none.
        """
        if not annotation.count:
            return None
        first, last = annotation.first - SLACK, annotation.last + SLACK
        # What shares half of both begins no further ahead than this one is long, nor past its
        # middle: so few are looked at, however many tell of one video.
        found = self._database.execute(
            "SELECT id, first, last, words FROM annotations WHERE place = ? AND numbers = ?"
            " AND first BETWEEN ? AND ? AND count BETWEEN ? AND ? ORDER BY number",
            (
                place,
                annotation.numbers,
                first - (last - first),
                (first + last) / 2 + 2 * SLACK,
                annotation.count * self._share,
                annotation.count / self._share,
            ),
        )
        for name, other_first, other_last, words in found:
            common = min(last, other_last + SLACK) - max(first, other_first - SLACK)
            whole = max(last, other_last + SLACK) - min(first, other_first - SLACK)
            if common >= whole / 2 and near_words(annotation.words, words, self._share):
                return str(name)
        return None

    def add(self, place: int, annotation: Said, name: str) -> None:
        self._number += 1
        self._database.execute(
            "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                place,
                self._number,
                annotation.first,
                annotation.last,
                annotation.count,
                annotation.numbers,
                name,
                annotation.words,
            ),
        )


@contextlib.contextmanager
def scratch(path: Path, cache_mib: int = 64) -> Iterator[sqlite3.Connection]:
    """An empty table file for a while, without a journal: nothing in it outlives a kill.

    A full disk is an `OSError`, as it is of any other file.
    """
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    try:
        for setting in (
            "journal_mode = OFF",
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
            "temp_store = FILE",
            f"cache_size = -{cache_mib * 1024}",
        ):
            database.execute(f"PRAGMA {setting}")
        database.execute("BEGIN")  # for good: one that never ends writes when its cache is full
        yield database
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        database.close()
        path.unlink(missing_ok=True)
