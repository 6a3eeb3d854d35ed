"""Delegated tasks and their outcomes, and a background model simulated from gold results.

Only text and a bounded snapshot of frames go out; a bounded digest comes back. A real bridge and
the simulated one speak these types, so that a policy meets the same lines in both.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from joyvl_train.actions import Delegation
from joyvl_train.conversation import clean, cut
from joyvl_train.timeline import Event, Timeline

DIGEST_CHARS = 500
"""The longest digest that enters a stream; the full artifact is kept outside the context."""

ERROR_DIGEST = "Error: no result."
"""What a stream reads when a task failed, was cancelled or timed out."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is handed to the background model.

    `number` counts the stream's delegations from 1. Users are shown `note`; `question` is for the
    background model alone. `frames` is the bounded snapshot, newest last.
    """

    number: int
    second: int
    note: str
    question: str
    memory_text: str = ""
    frames: tuple[Any, ...] = ()


def task_of(
    number: int,
    second: int,
    delegation: Delegation,
    memory_text: str = "",
    frames: Sequence[Any] = (),
    max_frames: int = 8,
) -> Task:
    """The task of a delegation, with the last `max_frames` of the frames given."""
    if max_frames < 0:
        raise ValueError(f"max_frames is {max_frames}; it must be 0 or more")
    snapshot = tuple(frames)[max(len(frames) - max_frames, 0) :]
    return Task(number, second, delegation.note, delegation.question, memory_text, snapshot)


@dataclass(frozen=True, slots=True)
class Started:
    """The background model has taken the task."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The result: a digest for the stream, and where the full `artifact` can be fetched. lost: why
    there is none, though one was made."""

    number: int
    digest: str
    artifact: str | None = None
    lost: str = ""

    def __post_init__(self) -> None:
        if not clean(self.digest):
            raise ValueError(f"the digest of task {self.number} is empty")
        object.__setattr__(self, "digest", cut(clean(self.digest), DIGEST_CHARS))


@dataclass(frozen=True, slots=True)
class Error:
    """No result: `reason` is for the log, the stream reads `ERROR_DIGEST`."""

    number: int
    reason: str


Outcome = Started | Ready | Error


def result_of(outcome: Outcome) -> tuple[int, str] | None:
    """The (task number, digest) that enters the stream; None while there is nothing to enter."""
    match outcome:
        case Started():
            return None
        case Ready(number, digest):
            return number, digest
        case Error(number, _):
            return number, ERROR_DIGEST


class SimulatedBackground:
    """Returns the gold results of a timeline to a policy that delegates on its own.

    A delegation of the policy is matched to the gold delegation whose window
    [o - early, o + late] holds its second, each gold one once, the nearest first. Its result
    returns at the policy's own second plus the gold delay, or, with `draw_gold`, plus a drawn one.
    A delegation that nothing called for gets `ERROR_DIGEST` back after a drawn delay. A gold
    delegation whose result the timeline does not hold has no result to return.

    Delays are drawn evenly from `delays`, both ends included, from `seed`, the clip's id and the
    task number: the same policy meets the same delays, in whatever order clips are run.
    """

    def __init__(
        self,
        timeline: Timeline,
        seed: int = 0,
        *,
        early: int = 0,
        late: int = 1,
        delays: tuple[int, int] = (3, 12),
        draw_gold: bool = False,
    ) -> None:
        """`early` and `late` hold for events that name none of their own, in whole seconds."""
        if not 1 <= delays[0] <= delays[1]:
            raise ValueError(f"delays {delays!r}: two whole seconds from 1 on, the lower one first")
        self._clip = timeline.clip.id
        self._seed = seed
        self._early, self._late = early, late
        self._delays = delays
        self._draw_gold = draw_gold
        self._gold = tuple(e for e in timeline.of("assistant") if e.question is not None)
        self._results = {e.answers: e for e in reversed(timeline.of("background"))}
        self._scheduled: tuple[tuple[int, int, str], ...] = ()  # (second, number, digest)
        self.matched: dict[int, Event] = {}
        """Task number -> the gold delegation that it was matched to."""
        self.returned: dict[int, int] = {}
        """Task number -> the second in which its result or its error was delivered."""

    def dispatch(self, second: int, number: int, delegation: Delegation) -> None:
        """The policy delegated task `number` in `second`. Its question is not judged here."""
        known = {*self.matched, *self.returned, *(n for _, n, _ in self._scheduled)}
        if number in known:
            raise ValueError(f"task {number} was dispatched before")
        delay = random.Random(f"{self._seed} {self._clip} {number}").randint(*self._delays)
        gold = self._match(second)
        if gold is None:
            self._schedule(second + delay, number, ERROR_DIGEST)
            return
        self.matched[number] = gold
        result = self._results.get(gold.id)
        if result is not None:
            if not self._draw_gold:
                delay = max(result.second - gold.second, 1)
            self._schedule(second + delay, number, result.text)

    def due(self, second: int) -> list[tuple[int, str]]:
        """The (task number, digest) that return by `second`, each one once, in order of return."""
        now = [item for item in self._scheduled if item[0] <= second]
        self._scheduled = self._scheduled[len(now) :]
        for _, number, _ in now:
            self.returned[number] = second
        return [(number, digest) for _, number, digest in now]

    def draw_from_now_on(self) -> None:
        """Draws the delays of tasks that are dispatched from here on, gold ones too."""
        self._draw_gold = True

    def fork(self) -> SimulatedBackground:
        """An independent copy, for rollouts that share their past."""
        other = object.__new__(SimulatedBackground)
        other.__dict__.update(self.__dict__)
        other.matched, other.returned = self.matched.copy(), self.returned.copy()
        return other

    def _match(self, second: int) -> Event | None:
        taken = {event.id for event in self.matched.values()}
        open_gold = [
            event for event in self._gold if event.id not in taken and second in self._window(event)
        ]
        return min(open_gold, key=lambda e: (abs(e.second - second), e.second), default=None)

    def _window(self, event: Event) -> range:
        early = self._early if event.early is None else event.early
        late = self._late if event.late is None else event.late
        return range(event.second - early, event.second + late + 1)

    def _schedule(self, second: int, number: int, digest: str) -> None:
        self._scheduled = tuple(sorted((*self._scheduled, (second, number, digest))))
