"""The first near-same clip, found without a look at each, is the first of a look at each."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import near_clips
from data_pipeline.clip_hash import WORDS, Words, near
from data_pipeline.near_clips import NearClips
from data_pipeline.near_text import near_words

Clips = list[tuple[int, bytes, Words]]


def packed(words: set[int]) -> bytes:
    return array("I", sorted(words)).tobytes()


def one_by_one(clips: Clips) -> Iterator[int | None]:
    """Which clip stays in place of each, by its number; None: it stays itself."""
    stay: list[int] = []
    for n, (number, words, shown) in enumerate(clips):
        for other in stay:
            its_number, its_words, its_shown = clips[other]
            alike = bool(near(shown[None], its_shown[None])[0])
            if its_number != number and near_words(words, its_words) and alike:
                yield other
                break
        else:
            stay.append(n)
            yield None


def looked_up(clips: Clips) -> Iterator[int | None]:
    common = Counter(word for _, words, _ in clips for word in array("I", words))
    stay = NearClips(common)
    for n, (number, words, shown) in enumerate(clips):
        found = stay.first(number, words, shown)
        if found is None:
            stay.add(str(n), number, words, shown)
        yield None if found is None else int(found)


def drawn(seed: int, count: int) -> Clips:
    """Clips of a few texts and a few pictures, each changed a little, some flat or still."""
    rng = np.random.default_rng(seed)
    texts = [set(rng.integers(0, 90, rng.integers(1, 70)).tolist()) for _ in range(2)]
    pictures = rng.integers(0, 2**64, (2, WORDS), np.uint64)
    clips = []
    for _ in range(count):
        words = set(texts[rng.integers(2)])
        for _ in range(rng.integers(3)):
            words ^= {int(rng.integers(0, 90))}
        shown = pictures[rng.integers(2)].copy()
        flipped = rng.random((WORDS, 64)) < rng.choice([0.0, 0.15, 0.2, 0.28])
        shown ^= np.packbits(flipped, axis=1).view(np.uint64).reshape(-1)
        shown[rng.random(WORDS) < rng.choice([0.0, 0.3])] = 0
        clips.append((int(rng.integers(5)), packed(words or {1}), shown))
    return clips


@pytest.mark.parametrize("compared", [1, 3, 1 << 13])
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_first_is_that_of_a_look_at_each(compared: int, seed: int) -> None:
    clips = drawn(seed, 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_clips, "_COMPARED", compared)
        assert list(looked_up(clips)) == list(one_by_one(clips))


def test_the_drawn_clips_have_some_of_each() -> None:
    found = [first for seed in range(20) for first in one_by_one(drawn(seed, 60))]
    assert 100 < sum(first is None for first in found) < 1100


def test_clips_of_other_words_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten words that all share and one of its own each: held against few, not against all."""
    asked = [0]

    def counted(*both: Any) -> bool:
        asked[0] += 1
        return near_words(*both)

    monkeypatch.setattr(near_clips, "near_words", counted)
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 2**64, WORDS, np.uint64)
    clips = [(n, packed({*range(10), 1000 + n}), shown) for n in range(300)]
    assert set(looked_up(clips)) == {None}
    assert asked[0] == 0
