"""Keeping what was drawn for a frame size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SMALL = 640 * 480
_LARGE_KEPT = 2


def kept(count: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the last `count` results of a function whose last two arguments are width and height.

    Of frames larger than 640x480 only the last two are kept, so that the memory stays bounded.
    """

    def decorate(make: Callable[P, R]) -> Callable[P, R]:
        many = lru_cache(maxsize=count)(make)
        few = lru_cache(maxsize=_LARGE_KEPT)(make)

        @wraps(make)
        def keep(*args: P.args, **kwargs: P.kwargs) -> R:
            width, height = args[-2:]
            assert isinstance(width, int) and isinstance(height, int)
            hashable: tuple[Hashable, ...] = args
            return (many if width * height <= _SMALL else few)(*hashable)

        return keep

    return decorate
