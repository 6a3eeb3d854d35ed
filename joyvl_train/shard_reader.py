"""Corpus shards in: random access to the records of tar files (`joyvl_train.shards` says how)."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from joyvl_train.config import UserError
from joyvl_train.frames import Rate, Size, check_second, decode, resized, target_size
from joyvl_train.records import Record, RecordError, TurnSample
from joyvl_train.timeline import Timeline, TimelineError, from_json

VERSION = 1
BLOCK = tarfile.BLOCKSIZE


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
    """The pictures of one record: equal-indexed lengths and checksums, from `start` in the tar."""

    def __init__(self, data: mmap.mmap, start: int, sizes: Sequence[int], crcs: Sequence[int]):
        self._data = data
        self._crcs = crcs
        self._sizes = sizes
        self._offsets = []
        for size in sizes:
            self._offsets.append(start + BLOCK)
            start += BLOCK + padded(size)

    def __getitem__(self, number: int) -> bytes:
        offset = self._offsets[number]
        blob = self._data[offset : offset + self._sizes[number]]
        if zlib.crc32(blob) != self._crcs[number]:
            raise RecordError("corrupt frame", f"picture {number}")
        return blob

    def check(self) -> None:
        for number in range(len(self._offsets)):
            self[number]


def _decoded(blob: bytes, where: str) -> Image.Image:
    try:
        return decode(blob)
    except UnidentifiedImageError:
        raise RecordError("corrupt frame", f"{where} is no picture") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError("corrupt frame", f"{where}: {error}") from None


def padded(size: int) -> int:
    """Bytes that `size` bytes take in a tar."""
    return -(-size // BLOCK) * BLOCK


def read_json(path: Path) -> dict[str, Any]:
    """An index of this version; `CorpusError` where it isn't one."""
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
        places = [(str(e["name"]), int(e["records"]), int(e["bytes"])) for e in index["shards"]]
        whole = all(name and "/" not in name and records > 0 for name, records, _ in places)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise CorpusError(f"{str(path)!r} is no index of shards; write the corpus anew")
    return index


class Shard:
    """One tar of a corpus, mapped: random access to its records.

    Raises `RecordError` "missing shard", "truncated shard" where it isn't as the index says.
    """

    def __init__(self, directory: Path, entry: Mapping[str, Any]) -> None:
        self.path = directory / f"{entry['name']}.tar"
        try:
            with self.path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordError("missing shard", f"{str(self.path)!r}: {reason}") from None
        if len(self._data) != entry["bytes"]:
            detail = f"{str(self.path)!r}: {len(self._data)} of {entry['bytes']} bytes"
            raise RecordError("truncated shard", detail)
        try:
            self._records = read_json(self.path.with_suffix(".json"))["records"]
        except (CorpusError, KeyError) as error:
            raise RecordError("missing shard", f"{str(self.path)!r}: {error}") from None

    def __len__(self) -> int:
        return len(self._records)

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
        where = f"{self.path.name} record {number}"
        try:
            start, data = self._parsed(number, where)
            blobs = Blobs(self._data, start, data["sizes"], data["crcs"])
            if check:
                blobs.check()
            if data["kind"] == "turn":
                images = tuple(_decoded(blobs[n], where) for n in range(len(data["sizes"])))
                if size is not None:
                    images = tuple(
                        resized(image, target_size(*image.size, size, multiple)) for image in images
                    )
                return TurnSample(images=images, **data["sample"])
            timeline = from_json(data["timeline"])
            if data["seconds"] is None:
                return timeline, None
            known = range(len(data["sizes"]))
            if not all(number in known for second in data["seconds"] for number in second):
                raise RecordError("corrupt record", f"{where}: a picture that it doesn't hold")
        except TimelineError:
            raise
        except (KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
            raise RecordError("corrupt record", f"{where}: {error!r}") from None
        frames = ShardFrames(blobs, data["seconds"], frames_per_second, size, multiple)
        return timeline, frames

    def told(self, number: int) -> Timeline | TurnSample:
        """What record `number` says, without its pictures; `RecordError` as from `read`."""
        where = f"{self.path.name} record {number}"
        try:
            _, data = self._parsed(number, where)
            if data["kind"] == "turn":
                return TurnSample(**data["sample"])
            return from_json(data["timeline"])
        except TimelineError:
            raise
        except (KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
            raise RecordError("corrupt record", f"{where}: {error!r}") from None

    def _parsed(self, number: int, where: str) -> tuple[int, Any]:
        """Where a record begins, and its JSON."""
        start, at, length, crc = self._records[number]
        text = self._data[at : at + length]
        if zlib.crc32(text) != crc:
            raise RecordError("corrupt record", f"{where}: checksum")
        data = json.loads(text)
        if data["version"] > VERSION:
            raise RecordError("other version", f"{where}: {data['version']}")
        return start, data


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
        path = directory / f"{entry['name']}.tar"
        if not path.is_file() or file_hash(path) != entry["blake2b"]:
            bad.append(entry["name"])
    return bad
