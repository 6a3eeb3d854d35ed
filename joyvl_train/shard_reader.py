"""Corpus shards in: random access to the records of Parquet files (`joyvl_train.shards`)."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from joyvl_train.config import UserError
from joyvl_train.frames import Rate, Size, check_second, decode, resized, target_size
from joyvl_train.records import Record, RecordError, StreamLabels, TurnSample
from joyvl_train.shard_rows import LABELS, labels_of
from joyvl_train.timeline import TimelineError

VERSION = 1
FOOTER = "joyvl"
"""The key in a Parquet footer under which a shard says where its parts lie."""

_RECENT_GROUPS = 4


class CorpusError(UserError):
    """A corpus that can't be read or written as a whole."""


class ShardFrames:
    """A stream record's pictures, read from its shard as they are asked for.

    `frames_per_second` may be a divisor of the stored rate: the last picture of each part of the
    second is taken; None and `auto` stand for the stored one. `size` shrinks them when they are
    read.
    """

    def __init__(
        self,
        blobs: Blobs,
        by_second: Sequence[Sequence[int]],
        frames_per_second: Rate | None = None,
        size: Size = None,
        multiple: int = 1,
    ) -> None:
        stored = max((len(numbers) for numbers in by_second), default=1) or 1
        if frames_per_second is None or frames_per_second == "auto":
            frames_per_second = stored
        self.frames_per_second = frames_per_second
        if stored % self.frames_per_second:
            raise CorpusError(
                f"the shards hold {stored} frames a second, of which {self.frames_per_second} "
                f"can't be taken evenly; set data.frames_per_second to a divisor of {stored}"
            )
        self.as_stored = size is None and multiple == 1 and self.frames_per_second == stored
        self._blobs = blobs
        self._by_second = by_second
        self._step = stored // self.frames_per_second
        self._size = size
        self._multiple = multiple
        self._sizes: dict[int, tuple[int, int]] = {}

    @property
    def seconds(self) -> int:
        return len(self._by_second)

    def encoded(self, second: int) -> tuple[bytes, ...]:
        """The JPEGs of a second in their stored size."""
        return tuple(self._blobs[number] for number in self._numbers(second))

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        """Width and height of each picture of a second, from their heads alone."""
        return tuple(self._picture_size(number) for number in self._numbers(second))

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        numbers = self._numbers(second)
        pictures = {
            n: self._picture(_decoded(self._blobs[n], f"picture {n}")) for n in set(numbers)
        }
        return tuple(pictures[n] for n in numbers)

    def _numbers(self, second: int) -> list[int]:
        check_second(second, self.seconds)
        # From the end: pictures that are missing at the start are missing from the early places.
        return list(self._by_second[second])[:: -self._step][::-1]

    def _picture_size(self, number: int) -> tuple[int, int]:
        if number not in self._sizes:
            try:
                with Image.open(io.BytesIO(self._blobs[number]), formats=["JPEG"]) as image:
                    self._sizes[number] = target_size(*image.size, self._size, self._multiple)
            except UnidentifiedImageError:
                raise RecordError("corrupt frame", f"picture {number} is no picture") from None
            except (OSError, Image.DecompressionBombError) as error:
                raise RecordError("corrupt frame", f"picture {number}: {error}") from None
        return self._sizes[number]

    def _picture(self, image: Image.Image) -> Image.Image:
        return resized(image, target_size(*image.size, self._size, self._multiple))


class Blobs:
    """The pictures of one record in a mapped shard: equal-indexed places, lengths, checksums."""

    def __init__(
        self,
        data: mmap.mmap,
        runs: Sequence[Sequence[int]],
        sizes: Sequence[int],
        crcs: Sequence[int],
    ) -> None:
        """runs: [number of a picture, its place] of those that don't follow the one before."""
        self._data = data
        self._sizes = sizes
        self._crcs = crcs
        begin = {run[0]: run[1] for run in runs}
        at = 0
        self._places = []
        for number, size in enumerate(sizes):
            at = begin.get(number, at)
            self._places.append(at)
            at += size + 4  # each follows its own length

    def __getitem__(self, number: int) -> bytes:
        place = self._places[number]
        blob = self._data[place : place + self._sizes[number]]
        if zlib.crc32(blob) != self._crcs[number]:
            raise RecordError("corrupt frame", f"picture {number}")
        return blob

    def __len__(self) -> int:
        return len(self._places)

    def check(self) -> None:
        for number in range(len(self)):
            self[number]


def _decoded(blob: bytes, where: str) -> Image.Image:
    try:
        return decode(blob)
    except UnidentifiedImageError:
        raise RecordError("corrupt frame", f"{where} is no picture") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError("corrupt frame", f"{where}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """What a file of this version says; `CorpusError` where it says nothing."""
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict) or not isinstance(data.get("version"), int):
            raise ValueError("no index of a corpus")
    except (OSError, ValueError) as error:
        raise CorpusError(f"{str(path)!r} can't be read: {error}; write the corpus anew") from None
    if data["version"] > VERSION:
        raise CorpusError(
            f"{str(path)!r} is of version {data['version']}, newer than {VERSION}; update JoyVL"
        )
    return data


def read_index(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What `index.json` of a finished corpus holds; `CorpusError` where there is none."""
    path = Path(directory) / "index.json"
    if not path.exists():
        state = "is unfinished" if any(Path(directory).glob("shard-*")) else "holds no corpus"
        raise CorpusError(
            f"{str(directory)!r} {state} (no index.json); run the command that writes it"
        )
    index = read_json(path)
    try:
        whole = all(_is_entry(entry) for entry in index["shards"])
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise CorpusError(f"{str(path)!r} is no index of shards; write the corpus anew")
    return index


def _is_entry(entry: Mapping[str, Any]) -> bool:
    name, records, length = str(entry["name"]), int(entry["records"]), int(entry["bytes"])
    footer, _ = map(int, entry["footer"])
    return name != "" and "/" not in name and records > 0 and 0 < footer <= length


class Shard:
    """One file of a corpus, mapped: random access to its records.

    A record's labels are read with those of its row group, its pictures one by one. Everything is
    held against its checksum before it is looked at. Raises `RecordError` "missing shard",
    "truncated shard", "corrupt shard", "other version" where the file isn't as the index says.
    """

    def __init__(self, directory: Path, entry: Mapping[str, Any]) -> None:
        self.path = directory / f"{entry['name']}.parquet"
        where = repr(str(self.path))
        try:
            with self.path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordError("missing shard", f"{where}: {reason}") from None
        if len(self._data) != entry["bytes"]:
            detail = f"{where}: {len(self._data)} of {entry['bytes']} bytes"
            raise RecordError("truncated shard", detail)
        length, crc = entry["footer"]
        if zlib.crc32(self._data[-length:]) != crc:
            raise RecordError("corrupt shard", f"{where}: checksum of its footer")
        try:
            self._parquet = pq.ParquetFile(pa.BufferReader(pa.py_buffer(self._data)))
            told = json.loads(self._parquet.metadata.metadata[FOOTER.encode()])
            if told["version"] > VERSION:
                raise RecordError("other version", f"{where}: {told['version']}")
            self._groups: list[list[int]] = told["groups"]
            self._runs: list[list[list[int]]] = told["pictures"]
            self._ends = list(accumulate(group[0] for group in self._groups))
        except TimelineError:
            raise
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            raise RecordError("corrupt shard", f"{where}: {error!r}") from None
        self._recent: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def read(
        self,
        number: int,
        frames_per_second: Rate | None = None,
        size: Size = None,
        multiple: int = 1,
        *,
        check: bool = True,
    ) -> Record:
        """Record `number`, checked whole. `RecordError` where it isn't what was written.

        check=False: each picture is checked when it is read, and not before.
        """
        where = f"{self.path.stem} record {number}"
        row = self._row(number, where)
        labels = _labels(row, where)
        try:
            blobs = Blobs(self._data, self._runs[number], row["image_bytes"], row["image_crc32"])
            if check:
                blobs.check()
            if isinstance(labels, TurnSample):
                images = tuple(_decoded(blobs[n], where) for n in range(len(blobs)))
                if size is not None:
                    images = tuple(
                        resized(image, target_size(*image.size, size, multiple)) for image in images
                    )
                return replace(labels, images=images)
            index = row["image_index"]
            if index is None:
                return labels, None
            known = range(len(blobs))
            if not all(number in known for second in index for number in second):
                raise RecordError("corrupt record", f"{where}: a picture that it doesn't hold")
        except TimelineError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise RecordError("corrupt record", f"{where}: {error!r}") from None
        return labels, ShardFrames(blobs, index, frames_per_second, size, multiple)

    def told(self, number: int) -> StreamLabels | TurnSample:
        """What record `number` says, without its pictures; `RecordError` as from `read`."""
        where = f"{self.path.stem} record {number}"
        return _labels(self._row(number, where), where)

    def _row(self, number: int, where: str) -> dict[str, Any]:
        """The labels of a record; the row groups that were read last are kept."""
        group = bisect_right(self._ends, number)
        try:
            if group not in self._recent:
                _, start, length, crc = self._groups[group]
                if zlib.crc32(self._data[start : start + length]) != crc:
                    raise RecordError("corrupt record", f"{where}: checksum of its row group")
                table = self._parquet.read_row_group(group, LABELS.names, use_threads=False)
                self._recent[group] = table
                if len(self._recent) > _RECENT_GROUPS:
                    self._recent.popitem(last=False)
            first = self._ends[group - 1] if group else 0
            row: dict[str, Any] = self._recent[group].slice(number - first, 1).to_pylist()[0]
        except TimelineError:
            raise
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            raise RecordError("corrupt record", f"{where}: {error!r}") from None
        return row


def _labels(row: Mapping[str, Any], where: str) -> StreamLabels | TurnSample:
    try:
        return labels_of(row)
    except RecordError as error:
        raise RecordError(error.reason, f"{where}: {error.detail}") from None


def read_shards(directory: str | os.PathLike[str]) -> Iterator[Record]:
    """Every record of a corpus in order; raises on the first one that is broken.

    `joyvl_train.corpus.open_corpus` gives random access and goes on past broken records.
    """
    directory = Path(directory)
    for entry in read_index(directory)["shards"]:
        shard = Shard(directory, entry)
        for number in range(len(shard)):
            yield shard.read(number)


def file_hash(path: Path) -> str:
    """blake2b of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def check_hashes(directory: str | os.PathLike[str]) -> list[str]:
    """The names of the shards whose bytes are not those that were written."""
    directory = Path(directory)
    bad = []
    for entry in read_index(directory)["shards"]:
        path = directory / f"{entry['name']}.parquet"
        if not path.is_file() or file_hash(path) != entry["blake2b"]:
            bad.append(entry["name"])
    return bad
