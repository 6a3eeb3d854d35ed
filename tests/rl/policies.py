"""Policies that follow a script, and windows of the world to try them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_pipeline.world.streams import WorldFrames, stream
from joyvl_train.actions import Action, Silence
from joyvl_train.stream import Stream, StreamSettings, Turn
from joyvl_train.timeline import Timeline, actions
from rl.rollout import Rollout, roll
from rl.windows import Sizes, Window, open_window, windows_of
from tests.joyvl_train.scripted import Pictures

SIDE = 32
SETTINGS = StreamSettings(100, 10)


@dataclass(frozen=True)
class Said:
    text: str
    action: Action | None
    error: str | None = None
    truncated: bool = False
    tokens: tuple[int, ...] = (1, 2)
    logprobs: tuple[float, ...] = (-0.5, -0.1)


Script = Callable[[Turn, int], Action | None]
"""(the open turn, the number of the rollout) -> what is said; None: something malformed."""


class Scripted:
    """A sampler that does as a script says."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.rows: dict[int, tuple[Stream, int]] = {}
        self.seeds: dict[int, int] = {}
        self.prefilled: list[int] = []
        self.batches: list[int] = []
        self._opened = 0

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self._opened += 1
        self.rows[self._opened] = (stream, -1)
        self.seeds[self._opened] = seed or 0
        return self._opened

    def fork(self, handle: int, stream: Stream | None = None, seed: int | None = None) -> int:
        assert stream is not None and handle in self.rows
        forks = sum(parent == handle for _, parent in self.rows.values())
        new = self.open(stream, seed)
        self.rows[new] = (stream, handle)
        self.numbers = {**getattr(self, "numbers", {}), new: forks}
        return new

    def prefill(self, handles: Sequence[int]) -> None:
        self.prefilled += handles

    def step(self, handles: Sequence[int]) -> list[Said]:
        self.batches.append(len(handles))
        found = []
        for handle in handles:
            turn = self.rows[handle][0].open_turn
            assert turn is not None
            action = self.script(turn, self.numbers[handle])
            found.append(Said("?", action, None if action else "empty"))
        return found

    def close(self, handle: int) -> None:
        del self.rows[handle]


def gold_of(timeline: Timeline) -> Script:
    """Does what is due, second by second."""
    due = actions(timeline)
    return lambda turn, number: due[turn.second]


def silent(turn: Turn, number: int) -> Action:
    return Silence()


def world(family: str, seed: int = 3, **options: object) -> tuple[Timeline, WorldFrames]:
    timeline = stream(family, seed, "train", **options)  # type: ignore[arg-type]
    return timeline, WorldFrames(timeline, SIDE)


def rolled(
    timeline: Timeline,
    window: Window,
    script: Script,
    group: int = 1,
    sampler: Scripted | None = None,
    **options: object,
) -> list[Rollout]:
    """`group` rollouts of one window of a clip; a script looks at no picture, so none is drawn."""
    frames = Pictures(timeline.clip.seconds or 0)
    opened = open_window(window, timeline, frames, SETTINGS, **options)  # type: ignore[arg-type]
    (found,) = roll(sampler or Scripted(script), [opened], group)
    return found


def windows(timeline: Timeline, kind: str, sizes: Sizes | None = None) -> list[Window]:
    return [w for w in windows_of(0, timeline, sizes or Sizes()) if w.kind == kind]
