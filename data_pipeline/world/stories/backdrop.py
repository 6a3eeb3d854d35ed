"""What a story plays before, and which things real footage shows by itself."""

from __future__ import annotations

import random
from collections.abc import Mapping

from data_pipeline.world.backgrounds import PLAIN, TEXTURES, Background, footage_clips
from data_pipeline.world.splits import Split

_CARS = ("car", "sports car", "truck", "fire truck", "bus")
_PLANTS = ("tree", "palm tree", "flower")

SHOWS: dict[str, tuple[str, ...]] = {
    "bikes": ("person", "bicycle", *_CARS, *_PLANTS, "house", "traffic light"),
    "bunny": ("rabbit", "squirrel", "butterfly", "bird", "apple", "mushroom", "rose", *_PLANTS),
    "campus": ("person", *_CARS, *_PLANTS),
    "carphone": ("person", *_CARS),
    "city": ("house",),
    "marathon": ("person", "flag", "balloon", *_CARS, *_PLANTS),
    "motorway": (*_CARS, *_PLANTS),
    "ocean": ("boat",),
    "tower": ("person", "house", *_CARS, *_PLANTS),
    "tree": ("person", "house", *_PLANTS),
    "webcam": ("person",),
    "webcam_later": ("person",),
}
"""Things that are, or come and go, in a clip of footage: no story before it tells of them."""


def choose(rng: random.Random, weights: Mapping[str, float], split: Split) -> Background:
    """A background of the kinds in `weights`; footage only of the split's own clips."""
    kinds = sorted(weights)
    kind = rng.choices(kinds, [weights[k] for k in kinds])[0]
    seed = rng.randrange(2**31)
    if kind == "footage":
        name = rng.choice(footage_clips(split))
        return Background("footage", name, seed, offset=round(rng.uniform(0, 60), 1))
    if kind == "texture":
        motion = (0.0, 0.0)
        if rng.random() < 0.3:
            motion = (round(rng.uniform(-0.1, 0.1), 3), round(rng.uniform(-0.1, 0.1), 3))
        return Background("texture", rng.choice(TEXTURES), seed, motion)
    return Background("plain", rng.choice(sorted(PLAIN)), seed)
