"""Where a live stream's pictures come from: a camera or server by RTSP, a second at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import av
from PIL import Image

from joyvl_train.pictures import resized, target_size

_JUMP = 30.0
"""Seconds by which the times of pictures may be ahead; past that the camera's clock has jumped."""


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

    Picture i of a second is the last one before its share of the second ends, as in training. A
    picture without a time takes that of its arrival. Seconds without a picture are left out; a jump
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
            for frame in container.decode(stream):
                now = time.monotonic()
                begun = begun or now
                at = frame.time if frame.time is not None else now - begun + (first or 0.0)
                first = at if first is None else first
                place = max(at - first, 0.0)
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


def _whole(second: int, shares: dict[int, Image.Image], arrived: float) -> Second:
    return Second(second, tuple(shares[i] for i in sorted(shares)), arrived)
