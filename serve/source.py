"""Where a live stream's pictures come from: files, cameras and servers, a second at a time.

    for item in watch("rtsp://camera/door", stop):     # a Second, or a Notice of what befell it
        ...

Whatever the source, `Sampler` makes whole seconds of pictures that carry times.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
from PIL import Image

from joyvl_train.pictures import resized, target_size
from joyvl_train.video import FrameError, opened, regular_file

_JUMP = 30.0
"""Seconds by which the times of pictures may be ahead; past that the camera's clock has jumped."""

_BACK = 1.0
"""Seconds by which they may lie before the last one; past that the clock was set back."""

_SLACK = 1e-6  # times are sums of parts of a second

_BROKEN = (av.error.FFmpegError, OSError, ValueError)


def public(url: str) -> str:
    """An address without the user and password that it may hold."""
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}" if mark else url


def _why(error: Exception, place: str, name: str) -> str:
    """What went wrong with what stands at `place`, which clients know by its `name` alone."""
    if isinstance(error, FrameError):
        return error.reason
    return str(getattr(error, "strerror", None) or error).replace(place, name)


class SourceError(ValueError):
    """A stream that can't be read; the message names it and the mend."""


@dataclass(frozen=True, slots=True)
class Second:
    """The pictures of a whole second of a stream, and when its last one was there: seconds since
    the first picture, by this machine's clock. queries: what the source itself has the user say.
    anew: its clock was set before it, so that nobody knows how long after the one before it is."""

    second: int
    frames: tuple[Image.Image, ...]
    arrived: float
    queries: tuple[str, ...] = ()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """What befell a source; `detail` is for the log and for users."""

    kind: Literal["live", "lost"]
    detail: str = ""


Picture = Callable[[], Image.Image]


class Sampler:
    """Pictures with times -> whole seconds, each told of once a later picture shows it is over.

    Picture i of a second is the last one before its share of the second ends, as in training.
    Seconds without a picture are left out, and so are all but every `every`-th. A jump of more than
    `jump` seconds, or back, is taken for a clock that was set, and time goes on. side: the longest
    that pictures are kept at.
    """

    def __init__(
        self,
        frames_per_second: int = 1,
        side: int | None = None,
        *,
        every: int = 1,
        start: int = 0,
        jump: float = _JUMP,
    ) -> None:
        if frames_per_second < 1 or every < 1:
            raise ValueError(f"{frames_per_second=} and {every=}; each must be 1 or more")
        self._rate, self._side, self._every = frames_per_second, side, every
        self._jump = jump
        self._first: float | None = None
        self._begun = 0.0
        self._shares: dict[int, Picture] = {}
        self._start = start
        self._open = start
        self._last = 0.0
        self._anew = False

    @property
    def second(self) -> int:
        """The second that is open."""
        return self._open

    def add(self, at: float, picture: Picture) -> list[Second]:
        """The second that this picture ends, if it holds pictures. at: seconds, from anywhere;
        picture: makes the image, and is called only if it is the last of its share."""
        now, jumped = time.monotonic(), False
        if self._first is None:
            self._first, self._begun, self._last = at, now, at
        if at - self._last > self._jump or self._last - at > _BACK:
            # The clock was set: the picture comes a second after the last one.
            self._first += at - self._last - 1
            jumped = True
        self._last = at
        place = max(at - self._first, 0.0) + self._start + _SLACK
        over: list[Second] = []
        if int(place) > self._open:
            over = self.end(now)
            self._open = int(place)
        self._anew |= jumped
        if self._open % self._every == 0:
            self._shares[int((place - self._open) * self._rate)] = picture
        return over

    def end(self, now: float | None = None) -> list[Second]:
        """The open second as it stands, if it holds a picture; it holds none afterwards."""
        if not self._shares:
            return []
        shares, self._shares = self._shares, {}
        arrived = (time.monotonic() if now is None else now) - self._begun
        frames = tuple(self._kept(shares[i]()) for i in sorted(shares))
        anew, self._anew = self._anew, False
        return [Second(self._open, frames, arrived, anew=anew)]

    def _kept(self, image: Image.Image) -> Image.Image:
        if self._side is None:
            return image
        width, height = image.size
        return resized(image, target_size(width, height, self._side))


def rtsp(
    url: str,
    *,
    frames_per_second: int = 1,
    side: int | None = None,
    every: int = 1,
    start: int = 0,
    timeout: float = 10.0,
    most_seconds: int | None = None,
) -> Iterator[Second]:
    """The seconds of a stream, each as soon as it is over, by the times that its pictures carry.

    Ends with the stream, or after `most_seconds`. Raises `SourceError` where nothing can be read.
    """
    sampler = Sampler(frames_per_second, side, every=every, start=start)
    name = public(url)
    options = {"rtsp_transport": "tcp", "stimeout": str(int(timeout * 1e6))}
    try:
        container = av.open(url, options=options, timeout=timeout)
    except _BROKEN as error:
        why = _why(error, url, name)
        raise SourceError(f"{name}: can't be opened ({why}); see to address and server") from None
    with container:
        if not container.streams.video:
            raise SourceError(f"{name}: has no video; name another stream")
        seen = False
        try:
            for at, frame in timed(container.decode(container.streams.video[0])):
                seen = True
                yield from sampler.add(at, frame.to_image)
                if most_seconds is not None and sampler.second >= most_seconds:
                    return
        except _BROKEN as error:
            if not seen:
                why = _why(error, url, name)
                raise SourceError(f"{name}: can't be read ({why}); see to the server") from None
        yield from sampler.end()


def watch(
    url: str,
    stop: threading.Event,
    *,
    frames_per_second: int = 1,
    side: int | None = None,
    every: int = 1,
    timeout: float = 10.0,
    longest_wait: float = 30.0,
) -> Iterator[Second | Notice]:
    """A stream that is connected anew whenever it ends or breaks, until `stop` is set.

    Between tries it waits 1, 2, 4 ... seconds, `longest_wait` at most, with some jitter. Seconds go
    on by this machine's clock while nothing comes; none comes twice.
    """
    begun = time.monotonic()
    wait = 1.0
    last = -1
    while not stop.is_set():
        start = max(int(time.monotonic() - begun), last + 1)
        live = False
        detail = "the stream ended"
        try:
            seconds = rtsp(
                url,
                frames_per_second=frames_per_second,
                side=side,
                every=every,
                start=start,
                timeout=timeout,
            )
            for second in seconds:
                if not live:
                    live, wait = True, 1.0
                    yield Notice("live")
                last = second.second
                yield second
                if stop.is_set():
                    return
        except SourceError as error:
            detail = str(error)
        yield Notice("lost", detail)
        stop.wait(wait * random.uniform(0.8, 1.2))
        wait = min(2 * wait, longest_wait)


def play(
    path: str,
    stop: threading.Event,
    *,
    frames_per_second: int = 1,
    side: int | None = None,
    every: int = 1,
    paced: bool = True,
) -> Iterator[Second | Notice]:
    """The seconds of a video file: as they come by the clock, or (not `paced`) as fast as they are
    taken. Raises `SourceError` where it can't be read, or not to its end: after all that can be."""
    name = Path(path).name
    sampler = Sampler(frames_per_second, side, every=every)
    with ExitStack() as stack:
        try:
            whole = regular_file(path)
            container = stack.enter_context(opened(whole))
        except _BROKEN as error:
            why = _why(error, path, name)
            raise SourceError(f"{name}: can't be opened ({why}); name a video file") from None
        begun = time.monotonic()
        if not container.streams.video:
            raise SourceError(f"{name}: has no video; name another file")
        yield Notice("live")
        try:
            for at, frame in timed(container.decode(container.streams.video[0])):
                for second in sampler.add(at, frame.to_image):
                    if paced and stop.wait(max(begun + second.second + 1 - time.monotonic(), 0)):
                        return
                    yield second
                if stop.is_set():
                    return
        except _BROKEN as error:
            yield from sampler.end()
            raise SourceError(
                f"{name}: is damaged at second {sampler.second} ({_why(error, str(whole), name)}); "
                "what follows can't be read"
            ) from None
        yield from sampler.end()


def timed(frames: Iterable[Any]) -> Iterator[tuple[float, Any]]:
    """(time, frame) of decoded frames. One without a time, as a server's first often is, lies as
    far from the next or the last one as two that have a time lie from each other."""
    waiting: list[Any] = []  # until two frames with a time tell how far they lie apart
    known: list[float] = []
    step = 0.0
    last = 0.0
    for frame in frames:
        if step:
            last = last + step if frame.time is None else frame.time
            yield last, frame
            continue
        waiting.append(frame)
        if frame.time is not None:
            known.append(frame.time)
        if len(known) == 2 and known[1] > known[0]:
            places = [n for n, each in enumerate(waiting) if each.time is not None]
            step = (known[1] - known[0]) / (places[1] - places[0])
            for n, each in enumerate(waiting):
                last = known[0] + step * (n - places[0])
                yield last, each
            waiting.clear()
        elif len(known) == 2:
            known.pop()
    for n, each in enumerate(waiting):  # a stream of a picture or two
        yield float(n) if each.time is None else each.time, each
