"""Pictures that a client pushes, or a browser sends: whole seconds by this machine's clock."""

from __future__ import annotations

import asyncio
import io
import math
import time
from dataclasses import dataclass, field

from PIL import Image

from joyvl_train.pictures import resized, target_size
from serve.feed import Feed
from serve.source import Picture, Sampler, Second

FORMATS = ("JPEG",)
"""What a pushed picture may be."""


class PictureError(ValueError):
    """Bytes that can't be taken for a picture; the message says why."""


@dataclass(slots=True)
class Pushed:
    """Puts what is pushed into `feed`. Used in one event loop; `end` it.

    A second ends when its time is over by the clock, whether or not another picture comes, and a
    pause lasts as long as it did. Pictures that carry the number of their second (`whole`) are
    taken at once, each for all of its second; those that `every` leaves out are passed over.
    """

    feed: Feed
    frames_per_second: int = 1
    side: int | None = None
    every: int = 1
    _sampler: Sampler = field(init=False)
    _begun: float | None = None
    _timer: asyncio.TimerHandle | None = None
    _last: int = -1

    def __post_init__(self) -> None:
        self._sampler = Sampler(self.frames_per_second, self.side, every=self.every, jump=math.inf)

    def add(self, picture: Picture) -> None:
        """A picture that is there now."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        before = self._sampler.second
        for second in self._sampler.add(now - self._begun, picture):
            self.feed.put(second)
        if self._timer is None or self._sampler.second != before:
            self._await_end(now)

    def whole(self, second: int, image: Image.Image) -> None:
        """The picture of a whole second. Raises `ValueError` for one that has been before."""
        if second <= self._last:
            raise ValueError(f"second {second} was there before; the last one is {self._last}")
        self._last = second
        if second % self.every:
            return
        if self.side is not None:
            image = resized(image, target_size(image.width, image.height, self.side))
        self._begun = time.monotonic() if self._begun is None else self._begun
        self.feed.put(Second(second, (image,), time.monotonic() - self._begun))

    def end(self, detail: str = "") -> None:
        """Nothing more comes."""
        if self._timer is not None:
            self._timer.cancel()
        self.feed.end(detail)

    def _await_end(self, now: float) -> None:
        assert self._begun is not None
        if self._timer is not None:
            self._timer.cancel()
        over = self._begun + self._sampler.second + 1
        loop = asyncio.get_running_loop()
        # A moment later than its time, so that whatever comes from then on is of the next second.
        self._timer = loop.call_later(max(over - now, 0.0) + 0.02, self._second_over)

    def _second_over(self) -> None:
        self._timer = None
        for second in self._sampler.end():
            self.feed.put(second)


def read_picture(data: bytes, most_pixels: int) -> Image.Image:
    """The RGB picture of a JPEG file. Raises `PictureError`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > most_pixels:
                raise PictureError(f"{width}x{height}, at most {most_pixels} pixels")
            return image.convert("RGB")
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"no JPEG ({type(error).__name__})") from None
