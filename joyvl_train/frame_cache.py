"""Decoded videos on disk: files of small JPEGs, named by what is in the video and how it is wanted.

A cache file holds the pictures of a whole video, or of one stretch of `STRETCH` seconds of it, for
clips that are a small part of their video: each stretch is decoded once, whatever clips lie in it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import time
import uuid
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from joyvl_train.config import UserError
from joyvl_train.decoding import Decoder, Decoding, DecordError, decoders
from joyvl_train.pictures import Size, encode, resized, target_size
from joyvl_train.video import FrameError, Probe, probe, regular_file

Rate = int | Literal["auto"]
"""Frames a second, or `auto`: by the clip's length (`auto_rate`)."""

STRETCH = 32
"""Seconds of a video that one cache file holds where it doesn't hold all of it."""

_VERSION = 2
_MAGIC = b"JoyVLfr\1"
_TRAILER = struct.Struct("<QQQ16s8s")  # blobs, index and footer end; digest of the last two; magic
_BLOB = struct.Struct("<QII")  # offset, length, crc32
_NONE = 0xFFFFFFFF


class CacheError(UserError):
    """The cache folder can't be used; the message says which and how to mend it."""


class CacheFileError(Exception):
    """A cache file that isn't what was written; it is rebuilt."""


def auto_rate(duration: float) -> int:
    """Frames a second by a clip's length in seconds, the published rule: 4, 2 or 1.

    >>> [auto_rate(d) for d in (63.9, 64, 159, 160)]
    [4, 2, 2, 1]
    """
    if duration < 64:
        return 4
    return 2 if duration < 160 else 1


@dataclass(frozen=True)
class View:
    """How a video is wanted; a cache file holds one view of one content."""

    frames_per_second: Rate
    size: Size
    multiple: int
    quality: int
    decoder: Decoder

    def key(self, content: str, stretch: int | None = None) -> str:
        """The name of the cache file of a video, or of one stretch of it."""
        size = list(self.size) if isinstance(self.size, tuple) else self.size
        what = [_VERSION, content, self.frames_per_second, size, self.multiple, self.quality]
        if self.decoder != "auto":
            what.append(self.decoder)
        if stretch is not None:
            what += ["stretch", STRETCH, stretch]
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=20).hexdigest()


def content_hash(path: Path, cache_dir: Path) -> str:
    """blake2b of a file's whole content, remembered while path, size and times stay the same."""
    status = path.stat()
    stamp = [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
    name = hashlib.blake2b(str(path).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    memo = cache_dir / "hashes" / name[:2] / f"{name}.json"
    try:
        known = json.loads(memo.read_text())
        if known["stamp"] == stamp:
            return str(known["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no memo, or a broken one: the hash is worked out again
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
    except OSError as error:
        raise FrameError("unreadable file", f"{str(path)!r}: {error.strerror}") from None
    # A file that changed just now may change again within the same tick of its clock.
    if time.time_ns() - status.st_mtime_ns > 2_000_000_000:
        write_file(memo, json.dumps({"stamp": stamp, "hash": digest}).encode())
    return digest


def write_file(path: Path, data: bytes) -> None:
    """Write under a temporary name, then rename; `CacheError` where that fails."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    _make_folder(path)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cache_error(path, error) from error


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cache_error(path, error) from error


def _cache_error(path: Path, error: OSError) -> CacheError:
    return CacheError(
        f"the frame cache can't be written: {str(path.parent)!r}: {error.strerror}; "
        "free some space, or name another folder (data.cache_dir)"
    )


@dataclass(frozen=True)
class Cache:
    """The cache files of one view of a video's content."""

    video: Path
    folder: Path
    view: View
    content: str

    def path(self, stretch: int | None = None) -> Path:
        """The file of the whole video, or of one stretch of it."""
        key = self.view.key(self.content, stretch)
        return self.folder / "frames" / key[:2] / f"{key}.frames"

    def open(self, stretch: int | None = None) -> CacheFile | None:
        """The file, if it is there as it was written."""
        try:
            return CacheFile(self.path(stretch))
        except (CacheFileError, FileNotFoundError, NotADirectoryError):
            return None

    def length(self, stretch: int) -> float:
        """The video's length in seconds, told by what is kept of it, if anything is."""
        known = self.open() or self.open(stretch)
        return known.footer["duration"] if known is not None else probe(self.video).duration

    def build(self) -> None:
        """Decode the whole video."""
        source = probe(self.video)
        names = decoders(source, self.view.decoder)
        for name in names:
            try:
                _write(self.path(), Decoding(source, _rate(source, self.view), name), self.view)
                return
            except DecordError as error:
                if name == names[-1]:
                    where = repr(str(self.video))
                    raise FrameError("damaged", f"{where}: decord: {error}") from None

    def build_stretches(self, numbers: Sequence[int]) -> None:
        """Decode these stretches, each from the key frame before it on: what is kept of one never
        hangs on which others were asked for with it."""
        source = probe(self.video)
        for number in numbers:
            seconds = range(number * STRETCH, (number + 1) * STRETCH)
            decoding = Decoding(source, _rate(source, self.view), "pyav", seconds)
            _write(self.path(number), decoding, self.view)

    def rebuild(self, stretch: int | None) -> CacheFile:
        """A file that got lost or damaged, built anew from the same video."""
        if content_hash(regular_file(self.video), self.folder) != self.content:
            raise FrameError("unreadable file", f"{str(self.video)!r} changed after it was opened")
        if stretch is None:
            self.build()
        else:
            self.build_stretches([stretch])
        return CacheFile(self.path(stretch))


def _rate(source: Probe, view: View) -> int:
    rate = view.frames_per_second
    return auto_rate(source.duration) if rate == "auto" else rate


def _write(cache: Path, decoding: Decoding, view: View) -> None:
    """Decode into a cache file: blobs, index, footer, trailer."""
    source = decoding.source
    size = target_size(*source.display_size, view.size, view.multiple)
    temporary = cache.with_name(f"{cache.name}.{uuid.uuid4().hex[:12]}.tmp")
    blobs = bytearray()
    slots = array("I")
    _make_folder(cache)
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC)
            offset = len(_MAGIC)
            for blob, fresh in _encoded(decoding, size, view.quality):
                if blob is None:
                    slots.append(_NONE)
                    continue
                if fresh:
                    blobs += _BLOB.pack(offset, len(blob), zlib.crc32(blob))
                    file.write(blob)
                    offset += len(blob)
                slots.append(len(blobs) // _BLOB.size - 1)
            footer = {
                "duration": source.duration,
                "frames_per_second": decoding.frames_per_second,
                "size": size,
                "decoder": decoding.decoder,
                "damaged": decoding.damaged,
                "slots": len(slots),
            }
            index = bytes(blobs) + struct.pack(f"<{len(slots)}I", *slots)
            tail = index + json.dumps(footer).encode()
            file.write(tail)
            digest = hashlib.blake2b(tail, digest_size=16).digest()
            end = offset + len(tail)
            file.write(_TRAILER.pack(offset, offset + len(index), end, digest, _MAGIC))
        temporary.replace(cache)
    except OSError as error:
        raise _cache_error(cache, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _encoded(
    decoding: Decoding, size: tuple[int, int], quality: int
) -> Iterator[tuple[bytes | None, bool]]:
    """Each slot's JPEG, and whether it is another one than the last slot's."""
    shown: Image.Image | None = None
    blob: bytes | None = None
    for image in decoding:
        fresh = image is not shown
        if fresh and image is not None:
            shown = image
            blob = encode(resized(image, size), quality)
        yield blob, fresh


class CacheFile:
    """A cache file, mapped; index and footer are checked when opened, each blob when read."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length < len(_MAGIC) + _TRAILER.size:
                raise CacheFileError(path)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = length - _TRAILER.size
        index, footer, end, digest, magic = _TRAILER.unpack_from(self._map, start)
        if magic != _MAGIC or end != start or not len(_MAGIC) <= index <= footer <= end:
            raise CacheFileError(path)
        tail = self._map[index:end]
        if hashlib.blake2b(tail, digest_size=16).digest() != digest:
            raise CacheFileError(path)
        self.footer: dict[str, Any] = json.loads(tail[footer - index :])
        self._slots = footer - 4 * self.footer["slots"]
        self._index = index
        self._path = path

    def blob(self, slot: int) -> bytes | None:
        (number,) = struct.unpack_from("<I", self._map, self._slots + 4 * slot)
        if number == _NONE:
            return None
        offset, length, crc = _BLOB.unpack_from(self._map, self._index + _BLOB.size * number)
        blob = self._map[offset : offset + length]
        if zlib.crc32(blob) != crc:
            raise CacheFileError(self._path)
        return blob
