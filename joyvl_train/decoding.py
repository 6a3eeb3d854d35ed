"""A video file -> its pictures at n a second, one after another, in bounded memory.

`joyvl_train.frame_cache` keeps what this module decodes. Frame i of second t is the last frame that
stands before t + (i+1)/n by the container's own time stamps, so that a video with a variable frame
rate, or with a gap, shows in each second what a viewer saw. Time 0 is the start of the earliest
audio or video stream, which is where players count from.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import av
from PIL import Image

from joyvl_train.video import (
    MAX_PIXELS,
    DamagedPacketError,
    FrameError,
    Probe,
    decoded,
    opened,
    video_stream,
)

Decoder = Literal["auto", "decord", "pyav"]

MAX_DAMAGE = 0.01
"""Share of a video's packets that may fail to decode before the file is rejected."""

_SEEKABLE = {"mov", "matroska"}  # they hold an index
_BACK = (0, 10, 60)  # seconds before the wanted one from which on a key frame is looked for


class DecordError(Exception):
    """decord gave up on a file; PyAV is tried in its place."""


class Decoding:
    """One pass over a video, or over some `seconds` of it (with PyAV): an iterator of
    `frames_per_second` pictures a second.

    A picture that is held is the same object again; None stands where no frame has come yet. They
    are as shown (rotation applied), of the coded size; pixel aspect is left to the resizing. After
    the pass `damaged` is the number of packets that did not decode. Raises `FrameError`, and
    `DecordError` where the decoder is decord.
    """

    def __init__(
        self,
        source: Probe,
        frames_per_second: int,
        decoder: Literal["decord", "pyav"],
        seconds: range | None = None,
    ) -> None:
        whole = range(source.seconds)
        self.seconds = whole if seconds is None else whole[seconds.start : seconds.stop]
        self.source = source
        self.frames_per_second = frames_per_second
        self.decoder = decoder
        self.damaged = 0

    def __iter__(self) -> Iterator[Image.Image | None]:
        return self._by_decord() if self.decoder == "decord" else self._by_pyav()

    @property
    def _slots(self) -> int:
        """The slot after the last one."""
        return self.seconds.stop * self.frames_per_second

    def _slot(self, stamp: int) -> int:
        """The first slot that a frame of this time stamp can fill."""
        since = stamp * self.source.time_base - self.source.zero
        return max(0, math.floor(since * self.frames_per_second))

    def _by_pyav(self) -> Iterator[Image.Image | None]:
        given = 0
        try:
            for picture in self._pictures(side_by_side=True):
                yield picture
                given += 1
        except DamagedPacketError:  # what has been given came before it
            yield from itertools.islice(self._pictures(side_by_side=False), given, None)

    def _pictures(self, *, side_by_side: bool) -> Iterator[Image.Image | None]:
        source = self.source
        where = repr(str(source.path))
        damage = [0]
        done = self.seconds.start * self.frames_per_second
        shown: Image.Image | None = None
        latest: Any = None
        stamp = None
        for frame in self._from_key(damage, side_by_side):
            now = frame.pts if frame.pts is not None else frame.dts
            if now is None:
                raise FrameError("no time stamps", where)
            if stamp is not None and now < stamp:
                damage[0] += 1
                continue
            stamp = now
            slot = min(self._slot(now), self._slots)
            if slot > done and latest is not None:
                shown = _picture(latest, source.turn)
                latest = None
            while done < slot:
                yield shown
                done += 1
            if done == self._slots and self.seconds.stop < source.seconds:
                break  # nothing that comes after is wanted
            latest = frame
        if latest is not None:
            shown = _picture(latest, source.turn)
        if stamp is None:
            raise FrameError("no frames", where)
        yield from [shown] * (self._slots - done)
        self.damaged = damage[0]
        packets = source.packets * len(self.seconds) / source.seconds
        if self.damaged > max(2, MAX_DAMAGE * packets):
            detail = f"{where}: {self.damaged} of {packets:.0f} packets do not decode"
            raise FrameError("damaged", detail)

    def _from_key(self, damage: list[int], side_by_side: bool) -> Iterator[Any]:
        """The frames from a key frame at or before the first second on; from the very first one
        where no such key frame can be gone to."""
        source, where = self.source, repr(str(self.source.path))
        first = source.zero + self.seconds.start
        seeks = _BACK if self.seconds.start and source.format in _SEEKABLE else ()
        for back in (*seeks, None):
            damage[0] = 0
            with opened(source.path) as container:
                stream = video_stream(container, where)
                frames = decoded(container, stream, damage, side_by_side=side_by_side)
                if back is None:
                    yield from frames
                    return
                with suppress(av.FFmpegError):
                    container.seek(math.floor((first - back) / source.time_base), stream=stream)
                # What comes before the key frame may need pictures that weren't decoded.
                key = next((frame for frame in frames if frame.key_frame), None)
                if key is not None and key.pts is not None and key.pts * source.time_base <= first:
                    yield key
                    yield from frames
                    return

    def _by_decord(self) -> Iterator[Image.Image | None]:
        import decord

        times = self.source.times
        assert times is not None, "decord is for files that it can be trusted with"
        failures = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError)
        decord.logging.set_level(decord.logging.QUIET)
        threads = min(2, os.cpu_count() or 1)
        try:
            reader = decord.VideoReader(str(self.source.path), num_threads=threads, fault_tol=1)
        except (*failures, AssertionError) as error:
            raise DecordError(str(error)) from error
        if len(reader) != len(times):
            raise DecordError(f"{len(reader)} frames in {len(times)} packets")
        index = -1
        shown_index = -1
        shown: Image.Image | None = None
        for slot in range(self._slots):
            while index + 1 < len(times) and self._slot(times[index + 1]) <= slot:
                index += 1
            if index != shown_index:
                try:
                    shown = Image.fromarray(reader.get_batch([index]).asnumpy()[0])
                except failures as error:
                    raise DecordError(str(error)) from error
                shown_index = index
            yield shown


def _picture(frame: Any, turn: Image.Transpose | None) -> Image.Image:
    if frame.width * frame.height > MAX_PIXELS:
        raise FrameError("too many pixels", f"a frame of {frame.width}x{frame.height}")
    image: Image.Image = frame.to_image()
    return image if turn is None else image.transpose(turn)


def decoders(source: Probe, wanted: Decoder = "auto") -> tuple[Literal["decord", "pyav"], ...]:
    """The decoders to try on a file, in order: decord where it can be trusted, then PyAV.

    decord conceals damaged pictures and tells nobody, so a file whose key frames don't all decode
    strictly goes to PyAV, which counts every packet that doesn't. Damage that lies between sound
    key frames only shows with `decoder="pyav"`.
    """
    if wanted == "decord" and source.times is not None:
        return ("decord",)
    if wanted == "pyav" or source.times is None or not _keys_decode(source.path):
        return ("pyav",)
    return ("decord", "pyav")


def _keys_decode(path: Path) -> bool:
    """Whether all key frames decode strictly."""
    with opened(path) as container:
        stream = video_stream(container, repr(str(path)))
        stream.codec_context.skip_frame = "NONKEY"
        try:
            frames = sum(1 for _ in decoded(container, stream, [0], side_by_side=True))
        except DamagedPacketError:
            return False
    return frames > 0
