"""Engines that follow a script, and small records, for the free-running loop.

What an engine would read is what the stream holds: the scripts look there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from joyvl_train.actions import Action
from joyvl_train.stream import Stream
from joyvl_train.timeline import Clip, Event, Rule, Timeline, action_of, action_seconds

PICTURE = Image.new("RGB", (4, 4))


@dataclass(frozen=True)
class Pictures:
    """One picture a second, but in the `missing` ones."""

    seconds: int
    missing: tuple[int, ...] = ()

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        assert 0 <= second < self.seconds
        return () if second in self.missing else (PICTURE,)


@dataclass(frozen=True)
class Reply:
    text: str = ""
    action: Action | None = None
    error: str | None = None
    truncated: bool = False


Script = Callable[[Stream, int], Reply]


class Scripted:
    """`script(stream, seed)` answers for each stream; the rest is bookkeeping to check the loop."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.streams: dict[int, tuple[Stream, int]] = {}
        self.opened = 0
        self.steps: list[int] = []

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self.opened += 1
        assert seed is not None
        self.streams[self.opened] = (stream, seed)
        return self.opened

    def step(self, handles: Sequence[int]) -> list[Reply]:
        assert len(set(handles)) == len(handles) > 0
        assert all(self.streams[h][0].open_turn is not None for h in handles)
        self.steps.append(len(handles))
        return [self.script(*self.streams[h]) for h in handles]

    def close(self, handle: int) -> None:
        del self.streams[handle]


def replay(timelines: Sequence[Timeline], shift: int = 0) -> Script:
    """Says the gold action of `shift` seconds ago."""
    due = [action_seconds(timeline.events) for timeline in timelines]

    def script(stream: Stream, index: int) -> Reply:
        turn = stream.open_turn
        assert turn is not None
        return Reply(action=action_of(due[index].get(turn.second - shift)))

    return script


def alerting(name: str = "a", seconds: int = 30) -> Timeline:
    events = (
        Event("q", 1.2, "user", "Tell me when a car comes."),
        Event("e", 9.5, "assistant", "A car.", until=14.0, answers="q", rule=Rule("exact")),
        Event("f", 20.0, "assistant", "A bus.", answers="q", rule=Rule("exact")),
    )
    return Timeline(Clip(name, duration=float(seconds)), "alerting", "test", events)


def delegating(name: str = "d") -> Timeline:
    events = (
        Event("q", 2.0, "user", "How many in all?"),
        Event("d", 3.0, "assistant", "One moment.", question="Count.", answers="q"),
        Event("r", 10.0, "background", "42 in all", answers="d"),
        Event("s", 11.0, "assistant", "42.", answers="r", rule=Rule("number")),
    )
    return Timeline(Clip(name, duration=30.0), "delegation", "test", events)


def cases(*timelines: Timeline) -> list[Any]:
    return [(t, Pictures(t.clip.seconds or 0)) for t in timelines]
