"""Corpus shards in and out.

A corpus is a folder of tar files in WebDataset form, so that other tools read it too:

    shard-00000.tar     00000000.00000.jpg 00000000.00001.jpg ... 00000000.json, 00000001....
    shard-00000.json    where each record lies in the tar, what was rejected, the tar's hash
    ...
    index.json          the shards with their counts and hashes; written last
    rejects.jsonl       what was not written, each with its reason

A record is a stream (a timeline and its pictures by the second, or the timeline alone) or a
turn-based sample. Its pictures come first and its JSON last, which lists their lengths and
checksums. Every file is written under a temporary name and renamed, so that a killed writer goes
on after the last whole shard.
"""

from __future__ import annotations

import itertools
import json
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from joyvl_train.frames import Frames, VideoFrames, encode
from joyvl_train.records import Record, RecordError, TurnSample, settle
from joyvl_train.shard_reader import (
    BLOCK,
    VERSION,
    CorpusError,
    Shard,
    ShardFrames,
    check_hashes,
    file_hash,
    padded,
    read_index,
    read_json,
    read_shards,
)
from joyvl_train.timeline import TimelineError, to_json

__all__ = [
    "CorpusError",
    "Record",
    "RecordError",
    "Shard",
    "ShardFrames",
    "ShardWriter",
    "TurnSample",
    "check_hashes",
    "read_index",
    "read_shards",
    "write_shards",
]

MAX_RECORD_BYTES = 1 << 30
MAX_JSON_BYTES = 1 << 26


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
        self._shards: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._records: list[list[int]] = []
        self._kinds: Counter[str] = Counter()
        self._rejected: list[dict[str, str]] = []
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob("*.tmp"):
                left.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        self._resume()

    def _resume(self) -> None:
        if (self.directory / "index.json").exists():
            found = read_index(self.directory)
            self._same(found)
            self.complete = True
            self.consumed = found["consumed"]
            return
        for number in itertools.count():
            path = self.directory / f"shard-{number:05d}.json"
            if not path.exists():
                break
            shard = read_json(path)
            self._same(shard)
            self._shards.append(shard)
            self.consumed = shard["consumed"]

    def _same(self, found: Mapping[str, Any]) -> None:
        if found["signature"] != self.signature:
            raise CorpusError(
                f"{str(self.directory)!r} holds another corpus ({found['signature']!r}, not "
                f"{self.signature!r}); name an empty folder"
            )

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
        elif self._file is not None:
            self._file.close()

    def add(self, record: Record) -> bool:
        """Write a record; False where it was rejected, with its reason in the rejects file."""
        if self.complete:
            raise CorpusError(f"{str(self.directory)!r} is complete; name an empty folder")
        try:
            if self._file is None:
                self._file = (self.directory / f"{self._name}.tar.tmp").open("w+b")
            start = self._file.tell()
            try:
                self._write(self._file, record)
            except TimelineError as error:
                self._file.seek(start)
                self._file.truncate()
                self.reject(error.reason, error.detail)
                return False
            self.consumed += 1
            if len(self._records) == self.per_shard:
                self._close_shard()
        except OSError as error:
            raise self._unwritable(error) from error
        return True

    def reject(self, reason: str, detail: str) -> None:
        """Count the next record of the input as one that can't be used."""
        item = {"item": str(self.consumed), "reason": reason, "detail": detail}
        self._rejected.append(item)
        self.consumed += 1

    def finish(self) -> dict[str, Any]:
        """Close the last shard and write `rejects.jsonl` and `index.json`; what the index holds."""
        if self.complete:
            return read_index(self.directory)
        try:
            if self._records:
                self._close_shard()
            elif self._file is not None:
                self._file.close()
                Path(self._file.name).unlink()
                self._file = None
            rejected = [item for shard in self._shards for item in shard["rejected"]]
            rejected += self._rejected
            lines = "".join(json.dumps(item) + "\n" for item in rejected)
            _write_text(self.directory / "rejects.jsonl", lines)
            kinds: Counter[str] = Counter()
            for shard in self._shards:
                kinds.update(shard["kinds"])
            index = {
                "version": VERSION,
                "signature": self.signature,
                "consumed": self.consumed,
                "records": sum(kinds.values()),
                "kinds": dict(kinds),
                "rejected": dict(Counter(item["reason"] for item in rejected)),
                "shards": [
                    {
                        "name": shard["name"],
                        "records": len(shard["records"]),
                        "bytes": shard["bytes"],
                        "blake2b": shard["blake2b"],
                    }
                    for shard in self._shards
                ],
            }
            _write_text(self.directory / "index.json", json.dumps(index, indent=1))
        except OSError as error:
            raise self._unwritable(error) from error
        self.complete = True
        return index

    @property
    def _name(self) -> str:
        return f"shard-{len(self._shards):05d}"

    def _write(self, file: BinaryIO, record: Record) -> None:
        start = file.tell()
        key = f"{len(self._records):08d}"
        data, pictures = self._parts(record)
        sizes: list[int] = []
        crcs: list[int] = []
        for number, picture in enumerate(pictures):
            _write_member(file, f"{key}.{number:05d}.jpg", picture)
            sizes.append(len(picture))
            crcs.append(zlib.crc32(picture))
            if file.tell() - start > MAX_RECORD_BYTES:
                raise RecordError("too large", f"more than {MAX_RECORD_BYTES} bytes of pictures")
        data = {"version": VERSION, **data, "sizes": sizes, "crcs": crcs}
        text = json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(text) > MAX_JSON_BYTES:
            raise RecordError("too large", f"{len(text)} bytes of JSON")
        at = file.tell() + BLOCK
        _write_member(file, f"{key}.json", text)
        self._records.append([start, at, len(text), zlib.crc32(text)])
        self._kinds[data["kind"]] += 1

    def _parts(self, record: Record) -> tuple[dict[str, Any], Iterator[bytes]]:
        """A record's JSON, filled in while its pictures are taken one by one."""
        data: dict[str, Any]
        if isinstance(record, TurnSample):
            plain = {k: v for k, v in vars(record).items() if k not in ("images", "weights")}
            data = {"kind": "turn", "sample": plain}
            return data, (encode(image.convert("RGB"), self.quality) for image in record.images)
        timeline, frames = record
        if frames is None:
            return {"kind": "stream", "timeline": to_json(timeline), "seconds": None}, iter(())
        timeline = settle(timeline, frames)
        seconds: list[list[int]] = []
        data = {"kind": "stream", "timeline": to_json(timeline), "seconds": seconds}
        return data, self._by_second(frames, seconds)

    def _by_second(self, frames: Frames, seconds: list[list[int]]) -> Iterator[bytes]:
        """The pictures of a stream that differ from the one before; all are told in `seconds`."""
        last: bytes | None = None
        count = 0
        for second in range(frames.seconds):
            numbers = []
            for picture in _jpegs(frames, second, self.quality):
                if picture != last:
                    yield picture
                    last = picture
                    count += 1
                numbers.append(count - 1)
            seconds.append(numbers)

    def _close_shard(self) -> None:
        file = self._file
        assert file is not None, "a shard that holds records has a file"
        file.write(bytes(2 * BLOCK))
        length = file.tell()
        file.close()
        self._file = None
        name = self._name
        digest = file_hash(self.directory / f"{name}.tar.tmp")
        shard = {
            "version": VERSION,
            "name": name,
            "signature": self.signature,
            "consumed": self.consumed,
            "kinds": dict(self._kinds),
            "bytes": length,
            "blake2b": digest,
            "rejected": self._rejected,
            "records": self._records,
        }
        (self.directory / f"{name}.tar.tmp").replace(self.directory / f"{name}.tar")
        _write_text(self.directory / f"{name}.json", json.dumps(shard))
        self._shards.append(shard)
        self._records = []
        self._kinds = Counter()
        self._rejected = []

    def _unwritable(self, error: OSError) -> CorpusError:
        return CorpusError(
            f"the corpus can't be written: {str(self.directory)!r}: {error.strerror}; free some "
            "space and run the same command again, or name another folder"
        )


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


def _jpegs(frames: Frames, second: int, quality: int) -> tuple[bytes, ...]:
    """A second's pictures as JPEG; what is stored as JPEG already isn't encoded again."""
    if isinstance(frames, VideoFrames):
        return frames.encoded(second)
    if isinstance(frames, ShardFrames) and frames.as_stored:
        return frames.encoded(second)
    return tuple(encode(image.convert("RGB"), quality) for image in frames.frames(second))


def _write_member(file: BinaryIO, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    file.write(data)
    file.write(bytes(padded(len(data)) - len(data)))


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
