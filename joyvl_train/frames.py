"""The pictures of a clip, one-second group by one-second group, decoded once.

`open_video` decodes a video through `joyvl_train.video` the first time, keeps small JPEGs in a
cache file named by what is in the video and how it is wanted, and reads any second of it in
microseconds from then on. `ImageFrames` is the same view of a folder of pictures. Both are
`Frames`, as are rendered worlds and the records of corpus shards.
"""

from __future__ import annotations

import hashlib
import json
import math
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
from typing import Any, Literal, Protocol

from PIL import Image

from joyvl_train.config import UserError
from joyvl_train.pictures import (
    MAX_SIDE,
    Size,
    decode,
    encode,
    inside,
    picture_size,
    read_picture,
    resized,
    target_size,
)
from joyvl_train.video import (
    Decoder,
    Decoding,
    DecordError,
    FrameError,
    Probe,
    decoders,
    probe,
    regular_file,
)

__all__ = [
    "CacheError",
    "FirstSeconds",
    "FrameError",
    "Frames",
    "ImageFrames",
    "Rate",
    "Size",
    "VideoFrames",
    "auto_rate",
    "check_second",
    "check_view",
    "content_hash",
    "decode",
    "encode",
    "inside",
    "open_video",
    "picture_size",
    "read_picture",
    "resized",
    "target_size",
]

Rate = int | Literal["auto"]
"""Frames a second, or `auto`: by the clip's length (`auto_rate`)."""

_VERSION = 1
_MAGIC = b"JoyVLfr\1"
_TRAILER = struct.Struct("<QQQ16s8s")  # blobs, index and footer end; digest of the last two; magic
_BLOB = struct.Struct("<QII")  # offset, length, crc32
_NONE = 0xFFFFFFFF


class CacheError(UserError):
    """The cache folder can't be used; the message says which and how to mend it."""


class _CacheFileError(Exception):
    """A cache file that isn't what was written; it is rebuilt."""


class Frames(Protocol):
    """The pictures of a clip by the second: video, pictures on disk, shard record or world.

    Some also offer `sizes(t)`: (width, height) of what `frames(t)` gives, without decoding it.

    `frames(t)` are those of second t, [t, t+1), in order, for t in [0, seconds): as many as the
    run's rate asks for; fewer, or none, only where no picture is there yet at the start, or where
    the source has none for that second.
    """

    @property
    def seconds(self) -> int: ...

    def frames(self, second: int) -> tuple[Image.Image, ...]: ...


def auto_rate(duration: float) -> int:
    """Frames a second by a clip's length in seconds, the published rule: 4, 2 or 1.

    >>> [auto_rate(d) for d in (63.9, 64, 159, 160)]
    [4, 2, 2, 1]
    """
    if duration < 64:
        return 4
    return 2 if duration < 160 else 1


def check_view(frames_per_second: Rate, size: Size, multiple: int, quality: int) -> None:
    """`ValueError` where a setting is no setting."""
    if frames_per_second != "auto" and not 1 <= frames_per_second <= 60:
        raise ValueError(f"frames a second: a whole number from 1 to 60, not {frames_per_second!r}")
    sides = size if isinstance(size, tuple) else () if size is None else (size,)
    for side in sides:
        if not 1 <= side <= MAX_SIDE:
            raise ValueError(f"frame size: sides from 1 to {MAX_SIDE} pixels, not {size!r}")
    if isinstance(size, tuple) and any(side % multiple for side in size):
        raise ValueError(f"frame size: {size!r} is no multiple of {multiple}")
    if not 1 <= multiple <= 512:
        raise ValueError(f"frame size: multiple of 1 to 512, not {multiple!r}")
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality: 1 to 100, not {quality!r}")


def check_second(second: int, seconds: int) -> None:
    if not 0 <= second < seconds:
        raise IndexError(f"second {second} of a clip of {seconds}")


class ImageFrames:
    """Pictures on disk, picture k shown from k / `source_rate` seconds on.

    `paths` lie under `root`. An empty path is a place without a picture; frames that fall on it are
    left out. `duration` is in seconds. With `frames_per_second` equal to `source_rate` every
    picture is used once, otherwise by the rule for videos.
    """

    def __init__(
        self,
        paths: Sequence[str],
        source_rate: float,
        frames_per_second: Rate = 1,
        *,
        root: str | os.PathLike[str] = ".",
        size: Size = None,
        multiple: int = 1,
    ) -> None:
        check_view(frames_per_second, size, multiple, 90)
        if not any(paths):
            raise FrameError("no frames", "no picture is named")
        if not math.isfinite(source_rate) or not 0 < source_rate <= 60:
            raise FrameError("bad duration", f"{source_rate!r} pictures a second")
        self.paths = [inside(root, path) if path else None for path in paths]
        self.source_rate = source_rate
        self.duration = len(paths) / source_rate
        if frames_per_second == "auto":
            frames_per_second = auto_rate(self.duration)
        self.frames_per_second = frames_per_second
        self._size = size
        self._multiple = multiple

    @property
    def seconds(self) -> int:
        return math.ceil(self.duration - 1e-6)

    def chosen(self, second: int) -> list[Path]:
        """The picture files of a second."""
        check_second(second, self.seconds)
        found = []
        for i in range(self.frames_per_second):
            instant = second + (i + 1) / self.frames_per_second
            k = min(math.ceil(instant * self.source_rate - 1e-6), len(self.paths)) - 1
            path = self.paths[max(k, 0)]
            if path is not None:
                found.append(path)
        return found

    def check(self) -> None:
        """`FrameError` where a picture file isn't there; none is decoded."""
        for path in self.paths:
            if path is not None:
                regular_file(path)

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        return tuple(picture_size(path, self._size, self._multiple) for path in self.chosen(second))

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        read: dict[Path, Image.Image] = {}
        for path in (chosen := self.chosen(second)):
            if path not in read:
                read[path] = read_picture(path, self._size, self._multiple)
        return tuple(read[path] for path in chosen)


class FirstSeconds:
    """The first `duration` seconds of a clip's pictures, for a record that tells of no more."""

    def __init__(self, frames: Frames, duration: float) -> None:
        self.duration = duration
        self._frames = frames

    @property
    def seconds(self) -> int:
        return math.ceil(self.duration - 1e-6)

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        check_second(second, self.seconds)
        offered = getattr(self._frames, "sizes", None)
        if offered is None:
            return tuple(image.size for image in self._frames.frames(second))
        sizes: tuple[tuple[int, int], ...] = offered(second)
        return sizes

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        check_second(second, self.seconds)
        return self._frames.frames(second)


@dataclass(frozen=True)
class _View:
    """How a video is wanted; a cache file holds one view of one content."""

    frames_per_second: Rate
    size: Size
    multiple: int
    quality: int
    decoder: Decoder

    def key(self, content: str) -> str:
        size = list(self.size) if isinstance(self.size, tuple) else self.size
        what = [_VERSION, content, self.frames_per_second, size, self.multiple, self.quality]
        if self.decoder != "auto":
            what.append(self.decoder)
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=20).hexdigest()


class VideoFrames:
    """A video's pictures out of its cache file (built by `open_video`). Safe to pickle.

    duration: of the video track, in seconds. frames_per_second, size: as kept. decoder: what
    decoded it. damaged: packets that did not decode, few enough to be let pass.
    """

    def __init__(self, path: Path, cache_dir: Path, cache: Path, view: _View) -> None:
        self.path = path
        self._cache_dir = cache_dir
        self._cache = cache
        self._view = view
        self._file: _CacheFile | None = _CacheFile(cache)
        footer = self._file.footer
        self.duration: float = footer["duration"]
        self.frames_per_second: int = footer["frames_per_second"]
        self.size: tuple[int, int] = (footer["size"][0], footer["size"][1])
        self.decoder: str = footer["decoder"]
        self.damaged: int = footer["damaged"]

    @property
    def seconds(self) -> int:
        return math.ceil(self.duration - 1e-6)

    @property
    def cache_bytes(self) -> int:
        return self._cache.stat().st_size

    def encoded(self, second: int) -> tuple[bytes, ...]:
        """The JPEGs of a second; a cache file that got damaged is built anew."""
        check_second(second, self.seconds)
        try:
            if self._file is None:
                self._file = _CacheFile(self._cache)
            return self._read(self._file, second)
        except (_CacheFileError, FileNotFoundError):
            self._file = _rebuilt(self.path, self._cache_dir, self._cache, self._view)
            return self._read(self._file, second)

    def _read(self, file: _CacheFile, second: int) -> tuple[bytes, ...]:
        first = second * self.frames_per_second
        blobs = (file.blob(first + i) for i in range(self.frames_per_second))
        return tuple(blob for blob in blobs if blob is not None)

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        return (self.size,) * len(self.encoded(second))

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        pictures: dict[bytes, Image.Image] = {}
        for blob in (blobs := self.encoded(second)):
            if blob not in pictures:
                pictures[blob] = decode(blob)
        return tuple(pictures[blob] for blob in blobs)

    def close(self) -> None:
        """Let go of the cache file; the next read opens it again."""
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def open_video(
    path: str | os.PathLike[str],
    frames_per_second: Rate = 1,
    *,
    cache_dir: str | os.PathLike[str],
    size: Size = None,
    multiple: int = 1,
    quality: int = 90,
    decoder: Decoder = "auto",
) -> VideoFrames:
    """A video's pictures by the second; decoded now where no cache file holds them.

    The cache is keyed by the file's content and this view of it, so that a moved file is found and
    a changed one is decoded anew. Writers may run side by side. Raises `FrameError` with a
    countable reason for a video that can't be used, `CacheError` for a cache folder that can't.
    """
    check_view(frames_per_second, size, multiple, quality)
    full = regular_file(path)
    folder = Path(cache_dir).absolute()
    view = _View(frames_per_second, size, multiple, quality, decoder)
    key = view.key(content_hash(full, folder))
    cache = folder / "frames" / key[:2] / f"{key}.frames"
    try:
        return VideoFrames(full, folder, cache, view)
    except (_CacheFileError, FileNotFoundError, NotADirectoryError):
        _build(full, folder, cache, view)
        return VideoFrames(full, folder, cache, view)


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


def _rebuilt(path: Path, cache_dir: Path, cache: Path, view: _View) -> _CacheFile:
    key = view.key(content_hash(regular_file(path), cache_dir))
    if key != cache.stem:
        raise FrameError("unreadable file", f"{str(path)!r} changed after it was opened")
    _build(path, cache_dir, cache, view)
    return _CacheFile(cache)


def _build(path: Path, cache_dir: Path, cache: Path, view: _View) -> None:
    source = probe(path)
    names = decoders(source, view.decoder)
    for name in names:
        try:
            _write_cache(cache, source, view, name)
            return
        except DecordError as error:
            if name == names[-1]:
                raise FrameError("damaged", f"{str(path)!r}: decord: {error}") from None


def _write_cache(
    cache: Path, source: Probe, view: _View, decoder: Literal["decord", "pyav"]
) -> None:
    """Decode a whole video into a cache file: blobs, index, footer, trailer."""
    rate = view.frames_per_second
    if rate == "auto":
        rate = auto_rate(source.duration)
    size = target_size(*source.display_size, view.size, view.multiple)
    decoding = Decoding(source, rate, decoder)
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
                "frames_per_second": rate,
                "size": size,
                "decoder": decoder,
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


class _CacheFile:
    """A cache file, mapped; index and footer are checked when opened, each blob when read."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            if length < len(_MAGIC) + _TRAILER.size:
                raise _CacheFileError(path)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = length - _TRAILER.size
        index, footer, end, digest, magic = _TRAILER.unpack_from(self._map, start)
        if magic != _MAGIC or end != start or not len(_MAGIC) <= index <= footer <= end:
            raise _CacheFileError(path)
        tail = self._map[index:end]
        if hashlib.blake2b(tail, digest_size=16).digest() != digest:
            raise _CacheFileError(path)
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
            raise _CacheFileError(self._path)
        return blob
