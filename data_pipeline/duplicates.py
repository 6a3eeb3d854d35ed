"""Near-same clips of a whole corpus, and footage that is one footage under several names.

Two clips are near-same where their footage has different names, the pictures that their annotations
tell of are near-same (`clip_hash.near`), and so are the annotations (`near_text`), of one family:
the smallest id stays. Two questions on one video are not near-same clips; those that say near the
same of one video were told apart from the start (`data_pipeline.plan`).

Footage that shows near-same pictures anywhere, in the whole clip or in such a stretch, is one
*group*. Its clips go to one side, training or held out: a second upload of a training video would
be no test. The group bears the name of that footage among it whose `records.footage_number` is
smallest, and so lies where that one lies. A training clip whose group holds a benchmark's footage
goes: what is evaluated on is never trained on, under whatever name.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline.groups import Groups, chunks, near_pairs, on_disk
from data_pipeline.near_clips import NearClips
from data_pipeline.plan import place_number
from data_pipeline.table import BENCHMARK, NEAR_SAME, STAYS, Table


def footage_groups(table: Table) -> Groups:
    """The groups of the table's clips by what they show."""
    groups = Groups(table.numbers, table.folder)
    told = on_disk(table.folder / "told.npy", np.bool_, table.count)
    for chunk in chunks(table.count):
        # The clips of one footage have one hash of the whole, if any: the first one's is enough.
        whole, roots = table.hashes[chunk], groups.roots(chunk)
        more = np.flatnonzero(whole.any(axis=1) & ~told[roots])
        kept = more[np.unique(roots[more], return_index=True)[1]]
        told[roots[kept]] = True
        dropped = np.ones(len(whole), np.bool_)
        dropped[kept] = False
        whole[dropped] = 0
    for ones, others in near_pairs(table.hashes, table.keys, table.folder / "band.npy"):
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            groups.join(one % table.count, other % table.count)
    groups.settle()
    return groups


def drop_benchmarks(table: Table, groups: Groups) -> None:
    """Training clips of footage that a benchmark shows go."""
    tested = on_disk(table.folder / "tested.npy", np.bool_, table.count)
    for chunk in chunks(table.count):
        tested[groups.roots(chunk)[table.evaluation[chunk]]] = True
    for chunk in chunks(table.count):
        lost = tested[groups.roots(chunk)] & ~table.evaluation[chunk]
        table.fate[chunk][lost] = BENCHMARK


def drop_near_same(table: Table, groups: Groups, database: sqlite3.Connection) -> None:
    """All but the smallest id of near-same clips go. Fills the tables of `database` that tell
    which one stays (`first_of`), and what the groups are called (`name_of`)."""
    database.execute("CREATE TABLE names (low INTEGER PRIMARY KEY, name TEXT)")
    database.execute("CREATE TABLE firsts (item INTEGER PRIMARY KEY, id TEXT)")
    database.execute(
        "CREATE TABLE clips (low INTEGER, id TEXT, item INTEGER, number INTEGER, kind INTEGER,"
        " words BLOB, shown BLOB, PRIMARY KEY (low, id)) WITHOUT ROWID"
    )
    for part, place in enumerate(table.places):
        lows = groups.low(place)
        for item, row in table.some(part, groups.mixed(place)):
            low, number = signed(lows[item - place.start]), signed(table.numbers[item])
            _name(database, low, number, row.footage)
            shown = row.span if row.span.any() else row.whole
            if table.fate[item] == STAYS and row.words and shown.any():
                kind = place_number(row.use, row.family, str(row.numbers))
                database.execute(
                    "INSERT INTO clips VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (low, row.id, item, number, kind, row.words, shown.tobytes()),
                )
    lows = groups.low(table.guests)
    for item, row in table.some_guests(groups.mixed(table.guests)):
        _name(database, signed(lows[item - table.own]), signed(table.numbers[item]), row.footage)
    for item, first in _near_same(database):
        table.fate[item] = NEAR_SAME
        database.execute("INSERT INTO firsts VALUES (?, ?)", (item, first))


def _name(database: sqlite3.Connection, low: int, number: int, footage: str) -> None:
    """Names a group, where this is its footage of the smallest number."""
    if low == number:
        database.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (low, footage))


def _near_same(database: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    """(item that goes, id that stays), from the smallest id of each group on."""
    current: int | None = None
    stay: dict[int, NearClips] = {}
    common: Counter[int] = Counter()
    every = database.cursor().execute("SELECT * FROM clips ORDER BY low, id")
    for low, name, item, number, kind, words, packed in every:
        if low != current:
            current, stay, common = low, {}, _common(database, low)
        if kind not in stay:
            stay[kind] = NearClips(common)
        shown = np.frombuffer(packed, np.uint64)
        first = stay[kind].first(number, words, shown)
        if first is None:
            stay[kind].add(name, number, words, shown)
        else:
            yield item, first


def _common(database: sqlite3.Connection, low: int) -> Counter[int]:
    """How many clips of a group have each word."""
    found: Counter[int] = Counter()
    for (words,) in database.execute("SELECT words FROM clips WHERE low = ?", (low,)):
        found.update(array("I", words))
    return found


def first_of(database: sqlite3.Connection, item: int) -> str:
    """The id that stays in place of an item."""
    found = database.execute("SELECT id FROM firsts WHERE item = ?", (item,)).fetchone()
    return str(found[0])


def name_of(database: sqlite3.Connection, low: Any) -> str:
    """The name of the group whose smallest number is `low`."""
    found = database.execute("SELECT name FROM names WHERE low = ?", (signed(low),)).fetchone()
    return str(found[0])


def signed(number: Any) -> int:
    """64 bits as a table takes them."""
    return int(number) - 2**64 if int(number) >= 2**63 else int(number)
