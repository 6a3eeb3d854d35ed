"""Pictures as an agent is shown them: few enough, small enough, each under its second."""

from __future__ import annotations

import io
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from PIL import Image

from joyvl_train.conversation import time_line
from joyvl_train.llm import image_part, text_part
from joyvl_train.timeline import TimelineError

Pictures = Sequence[tuple[int, Image.Image | bytes]]
"""(second, picture or the bytes of a JPEG file), in the order of time."""


def thinned(seconds: Sequence[int], most: int, marked: Collection[int] = ()) -> list[int]:
    """Indices of at most `most` of the pictures, evenly spread, in order.

    The first, the last and those of a second in `marked` are always among them; `TimelineError`
    "too many pictures" where these alone are more.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    if len(seconds) <= most:
        return list(range(len(seconds)))
    kept = {0, len(seconds) - 1} | {i for i, second in enumerate(seconds) if second in marked}
    if len(kept) > most:
        raise TimelineError("too many pictures", f"{len(kept)} must be shown, at most {most} may")
    # What is left is shared out among the gaps, each time to the one that is sparsest.
    gaps = [[start, stop, 1] for start, stop in itertools.pairwise(sorted(kept))]
    for _ in range(most - len(kept)):
        sparsest = max(gaps, key=lambda gap: (gap[1] - gap[0]) / gap[2])
        sparsest[2] += 1
    for start, stop, steps in gaps:
        kept.update(start + (stop - start) * i // steps for i in range(steps))
    return sorted(kept)


def parts(pictures: Pictures, most: int, side: int, marked: Collection[int] = ()) -> list[Any]:
    """Message parts: `<7.0 seconds>`, then the pictures of that second, and so on.

    A picture whose longer side is above `side` pixels is made smaller. JPEG bytes that fit go out
    as they are. `TimelineError` "unreadable picture" for bytes that hold no JPEG.
    """
    shown = [pictures[i] for i in thinned([second for second, _ in pictures], most, marked)]
    made: list[Any] = []
    last: int | None = None
    for second, picture in shown:
        if second != last:
            made.append(text_part(time_line(second)))
            last = second
        made.append(image_part(_small(picture, side)))
    return made


def _small(picture: Image.Image | bytes, side: int) -> Image.Image | bytes:
    if isinstance(picture, bytes):
        opened = _opened(picture)
        if max(opened.size) <= side:
            return picture
        opened.draft("RGB", (side, side))  # decodes no more than is needed
        picture = _decoded(opened)
    if max(picture.size) <= side:
        return picture
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=("JPEG",))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise TimelineError("unreadable picture", f"no JPEG: {type(error).__name__}") from None


def _decoded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        raise TimelineError("unreadable picture", str(error)) from None
    return image
