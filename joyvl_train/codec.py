"""A causal code of a stream's frames: references, and what has changed since the frame before.

    encoder = Encoder(CodecSettings())
    coded = encoder.push(frame)          # Coded: reference or predicted, motion, residual, costs

A sampled frame is predicted block by block from the one before it (block motion compensation;
blocks lie on the cells of the vision encoder). Where that predicts badly, or little by little has
come to, or has gone on for long, the frame is a reference, which a model sees whole. After AdaCodec
(arXiv 2606.02569); its thresholds, search and form of residual are not published: these are ours.

All sums over a frame are of whole numbers, and only what they come to is divided, so that a frame
is coded alike on every machine, live, offline and after a state was put back. The cost of a block,
in grey levels, and that of a frame:

    r = frame - predicted
    a = mean |r|, b = mean |mean of r over a box of 8 x 8 pixels|
    block: max(0, 8 b - a) / 7
    frame: mean of its blocks + 0.4 roughness of the motion

What a residual has in common over a box is change: of such b = a, and its cost is a. What goes up
and down from pixel to pixel, as a sensor's noise does and an edge that is found a pixel off, comes
to b = a / 8 in the mean, and costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Why = Literal["first", "size", "cut", "drift", "length", ""]
"""Why a frame is a reference; "" where it is none."""

_ROUGH = 0.4
"""Grey levels that a pixel of roughness counts: in a wide search some place of another picture
looks much alike, but those of neighbours then lie in all directions."""

_CELLS = 4
"""The search begins on pictures so small that a block has so many pixels to a side."""

_BOX = 8
"""Pixels to a side over which noise is averaged; a block has whole boxes."""

_CACHED = 100_000
"""Values that are worked on at a time, so that they stay in the cache."""

_MOST_PLACES = 4096
"""Places that a block is looked for in, at most."""


@dataclass(frozen=True, slots=True)
class CodecSettings:
    """How frames are coded. Levels are grey levels, 0 to 255; lengths are in frames.

    block: side of a block in pixels, that of a cell of the vision encoder (patch size times merge).
    search: how far a block is looked for, in pixels to each side; wide, for a second lies between
    two frames. A frame is a reference where its cost is above `cut`; where the costs since the last
    reference add up to more than `drift`, which is looked at from `gap` frames after it on; and
    `longest` frames after it. side: of the picture that shows the change of a frame that is no
    reference.
    """

    block: int = 32
    search: int = 64
    cut: float = 14.0
    drift: float = 36.0
    gap: int = 2
    longest: int = 30
    side: int = 64

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise ValueError(f"{item.name} is {value!r}; it must be above 0")
        if self.block not in (8, 16, 32, 64) or self.search % (self.block // _CELLS):
            raise ValueError(
                f"block={self.block} and search={self.search}; a block has 8, 16, 32 or 64 pixels, "
                f"and search is a multiple of its {_CELLS}th part"
            )
        if (2 * (self.search // (self.block // _CELLS)) + 1) ** 2 > _MOST_PLACES:
            raise ValueError(
                f"search={self.search} is too wide for block={self.block}; at most "
                f"{(math.isqrt(_MOST_PLACES) - 1) // 2 * (self.block // _CELLS)}"
            )
        if self.gap > self.longest:
            raise ValueError(f"gap={self.gap} is above longest={self.longest}")


@dataclass(frozen=True, slots=True)
class Coded:
    """A frame as it is coded.

    why: of a reference; "" of a predicted frame. motion [rows, columns, 2]: how far each block lies
    in the frame before from where it lies in this one, (down, right) in pixels; residual [H, W]:
    this frame's grey levels less the predicted ones; both None where there is none before. costs
    [rows, columns]: of each block, without roughness. cost: of the frame. gathered: costs since the
    last reference, this one's among them.
    """

    why: Why
    motion: NDArray[np.int16] | None = None
    residual: NDArray[np.int16] | None = None
    costs: NDArray[np.float32] | None = None
    cost: float = 0.0
    gathered: float = 0.0

    @property
    def reference(self) -> bool:
        """Whether the frame is seen whole."""
        return self.why != ""


@dataclass(slots=True)
class Encoder:
    """The code of one stream, frame by frame; its whole state, which `copy` doubles."""

    settings: CodecSettings = field(default_factory=CodecSettings)
    _before: Image.Image | None = None  # grey
    _size: tuple[int, int] = (0, 0)
    _since: int = 0  # frames since the last reference
    _gathered: float = 0.0

    def push(self, frame: Image.Image) -> Coded:
        """The next frame's code. A frame of another size than the one before is a reference."""
        grey = _padded(frame.convert("L"), self.settings.block)
        before, self._before = self._before, grey
        same, self._size = frame.size == self._size, frame.size
        if before is None or not same:
            return self._refer("first" if before is None else "size")
        motion = search(before, grey, self.settings.block, self.settings.search)
        now = np.asarray(grey, np.int16)
        residual = now - compensated(np.asarray(before, np.int16), motion, self.settings.block)
        costs, mean = coherent(residual, self.settings.block)
        cost = mean + _ROUGH * roughness(motion)
        coded = Coded("", motion, residual, costs, cost, self._gathered + cost)
        why = self._why(coded)
        if why:
            return self._refer(why, coded)
        self._since += 1
        self._gathered = coded.gathered
        return coded

    def copy(self) -> Encoder:
        """Another encoder that goes on from here by itself."""
        return replace(self)

    def _why(self, coded: Coded) -> Why:
        settings, since = self.settings, self._since + 1
        if coded.cost > settings.cut:
            return "cut"
        if since >= settings.longest:
            return "length"
        return "drift" if since >= settings.gap and coded.gathered > settings.drift else ""

    def _refer(self, why: Why, coded: Coded | None = None) -> Coded:
        self._since, self._gathered = 0, 0.0
        return replace(coded or Coded(why), why=why)


def search(before: Image.Image, now: Image.Image, block: int, reach: int) -> NDArray[np.int16]:
    """Where each block of `now` lies in `before`: [rows, columns, 2], (down, right) in pixels from
    its own place, by the least absolute difference; (0, 0) where less than a level of grey is
    gained, for noise alone gains that much.

    Grey pictures of one size, of whole blocks. Every place up to `reach` pixels away is tried on
    pictures in which a block is four pixels wide, then those around the best on larger ones, to two
    pixels.
    """
    shrink = block // _CELLS
    vectors = _coarse_search(_levels(before, shrink), _levels(now, shrink), _CELLS, reach // shrink)
    while shrink > 2:
        shrink //= 2
        vectors = _refined(
            _levels(before, shrink), _levels(now, shrink), vectors * 2, block // shrink
        )
    return (vectors * shrink).astype(np.int16)


def coherent(residual: NDArray[np.int16], block: int) -> tuple[NDArray[np.float32], float]:
    """What a residual [H, W] of whole blocks costs, without roughness: (of each block
    [rows, columns], of all)."""
    apart = _sums(np.abs(residual), block)
    boxes = _sums(_abs(_sums(residual, _BOX)), block // _BOX)
    above = np.maximum(_BOX * boxes - apart, 0)  # of each block, for none makes up for another
    part = (_BOX - 1) * block**2
    return (above / part).astype(np.float32), int(above.sum(dtype=np.int64)) / (part * above.size)


def roughness(motion: NDArray[np.int16]) -> float:
    """By how many pixels the vectors of neighbouring blocks differ, in the mean."""
    apart = [np.abs(np.diff(motion.astype(np.int32), axis=axis)) for axis in (0, 1)]
    count = sum(each.size for each in apart) // 2
    return float(sum(int(each.sum()) for each in apart)) / max(count, 1)


def _levels(picture: Image.Image, shrink: int) -> NDArray[np.int16]:
    return np.asarray(picture.reduce(shrink), np.int16)


def _coarse_search(
    before: NDArray[np.int16], now: NDArray[np.int16], block: int, reach: int
) -> NDArray[np.int32]:
    height, width = now.shape
    rows, columns = height // block, width // block
    padded = np.pad(before, reach, mode="edge")
    every = sliding_window_view(padded, (height, width))
    side = 2 * reach + 1
    sums = np.empty((side, side, rows, columns), np.int32)
    step = max(1, _CACHED // (side * height * width))
    for top in range(0, side, step):
        apart = np.subtract(every[top : top + step], now)
        np.abs(apart, out=apart)
        # Sums by slices: numpy adds long rows far faster than many short ones.
        lines = sum((apart[..., i::block, :] for i in range(1, block)), apart[..., 0::block, :])
        own = sum((lines[..., i::block] for i in range(1, block)), lines[..., 0::block])
        sums[top : top + step] = own
    # Ties, and near ties, are for the smaller vector: neither a still picture moves nor noise.
    away = np.abs(np.arange(side) - reach)
    cost = (away[:, None] + away[None]) * block + block**2
    cost[reach, reach] = 0
    sums += cost[:, :, None, None]
    best = sums.reshape(side * side, rows, columns).argmin(axis=0)
    return np.stack([best // side - reach, best % side - reach], axis=-1)


_AROUND = np.array(
    [(0, 0)] + [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)], np.int32
)


def _refined(
    before: NDArray[np.int16], now: NDArray[np.int16], vectors: NDArray[np.int32], block: int
) -> NDArray[np.int32]:
    """The best of each vector and the eight around it."""
    height, width = now.shape
    rows, columns = height // block, width // block
    own = now.reshape(rows, block, columns, block).transpose(0, 2, 1, 3)
    near = _moved(before, vectors, block, margin=1)
    sums = np.empty((len(_AROUND), rows, columns), np.int32)
    apart = np.empty((rows, columns, block, block), np.int16)
    for number, (down, right) in enumerate(_AROUND + 1):
        there = near[..., down : down + block, right : right + block]
        np.abs(np.subtract(there, own, out=apart), out=apart)
        apart.reshape(rows, columns, -1).sum(axis=2, dtype=np.int32, out=sums[number])
    sums[1:] += block**2  # a level of grey has to be gained
    refined: NDArray[np.int32] = vectors + _AROUND[sums.argmin(axis=0)]
    return refined


def _moved(
    picture: NDArray[np.int16], vectors: NDArray[np.integer[Any]], block: int, margin: int = 0
) -> NDArray[np.int16]:
    """What lies where each block's vector points, with `margin` pixels around it: [rows, columns,
    block + 2 margin, block + 2 margin]. Beyond its edge the picture goes on as it ends."""
    reach = int(np.abs(vectors).max(initial=0)) + margin
    padded = np.pad(picture, reach, mode="edge")
    every = sliding_window_view(padded, (block + 2 * margin, block + 2 * margin))
    rows, columns = vectors.shape[:2]
    tops = (np.arange(rows) * block)[:, None] + vectors[..., 0] + (reach - margin)
    lefts = (np.arange(columns) * block)[None, :] + vectors[..., 1] + (reach - margin)
    found: NDArray[np.int16] = every[tops, lefts]
    return found


def compensated(
    before: NDArray[np.int16], motion: NDArray[np.int16], block: int
) -> NDArray[np.int16]:
    """The picture that `motion` predicts from the one before, both [H, W]."""
    if not motion.any():
        return before.copy()
    return _moved(before, motion, block).transpose(0, 2, 1, 3).reshape(before.shape)


def _padded(grey: Image.Image, block: int) -> Image.Image:
    """The picture with its last row and column repeated, up to whole blocks."""
    width, height = grey.size
    down, right = -height % block, -width % block
    if not down and not right:
        return grey
    return Image.fromarray(np.pad(np.asarray(grey), ((0, down), (0, right)), mode="edge"))


def _abs(values: NDArray[np.int32]) -> NDArray[np.int32]:
    found: NDArray[np.int32] = np.abs(values)
    return found


def _sums(values: NDArray[np.signedinteger[Any]], side: int) -> NDArray[np.int32]:
    """The sum of each square of `side` values."""
    height, width = values.shape
    lines = values.reshape(height // side, side, width).sum(axis=1, dtype=np.int32)
    by_column = lines.reshape(height // side, width // side, side)
    sums: NDArray[np.int32] = by_column.sum(axis=2, dtype=np.int32)
    return sums
