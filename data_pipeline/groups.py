"""Which items are near-same, and the groups that follow, for millions of them in flat memory.

Arrays as long as the corpus lie in files; what is held at once is bounded by `_AT_ONCE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_pipeline.clip_hash import WORDS, near

Indices = npt.NDArray[np.int64]

_AT_ONCE = 1 << 20
_COMPARED = 1 << 15
_ROUNDS = 64


def on_disk(path: Path, dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
    """Zeros in a file of their own."""
    if 0 in shape:
        return np.zeros(shape, dtype)  # no file can be mapped that is empty
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def chunks(length: int, size: int = 0) -> Iterator[slice]:
    size = size or _AT_ONCE
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def same_values(
    values: npt.NDArray[np.uint64], order: npt.NDArray[np.uint64]
) -> Iterator[tuple[Indices, npt.NDArray[np.uint64]]]:
    """Groups the places of equal `values`, [N] in a file; a value of 0 is left out.

    Yields (places, their values) sorted by value, then by `order`. A value never lies in two.
    """
    rounds = -(-len(values) // _AT_ONCE)
    for turn in range(rounds):
        found = []
        for chunk in chunks(len(values)):
            part = values[chunk]
            # Multiplied, so that values which lie close are spread over the turns.
            mine = (part * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) % rounds == turn
            found.append(np.flatnonzero(mine & (part != 0)) + chunk.start)
        places = np.concatenate(found)
        places = places[np.lexsort((order[places], values[places]))]
        yield places, values[places]


def near_pairs(
    hashes: npt.NDArray[np.uint64], order: npt.NDArray[np.uint64], scratch: Path
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of near-same hashes ([N, WORDS] in a file), enough of them to join all that are found.

    Two hashes are compared where they agree in one half of one word: of two re-encodings of one
    video nearly all do (locality-sensitive hashing, 2 x WORDS bands). Where many agree, each is
    compared with the first, then those that are left with the first of them, `_ROUNDS` times.
    """
    band = on_disk(scratch, np.uint64, len(hashes))
    for number in range(2 * WORDS):
        for chunk in chunks(len(hashes)):
            word = hashes[chunk, number // 2]
            half = word >> np.uint64(32) if number % 2 else word & np.uint64(0xFFFFFFFF)
            # A word that says nothing is no reason to look closer.
            band[chunk] = np.where(word == 0, 0, half + np.uint64(1))
        for places, values in same_values(band, order):
            yield from _within(hashes, places, values)
    del band
    scratch.unlink(missing_ok=True)


def _within(
    hashes: npt.NDArray[np.uint64], places: Indices, values: npt.NDArray[np.uint64]
) -> Iterator[tuple[Indices, Indices]]:
    for _ in range(_ROUNDS):
        if len(places) < 2:
            return
        opens = np.concatenate([[True], values[1:] != values[:-1]])
        if opens.all():
            return
        firsts = np.flatnonzero(opens)[np.cumsum(opens) - 1]
        left = np.flatnonzero(~opens)
        first, other = places[firsts[left]], places[left]
        alike = np.concatenate(
            [
                near(hashes[first[chunk]], hashes[other[chunk]])
                for chunk in chunks(len(other), _COMPARED)
            ]
        )
        yield first[alike], other[alike]
        places, values = other[~alike], values[left][~alike]


class Groups:
    """Groups of the items 0 to N - 1, joined two at a time; in files of `folder`.

    An item starts in the group of the first one of the same `number` (64 bits, of its footage).
    `low` of a group is its smallest number; `mixed` says that it holds several.
    """

    def __init__(self, numbers: npt.NDArray[np.uint64], folder: Path) -> None:
        count = len(numbers)
        self._parent = on_disk(folder / "parent.npy", np.int64, count)
        self._low = on_disk(folder / "low.npy", np.uint64, count)
        self._mixed = on_disk(folder / "mixed.npy", np.bool_, count)
        order = on_disk(folder / "order.npy", np.uint64, count)
        for chunk in chunks(count):
            order[chunk] = np.arange(chunk.start, chunk.stop)
            self._parent[chunk] = order[chunk]
            self._low[chunk] = numbers[chunk]
        for places, values in same_values(numbers, order):
            if len(places):
                opens = np.concatenate([[True], values[1:] != values[:-1]])
                self._parent[places] = places[np.flatnonzero(opens)[np.cumsum(opens) - 1]]

    def join(self, one: int, other: int) -> None:
        a, b = self._root(one), self._root(other)
        if a == b:
            return
        root, joined = min(a, b), max(a, b)
        self._parent[joined] = root
        self._low[root] = min(self._low[root], self._low[joined])
        self._mixed[root] = True

    def _root(self, item: int) -> int:
        parent = self._parent
        while (above := int(parent[item])) != item:
            parent[item] = parent[above]
            item = above
        return item

    def settle(self) -> None:
        """Makes every item point at its root; after the last `join`, before what follows."""
        for chunk in chunks(len(self._parent)):
            roots = self._parent[chunk]
            while (above := self._parent[roots]).tobytes() != roots.tobytes():
                roots = above
            self._parent[chunk] = roots

    def roots(self, places: slice) -> Indices:
        return np.array(self._parent[places])

    def low(self, places: slice) -> npt.NDArray[np.uint64]:
        """The smallest number in the group of each."""
        return np.array(self._low[self._parent[places]])

    def mixed(self, places: slice) -> npt.NDArray[np.bool_]:
        """Whether the group of each holds several numbers."""
        return np.array(self._mixed[self._parent[places]])

    @property
    def joined(self) -> int:
        """How many groups hold several numbers."""
        total = 0
        for chunk in chunks(len(self._parent)):
            own = self._parent[chunk] == np.arange(chunk.start, chunk.stop)
            total += int((own & self._mixed[chunk]).sum())
        return total
