"""Corpus shards in and out.

A corpus is a folder of Parquet files, which other tools read, too:

    shard-00000.parquet   one row a record; `joyvl_train.shard_rows` lists the columns
    ...
    index.json            the shards with their counts and hashes; written last
    rejects.jsonl         what was not written, each with its reason

    datasets.load_dataset("parquet", data_files="corpus/*.parquet")

A record is a stream (its labels and its pictures by the second, or its labels alone) or a
turn-based sample. Every file is written under a temporary name and renamed. While a corpus is
unfinished a `shard-00000.json` beside each shard says that it is whole, so that a killed writer
goes on after the last of these; `write_index` takes what they say into `index.json`.

One writer makes a whole corpus (`write_shards`, `ShardWriter`); or many make a shard each
(`write_shard`), in any order, and one of them the index. Equal records give equal bytes.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from joyvl_train.records import Record, RecordError, StreamLabels, TurnSample
from joyvl_train.shard_file import ShardFile
from joyvl_train.shard_reader import (
    VERSION,
    CorpusError,
    Shard,
    ShardFrames,
    check_hashes,
    read_index,
    read_json,
    read_shards,
)
from joyvl_train.timeline import TimelineError

__all__ = [
    "CorpusError",
    "Record",
    "RecordError",
    "Shard",
    "ShardFrames",
    "ShardWriter",
    "StreamLabels",
    "TurnSample",
    "check_hashes",
    "read_entries",
    "read_index",
    "read_shards",
    "write_index",
    "write_shard",
    "write_shards",
]


class ShardWriter:
    """Writes records into shards of `per_shard`; goes on where a killed writer stopped.

    `consumed` counts the records taken so far, rejected ones included: feed it what follows.
    `signature` names what the corpus is made of; a folder that holds another one is refused.

        with ShardWriter(folder, signature=...) as writer:
            for record in itertools.islice(records, writer.consumed, None):
                writer.add(record)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        per_shard: int = 256,
        quality: int = 90,
        signature: str = "",
    ) -> None:
        if per_shard < 1:
            raise ValueError(f"records a shard: 1 or more, not {per_shard!r}")
        self.directory = Path(directory)
        self.per_shard = per_shard
        self.quality = quality
        self.signature = signature
        self.consumed = 0
        self.complete = False
        self._entries: list[dict[str, Any]] = []
        self._open: ShardFile | None = None
        self._rejected: list[dict[str, str]] = []
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob("*.tmp"):
                left.unlink()
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        self._resume()

    def _resume(self) -> None:
        if (self.directory / "index.json").exists():
            found = read_index(self.directory)
            _same(self.directory, found, self.signature)
            self.complete = True
            self.consumed = found["consumed"]
            _tidy(self.directory)
            return
        while (path := self._path.with_suffix(".json")).exists():
            entry = read_json(path)
            _same(self.directory, entry, self.signature)
            self._entries.append(entry)
            self.consumed += entry["consumed"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        elif self._open is not None:
            self._open.abandon()

    def add(self, record: Record) -> bool:
        """Write a record; False where it was rejected, with its reason in the rejects file."""
        if self.complete:
            raise CorpusError(f"{str(self.directory)!r} is complete; name an empty folder")
        try:
            if self._open is None:
                self._open = ShardFile(self._path, self.quality)
            try:
                self._open.add(record)
            except TimelineError as error:
                self.reject(error.reason, error.detail)
                return False
            self.consumed += 1
            if self._open.records == self.per_shard:
                self._close_shard()
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        return True

    def reject(self, reason: str, detail: str) -> None:
        """Count the next record of the input as one that can't be used."""
        self._rejected.append({"item": str(self.consumed), "reason": reason, "detail": detail})
        self.consumed += 1

    def finish(self) -> dict[str, Any]:
        """Close the last shard and write the index; what it holds."""
        if self.complete:
            return read_index(self.directory)
        try:
            if self.consumed > self._consumed_before:
                self._close_shard()
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        index = write_index(self.directory, self._entries, signature=self.signature)
        self.complete = True
        return index

    @property
    def _path(self) -> Path:
        return self.directory / f"shard-{len(self._entries):05d}.parquet"

    @property
    def _consumed_before(self) -> int:
        """What was taken until the last shard was closed."""
        return sum(entry["consumed"] for entry in self._entries)

    def _close_shard(self) -> None:
        """Close the open shard; it tells of all that was taken since the last one."""
        consumed = self.consumed - self._consumed_before
        path, file, self._open = self._path, self._open, None
        self._entries.append(_finish(path, file, consumed, self._rejected, self.signature))
        self._rejected = []


def write_shard(
    path: str | os.PathLike[str],
    records: Iterable[Record | TimelineError],
    *,
    first: int = 0,
    quality: int = 90,
    signature: str = "",
) -> dict[str, Any]:
    """Write one shard, `path` of the form FOLDER/shard-NAME.parquet; what the index says of it.

    For writers side by side: each writes shards of its own, and `write_index` makes a corpus of
    them. Rejected records are told in what is returned, by their number from `first` on; an error
    in place of a record is one that was rejected before. Where the shard has been written already
    no record is taken, and what is known of it is returned. Without a record to write there is no
    file, and still an entry.
    """
    path = Path(path)
    if not path.match("shard-*.parquet"):
        raise ValueError(f"a shard is named shard-NAME.parquet, not {path.name!r}")
    done = path.with_suffix(".json")
    if done.exists():
        entry = read_json(done)
        _same(path.parent, entry, signature)
        return entry
    rejected: list[dict[str, str]] = []
    consumed = 0
    file: ShardFile | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = ShardFile(path, quality)
        for record in records:
            try:
                if isinstance(record, TimelineError):
                    raise record
                file.add(record)
            except TimelineError as error:
                item = str(first + consumed)
                rejected.append({"item": item, "reason": error.reason, "detail": error.detail})
            consumed += 1
        closing, file = file, None
        return _finish(path, closing, consumed, rejected, signature)
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    finally:
        if file is not None:
            file.abandon()


def read_entries(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What is known of the shards of an unfinished corpus, in the order of their names."""
    return [read_json(path) for path in sorted(Path(directory).glob("shard-*.json"))]


def write_index(
    directory: str | os.PathLike[str], entries: Sequence[Mapping[str, Any]], *, signature: str = ""
) -> dict[str, Any]:
    """Make one corpus of shards, in this order: `rejects.jsonl`, and last `index.json`.

    entries: what `write_shard` returned, or `read_entries`. Returns what the index holds; where
    there is one already it stays as it is. Raises `CorpusError` where a shard isn't there as its
    entry says, or is of another signature.
    """
    directory = Path(directory)
    if (directory / "index.json").exists():
        found = read_index(directory)
        _same(directory, found, signature)
        _tidy(directory)
        return found
    shards = [entry for entry in entries if entry["records"]]
    for entry in entries:
        _same(directory, entry, signature)
    for entry in shards:
        path = directory / f"{entry['name']}.parquet"
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise CorpusError(f"{str(path)!r} isn't the shard that was written; write it anew")
    rejected = [item for entry in entries for item in entry["rejected"]]
    kinds: Counter[str] = Counter()
    for entry in shards:
        kinds.update(entry["kinds"])
    said = ("name", "records", "kinds", "bytes", "footer", "blake2b")
    index = {
        "version": VERSION,
        "signature": signature,
        "consumed": sum(entry["consumed"] for entry in entries),
        "records": sum(kinds.values()),
        "kinds": dict(sorted(kinds.items())),
        "rejected": dict(sorted(Counter(item["reason"] for item in rejected).items())),
        "shards": [{key: entry[key] for key in said} for entry in shards],
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(item) + "\n" for item in rejected)
        _write_text(directory / "rejects.jsonl", lines)
        _write_text(directory / "index.json", json.dumps(index, indent=1))
    except OSError as error:
        raise _unwritable(directory, error) from error
    _tidy(directory)
    return index


def write_shards(
    records: Iterable[Record],
    directory: str | os.PathLike[str],
    per_shard: int = 256,
    *,
    quality: int = 90,
    signature: str = "",
) -> dict[str, Any]:
    """Write a corpus and return its index; the same call again goes on where it was killed.

    `records` must give the same records in the same order each time; those already written are
    taken and dropped. Records whose frames or events can't be used are rejected and counted.
    """
    options: dict[str, Any] = {"per_shard": per_shard, "quality": quality, "signature": signature}
    with ShardWriter(directory, **options) as writer:
        if not writer.complete:
            for record in itertools.islice(records, writer.consumed, None):
                writer.add(record)
    return read_index(directory)


def _finish(
    path: Path,
    file: ShardFile | None,
    consumed: int,
    rejected: list[dict[str, str]],
    signature: str,
) -> dict[str, Any]:
    """Close a shard, if it holds a record; write what is known of it beside it."""
    entry: dict[str, Any] = {"name": path.stem, "records": 0, "kinds": {}, "bytes": 0}
    if file is not None and not file.records:
        file.abandon()
    elif file is not None:
        try:
            entry = file.close()
        except OSError:
            file.abandon()
            raise
    told = {"version": VERSION, "signature": signature, "consumed": consumed, "rejected": rejected}
    entry = {**told, **entry}
    _write_text(path.with_suffix(".json"), json.dumps(entry))
    return entry


def _tidy(directory: Path) -> None:
    """Take away what an unfinished corpus says of its shards: the index has it."""
    for path in directory.glob("shard-*.json"):
        path.unlink()


def _same(directory: Path, found: Mapping[str, Any], signature: str) -> None:
    if found["signature"] != signature:
        raise CorpusError(
            f"{str(directory)!r} holds another corpus ({found['signature']!r}, not {signature!r}); "
            "name an empty folder"
        )


def _unwritable(directory: Path, error: OSError) -> CorpusError:
    return CorpusError(
        f"the corpus can't be written: {str(directory)!r}: {error.strerror or error}; free some "
        "space and run the same command again, or name another folder"
    )


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
