"""The world as training clips and held-out clips: timelines by number, drawn when looked at."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from data_pipeline.world.pictures import PictureSets, sets_of
from data_pipeline.world.splits import Split
from data_pipeline.world.streams import (
    FAMILIES,
    HELD_OUT,
    SECONDS,
    STORIES,
    WorldFrames,
    stream,
    streams,
)
from joyvl_train.config import UserError, nearest
from joyvl_train.timeline import Timeline

_KEPT = 512

# Shares of the backgrounds, without and with real footage.
PLAIN_MIX = {"plain": 1.0, "texture": 2.0}
FOOTAGE_MIX = {"plain": 1.0, "texture": 2.0, "footage": 1.0}


HARD = ("alerting", "counting")
"""Families of a dozen kinds each, whose models are wrong about when most often at the end."""


def family_weights(
    families: Sequence[str], mix: Mapping[str, float], hard: float = 1.0
) -> dict[str, float]:
    """Family -> weight; empty `families` are all that training may hold. Those of `HARD` weigh
    `hard` times as much.

    Raises `UserError` for a family that there isn't, or that is held out of training.
    """
    for key, name in [*(("families", f) for f in families), *(("mix", f) for f in mix)]:
        if name in HELD_OUT:
            raise UserError(f"data.{key}: {name!r} is held out of training; take it out")
        if name not in STORIES:
            raise UserError(
                f"data.{key}: {name!r} is no family of the world.{nearest(name, STORIES)} "
                f"There are {', '.join(FAMILIES)}"
            )
    used = families or FAMILIES
    return {name: mix.get(name, 1.0) * (hard if name in HARD else 1.0) for name in used}


class WorldStreams:
    """`count` clips of one split, by number; equal arguments give equal clips in every process.
    They last as the world's streams do, or, where other bounds are given, from `shortest` to
    `longest` seconds."""

    def __init__(
        self,
        split: Split,
        seed: int,
        count: int,
        weights: Mapping[str, float],
        pictures: PictureSets,
        side: int,
        frames_per_second: float = 1.0,
        footage: bool = False,
        longest: int = SECONDS[1],
        shortest: int = SECONDS[0],
    ) -> None:
        self._bounds = shortest, longest
        self._split = split
        self._seed = seed
        self._count = count
        self._names = list(weights)
        self._weights = list(weights.values())
        self._pictures = sets_of(pictures)
        self._side = side
        self._rate = frames_per_second
        self._backgrounds = FOOTAGE_MIX if footage else PLAIN_MIX
        self._timeline = lru_cache(_KEPT)(self._make)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Timeline, WorldFrames]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        timeline = self._timeline(index)
        return timeline, WorldFrames(timeline, self._side)

    def _make(self, index: int) -> Timeline:
        rng = random.Random(f"world/{self._split}/{self._seed}/{index}")
        family = rng.choices(self._names, self._weights)[0]
        pictures = rng.choice(self._pictures)
        usual = self._bounds == SECONDS
        return stream(
            family,
            self._seed * 1_000_003 + index,
            self._split,
            pictures=pictures,
            seconds=None if usual else rng.randint(*self._bounds),
            frames_per_second=self._rate,
            backgrounds=self._backgrounds,
        )


def held_out(
    split: Split,
    seed: int,
    *,
    count: int = 0,
    hours: float = 0.0,
    families: Sequence[str],
    pictures: PictureSets,
    side: int,
    frames_per_second: float = 1.0,
    footage: bool = False,
) -> list[tuple[Timeline, WorldFrames]]:
    """Clips to be scored: `count` of them, or where that is 0 as many as last `hours` together.

    Families come in equal parts.
    """
    cases: list[tuple[Timeline, WorldFrames]] = []
    seconds = 0
    # No clip of the world is shorter than 8 s, so that this many always last long enough.
    most = count or int(hours * 3600 / 8) + 1
    for timeline in streams(
        split,
        seed,
        most,
        families,
        pictures,
        frames_per_second=frames_per_second,
        backgrounds=FOOTAGE_MIX if footage else PLAIN_MIX,
    ):
        if not count and seconds >= hours * 3600:
            break
        frames = WorldFrames(timeline, side)
        seconds += frames.seconds
        cases.append((timeline, frames))
    return cases
