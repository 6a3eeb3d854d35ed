"""One stream and its model, second by second: `Session.step(tick) -> events`, live and offline.

A session owns its stream's state and changes it in `step` alone. What comes from outside reaches it
inside the tick: frames, what the user says, results of delegated tasks, texts for its memory. What
it wants done it says in its events; whoever drives it sees to that, at its own pace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from joyvl_train.actions import Delegation, Silence
from joyvl_train.background import Task, task_of
from joyvl_train.coded_frames import FrameCoder, prepared
from joyvl_train.heldout import Answer, Step, Streamer, step_of
from joyvl_train.memory import Memory, MemoryEvent, Summary
from joyvl_train.stream import Result, Stream, StreamSettings, Turn


@dataclass(frozen=True, slots=True)
class Tick:
    """What has arrived by the end of `second`. Seconds increase; those without frames may be told
    of or left out.

    `results` are (task number, digest); `notes` are of modules that look on; `summaries` and
    `block` answer `SummaryDue` and `BlockDue`. anew: the frames do not follow on those before.
    """

    second: int
    frames: tuple[Any, ...] = ()
    queries: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    summaries: tuple[Summary, ...] = ()
    block: Summary | None = None
    notes: tuple[str, ...] = ()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Stepped:
    """A second was answered; `task` is what it handed to the background model."""

    step: Step
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class SummaryDue:
    """A text that tells of `turns`, those of `seconds`, is wanted before the chunk ends. Of a
    second of which the model saw a change alone they hold the last frame, whole."""

    seconds: range
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class BlockDue:
    """One text of these summaries is wanted; without it theirs are joined."""

    summaries: tuple[Summary, ...]


@dataclass(frozen=True, slots=True)
class Remembered:
    """Something befell the memory."""

    event: MemoryEvent


SessionEvent = Stepped | SummaryDue | BlockDue | Remembered


class Follower(Protocol):
    """What follows streams by handles: an engine that is stepped, or a model that is asked."""

    def open(self, stream: Stream, seed: int | None = None) -> int: ...
    def close(self, handle: int) -> None: ...


Model = TypeVar("Model", bound=Follower)


class Session(Generic[Model]):
    """A stream and the handle that `engine` follows it by; `close` it in the end.

    seed: names what is drawn for it. snapshot: how many of the newest frames, whole, go out with a
    delegated task. tasks: the number of the task before its first. frame: what the engine takes of
    a picture. Where the settings have a codec, frames are pictures, and are coded here. A reply
    outside the grammar stands as silence, with its reason in the step.
    """

    def __init__(
        self,
        engine: Model,
        settings: StreamSettings | None = None,
        *,
        memory: Memory | None = None,
        pins: Sequence[str] = (),
        seed: int = 0,
        snapshot: int = 4,
        tasks: int = 0,
        frame: Callable[[Any], Any] = lambda picture: picture,
    ) -> None:
        self.engine = engine
        self.stream = Stream(settings, memory, pins, tasks=tasks)
        coded = self.stream.settings.codec is not None
        self._coder = FrameCoder(self.stream.settings) if coded else None
        self._frame = frame
        self._newest: deque[Any] = deque(maxlen=snapshot)
        self._whole: dict[int, Any] = {}  # second -> its last picture, of those shown as changes
        self._asked: range | None = None  # the last seconds that a summary was asked for
        self._blocks = 0  # the end of the last block that was asked for
        self._late: list[MemoryEvent] = []  # summaries that came after their boundary
        self._handle = engine.open(self.stream, seed)

    def step(self: Session[Streamer], tick: Tick) -> list[SessionEvent]:
        """Takes in a second and answers it; a second without frames is taken in alone.

        Raises `ValueError`, as `Stream` does, for a tick that can't follow.
        """
        return step_together([self], [tick])[0]

    def close(self) -> None:
        """Releases what the engine holds of the stream."""
        self.engine.close(self._handle)

    @property
    def handle(self) -> int:
        """What the engine knows the stream by."""
        return self._handle

    def begin(self, tick: Tick) -> bool:
        """The first half of `step`: opens the second's turn, which `finish` closes; False where it
        has no frames and so no turn, and `finish` is due all the same."""
        for summary in tick.summaries:
            self._late += self.stream.add_summary(summary)
        if tick.block is not None:
            self.stream.add_merge(tick.block)
        told = tick.queries, tick.results, tick.notes
        # A tick that is refused changes nothing.
        coder = None if self._coder is None else self._coder.copy()
        shown: Sequence[Any] = tick.frames
        if coder is not None:
            shown = coder.push(tick.second, tick.frames, anew=tick.anew)
        frames = tuple(prepared(each, self._frame) for each in shown)
        turn = self.stream.observe(tick.second, frames, *told)
        self._coder = coder
        self._newest.extend(tick.frames)
        if turn is not None and all(turn.predicted or (False,)):
            self._keep_whole(tick.second, tick.frames[-1])
        return turn is not None

    def _keep_whole(self, second: int, picture: Any) -> None:
        self._whole[second] = picture
        settings = self.stream.settings
        while second - next(iter(self._whole)) > settings.chunk_seconds + settings.lead:
            del self._whole[next(iter(self._whole))]

    def _to_tell(self) -> tuple[Turn, ...]:
        """The turns that a summary is due of, with whole frames."""
        return tuple(
            replace(turn, frames=(self._frame(self._whole[turn.second]),), predicted=())
            if turn.second in self._whole
            else turn
            for turn in self.stream.due_turns()
        )

    def finish(self, reply: Answer | None) -> list[SessionEvent]:
        """The other half: closes the turn with what the user is shown, and tells what came of it.
        None: no answer came, and an open turn stands as silence."""
        events: list[SessionEvent] = []
        turn = self.stream.open_turn
        if turn is not None and reply is None:
            self.stream.act(Silence())
        elif turn is not None and reply is not None:
            step = step_of(turn, reply)
            number, action = self.stream.act(step.action), step.action
            task = None
            if number is not None and isinstance(action, Delegation):
                newest = tuple(self._newest)
                task = task_of(number, turn.second, action, self.stream.memory_text, newest)
            events.append(Stepped(step, task))
        seconds = self.stream.due_summary()
        if seconds is not None and seconds != self._asked:
            self._asked = seconds
            events.append(SummaryDue(seconds, self._to_tell()))
        block = self.stream.due_merge()
        if block and block[-1].stop > self._blocks:
            self._blocks = block[-1].stop
            events.append(BlockDue(block))
        late, self._late = self._late, []
        return events + [Remembered(event) for event in (*late, *self.stream.take_events())]


def step_together(
    sessions: Sequence[Session[Streamer]], ticks: Sequence[Tick]
) -> list[list[SessionEvent]]:
    """A step of each of several sessions of one engine, which answers them together.

    Where that fails or is broken off, by the engine, a tick or Ctrl-C, the seconds that were begun
    stand as silence, and the error is the caller's to see.
    """
    if len({id(session.engine) for session in sessions}) > 1:
        raise ValueError("sessions of several engines can't be stepped together")
    begun: list[Session[Streamer]] = []
    answers: dict[int, Answer] = {}
    try:
        for session, tick in zip(sessions, ticks, strict=True):
            if session.begin(tick):
                begun.append(session)
        if begun:
            replies = begun[0].engine.step([session._handle for session in begun])
            answers = {id(s): reply for s, reply in zip(begun, replies, strict=True)}
    finally:
        # Whatever ended it, and that goes to the caller as it is: no turn stays open behind it.
        for session in begun:
            if id(session) not in answers:
                session.stream.act(Silence())
    return [session.finish(answers.get(id(session))) for session in sessions]
