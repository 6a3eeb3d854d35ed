"""One shard that is being written: records in, a Parquet file out (`joyvl_train.shards`).

Pictures are stored plain, so that each lies in the file byte for byte, and the footer says where.
Thus the pictures of one second are read without the others, however long a record is.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from joyvl_train.frames import Frames, VideoFrames, encode
from joyvl_train.records import Record, RecordError, TurnSample, settle
from joyvl_train.shard_reader import FOOTER, VERSION, ShardFrames, file_hash
from joyvl_train.shard_rows import IMAGE, LABELS, SCHEMA, leaves, stream_row, turn_row
from joyvl_train.timeline import TimelineError

MAX_RECORD_BYTES = 1 << 30
MAX_LABEL_BYTES = 1 << 26
GROUP_BYTES = 1 << 23
GROUP_LABEL_BYTES = 1 << 17
"""A record's labels are read together with those of its row group."""

# Every setting that shapes the file is named, so that equal records give equal bytes.
_SETTINGS: dict[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "compression": dict.fromkeys(leaves(LABELS), "snappy"),  # the quickest to read in small bits
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_index": False,
    "write_page_checksum": False,
    "store_schema": True,
}


class ShardFile:
    """A shard under a temporary name; `close` gives it its own.

    Records are gathered into row groups of some megabytes. A longer one ends its row group, so that
    memory holds one record of at most `MAX_RECORD_BYTES` beside that.
    """

    def __init__(self, path: Path, quality: int) -> None:
        self.path = path
        self.kinds: Counter[str] = Counter()
        self._quality = quality
        self._temporary = path.with_name(path.name + ".tmp")
        self._file: BinaryIO = self._temporary.open("w+b")
        self._writer = pq.ParquetWriter(self._file, SCHEMA, **_SETTINGS)
        self._groups: list[list[int]] = []
        self._places: list[list[list[int]]] = []
        self._rows: list[pa.Table] = []
        self._label_bytes = 0
        self._pictures = _Pictures()

    @property
    def records(self) -> int:
        return sum(self.kinds.values())

    def add(self, record: Record) -> None:
        """Take a record; `TimelineError`, and nothing is taken, where it can't be used."""
        before = len(self._pictures.sizes)
        try:
            row = self._row(record)
        except TimelineError:
            self._pictures.cut(before)
            raise
        self._rows.append(row)
        self._pictures.of_row.append(len(self._pictures.sizes) - before)
        self.kinds["turn" if isinstance(record, TurnSample) else "stream"] += 1
        self._label_bytes += row.nbytes
        if len(self._pictures.data) >= GROUP_BYTES or self._label_bytes >= GROUP_LABEL_BYTES:
            self._write_group()

    def close(self) -> dict[str, Any]:
        """Finish the file and rename it; what the index says of it."""
        if self._rows:
            self._write_group()
        told = {"version": VERSION, "groups": self._groups, "pictures": self._places}
        self._writer.add_key_value_metadata({FOOTER: json.dumps(told)})
        start = self._file.tell()
        self._writer.close()
        self._file.seek(start)
        footer = self._file.read()
        self._file.close()
        entry = {
            "name": self.path.stem,
            "records": self.records,
            "kinds": dict(sorted(self.kinds.items())),
            "bytes": start + len(footer),
            "footer": [len(footer), zlib.crc32(footer)],
            "blake2b": file_hash(self._temporary),
        }
        self._temporary.replace(self.path)
        return entry

    def abandon(self) -> None:
        """Give the file up; nothing of it stays."""
        with suppress(OSError, ValueError):  # where the disk is full, there is no end to write
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _row(self, record: Record) -> pa.Table:
        """The labels of a record; its pictures are gathered on the way."""
        first = len(self._pictures.sizes)
        index: list[list[int]] | None = None
        if isinstance(record, TurnSample):
            self._pictures.take(encode(i.convert("RGB"), self._quality) for i in record.images)
            row = turn_row(record)
        else:
            labels, frames = record
            if frames is not None:
                labels = replace(labels, timeline=settle(labels.timeline, frames))
                index = []
                # A record may tell of a video's start alone: the rest is none of its pictures.
                stop = min(frames.seconds, labels.timeline.clip.seconds or frames.seconds)
                self._pictures.take(self._by_second(frames, stop, index))
            row = stream_row(labels)
        row["image_index"] = index
        row["image_bytes"] = self._pictures.sizes[first:]
        row["image_crc32"] = self._pictures.crcs[first:]
        try:
            table = pa.Table.from_pylist([row], LABELS)
        except UnicodeError as error:
            raise RecordError("not UTF-8", f"record {row['id']!r}: {error}") from None
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise TimelineError("shape", f"record {row['id']!r}: {error}") from None
        if table.nbytes > MAX_LABEL_BYTES:
            raise RecordError("too large", f"{table.nbytes} bytes of labels")
        return table

    def _by_second(self, frames: Frames, seconds: int, index: list[list[int]]) -> Iterator[bytes]:
        """The pictures of a stream's first seconds that differ from the one before; all are told in
        `index`."""
        last: bytes | None = None
        count = 0
        for second in range(seconds):
            numbers = []
            for picture in _jpegs(frames, second, self._quality):
                if picture != last:
                    yield picture
                    last = picture
                    count += 1
                numbers.append(count - 1)
            index.append(numbers)

    def _write_group(self) -> None:
        pictures = self._pictures
        table = pa.concat_tables(self._rows).combine_chunks()
        table = table.append_column(SCHEMA.field("images"), pictures.column())
        start = self._file.tell()
        self._writer.write_table(table, row_group_size=len(self._rows))
        self._file.flush()
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as written:
            places = pictures.places(written, start)
            # Labels come first; all before the first picture is theirs.
            stop = next((runs[0][1] for runs in places if runs), len(written))
            labels = written[start:stop]
        self._groups.append([len(self._rows), start, len(labels), zlib.crc32(labels)])
        self._places += places
        self._rows = []
        self._label_bytes = 0
        self._pictures = _Pictures()


class _Pictures:
    """The pictures of a row group that is being gathered, end to end, row by row."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.sizes: list[int] = []
        self.crcs: list[int] = []
        self.of_row: list[int] = []

    def take(self, pictures: Iterator[bytes]) -> None:
        """Those of one record; `RecordError` where they are too many."""
        start = len(self.data)
        for picture in pictures:
            self.data += picture
            self.sizes.append(len(picture))
            self.crcs.append(zlib.crc32(picture))
            if len(self.data) - start > MAX_RECORD_BYTES:
                raise RecordError("too large", f"more than {MAX_RECORD_BYTES} bytes of pictures")

    def cut(self, count: int) -> None:
        """Keep the first `count`."""
        del self.data[sum(self.sizes[:count]) :]
        del self.sizes[count:]
        del self.crcs[count:]

    def column(self) -> pa.Array:
        """The column of images; the data isn't copied."""
        ends = pa.py_buffer(array("i", accumulate(self.sizes, initial=0)))
        buffers = [None, ends, pa.py_buffer(self.data)]
        data = pa.Array.from_buffers(pa.binary(), len(self.sizes), buffers)
        paths = pa.nulls(len(self.sizes), pa.string())
        images = pa.StructArray.from_arrays([data, paths], fields=list(IMAGE))
        rows = pa.array(accumulate(self.of_row, initial=0), pa.int32())
        return pa.ListArray.from_arrays(rows, images)

    def places(self, written: mmap.mmap, at: int) -> list[list[list[int]]]:
        """For each row where its pictures lie in the file that was written from `at` on.

        In Parquet each follows its own length, in four bytes; where a page ends, the head of the
        next comes between two. Told are runs without one: [number of the first picture, its place].
        """
        ends = pairwise(accumulate(self.sizes, initial=0))
        found = []
        for count in self.of_row:
            runs: list[list[int]] = []
            for number in range(count):
                start, stop = next(ends)
                wanted = struct.pack("<I", stop - start) + self.data[start:stop]
                follows = written[at : at + len(wanted)] == wanted
                if not follows:
                    at = written.find(wanted, at)
                    assert at >= 0, "pictures are stored plain"
                if not follows or not number:
                    runs.append([number, at + 4])
                at += len(wanted)
            found.append(runs)
        return found


def _jpegs(frames: Frames, second: int, quality: int) -> tuple[bytes, ...]:
    """A second's pictures as JPEG; what is stored as JPEG already isn't encoded again."""
    if isinstance(frames, VideoFrames):
        return frames.encoded(second)
    if isinstance(frames, ShardFrames) and frames.as_stored:
        return frames.encoded(second)
    return tuple(encode(image.convert("RGB"), quality) for image in frames.frames(second))
