"""Clips of noise for the tests of samples, and what decodes them."""

from __future__ import annotations

from typing import Any

from PIL import Image

from joyvl_train.rendering import Renderer
from joyvl_train.samples import StreamSamples
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Clip, Event, Timeline
from joyvl_train.weights import LossWeights

from .conftest import picture

SHORT = StreamSettings(chunk_seconds=12, lead=3)


class Pictures:
    """Frames of noise; `missing` seconds have none, `size` may differ from second to second."""

    def __init__(
        self, seconds: int, missing: tuple[int, ...] = (), sizes: Any = ((64, 32),), rate: int = 1
    ) -> None:
        self.seconds = seconds
        self.decoded: list[int] = []
        self._missing, self._sizes, self._rate = missing, sizes, rate

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        self.decoded.append(second)
        if second in self._missing:
            return ()
        size = self._sizes[second % len(self._sizes)]
        return tuple(picture(10 * second + i, size) for i in range(self._rate))


class Telling(Pictures):
    """Frames that tell their sizes without decoding."""

    def sizes(self, second: int) -> tuple[tuple[int, int], ...]:
        if second in self._missing:
            return ()
        return (self._sizes[second % len(self._sizes)],) * self._rate


def timeline(name: str, seconds: int, events: tuple[Event, ...] = (), rate: float = 1) -> Timeline:
    asked = Event("q", 0.5, "user", "say fire when you see it")
    return Timeline(Clip(name, float(seconds)), "alerting", "test", (asked, *events), rate)


def said(name: str, time: float, text: str = "fire") -> Event:
    return Event(name, time, "assistant", text, answers="q")


def samples_of(streams: Any, renderer: Renderer, settings: Any = SHORT, **more: Any) -> Any:
    return StreamSamples(streams, renderer, LossWeights(), settings, **more)
