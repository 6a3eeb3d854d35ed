"""Benchmarks that a corpus is kept apart from: the evaluation clips of other, finished runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from data_pipeline.candidates import EVALUATION
from data_pipeline.lines import read_lines, read_object
from data_pipeline.plan import read_plan
from data_pipeline.work import Row, row_from_json
from joyvl_train.config import UserError


@dataclass(frozen=True)
class Apart:
    """What a run of `recipe=corpus` shows of benchmarks: the names and hashes of their footage.

    videos: the folder by which it names footage, if it has one; root: that by which it is named
    here. digests: of what the run's parts hold, in order.
    """

    work: Path
    videos: Path | None
    root: Path
    digests: tuple[str, ...]

    def parts(self) -> Iterator[list[Row]]:
        """The benchmark's clips, part by part."""
        for part in range(len(self.digests)):
            rows = map(row_from_json, read_lines(self.work / f"{part:05d}.rows.jsonl"))
            yield [self._here(row) for row in rows if row.use == EVALUATION]

    def _here(self, row: Row) -> Row:
        """The row, with a file of its folder named as from here."""
        path = self.videos and self.videos / row.footage
        if not path or not path.exists():
            return row
        return replace(row, footage=os.path.relpath(path, self.root))


def open_apart(run: str | os.PathLike[str], root: str | os.PathLike[str] = ".") -> Apart:
    """The benchmarks of the run in this folder. `UserError` where it is none, or shows none."""
    place, name = Path(run).absolute(), f"corpus.apart_from={run}"
    if not (place / "finished").exists() or not (place / "plan").is_dir():
        raise UserError(
            f"{name}: is no finished run of recipe=corpus; make one of the benchmark first, such "
            "as recipe=corpus source=ovo_bench, and name its folder"
        )
    work, digests = place / "work", []
    for part in range(len(read_plan(place / "plan").parts)):
        index = read_object(work / f"{part:05d}.json")
        size, digest = (index or {}).get("files", {}).get("rows.jsonl", (None, None))
        rows = work / f"{part:05d}.rows.jsonl"
        if digest is None or not rows.exists() or rows.stat().st_size != size:
            raise UserError(f"{name}: part {part} of its work is torn; make that corpus again")
        digests.append(str(digest))
    found = Apart(work, _videos(place), Path(root).absolute(), tuple(digests))
    if not any(found.parts()):
        raise UserError(f"{name}: holds no clip of a benchmark to keep apart from; leave it out")
    return found


def _videos(run: Path) -> Path | None:
    """The folder of the run's videos, from its config."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        named = config["source"]["videos"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return Path(named).absolute() if named else None
