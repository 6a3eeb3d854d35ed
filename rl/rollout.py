"""Rollouts: a policy decides the seconds of windows, many in step, each with its own draws.

Frames do not depend on actions. So a window's prompt and pictures are encoded once, rollouts that
have said the same so far are one row of the engine (`joyvl_train.branching`), and those of a batch
of windows advance second by second as one batch. What was sampled enters the history as a user
would be shown it; a delegation opens a pending task, whose simulated result comes back into the
stream. A malformed turn ends its rollout.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from joyvl_train.actions import Action, Delegation
from joyvl_train.heldout import Answer, Episode, Step, Trace, step_of
from joyvl_train.rendering import Rendered, Segment
from joyvl_train.stream import Stream, Turn
from joyvl_train.timeline import Timeline, actions
from joyvl_train.timing import Onset
from rl.windows import Opened, Window


class Reply(Answer, Protocol):
    """What is read of a `reply.Reply`."""

    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def logprobs(self) -> tuple[float, ...]: ...


class Branch(Protocol):
    """What is read of a `branching.Branch`."""

    @property
    def handle(self) -> int: ...
    @property
    def reply(self) -> Reply: ...
    @property
    def members(self) -> tuple[int, ...]: ...


class Sampler(Protocol):
    """What is used of a `branching.BranchingEngine` that was made with `details`."""

    def open(self, stream: Stream, seed: int | None = None) -> int: ...
    def random(self, seed: int) -> Any: ...
    def stream(self, handle: int) -> Stream: ...
    def branch(
        self, handles: Sequence[int], randoms: Sequence[Sequence[Any]]
    ) -> Sequence[Sequence[Branch]]: ...
    def close(self, handle: int) -> None: ...


class Writer(Protocol):
    """What is used of a `rendering.Renderer`."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    def assistant(self, action: Action, second: int = -1) -> Segment: ...


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
    of them follow. broken: it ended at a malformed turn. gold: what is due where gold is followed.
    prompt: of a turn-based question, which has no turns. seconds: those of the window that have
    frames, decided or not.
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
    seconds: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(len(each.ids) for each in self.sampled)


@dataclass(slots=True)
class _Going:
    """Rollouts of a window that have said the same so far, on their way; their stream has an open
    turn while they go on. randoms: number of a rollout -> its random numbers."""

    randoms: dict[int, Any]
    opened: Opened
    stream: Stream
    episode: Episode
    handle: int
    sampled: tuple[Sampled, ...] = ()
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
    ended: list[list[_Going]] = [[] for _ in opened]
    handles: set[int] = set()
    alive: list[tuple[int, _Going]] = []  # with the place of the window
    try:
        for place, each in enumerate(opened):
            if _observed(each, each.stream, each.episode, each.window.first):
                handle = engine.open(each.stream, 0)
                handles.add(handle)
                randoms = {
                    number: engine.random(draw_seed(seed, step, each.window, number))
                    for number in range(group)
                }
                alive.append((place, _Going(randoms, each, each.stream, each.episode, handle)))
        while alive:
            drawn = engine.branch(
                [going.handle for _, going in alive],
                [list(going.randoms.values()) for _, going in alive],
            )
            still = []
            for (place, going), branches in zip(alive, drawn, strict=True):
                parts = _parts(engine, going, branches)
                handles |= {part.handle for part, _ in parts}
                for part, reply in parts:
                    if _goes_on(part, reply):
                        still.append((place, part))
                    else:
                        engine.close(part.handle)
                        handles.remove(part.handle)
                        ended[place].append(part)
            alive = still
    finally:
        for handle in handles:
            engine.close(handle)
    whole = [dict(pair for going in members for pair in _told(going)) for members in ended]
    return [[found[number] for number in sorted(found)] for found in whole]


def follow_gold(opened: Opened, renderer: Writer, number: int) -> Rollout | None:
    """The gold actions of a window as rollout `number`, which nobody has drawn: the log
    probabilities of its tokens are NaN. What `opened` holds stays as it is.

    None where nothing is decided in it, and where something is handed over: its result returns
    after a drawn delay, of which gold knows nothing.
    """
    first, stop = opened.window.first, opened.window.stop
    due = actions(opened.episode.timeline)
    if any(isinstance(action, Delegation) for action in due[first:stop]):
        return None
    stream, episode = opened.stream.fork(), opened.episode.fork()
    gold = _Going({number: None}, opened, stream, episode, -1)
    second = first
    while _observed(opened, stream, episode, second):
        turn = stream.open_turn
        assert turn is not None
        action = due[turn.second]
        episode.note(Step(turn.second, action, turn.queries, turn.results), stream.act(action))
        ids = renderer.assistant(action, turn.second).ids
        ends = next((n for n, token in enumerate(ids) if token in renderer.stop_ids), len(ids) - 1)
        unknown = (math.nan,) * (ends + 1)
        gold.sampled += (Sampled(turn.second, tuple(ids[: ends + 1]), unknown),)
        second = turn.second + 1
    return dict(_told(gold))[number] if gold.sampled else None


def _parts(
    engine: Sampler, going: _Going, branches: Sequence[Branch]
) -> list[tuple[_Going, Reply]]:
    """What the rollouts of `going` part into, each with what it says now."""
    numbers = list(going.randoms)
    parts = []
    for branch in branches:
        same = branch.handle == going.handle
        part = _Going(
            {numbers[i]: going.randoms[numbers[i]] for i in branch.members},
            going.opened,
            engine.stream(branch.handle),
            going.episode if same else going.episode.fork(),
            branch.handle,
            going.sampled,
        )
        parts.append((part, branch.reply))
    return parts


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
    going.sampled += (Sampled(turn.second, reply.tokens, reply.logprobs),)
    going.broken = reply.action is None
    if going.broken:
        return False
    return _observed(going.opened, going.stream, going.episode, turn.second + 1)


def _told(going: _Going) -> Iterator[tuple[int, Rollout]]:
    """The rollouts, each with its number."""
    trace, opened = going.episode.trace("policy"), going.opened
    window = opened.window
    seconds = tuple(t for t in range(window.first, window.stop) if opened.show(t))
    for number in going.randoms:
        yield (
            number,
            Rollout(
                window,
                number,
                going.episode.timeline,
                trace,
                going.sampled,
                going.stream.memory_text,
                going.stream.turns,
                going.broken,
                tuple(going.episode.gold),
                seconds=seconds,
            ),
        )
