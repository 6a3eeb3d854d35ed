"""What stays of a corpus, as Parquet shards: labels, and frames as JPEG (`joyvl_train.shards`).

    shard-00000.parquet   what stays of part 0; a part of which nothing stays has no file
    ...
    rejects.jsonl         what could not be written, each by its id, with the reason
    index.json            written last, by `finish`

A shard hangs on its part alone and is written once: a later run takes it as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.admit import Admission
from data_pipeline.candidates import Candidate
from data_pipeline.lines import read_object
from data_pipeline.settle import FOOTAGE, Settled
from joyvl_train.config import UserError
from joyvl_train.frames import Frames
from joyvl_train.memory import Summary
from joyvl_train.records import Record, StreamLabels, footage
from joyvl_train.shards import read_index, write_index, write_shard
from joyvl_train.timeline import Timeline, TimelineError

STAGE = "write"

OpenFrames = Callable[[], Callable[[Timeline], Frames]]

_VERSION = 1


@dataclass
class ParquetShards:
    """Writes a shard a part into `folder`.

    open_frames: makes, once in each process, what opens the pictures of a clip; None: a corpus of
    annotations alone. root: as of `StageWork`, by which footage is named. key: stands for all that
    the shards hang on; a folder that holds other ones is refused.
    """

    folder: Path
    open_frames: OpenFrames | None
    root: Path
    key: str
    quality: int = 90
    _frames: Callable[[Timeline], Frames] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    _indexed: dict[str, dict[str, Any]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def path(self, part: int, ending: str = "parquet") -> Path:
        return self.folder / f"shard-{part:05d}.{ending}"

    def done(self, part: int) -> bool:
        entry = self._entry(part)
        if entry is None or not entry["records"]:
            return entry is not None
        path = self.path(part)
        return path.is_file() and path.stat().st_size == entry["bytes"]

    def __call__(self, part: int, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        if self._frames is None and self.open_frames is not None:
            self._frames = self.open_frames()
        if not self.done(part):
            self.path(part, "json").unlink(missing_ok=True)  # of a shard that was lost
        taken: list[Candidate] = []

        def records() -> Iterator[Record | TimelineError]:
            for candidate in candidates:
                taken.append(candidate)
                yield self._record(candidate)

        entry = write_shard(self.path(part), records(), quality=self.quality, signature=self.key)
        known = self._entry(part)
        if known is not None and known.get("blake2b") != entry.get("blake2b"):
            raise UserError(
                f"{self.path(part)}: was lost, and can't be written with the same bytes again (by "
                f"other versions of libraries?); delete {self.folder} and start again"
            )
        # Of a shard that was there nothing was taken. All are, before the first is given on: the
        # rejects come in the same order then.
        taken.extend(candidates)
        rejected = {int(item["item"]): item for item in entry["rejected"]}
        for number, candidate in enumerate(taken):
            if number in rejected:
                item = rejected[number]
                yield candidate.rejected(STAGE, item["reason"], item["detail"])
            else:
                yield candidate

    def _record(self, candidate: Candidate) -> Record | TimelineError:
        """What the shard holds of a candidate, or why it can't."""
        timeline = candidate.timeline
        group = candidate.work.get(FOOTAGE)
        try:
            labels = StreamLabels(
                timeline,
                tuple(Summary(*summary) for summary in candidate.summaries),
                candidate.id,
                str(group) if group else footage(timeline.clip, self.root),
                candidate.language,
                candidate.licence,
                candidate.use,
                tuple(asdict(note) for note in candidate.history),
            )
            return labels, None if self._frames is None else self._frames(timeline)
        except TimelineError as error:
            return error

    def _entry(self, part: int) -> dict[str, Any] | None:
        """What is known of a part's shard; None while it isn't written."""
        if self._indexed is None and (self.folder / "index.json").exists():
            index = read_index(self.folder)
            self._check(index)
            self._indexed = {each["name"]: each for each in index["shards"]}
        if self._indexed is not None:
            return self._indexed.get(self.path(part).stem, {"records": 0})
        entry = read_object(self.path(part, "json"))
        if entry is not None:
            self._check(entry)
        return entry

    def _check(self, told: dict[str, Any]) -> None:
        if told.get("signature") != self.key:
            raise UserError(
                f"{self.folder}: holds a corpus of other clips or other settings; delete it, or "
                "give another folder"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frames": None, "_indexed": None}


def writing(
    settled: Settled,
    folder: str | os.PathLike[str],
    rejects: str | os.PathLike[str],
    open_frames: OpenFrames | None,
    signature: str,
    *,
    quality: int = 90,
) -> Admission:
    """The work of the last phase: what stays of `settled` into `folder`, the rest into `rejects`.

    `signature` names how the pictures are opened: their rate, their size.
    """
    made_from = [_VERSION, settled.index["key"], signature, open_frames is not None, quality]
    key = hashlib.blake2b(json.dumps(made_from).encode(), digest_size=16).hexdigest()
    root = Path(settled.work.root)
    shards = ParquetShards(Path(folder).absolute(), open_frames, root, key, quality)
    return Admission(settled, Path(rejects), shards, key)


def finish(admission: Admission) -> dict[str, Any]:
    """Makes one corpus of the shards of `writing`, whose parts are done; what its index holds."""
    shards = admission.write
    assert isinstance(shards, ParquetShards), "of `writing`"
    parts = range(len(admission.settled.work.plan.parts))
    missing = [part for part in parts if not admission.done(part)]
    if missing:
        raise UserError(f"{shards.folder}: part {missing[0]} isn't written; write the parts first")
    if (shards.folder / "index.json").exists():
        return write_index(shards.folder, [], signature=shards.key)
    entries = []
    for part in parts:
        entry = read_object(shards.path(part, "json"))
        assert entry is not None, "the part is done"
        # A shard knows its rejects by their place, which tells a reader nothing.
        each = (c for c in admission.rejected(part) if c.history[-1].stage == STAGE)
        named = zip(entry["rejected"], each if entry["rejected"] else (), strict=True)
        entries.append({**entry, "rejected": [{**i, "item": c.id} for i, c in named]})
    return write_index(shards.folder, entries, signature=shards.key)
