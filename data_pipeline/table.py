"""The light rows of a whole corpus as arrays in files, for the passes that look at all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.apart import Apart
from data_pipeline.balance import Cells
from data_pipeline.candidates import EVALUATION
from data_pipeline.clip_hash import WORDS
from data_pipeline.groups import on_disk, same_values
from data_pipeline.work import Row, StageWork
from joyvl_train.records import footage_number

STAYS, BENCHMARK, NEAR_SAME, LEFT_OUT = range(4)


class Table:
    """The open candidates of `work`, numbered in order; read once, part by part. After them come
    the clips of `apart`, `guests`, which are there to be kept apart from.

    numbers [N]: of their footage (`records.footage_number`). hashes [2 N, WORDS]: of the whole
    clips, then of the stretches that are told of; zeros where there is none. keys [2 N]: hashes of
    the ids, from 1 to 2 ** 64 - 2. cells [N]: `Cells.number`, -1 for evaluation's. fate [N]:
    `STAYS`, or why not.
    """

    def __init__(self, work: StageWork, folder: Path, apart: Sequence[Apart] = ()) -> None:
        self.work = work
        self.folder = folder
        self.places: list[slice] = []
        count = 0
        for part in range(len(work.plan.parts)):
            told = work.told(part)
            assert told is not None, "the work is done"
            self.places.append(slice(count, count + told["open"]))
            count += told["open"]
        self.own = count
        self._apart = apart
        for rows in self._guests():
            count += len(rows)
        self.guests = slice(self.own, count)
        self.count = count
        self.numbers = on_disk(folder / "numbers.npy", np.uint64, count)
        self.keys = on_disk(folder / "keys.npy", np.uint64, 2 * count)
        self.hashes = on_disk(folder / "hashes.npy", np.uint64, 2 * count, WORDS)
        self.evaluation = on_disk(folder / "evaluation.npy", np.bool_, count)
        self.cells = on_disk(folder / "cells.npy", np.int32, count)
        self.seconds = on_disk(folder / "seconds.npy", np.int32, count)
        self.spoken = on_disk(folder / "spoken.npy", np.int32, count)
        self.fate = on_disk(folder / "fate.npy", np.uint8, count)
        self.cell_names = Cells()
        for part, place in enumerate(self.places):
            if place.stop > place.start:
                self._fill(place, list(work.rows(part)))
        start = self.own
        for rows in self._guests():
            self._fill(slice(start, start + len(rows)), rows)
            start += len(rows)
        keys = self.keys[:count]
        for _, values in same_values(keys, keys):
            if (values[1:] == values[:-1]).any():
                raise ValueError("the stages gave candidates of two parts one id")

    def _fill(self, place: slice, rows: list[Row]) -> None:
        self.numbers[place] = [footage_number(row.footage) for row in rows]
        self.keys[place] = [_key(row.id) for row in rows]
        self.keys[self.count + place.start : self.count + place.stop] = self.keys[place]
        self.hashes[place] = [row.whole for row in rows]
        self.hashes[self.count + place.start : self.count + place.stop] = [row.span for row in rows]
        self.evaluation[place] = [row.use == EVALUATION for row in rows]
        self.seconds[place] = [row.seconds for row in rows]
        self.spoken[place] = [row.spoken for row in rows]
        self.cells[place] = [
            -1
            if row.use == EVALUATION
            else self.cell_names.number(row.family, row.language, row.seconds, row.spoken)
            for row in rows
        ]

    def _guests(self) -> Iterator[list[Row]]:
        for number, each in enumerate(self._apart):
            for rows in each.parts():
                # Their ids may be those of clips here.
                yield [replace(row, id=f"apart {number} {row.id}") for row in rows]

    def some_guests(self, items: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Row]]:
        """As `some`, of the guests."""
        rows = (row for part in self._guests() for row in part)
        return ((self.own + n, row) for n, row in enumerate(rows) if items[n])

    def some(self, part: int, items: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Row]]:
        """(number, row) of those of a part whose place in `items`, booleans of the part, is true;
        the file is read where there are any."""
        if items.any():
            start = self.places[part].start
            for offset, row in enumerate(self.work.rows(part)):
                if items[offset]:
                    yield start + offset, row

    def counted(self) -> Cells:
        """The clips that stay, evaluation's apart, by cell."""
        cells = self.cell_names.empty()
        for place in self.places:
            here = self.cells[place]
            mine = (here >= 0) & (self.fate[place] == STAYS)
            cells.add(here[mine], self.seconds[place][mine], self.spoken[place][mine])
        return cells


def _key(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return min(max(int.from_bytes(digest, "big"), 1), 2**64 - 2)
