"""The first of many clips that one more is near-same to, without a look at each of them.

All clips here are of one group of footage and of one kind. Words are compared once for all clips of
the same words, and only with those that can be near-same: two sets of ten words that share nine
share one of the two rarest of each (prefix filtering). Pictures are compared thousands at a time.
"""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from data_pipeline.clip_hash import (
    NEAR_CHANGES,
    NEAR_PICTURES,
    ONE_SILENT,
    PICTURES,
    WORDS,
    Words,
    near,
)
from data_pipeline.near_text import NEAR_TEXT, enough, near_words

_COMPARED = 1 << 13
_MOST = (
    (slice(PICTURES, None), math.floor(NEAR_CHANGES * 64 * (WORDS - PICTURES))),
    (slice(None, PICTURES), math.floor(NEAR_PICTURES * 64 * PICTURES)),
)
"""The bits that may differ at most, changes first: they tell more clips apart."""


class _Same:
    """Clips of the same words, by what they show, in the order in which they came."""

    def __init__(self) -> None:
        self.near = [self]
        self._count = 0
        self._places = np.zeros(1, np.int64)
        self._numbers = np.zeros(1, np.int64)
        self._shown = np.zeros((WORDS, 1), np.uint64)  # a word a row: compared row by row

    def add(self, place: int, number: int, shown: Words) -> None:
        if self._count == len(self._places):
            self._places, self._numbers = (
                np.concatenate([old, old]) for old in (self._places, self._numbers)
            )
            self._shown = np.concatenate([self._shown, self._shown], axis=1)
        self._places[self._count] = place
        self._numbers[self._count] = number
        self._shown[:, self._count] = shown
        self._count += 1

    def first(self, number: int, shown: Words, before: int) -> int:
        """The smallest place of a clip of another number that shows near the same, or `before`."""
        for start in range(0, self._count, _COMPARED):
            if self._places[start] >= before:
                break
            found = self._alike(slice(start, min(start + _COMPARED, self._count)), shown)
            found = found[self._numbers[found] != number]
            if len(found):
                return min(before, int(self._places[found[0]]))
        return before

    def _alike(self, where: slice, shown: Words) -> npt.NDArray[np.int64]:
        found = np.arange(where.start, where.stop)
        chosen = self._shown[:, where]
        for words, most in _MOST:
            apart = np.bitwise_count(chosen[words] ^ shown[words, None])
            # What is silent in one alone counts as so many; this is never more than what `near`
            # counts.
            np.minimum(apart, ONE_SILENT, out=apart)
            left = np.flatnonzero(np.add.reduce(apart, axis=0, dtype=np.uint8) <= most)
            found, chosen = found[left], chosen[:, left]
            if not len(found):
                return found
        return found[near(shown[None], np.ascontiguousarray(chosen.T))]


class NearClips:
    """The clips of one group and kind that stay so far. `common`: how often each word is met in
    the group."""

    def __init__(self, common: Mapping[int, int], share: float = NEAR_TEXT) -> None:
        self._common = common
        self._share = share
        self._names: list[str] = []
        self._same: dict[bytes, _Same] = {}
        self._rare: dict[tuple[int, int, int], list[bytes]] = {}
        """The words of clips by one of their rarest words, its place among them, and how many
        words there are."""

    def first(self, number: int, words: bytes, shown: Words) -> str | None:
        """The name of the first of other footage that is near-same; None where there is none."""
        none = len(self._names)
        found = none
        for same in self._of(words).near:
            found = same.first(number, shown, found)
        return None if found == none else self._names[found]

    def add(self, name: str, number: int, words: bytes, shown: Words) -> None:
        self._of(words).add(len(self._names), number, shown)
        self._names.append(name)

    def _of(self, words: bytes) -> _Same:
        """The clips of these words, which are held against all other words when first met."""
        same = self._same.get(words)
        if same is not None:
            return same
        same = self._same[words] = _Same()
        hashes = sorted(array("I", words), key=lambda word: (self._common[word], word))
        sizes = _sizes(len(hashes), self._share)
        others: set[bytes] = set()
        for size, mine, theirs in sizes:
            for word in hashes[:mine]:
                for place in range(theirs):
                    others.update(self._rare.get((word, place, size), ()))
        for place, word in enumerate(hashes[: max(mine for _, mine, _ in sizes)]):
            self._rare.setdefault((word, place, len(hashes)), []).append(words)
        for other in others:
            if near_words(words, other, self._share):
                same.near.append(self._same[other])
                self._same[other].near.append(same)
        return same


@functools.cache
def _sizes(words: int, share: float) -> tuple[tuple[int, int, int], ...]:
    """For so many words: how many words near-same sets may have, and among how many of the rarest
    of these and of those one is shared."""
    found = []
    for other in range(math.floor(share * words), math.ceil(words / share) + 1):
        both = min(words, other)
        if enough(both, words, other, share):
            while both > 1 and enough(both - 1, words, other, share):
                both -= 1
            found.append((other, words - both + 1, other - both + 1))
    return tuple(found)
