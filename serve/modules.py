"""Modules that look on: each sees a tick's pictures, and may add a line of text to it.

A module is any object with a `name` and `async look(second, frames) -> str`. `Looks` makes one of a
function that finds things in a picture, and tells of them when they change:

    Looks("ocr", lambda picture: [line.text for line in Ocr()(picture)])
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image


@dataclass(slots=True)
class Looks:
    """Tells what `find` finds in the newest picture, where that is something else than before."""

    name: str
    find: Callable[[Image.Image], Sequence[str]]
    most: int = 200
    _last: str = ""

    async def look(self, second: int, frames: Sequence[Image.Image]) -> str:
        found = await asyncio.to_thread(self.find, frames[-1])
        told = ", ".join(dict.fromkeys(found))[: self.most]
        changed, self._last = told != self._last, told
        return told if changed else ""
