"""Where a live stream's pictures come from: a camera or server by RTSP, a second at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
from PIL import Image

from joyvl_train.pictures import resized, target_size

_JUMP = 30.0
"""Seconds by which the times of pictures may be ahead; past that the camera's clock has jumped."""


_SLACK = 1e-6  # times are sums of parts of a second

_BROKEN = (av.error.FFmpegError, OSError, ValueError)


class SourceError(ValueError):
    """A stream that can't be read; the message names it and the mend."""


@dataclass(frozen=True, slots=True)
class Second:
    """The pictures of a whole second of a stream, and when its last one was there: seconds since
    the first picture, by this machine's clock."""

    second: int
    frames: tuple[Image.Image, ...]
    arrived: float


def rtsp(
    url: str,
    *,
    frames_per_second: int = 1,
    side: int | None = None,
    timeout: float = 10.0,
    most_seconds: int | None = None,
) -> Iterator[Second]:
    """The seconds of a stream, each as soon as it is over, by the times that its pictures carry.

    Picture i of a second is the last one before its share of the second ends, as in training.
    Seconds without a picture are left out; a jump
    of more than half a minute is taken for a clock that was set, and skipped. Ends with the stream,
    or after `most_seconds`. Raises `SourceError` where nothing can be read.
    """
    options = {"rtsp_transport": "tcp", "stimeout": str(int(timeout * 1e6))}
    try:
        container = av.open(url, options=options, timeout=timeout)
    except _BROKEN as error:
        raise SourceError(f"{url}: can't be opened ({error}); see to address and server") from None
    with container:
        if not container.streams.video:
            raise SourceError(f"{url}: has no video; name another stream")
        stream = container.streams.video[0]
        first: float | None = None
        begun = 0.0
        shares: dict[int, Image.Image] = {}
        open_second = 0
        try:
            for at, frame in timed(container.decode(stream)):
                now = time.monotonic()
                begun = begun or now
                first = at if first is None else first
                place = max(at - first, 0.0) + _SLACK
                if place > open_second + _JUMP:  # the camera's clock was set; time goes on
                    first += place - open_second - 1
                    place = at - first
                while int(place) > open_second:
                    if shares:
                        yield _whole(open_second, shares, now - begun)
                    shares = {}
                    open_second += 1
                    if most_seconds is not None and open_second >= most_seconds:
                        return
                image = frame.to_image()
                if side is not None:
                    image = resized(image, target_size(*image.size, side))
                shares[int((place - open_second) * frames_per_second)] = image
        except _BROKEN as error:
            if first is None:
                raise SourceError(f"{url}: can't be read ({error}); see to the server") from None
        if shares:
            yield _whole(open_second, shares, time.monotonic() - begun)


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


def _whole(second: int, shares: dict[int, Image.Image], arrived: float) -> Second:
    return Second(second, tuple(shares[i] for i in sorted(shares)), arrived)
