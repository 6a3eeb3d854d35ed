"""The photographic pictures: which file of the fetched stamps shows what."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True)
class Photo:
    """One stamp: its names (the first is the one used), and its file below the stamps' folder."""

    names: tuple[str, ...]
    plural: str
    category: str
    file: str
    article: str = "a"


PHOTOS: tuple[Photo, ...] = ()


def load(name: str) -> Image.Image:
    """The stamp as RGBA, cut to what is visible."""
    raise ValueError(f"no photographic picture {name!r}")
