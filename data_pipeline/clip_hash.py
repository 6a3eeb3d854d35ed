"""A perceptual hash of a stretch of pictures: near-same pictures give near-same bits.

Eight pictures, evenly spaced, give 64 bits each by the signs of their lowest cosine frequencies
(as pHash does for one picture), and each picture less the one before it 64 bits more: two hours of
one fixed camera look alike, but what moves in them doesn't. Re-encoding, scaling, and small marks
move a few bits of a hundred; cuts, crops and other timing are not seen through.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from joyvl_train.frames import Frames

PICTURES = 8
WORDS = 2 * PICTURES - 1
"""64-bit words of a hash: the pictures', then the changes'. 0 stands for a flat picture, or for no
change: it says nothing."""

NEAR_PICTURES = 0.2
"""Of the bits of pictures that say something, the share that may differ."""
NEAR_CHANGES = 0.3
"""Likewise of the changes'."""
ONE_SILENT = 24
"""Bits that count where one says something and the other nothing."""
LEAST = PICTURES // 2
"""Pictures that must say something, for two stretches to be called near-same."""

_SIDE = 32
_FLAT = 4.0  # standard deviation of brightness, of 255
_STILL = 1.0  # mean change of brightness, of 255

Words = npt.NDArray[np.uint64]


def _cosines() -> npt.NDArray[np.float64]:
    """The eight lowest frequencies of the cosine transform of `_SIDE` values."""
    k, n = np.arange(8)[:, None], np.arange(_SIDE)[None, :]
    return np.cos(math.pi * k * (2 * n + 1) / (2 * _SIDE))


_COSINES = _cosines()


def clip_hash(frames: Frames, start: int, stop: int) -> Words:
    """The hash of the pictures of seconds [start, stop): uint64 [WORDS].

    Of each of the eight instants the last picture of its second, or of the second before it that
    has any. `FrameError` where a picture can't be had.
    """
    if not 0 <= start < stop <= frames.seconds:
        raise ValueError(f"seconds [{start}, {stop}) of a clip of {frames.seconds}")
    thumbs: dict[int, npt.NDArray[np.float64]] = {}
    rows: list[npt.NDArray[np.float64]] = []
    for i in range(PICTURES):
        second = start + int((i + 0.5) * (stop - start) / PICTURES)
        if second not in thumbs:
            shown = frames.frames(second)
            if shown:
                thumbs[second] = _thumb(shown[-1])
            else:
                thumbs[second] = rows[-1] if rows else np.zeros((_SIDE, _SIDE))
        rows.append(thumbs[second])
    pictures = np.stack(rows)
    changes = np.diff(pictures, axis=0)
    words = np.zeros(WORDS, np.uint64)
    words[:PICTURES] = np.where(pictures.std(axis=(1, 2)) < _FLAT, 0, _bits(pictures))
    words[PICTURES:] = np.where(np.abs(changes).mean(axis=(1, 2)) < _STILL, 0, _bits(changes))
    return words


def _thumb(picture: Image.Image) -> npt.NDArray[np.float64]:
    small = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def _bits(pictures: npt.NDArray[np.float64]) -> Words:
    """[N, side, side] -> [N]: of the lowest frequencies, which are above their median."""
    low = (_COSINES @ pictures @ _COSINES.T).reshape(len(pictures), 64)
    low[:, 0] = -np.inf  # the mean brightness
    above = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint64).reshape(-1)


def near(one: Words, other: Words) -> npt.NDArray[np.bool_]:
    """[N, WORDS], [N, WORDS] -> [N]: whether the two of each row show near-same pictures.

    What is flat, or still, in one alone counts as half its bits: two pictures by chance.
    """
    apart = np.bitwise_count(one ^ other).astype(np.int32)
    silent = (one == 0) != (other == 0)
    apart[silent] = ONE_SILENT
    says = (one != 0) | (other != 0)
    both = (one != 0) & (other != 0)
    pictures, changes = slice(None, PICTURES), slice(PICTURES, None)
    return np.asarray(
        (both[:, pictures].sum(axis=1) >= LEAST)
        & (apart[:, pictures].sum(1) <= NEAR_PICTURES * 64 * says[:, pictures].sum(axis=1))
        & (apart[:, changes].sum(1) <= NEAR_CHANGES * 64 * says[:, changes].sum(axis=1))
    )
