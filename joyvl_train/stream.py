"""The state of one stream: the one loop of live serving, evaluation, rollouts and training data.

Each second `observe` opens a turn and `act` closes it. A chunk is `chunk_seconds` long; at its end
the prompt starts anew with the last `lead` seconds of turns. The memory text of a chunk is the
state of memory `lead` seconds before the boundary: what the carried turns show is not in it, and it
changes at boundaries only, so that inside a chunk the prompt only grows.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from joyvl_train import memory as remember
from joyvl_train.actions import Action, Delegation
from joyvl_train.codec import CodecSettings
from joyvl_train.memory import (
    CountTokens,
    Limits,
    Memory,
    MemoryEvent,
    Pinned,
    Summary,
    bounded,
    count_words,
)

Result = tuple[int, str]
"""The number of a delegated task, and the digest of its result."""

_KEPT_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Predicted:
    """What stands for a frame of which only the change is shown (`joyvl_train.coded_frames`)."""

    frame: Any


def told_apart(frames: Iterable[Any]) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
    """(the frames without the sign that they are `Predicted`, which of them are: () if none is)."""
    every = tuple(frames)
    coded = tuple(isinstance(frame, Predicted) for frame in every)
    plain = tuple(f.frame if isinstance(f, Predicted) else f for f in every)
    return plain, coded if any(coded) else ()


@dataclass(frozen=True, slots=True)
class Turn:
    """One second: what came in, and the action that closed it (None while the turn is open).

    `frames` are opaque: pictures, paths or keys of a cache. `predicted` says of each whether it
    shows a change alone; () where none does. `notes` are texts of modules that look on, read with
    the queries and not pinned as those are.
    """

    second: int
    frames: tuple[Any, ...] = ()
    queries: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    action: Action | None = None
    notes: tuple[str, ...] = ()
    predicted: tuple[bool, ...] = ()

    @property
    def whole(self) -> tuple[Any, ...]:
        """The frames that are shown whole."""
        predicted = self.predicted or (False,) * len(self.frames)
        return tuple(f for f, p in zip(self.frames, predicted, strict=True) if not p)

    def showing(self, frames: Iterable[Any]) -> Turn:
        """The turn with these frames, of which some may be `Predicted`."""
        plain, predicted = told_apart(frames)
        return replace(self, frames=plain, predicted=predicted)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """`chunk_seconds` is T_s of the report; consolidation begins `lead` seconds before its end.

    codec: how frames are coded before they come to the stream; None: each is seen whole.
    """

    chunk_seconds: int = 100
    lead: int = 10
    limits: Limits = field(default_factory=Limits)
    count_tokens: CountTokens = count_words
    codec: CodecSettings | None = None

    def __post_init__(self) -> None:
        if not 0 < self.lead < self.chunk_seconds:
            raise ValueError(
                f"lead is {self.lead} s and a chunk {self.chunk_seconds} s; "
                "the lead must be at least 1 s and shorter than a chunk"
            )


@dataclass(frozen=True, slots=True)
class _Due:
    """Seconds to be summarized for `boundary`: their turns, and the summary once it came."""

    seconds: range
    boundary: int
    turns: tuple[Turn, ...]
    summary: Summary | None = None


class Stream:
    """The single mutable state of one stream; see the module's text for its rules.

    Calls alternate: `observe` (until it returns a turn), `act`, `observe`, ... Boundaries lie at
    multiples of `chunk_seconds` from the first second observed, or from `begun` seconds before it.
    """

    def __init__(
        self,
        settings: StreamSettings | None = None,
        memory: Memory | None = None,
        pins: Sequence[str] = (),
        begun: int = 0,
        tasks: int = 0,
    ) -> None:
        """`memory` is what the stream begins with, `pins` are instructions that stand from the
        start. Tasks pending in `memory` keep their numbers; new ones count on from the highest, or
        from `tasks`. begun: so many seconds of the first chunk are over when the first second is
        observed."""
        self.settings = settings or StreamSettings()
        if not 0 <= begun < self.settings.chunk_seconds:
            raise ValueError(
                f"begun is {begun} s; it must be 0 or more and less than a chunk, "
                f"{self.settings.chunk_seconds} s"
            )
        self._memory = memory or Memory()
        self._turns: tuple[Turn, ...] = ()
        self._chunk = 0
        self._first: int | None = None  # the first second observed
        self._now: int | None = None  # the last second observed
        self._begun = begun
        self._boundary = 0  # where the open chunk ends
        self._supervised_from = 0
        self._covered = 0  # seconds before it have been announced for a summary
        self._dues: tuple[_Due, ...] = ()  # what is late and what is coming: three at most
        self._merge: Summary | None = None
        self._queries: tuple[str, ...] = ()  # texts that wait for a second with frames
        self._results: tuple[Result, ...] = ()
        self._notes: tuple[str, ...] = ()
        self._open_tasks = frozenset(p.number for p in self._memory.pending)
        self._tasks = max(tasks, *self._open_tasks, 0)  # the last number given
        self._absorbed_tasks = self._tasks  # the last number that memory knows of
        self._events: deque[MemoryEvent] = deque(maxlen=_KEPT_EVENTS)
        self.counts: Counter[str] = Counter()
        """How often each kind of event occurred."""
        self._open_memory(pins)
        self._memory_text = remember.memory_text(self._memory)

    def _open_memory(self, pins: Sequence[str]) -> None:
        limits = self.settings.limits
        opening = "\n".join(filter(None, map(str.strip, self._memory.opening.splitlines())))
        if len(opening) > limits.opening_chars:
            opening, cuts = bounded(opening, limits.opening_chars, None, "opening")
            self._note(cuts)
        self._memory = replace(self._memory, opening=opening)
        for text in pins:
            self._memory, events = remember.pin(
                self._memory, Pinned(None, text), limits, self.settings.count_tokens
            )
            self._note(events)

    # What a prompt is made of

    @property
    def memory_text(self) -> str:
        """The text that opens the chunk; it changes at boundaries only."""
        return self._memory_text

    @property
    def memory(self) -> Memory:
        """The memory that `memory_text` renders."""
        return self._memory

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of the chunk, the carried ones first; the last one may be open."""
        return self._turns

    @property
    def chunk(self) -> int:
        """Counts the chunks from 0; a new number says that the prompt started anew."""
        return self._chunk

    @property
    def supervised_from(self) -> int:
        """The first second of the chunk that isn't carried over from the one before."""
        return self._supervised_from

    @property
    def open_turn(self) -> Turn | None:
        """The turn that waits for its action."""
        return self._turns[-1] if self._turns and self._turns[-1].action is None else None

    @property
    def tasks(self) -> int:
        """The number of the last task that was handed over; 0: none was."""
        return self._tasks

    @property
    def open_tasks(self) -> frozenset[int]:
        """Numbers of the delegated tasks whose result has not come."""
        return self._open_tasks

    # The loop

    def observe(
        self,
        second: int,
        frames: Iterable[Any] = (),
        queries: Iterable[str] = (),
        results: Iterable[Result] = (),
        notes: Iterable[str] = (),
    ) -> Turn | None:
        """Open the turn of `second`; the chunk is cut first where its end is reached.

        Without frames no turn is opened and None is returned; the texts move to the next turn.
        Frames may be `Predicted`.
        Texts are cleaned, and cut at their limit with an event. Raises `ValueError`, and changes
        nothing, where the last turn is still open, the seconds don't increase, a result is for an
        unknown task, or its digest is empty.
        """
        frames, queries, results = tuple(frames), tuple(queries), tuple(results)
        self._check_observed(second, results)
        if self._first is None:
            self._first = self._covered = self._supervised_from = second
            self._boundary = second - self._begun + self.settings.chunk_seconds
        elif second >= self._boundary:
            since = self._first - self._begun
            passed = (second - since) // self.settings.chunk_seconds
            self._cut(since + passed * self.settings.chunk_seconds)
        self._now = second
        self._take_texts(second, queries, results)
        self._take_notes(second, notes)
        turn = None
        if frames:
            turn = Turn(second, (), self._queries, self._results, notes=self._notes)
            turn = turn.showing(frames)
            self._queries, self._results, self._notes = (), (), ()
            self._turns = (*self._turns, turn)
        if second >= self._boundary - self.settings.lead:
            self._announce(self._boundary)
        return turn

    def act(self, action: Action) -> int | None:
        """Close the open turn with what the user was shown; for a delegation, its task number.

        A step that timed out or came out malformed is closed with `Silence()`. Raises `ValueError`
        where no turn is open.
        """
        turn = self.open_turn
        if turn is None:
            raise ValueError(f"no turn is open (last second: {self._now})")
        self._turns = (*self._turns[:-1], replace(turn, action=action))
        if not isinstance(action, Delegation):
            return None
        self._tasks += 1
        self._open_tasks |= {self._tasks}
        return self._tasks

    def _check_observed(self, second: int, results: tuple[Result, ...]) -> None:
        if self.open_turn is not None:
            raise ValueError(f"second {second} observed, but {self._now} has no action yet")
        if isinstance(second, bool) or not isinstance(second, int) or second < 0:
            raise ValueError(f"a second is a whole number from 0 on, not {second!r}")
        if self._now is not None and second <= self._now:
            raise ValueError(f"second {second} observed after second {self._now}")
        open_tasks = set(self._open_tasks)
        for number, digest in results:
            if number not in open_tasks:
                raise ValueError(f"a result for task {number}, which is not pending")
            if not digest.strip():
                raise ValueError(f"the result of task {number} is empty")
            open_tasks.remove(number)

    def _take_texts(
        self, second: int, queries: tuple[str, ...], results: tuple[Result, ...]
    ) -> None:
        limits = self.settings.limits
        for query in queries:
            text, cuts = bounded(query, limits.text_chars, second, "query")
            self._note(cuts)
            if not text:
                self._note([MemoryEvent("empty_query", second, "")])
            elif len(self._queries) >= limits.queries:
                self._note([MemoryEvent("query_dropped", second, text)])
            else:
                self._queries = (*self._queries, text)
        for number, digest in results:
            text, cuts = bounded(digest, limits.text_chars, second, f"result {number}")
            self._note(cuts)
            self._results = (*self._results, (number, text))
            self._open_tasks -= {number}

    def _take_notes(self, second: int, notes: Iterable[str]) -> None:
        for note in notes:
            text, cuts = bounded(note, self.settings.limits.text_chars, second, "note")
            full = len(self._notes) >= self.settings.limits.queries
            self._note([*cuts, *([MemoryEvent("note_dropped", second, text)] if full else [])])
            self._notes += (text,) if text and not full else ()

    # Boundaries and consolidation

    def due_summary(self) -> range | None:
        """The seconds to be summarized now, or None.

        Announced from `lead` seconds before a boundary on, until the summary comes or the next
        range is announced: exactly the seconds since the last range, up to `lead` before the
        boundary. A range in which nothing was observed is never announced.
        """
        due = self._dues[-1] if self._dues else None
        return due.seconds if due is not None and due.summary is None else None

    def due_turns(self) -> tuple[Turn, ...]:
        """The turns of `due_summary()`; all of them are closed."""
        return self._dues[-1].turns if self.due_summary() is not None else ()

    def awaited(self) -> frozenset[range]:
        """The seconds that `add_summary` would take a summary of, late ones too."""
        return frozenset(due.seconds for due in self._dues if due.summary is None)

    def add_summary(self, summary: Summary) -> list[MemoryEvent]:
        """File the summary of an announced range; it enters memory at the coming boundary.

        One that missed its boundary enters at the next, with a `summary_late` event; after that its
        seconds stay a gap. Raises `ValueError` for any other seconds, and for a second summary.
        """
        seconds = range(summary.start, summary.stop)
        awaited = {due.seconds: due for due in self._dues if due.summary is None}
        if seconds not in awaited:
            ranges = ", ".join(f"[{r.start}, {r.stop})" for r in awaited) or "none"
            raise ValueError(
                f"a summary of seconds [{summary.start}, {summary.stop}); awaited: {ranges}"
            )
        due = awaited[seconds]
        filed = replace(due, summary=summary, turns=())
        self._dues = tuple(filed if other is due else other for other in self._dues)
        if due.boundary >= self._boundary:
            return []
        detail = f"seconds [{summary.start}, {summary.stop}) of boundary {due.boundary}"
        late = MemoryEvent("summary_late", self._now, detail)
        self.counts[late.kind] += 1
        return [late]

    def due_merge(self) -> tuple[Summary, ...]:
        """The M summaries that the next summary turns into one block; () while there are fewer."""
        full = len(self._memory.mid) >= self.settings.limits.mid
        return self._memory.mid if full and self._merge is None else ()

    def add_merge(self, block: Summary) -> None:
        """A text for the block of `due_merge()`; without one their texts are joined.

        Raises `ValueError` where the block covers other seconds than those.
        """
        mid = self.due_merge()
        if not mid or (block.start, block.stop) != (mid[0].start, mid[-1].stop):
            raise ValueError(f"no block of seconds [{block.start}, {block.stop}) is due")
        self._merge = block

    def _announce(self, boundary: int) -> None:
        stop = boundary - self.settings.lead
        if self._covered >= stop:
            return
        seconds = range(self._covered, stop)
        self._covered = stop
        turns = tuple(turn for turn in self._turns if turn.second in seconds)
        if turns:
            self._dues = (*self._dues, _Due(seconds, boundary, turns))

    def _cut(self, boundary: int) -> None:
        """Start the chunk that begins at `boundary`, the last one that was reached."""
        self._announce(boundary)  # a stream that jumped over the lead has not done so
        for due in self._dues:
            if due.summary is not None:
                self._memory, events = remember.add_summary(
                    self._memory, due.summary, self.settings.limits, self._merge
                )
                self._merge = None if any(e.kind == "merged" for e in events) else self._merge
                self._note(events)
            elif due.boundary <= self._boundary - self.settings.chunk_seconds:
                detail = f"seconds [{due.seconds.start}, {due.seconds.stop})"
                self._note([MemoryEvent("summary_gap", boundary, detail)])
        self._dues = tuple(
            due
            for due in self._dues
            if due.summary is None and due.boundary > self._boundary - self.settings.chunk_seconds
        )
        carried_from = boundary - self.settings.lead
        for turn in self._turns:
            if turn.second < carried_from:
                self._absorb(turn)
        self._turns = tuple(turn for turn in self._turns if turn.second >= carried_from)
        self._chunk += 1
        self._supervised_from = boundary
        self._boundary = boundary + self.settings.chunk_seconds
        self._memory_text = remember.memory_text(self._memory)
        self._note([MemoryEvent("chunk", boundary, f"chunk {self._chunk}")])

    def _absorb(self, turn: Turn) -> None:
        if isinstance(turn.action, Delegation):
            self._absorbed_tasks += 1
        self._memory, events = remember.absorb(
            self._memory,
            turn,
            self._absorbed_tasks,
            self.settings.limits,
            self.settings.count_tokens,
        )
        self._note(events)

    # Events and copies

    def _note(self, events: Iterable[MemoryEvent]) -> None:
        for event in events:
            self._events.append(event)
            self.counts[event.kind] += 1

    def take_events(self) -> list[MemoryEvent]:
        """The events since the last call, the newest 1000 at most; `counts` has them all."""
        events = list(self._events)
        self._events.clear()
        return events

    def fork(self) -> Stream:
        """An independent copy; turns and frames, which never change, are shared."""
        other = copy.copy(self)
        other._events = self._events.copy()
        other.counts = self.counts.copy()
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        return self.fork()
