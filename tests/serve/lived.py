"""Live sessions on models that say what is set, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from joyvl_train.actions import Action, Silence
from joyvl_train.stream import Stream
from serve.source import Second
from tests.serve.test_session import Said

GREY = Image.new("RGB", (32, 32), (90, 90, 90))


def second(number: int, image: Image.Image = GREY) -> Second:
    return Second(number, (image,), float(number + 1))


@dataclass
class Scripted:
    """Says what is set for a second, is silent otherwise. waits: seconds -> what is awaited
    before the answer; fails: seconds -> what is raised."""

    actions: dict[int, Action | None] = field(default_factory=dict)
    waits: dict[int, Callable[[], Any]] = field(default_factory=dict)
    fails: dict[int, Exception] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    biases: dict[int, float] = field(default_factory=dict)
    prompts: list[tuple[str, ...]] = field(default_factory=list)
    opened: int = 0
    cache: float | None = None

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self.opened += 1
        self.streams[self.opened] = stream
        return self.opened

    def close(self, handle: int) -> None:
        del self.streams[handle]

    def lean(self, handle: int, silence_bias: float) -> None:
        self.biases[handle] = silence_bias

    def frame(self, image: Image.Image) -> Image.Image:
        return image

    async def reply(self, handle: int) -> Said:
        turn = self.streams[handle].open_turn
        assert turn is not None
        self.prompts.append((*turn.queries, *turn.notes, *(text for _, text in turn.results)))
        if turn.second in self.waits:
            await self.waits[turn.second]()
        if turn.second in self.fails:
            raise self.fails[turn.second]
        action = self.actions.get(turn.second, Silence())
        return Said("?", action, None if action else "empty")


async def settled() -> None:
    """Lets what waits in the loop go on."""
    for _ in range(20):
        await asyncio.sleep(0)
