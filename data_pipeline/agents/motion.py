"""How much moves, frame by frame: the cheapest look at a video. Needs numpy alone.

A slow picture of what stands still is kept for each pixel, with how much it flickers; a pixel that
lies far outside moves. A lamp that is switched on changes all pixels alike and is taken out first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from data_pipeline.agents import tool_files

_WIDTH = 96
_LEARN = 0.1  # share of a new frame in what is taken to stand still
_FLICKER = 4.0  # times its usual flicker is far outside
_WHOLE = 0.6  # share of the picture beyond which it is a cut, and the scene is learnt anew


class Motion:
    """Measures the share of a picture that moves. least_change: in grey levels of 255, below which
    a pixel has not changed whatever it usually does."""

    def __init__(self, *, least_change: float = 18.0) -> None:
        self.least_change = least_change
        self.key = tool_files.key("motion", least_change)

    def __call__(self, pictures: Iterable[Image.Image]) -> Iterator[float]:
        """For each picture the share of it, 0 to 1, that moves against those before; 0 for the
        first. Pictures of one video, in order; the rate may be any that stays the same."""
        still: np.ndarray | None = None
        flicker = np.zeros(())
        for picture in pictures:
            height = max(1, round(_WIDTH * picture.height / picture.width))
            grey = picture.convert("L").resize((_WIDTH, height), Image.Resampling.BOX)
            now = np.asarray(grey, np.float32)
            if still is None or still.shape != now.shape:
                still, flicker = now, np.full(now.shape, self.least_change / _FLICKER)
                yield 0.0
                continue
            change = now - still
            change -= np.median(change)
            away = np.abs(change)
            moves = away > np.maximum(self.least_change, _FLICKER * flicker)
            share = float(moves.mean())
            yield share
            if share > _WHOLE:
                still, flicker = now, np.full(now.shape, self.least_change / _FLICKER)
                continue
            still = still + _LEARN * (now - still)
            # What moves says nothing about how much the still picture flickers.
            flicker = np.where(moves, flicker, flicker + _LEARN * (away - flicker))


def beginnings(shares: Sequence[float], rate: int = 1, least: float = 0.01) -> list[int]:
    """The seconds in which motion begins: a share of at least `least`, and at least three times the
    mean of the two seconds before. `rate` is how many of the shares are one second."""
    if rate < 1:
        raise ValueError(f"rate must be at least 1, got {rate}")
    seconds = [max(shares[n : n + rate]) for n in range(0, len(shares), rate)]
    found = []
    for second in range(1, len(seconds)):
        before = seconds[max(0, second - 2) : second]
        if seconds[second] >= max(least, 3 * sum(before) / len(before)):
            found.append(second)
    return found
