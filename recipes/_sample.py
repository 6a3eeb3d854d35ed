"""The sample stream of recipe=serve: rendered scenes, one after another, with no end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count

from data_pipeline.world.streams import WorldFrames, stream
from serve.source import Notice, Second

ASKED = "Describe what happens."
"""What the user says at the start; the scenes are those of such streams."""

_SCENE = 40


def sample(
    stop: threading.Event, *, side: int = 384, seed: int = 0, paced: bool = True, every: int = 1
) -> Iterator[Second | Notice]:
    """Every `every`-th second of scenes of the validation split, which no training stream shows,
    with one picture `side` pixels wide; `paced` by the clock."""
    begun = time.monotonic()
    yield Notice("live")
    second = 0
    for number in count():
        scene = stream(
            "commentary",
            seed + number,
            "validation",
            kind="describe",
            seconds=_SCENE,
            backgrounds=("plain", "texture"),
        )
        frames = WorldFrames(scene, side)
        for place in range(frames.seconds):
            wait = begun + second + 1 - time.monotonic()
            if stop.wait(max(wait, 0.0) if paced else 0.0):
                return
            if second % every == 0:
                shown = frames.frames(place)[-1:]
                yield Second(second, shown, float(second + 1), () if second else (ASKED,))
            second += 1
