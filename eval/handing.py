"""A model whose choice of what to hand over is taken from it, beside which its own is measured.

`never_delegates` and `always_delegates` change what the model says before anybody is shown it: what
they made of it stands in its history, and what it goes on to say follows from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from joyvl_train.actions import Action, Delegation, Response
from joyvl_train.heldout import Answer, Streamer
from joyvl_train.stream import Stream, Turn

Change = Callable[[Turn, Action | None], Action | None]
"""(the open turn, what the model says in it) -> what is said instead."""

NOTE = "Let me look into that."
"""What is said with all that is handed over."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What stands in place of a model's answer."""

    text: str
    action: Action | None
    error: str | None
    truncated: bool


class Overruled:
    """The engine of sessions whose every answer goes through `change`."""

    def __init__(self, engine: Streamer, change: Change) -> None:
        self._engine, self._change = engine, change
        self._streams: dict[int, Stream] = {}

    def open(self, stream: Stream, seed: int | None = None) -> int:
        handle = self._engine.open(stream, seed)
        self._streams[handle] = stream
        return handle

    def step(self, handles: Sequence[int]) -> list[Answer]:
        replies = self._engine.step(handles)
        return [self._overruled(*pair) for pair in zip(handles, replies, strict=True)]

    def close(self, handle: int) -> None:
        del self._streams[handle]
        self._engine.close(handle)

    def _overruled(self, handle: int, reply: Answer) -> Answer:
        turn = self._streams[handle].open_turn
        assert turn is not None, "an answer belongs to an open turn"
        action = self._change(turn, reply.action)
        if action == reply.action:
            return reply
        return Changed(reply.text, action, reply.error, reply.truncated)


def never_delegates(turn: Turn, action: Action | None) -> Action | None:
    """Says the note of what the model would hand over, and hands nothing over."""
    return Response(action.note) if isinstance(action, Delegation) else action


def always_delegates(turn: Turn, action: Action | None) -> Action | None:
    """Hands over whatever the user says, in its own second, and says no more to it; in other
    seconds it does as the model does."""
    # A stream has cleaned what the user says: nothing in it is a control string or empty.
    return Delegation(NOTE, " ".join(turn.queries)) if turn.queries else action


HANDING: Mapping[str, Change] = {
    "never delegates": never_delegates,
    "always delegates": always_delegates,
}
"""System -> what it does to the model's own choice."""
