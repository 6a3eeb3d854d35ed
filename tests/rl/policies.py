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


@dataclass
class Parted:
    """A branch: rollouts that say the same."""

    handle: int
    reply: Said
    members: tuple[int, ...]


class Scripted:
    """A sampler that does as a script says; what rollouts draw by is their number."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.rows: dict[int, Stream] = {}
        self.seeds: list[int] = []
        self.batches: list[tuple[int, int]] = []
        """(rows, rollouts) of each step."""
        self._opened = 0
        self._numbers = 0

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self._opened += 1
        self._numbers = 0
        self.rows[self._opened] = stream
        return self._opened

    def random(self, seed: int) -> int:
        self.seeds.append(seed)
        self._numbers += 1
        return self._numbers - 1

    def stream(self, handle: int) -> Stream:
        return self.rows[handle]

    def branch(
        self, handles: Sequence[int], randoms: Sequence[Sequence[int]]
    ) -> list[list[Parted]]:
        self.batches.append((len(handles), sum(map(len, randoms))))
        return [self._parted(h, of) for h, of in zip(handles, randoms, strict=True)]

    def _parted(self, handle: int, numbers: Sequence[int]) -> list[Parted]:
        turn = self.rows[handle].open_turn
        assert turn is not None
        said: dict[Action | None, list[int]] = {}
        for place, number in enumerate(numbers):
            said.setdefault(self.script(turn, number), []).append(place)
        found = []
        for action, members in said.items():
            at = handle if not found else self.open(self.rows[handle].fork())
            reply = Said("?", action, None if action else "empty")
            found.append(Parted(at, reply, tuple(members)))
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
