"""The pictures of a clip, one-second group by one-second group, decoded once.

`open_video` decodes a video, or a stretch of it, through `joyvl_train.decoding` the first time,
keeps small JPEGs (`joyvl_train.frame_cache`), and reads any second in microseconds from then on.
`ImageFrames` is the same view of a folder of pictures. Both are `Frames`, as are rendered worlds
and the records of corpus shards.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from joyvl_train.decoding import Decoder
from joyvl_train.frame_cache import (
    STRETCH,
    Cache,
    CacheError,
    CacheFile,
    CacheFileError,
    Rate,
    View,
    auto_rate,
    content_hash,
    write_file,
)
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
from joyvl_train.video import FrameError, regular_file

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
    "write_file",
]


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


class VideoFrames:
    """The pictures of a video, or of a stretch of it, out of the cache files that `open_video` has
    built. Safe to pickle.

    start: the second of the video at which it begins. duration: in seconds. whole: whether it is
    all of the video. frames_per_second, size: as kept. decoder: what decoded it. damaged: packets
    that did not decode, few enough to be let pass.
    """

    def __init__(
        self,
        cache: Cache,
        stretches: range | None = None,
        start: int = 0,
        duration: float | None = None,
    ) -> None:
        """stretches: those that it lies in; None: it is read from the file of the whole video.
        duration: None: to the end of the video."""
        self.path = cache.video
        self.start = start
        self._cache = cache
        self._stretches = stretches
        self._files: dict[int | None, CacheFile] = {}
        numbers = [None] if stretches is None else stretches
        footers = [self._file(number).footer for number in numbers]
        there: float = footers[0]["duration"] - start
        self.duration = there if duration is None else min(duration, there)
        self.whole = not start and duration is None
        self.frames_per_second: int = footers[0]["frames_per_second"]
        self.size: tuple[int, int] = (footers[0]["size"][0], footers[0]["size"][1])
        self.decoder: str = footers[0]["decoder"]
        self.damaged: int = max(footer["damaged"] for footer in footers)

    @property
    def seconds(self) -> int:
        return math.ceil(self.duration - 1e-6)

    @property
    def cache_bytes(self) -> int:
        numbers = [None] if self._stretches is None else self._stretches
        return sum(self._cache.path(number).stat().st_size for number in numbers)

    def encoded(self, second: int) -> tuple[bytes, ...]:
        """The JPEGs of a second; a cache file that got damaged is built anew."""
        check_second(second, self.seconds)
        number, within = None, self.start + second
        if self._stretches is not None:
            number, within = divmod(within, STRETCH)
        try:
            return self._read(self._file(number), within)
        except (CacheFileError, FileNotFoundError):
            return self._read(self._kept(number, self._cache.rebuild(number)), within)

    def _file(self, number: int | None) -> CacheFile:
        file = self._files.get(number)  # another thread may drop it meanwhile
        return file if file else self._kept(number, CacheFile(self._cache.path(number)))

    def _kept(self, number: int | None, file: CacheFile) -> CacheFile:
        """Keeps a file open, and the one that was opened before it: many clips are open at once,
        and a long one has hundreds."""
        others = [(n, other) for n, other in self._files.items() if n != number]
        self._files = dict([*others[-1:], (number, file)])
        return file

    def _read(self, file: CacheFile, second: int) -> tuple[bytes, ...]:
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
        """Let go of the cache files; the next read opens them again."""
        self._files = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def open_video(
    path: str | os.PathLike[str],
    frames_per_second: Rate = 1,
    *,
    cache_dir: str | os.PathLike[str],
    size: Size = None,
    multiple: int = 1,
    quality: int = 90,
    decoder: Decoder = "auto",
    start: int = 0,
    duration: float | None = None,
) -> VideoFrames:
    """A video's pictures by the second; decoded now where no cache file holds them.

    start, duration: of the clip that is wanted, in seconds; second t of what is returned is second
    start + t of the video. Where it is less than half of the video (`is_part`) nothing else is
    returned, and little else decoded: the stretches that it lies in, from the key frame before
    them on. Else it is the video from `start` to its end. The rate `auto` goes by the length of the
    video, so that a clip of it shows the same pictures.

    The cache is keyed by the file's content and this view of it, so that a moved file is found and
    a changed one is decoded anew. Writers may run side by side. Raises `FrameError` with a
    countable reason for a video that can't be used, `CacheError` for a cache folder that can't.
    """
    check_view(frames_per_second, size, multiple, quality)
    full = regular_file(path)
    folder = Path(cache_dir).absolute()
    view = View(frames_per_second, size, multiple, quality, decoder)
    cache = Cache(full, folder, view, content_hash(full, folder))
    if start or duration is not None:
        length = cache.length(start // STRETCH)
        if start >= length:
            raise FrameError("past the end", f"{str(full)!r}: from {start} s of {length:.3f} s")
        if is_part(start, duration, length):
            # Of a damaged video it hangs on where decoding began what can be shown, and whether too
            # much is lost: its clips come from stretches, whether the whole is kept or not.
            whole = cache.open()
            if whole is not None and not whole.footer["damaged"]:
                return VideoFrames(cache, None, start, duration)
            stop = length if duration is None else min(length, start + duration)
            last = math.ceil(stop - 1e-6) - 1
            stretches = range(start // STRETCH, last // STRETCH + 1)
            if missing := [number for number in stretches if cache.open(number) is None]:
                cache.build_stretches(missing)
            return VideoFrames(cache, stretches, start, duration)
    if cache.open() is None:
        cache.build()
    return VideoFrames(cache, None, start)


def is_part(start: int, duration: float | None, length: float) -> bool:
    """Whether a clip is so small a part of a video of `length` seconds that the rest is left be."""
    stop = length if duration is None else min(length, start + duration)
    return stop - start < length / 2
