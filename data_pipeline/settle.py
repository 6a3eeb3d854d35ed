"""The third phase of a corpus: one look at all candidates together.

Near-same clips, benchmarks' footage (`data_pipeline.duplicates`) and the balance of the whole
(`data_pipeline.balance`) are no matter of one part. The light rows of `data_pipeline.work` are read
into arrays on disk; what is held at once doesn't grow with the corpus.

    chosen/00000.json   which of the part's open candidates go, each with its reason, and which are
                        of a group of footage
    ...
    index.json          the counts, and what became of the targets; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.apart import Apart
from data_pipeline.balance import Cells, Targets, bounds_of, outcomes, to_keep
from data_pipeline.candidates import Candidate
from data_pipeline.duplicates import (
    drop_benchmarks,
    drop_near_same,
    first_of,
    footage_groups,
    name_of,
)
from data_pipeline.groups import Groups, chunks
from data_pipeline.lines import read_object
from data_pipeline.near_text import scratch
from data_pipeline.table import BENCHMARK, LEFT_OUT, NEAR_SAME, STAYS, Table
from data_pipeline.work import Row, StageWork
from joyvl_train.config import UserError
from joyvl_train.run import write_text

STAGE = "settle"
REASONS = {
    BENCHMARK: "footage of a benchmark",
    NEAR_SAME: "near-same clip",
    LEFT_OUT: "balance",
}
FOOTAGE = "footage"
"""The key of a candidate's `work` under which the name of its group stands, if it is in one: its
side is that of footage of this name. What a record's own `meta` says of it is not asked."""

_VERSION = 1


@dataclass(frozen=True)
class Settled:
    """What the third phase came to; `index` is its plain data: rows, groups (that hold footage of
    several names, benchmarks of other runs included), dropped by reason, targets
    (`balance.Outcome`)."""

    folder: Path
    work: StageWork
    index: dict[str, Any]

    def told(self, part: int) -> dict[str, Any]:
        """Of a part's open candidates: `dropped`, {id: [reason, detail]}, and `groups`, {id:
        name}."""
        path = self.folder / f"{part:05d}.json"
        found = read_object(path)
        if found is None or found.get("key") != self.index["key"]:
            raise UserError(f"{path}: was changed; delete {self.folder} and start again")
        return found

    def of(self, part: int) -> Iterator[Candidate]:
        """The candidates of a part; those that go are rejected, with the reason."""
        told = self.told(part)
        for candidate in self.work.of(part):
            if candidate.id in told["dropped"]:
                yield candidate.rejected(STAGE, *told["dropped"][candidate.id])
            elif candidate.id in told["groups"]:
                name = told["groups"][candidate.id]
                detail = f"on one side with {name}, which it shows"
                work = {**candidate.work, FOOTAGE: name}
                yield candidate.changed(STAGE, detail=detail, work=work)
            else:
                yield candidate


def settle(
    work: StageWork,
    folder: str | os.PathLike[str],
    targets: Targets,
    apart: Sequence[Apart] = (),
) -> Settled:
    """Looks at all that is open in `work`, whose parts are done. No footage of `apart` is trained
    on. What `folder` holds already of the same rows and targets is taken as it is."""
    place = Path(folder).absolute()
    key = _key(work, targets, apart)
    found = read_object(place / "index.json")
    if found is not None and found.get("key") == key:
        return Settled(place, work, found)
    arrays = place / ".arrays"
    shutil.rmtree(arrays, ignore_errors=True)
    arrays.mkdir(parents=True)
    with scratch(arrays / "clips.sqlite") as database:
        index = _settle(Table(work, arrays, apart), place, key, targets, database)
    shutil.rmtree(arrays)
    write_text(place / "index.json", json.dumps(index, indent=1) + "\n")
    return Settled(place, work, index)


def _key(work: StageWork, targets: Targets, apart: Sequence[Apart]) -> str:
    """Stands for all that the corpus hangs on from here: what the parts hold, and the targets."""
    digests: list[str] = []
    for part in range(len(work.plan.parts)):
        told = work.told(part)
        if told is None:
            raise UserError(f"{work.folder}: part {part} isn't done; finish the work first")
        digests += (told["files"][name][1] for name in ("jsonl", "rows.jsonl"))
    # Nothing stands for nobody to be kept apart from, as before there could be somebody.
    benchmarks = [each.digests for each in apart]
    text = json.dumps([_VERSION, asdict(targets), digests, *benchmarks], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _settle(
    table: Table, place: Path, key: str, targets: Targets, database: sqlite3.Connection
) -> dict[str, Any]:
    groups = footage_groups(table)
    drop_benchmarks(table, groups)
    drop_near_same(table, groups, database)
    before = table.counted()
    _balance(table, before, to_keep(before, targets))
    dropped: Counter[str] = Counter()
    for part in range(len(table.places)):
        told = _of_part(table, groups, part, database)
        dropped.update(reason for reason, _ in told["dropped"].values())
        write_text(place / f"{part:05d}.json", json.dumps({"key": key, **told}, indent=0) + "\n")
    return {
        "key": key,
        "rows": table.own,
        "groups": groups.joined,
        "dropped": dict(sorted(dropped.items())),
        "targets": [asdict(each) for each in outcomes(before, table.counted(), targets)],
    }


def _balance(table: Table, before: Cells, keep: npt.NDArray[np.int64]) -> None:
    """Of each cell's clips that still stay, counted in `before`, `keep` do; benchmarks are as they
    are."""
    if (keep >= before.clips).all():
        return  # without a look at each cell, of which careless annotations may have millions
    for chunk in chunks(table.count):
        table.cells[chunk][table.fate[chunk] != STAYS] = -1
    bounds = bounds_of(table.cells, table.keys, keep)
    for chunk in chunks(table.count):
        cells = table.cells[chunk]
        past = (cells >= 0) & (table.keys[chunk] >= bounds[cells])
        table.fate[chunk][past] = LEFT_OUT


def _of_part(
    table: Table, groups: Groups, part: int, database: sqlite3.Connection
) -> dict[str, dict[str, Any]]:
    place = table.places[part]
    fate, mixed, lows = table.fate[place], groups.mixed(place), groups.low(place)
    dropped, named = {}, {}
    for item, row in table.some(part, mixed | (fate != STAYS)):
        here = item - place.start
        if fate[here] != STAYS:
            dropped[row.id] = [REASONS[fate[here]], _detail(item, row, fate[here], database)]
        else:
            named[row.id] = name_of(database, lows[here])
    return {"dropped": dropped, "groups": named}


def _detail(item: int, row: Row, fate: int, database: sqlite3.Connection) -> str:
    if fate == BENCHMARK:
        return f"{row.footage} is a benchmark's, or looks like one's"
    return f"{first_of(database, item)} stays" if fate == NEAR_SAME else ""
