"""Benchmarks that a corpus is kept apart from: the evaluation clips of other, finished runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.candidates import EVALUATION
from data_pipeline.lines import read_lines, read_object
from data_pipeline.work import Row, row_from_json
from joyvl_train.config import UserError


@dataclass(frozen=True)
class Apart:
    """What a run of `recipe=corpus` shows of benchmarks: the names and hashes of their footage.

    digests: of what the run's parts hold, in order.
    """

    work: Path
    digests: tuple[str, ...]

    def parts(self) -> Iterator[list[Row]]:
        """The benchmark's clips, part by part."""
        for part in range(len(self.digests)):
            rows = map(row_from_json, read_lines(self.work / f"{part:05d}.rows.jsonl"))
            yield [row for row in rows if row.use == EVALUATION]


def open_apart(run: str | os.PathLike[str]) -> Apart:
    """The benchmarks of the run in this folder. `UserError` where it is none, or shows none."""
    place = Path(run).absolute()
    name = f"corpus.apart_from={run}"
    if not (place / "finished").exists() or not (place / "plan").is_dir():
        raise UserError(
            f"{name}: is no finished run of recipe=corpus; make one of the benchmark first, such "
            "as recipe=corpus source=ovo_bench, and name its folder"
        )
    digests = []
    while (index := read_object(place / "work" / f"{len(digests):05d}.json")) is not None:
        digests.append(str(index["files"]["rows.jsonl"][1]))
    found = Apart(place / "work", tuple(digests))
    if not any(found.parts()):
        raise UserError(f"{name}: holds no clip of a benchmark to keep apart from; leave it out")
    return found
