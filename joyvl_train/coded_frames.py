"""What a model sees of a frame that is no reference: a small picture of what has changed.

    predicted(frame, before, 64)     # 64 by 64 pixels: four tokens of a Qwen3-VL, where the whole
                                     # frame of 192 by 192 has 36

What is as it was a frame ago is mid-grey; what is not shows as it is now, in its place: a thing
that came, one that moved, and where one left what is there instead. It goes through the vision
encoder as any picture does, so that nothing that trains or serves has to know of it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_LOW, _HIGH = 10, 40
"""Levels of change that are none, and that are shown in full: noise is below, things are above."""

_GREY = 128


def predicted(frame: Image.Image, before: Image.Image, side: int) -> Image.Image:
    """The square RGB picture, `side` pixels wide, of what differs in `frame` from `before`, a frame
    of the same size. Raises `ValueError` where their sizes differ."""
    if frame.size != before.size:
        raise ValueError(f"a frame of {frame.size} after one of {before.size} is a reference")
    now, was = (
        np.asarray(each.convert("RGB").resize((side, side), Image.Resampling.BOX), np.int16)
        for each in (frame, before)
    )
    change = np.abs(now - was).max(axis=2, keepdims=True)
    shown = np.clip((change - _LOW).astype(np.int32) * 255 // (_HIGH - _LOW), 0, 255)
    return Image.fromarray((_GREY + (now - _GREY) * shown // 255).astype(np.uint8))
