"""A case, played second by second to a system on a simulated clock: exact, and fast as it can be.

Second t is told when its last frame is there. Results of what a system delegates come back at its
own second plus the case's delay, and what is due after them moves along.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.case import Case
from eval.systems import System
from joyvl_train.actions import Silence
from joyvl_train.frames import Frames
from joyvl_train.heldout import Episode, Step, Trace
from joyvl_train.timeline import Timeline
from serve.session import Tick


@dataclass(frozen=True, slots=True)
class Played:
    """What a system did on a case; `latencies[t]` are the seconds that second t took it."""

    trace: Trace
    latencies: tuple[float, ...]


class Player:
    """The clock of a case, and what comes back to a system that delegates."""

    def __init__(self, case: Case, seconds: int, seed: int = 0) -> None:
        timeline = settled(case.timeline, seconds)
        self._episode = Episode(timeline, seed, early=case.early, late=case.late)

    def tick(self, second: int, frames: Sequence[object]) -> Tick:
        """What has arrived by the end of `second`."""
        return Tick(second, tuple(frames), *self._episode.arrivals(second))

    def note(self, step: Step, task: int | None) -> None:
        """Takes down a second; `task` is the number of what it delegated."""
        self._episode.note(step, task)

    def trace(self, policy: str) -> Trace:
        """All of it, beside what was due, given what was delegated."""
        return self._episode.trace(policy)


def settled(timeline: Timeline, seconds: int) -> Timeline:
    """The timeline on a stream that turned out to last so long; `TimelineError` where something is
    said past its end."""
    clip = timeline.clip
    if clip.seconds == seconds:
        return timeline
    return replace(timeline, clip=replace(clip, duration=float(seconds)))


def play(case: Case, frames: Frames, system: System, seed: int = 0) -> Played:
    """What `system` does on `case`. Raises `TimelineError` where the stream is too short for it."""
    player = Player(case, frames.seconds, seed)
    watcher = system.watch(case.id, case.timeline.opening, seed)
    latencies = []
    try:
        for second in range(frames.seconds):
            tick = player.tick(second, frames.frames(second))
            begun = time.perf_counter()
            done = watcher.step(tick)
            latencies.append(round(time.perf_counter() - begun, 4))
            if done is not None:
                player.note(done.step, None if done.task is None else done.task.number)
    finally:
        watcher.close()
    return Played(player.trace(system.name), tuple(latencies))


def charged(played: Played, latency: float | None = None) -> Trace:
    """The trace as it would have been heard: each thing said comes as much later as its step took,
    or as `latency` says; nothing overtakes what was said before. What would come after the last
    second is not heard."""
    moved: dict[int, Step] = {}
    steps = {step.second: step for step in played.trace.steps}
    last = max(steps, default=-1)
    free = 0
    for step in played.trace.steps:
        if isinstance(step.action, Silence):
            continue
        taken = played.latencies[step.second] if latency is None else latency
        second = max(step.second + math.floor(taken), free)
        while second <= last and second not in steps:
            second += 1
        free = second + 1
        if second <= last:
            moved[second] = step
    told = []
    for second, step in sorted(steps.items()):
        action = moved[second].action if second in moved else Silence()
        told.append(replace(step, action=action))
    return replace(played.trace, steps=tuple(told))
