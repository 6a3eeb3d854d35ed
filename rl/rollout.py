"""Rollouts: a policy decides the seconds of windows, many in step, each with its own draws.

Frames do not depend on actions. So a window's prompt is encoded once and forked, its pictures are
encoded once, and all rollouts of a batch of windows advance second by second as one batch of the
engine. What was sampled enters the history as a user would be shown it; a delegation opens a
pending task, whose simulated result comes back into the stream. A malformed turn ends its rollout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from joyvl_train.heldout import Answer, Episode, Trace, step_of
from joyvl_train.rendering import Rendered
from joyvl_train.stream import Stream, Turn
from joyvl_train.timeline import Timeline
from joyvl_train.timing import Onset
from rl.windows import Opened, Window


class Reply(Answer, Protocol):
    """What is read of a `reply.Reply`."""

    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def logprobs(self) -> tuple[float, ...]: ...


class Sampler(Protocol):
    """What is used of an `engine.Engine` that was made with `details`."""

    def open(self, stream: Stream, seed: int | None = None) -> int: ...
    def fork(self, handle: int, stream: Stream | None = None, seed: int | None = None) -> int: ...
    def prefill(self, handles: Sequence[int]) -> None: ...
    def step(self, handles: Sequence[int]) -> Sequence[Reply]: ...
    def close(self, handle: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Sampled:
    """The tokens drawn in a second, each with its log-probability at the policy's temperature."""

    second: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One policy's way through a window.

    `trace` holds the gold past and what the policy did; `sampled` the seconds that it decided.
    memory_text, turns: the chunk as it stands after the last of them, from which the prompts of all
    of them follow. broken: it ended at a malformed turn. gold:
    what is due where gold is followed. prompt: of a turn-based question, which
    has no turns.
    """

    window: Window
    number: int
    timeline: Timeline
    trace: Trace
    sampled: tuple[Sampled, ...]
    memory_text: str
    turns: tuple[Turn, ...]
    broken: bool
    gold: tuple[Onset, ...] = ()
    prompt: Rendered | None = None

    @property
    def tokens(self) -> int:
        return sum(len(each.ids) for each in self.sampled)


@dataclass(slots=True)
class _Going:
    """A rollout on its way; its stream has an open turn while it goes on."""

    number: int
    opened: Opened
    stream: Stream
    episode: Episode
    handle: int
    sampled: list[Sampled] = field(default_factory=list)
    broken: bool = False


def draw_seed(seed: int, step: int, window: Window, number: int) -> int:
    """Names the draws of rollout `number` of a window in a step of training, on whichever rank."""
    text = f"{seed}/{step}/{window.key}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")


def roll(
    engine: Sampler,
    opened: Sequence[Opened],
    group: int,
    *,
    seed: int = 0,
    step: int = 0,
    rows: int = 256,
) -> list[list[Rollout]]:
    """`group` rollouts of each window, in their order; of a window without any frame none.

    rows: how many rollouts advance together at most. The streams and episodes that `opened` holds
    are used up.
    """
    found: list[list[Rollout]] = []
    size = max(1, rows // group)
    for start in range(0, len(opened), size):
        found += _block(engine, opened[start : start + size], group, seed, step)
    return found


def _block(
    engine: Sampler, opened: Sequence[Opened], group: int, seed: int, step: int
) -> list[list[Rollout]]:
    groups: list[list[_Going]] = [[] for _ in opened]
    masters: dict[int, int] = {}  # place -> handle
    handles: set[int] = set()
    try:
        for place, each in enumerate(opened):
            if _observed(each, each.stream, each.episode, each.window.first):
                masters[place] = engine.open(each.stream, 0)
                handles.add(masters[place])
        engine.prefill(list(masters.values()))
        for place, master in masters.items():
            each = opened[place]
            for number in range(group):
                stream = each.stream.fork()
                name = draw_seed(seed, step, each.window, number)
                handle = engine.fork(master, stream, name)
                handles.add(handle)
                going = _Going(number, each, stream, each.episode.fork(), handle)
                groups[place].append(going)
            engine.close(master)
            handles.remove(master)
        alive = [going for members in groups for going in members]
        while alive:
            replies = engine.step([going.handle for going in alive])
            still = []
            for going, reply in zip(alive, replies, strict=True):
                if _goes_on(going, reply):
                    still.append(going)
                else:
                    engine.close(going.handle)
                    handles.remove(going.handle)
            alive = still
    finally:
        for handle in handles:
            engine.close(handle)
    return [[_told(going) for going in members] for members in groups]


def _observed(opened: Opened, stream: Stream, episode: Episode, second: int) -> bool:
    """Opens the turn of the next second from `second` on that has frames; False past the window."""
    for now in range(second, opened.window.stop):
        if stream.observe(now, opened.show(now), *episode.arrivals(now)) is not None:
            return True
    return False


def _goes_on(going: _Going, reply: Reply) -> bool:
    """Closes the open turn by the reply and opens the next; False where the rollout is over."""
    turn = going.stream.open_turn
    assert turn is not None, "a rollout that goes on has an open turn"
    done = step_of(turn, reply)
    going.episode.note(done, going.stream.act(done.action))
    going.sampled.append(Sampled(turn.second, reply.tokens, reply.logprobs))
    going.broken = reply.action is None
    if going.broken:
        return False
    return _observed(going.opened, going.stream, going.episode, turn.second + 1)


def _told(going: _Going) -> Rollout:
    return Rollout(
        going.opened.window,
        going.number,
        going.episode.timeline,
        going.episode.trace("policy"),
        tuple(going.sampled),
        going.stream.memory_text,
        going.stream.turns,
        going.broken,
        tuple(going.episode.gold),
    )
