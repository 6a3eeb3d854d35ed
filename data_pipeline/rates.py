"""Shares with their 95 % intervals: how often a verifier catches what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Rate:
    """`value` is NaN where nothing was counted; then the interval is all there is, 0 to 1."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """For a table: share, interval, and of how many."""
        if not self.count:
            return "-"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.count}"


def wilson(hits: int, count: int) -> Rate:
    """`hits` of `count` independent tries, with Wilson's score interval (E. B. Wilson, 1927).

    >>> str(wilson(10, 10))
    '1.00 [0.72, 1.00] of 10'
    """
    if not 0 <= hits <= count:
        raise ValueError(f"{hits} hits of {count}")
    if not count:
        return Rate(math.nan, 0.0, 1.0, 0)
    share, square = hits / count, _Z * _Z
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count)
    half *= math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    low, high = min(centre - half, share), max(centre + half, share)
    return Rate(share, max(0.0, low), min(1.0, high), count)


def over_clips(clips: Sequence[tuple[int, int]], samples: int = 2000, seed: int = 0) -> Rate:
    """(hits, count) of each clip together, with a percentile bootstrap over clips: tries on one
    clip share its pictures. Where all or none are hits, which every sample repeats, the interval is
    Wilson's with the clips as tries."""
    counted = np.array([clip for clip in clips if clip[1]], dtype=float).reshape(-1, 2)
    hits, count = (int(total) for total in counted.sum(axis=0))
    if not 0 < hits < count:
        single = wilson(len(counted) if hits else 0, len(counted))
        return Rate(single.value, single.low, single.high, count)
    number = len(counted)
    drawn = np.random.default_rng(seed).multinomial(number, [1 / number] * number, size=samples)
    sums = drawn @ counted
    low, high = np.percentile(sums[:, 0] / sums[:, 1], (2.5, 97.5))
    return Rate(hits / count, float(low), float(high), count)
