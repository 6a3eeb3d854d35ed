"""What is played the cases: models on a stream, turn-based policies over a model, transcripts.

A `System` opens a `Watcher` for each stream, which takes ticks and tells what it did with each:
`serve.session.Stepped`, or None for a second that was no turn to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.background import task_of
from joyvl_train.baselines import Asked, in_plain_words
from joyvl_train.chunks import Summarize
from joyvl_train.heldout import Answer, Step, Streamer
from joyvl_train.memory import Memory, Summary
from joyvl_train.stream import StreamSettings
from serve.session import Session, Stepped, SummaryDue, Tick


class Watcher(Protocol):
    """One system on one stream."""

    def step(self, tick: Tick) -> Stepped | None: ...
    def close(self) -> None: ...


class System(Protocol):
    """name: how reports call it. `watch` opens a stream that begins with this memory text; `seed`
    names what is drawn for it, `case` is its id."""

    @property
    def name(self) -> str: ...
    def watch(self, case: str, opening: str, seed: int) -> Watcher: ...


# Models on a stream


class Streaming:
    """A model on the stream itself, through the session that serving uses. Chunks are summarized by
    `summarize` while the next second is played, so that the text is there a second later."""

    def __init__(
        self, name: str, engine: Streamer, settings: StreamSettings, summarize: Summarize
    ) -> None:
        self.name = name
        self._engine, self._settings, self._summarize = engine, settings, summarize

    def watch(self, case: str, opening: str, seed: int) -> Watcher:
        session: Session[Streamer] = Session(
            self._engine, self._settings, memory=Memory(opening=opening), seed=seed
        )
        return _Watching(session, self._summarize)


class _Watching:
    def __init__(self, session: Session, summarize: Summarize) -> None:
        self._session, self._summarize = session, summarize
        self._summaries: tuple[Summary, ...] = ()

    def step(self, tick: Tick) -> Stepped | None:
        told = Tick(tick.second, tick.frames, tick.queries, tick.results, self._summaries)
        self._summaries = ()
        found: Stepped | None = None
        for event in self._session.step(told):
            if isinstance(event, Stepped):
                found = event
            elif isinstance(event, SummaryDue):
                text = self._summarize(event.turns)
                self._summaries = (Summary(event.seconds.start, event.seconds.stop, text),)
        return found

    def close(self) -> None:
        self._session.close()


# Turn-based policies


class TurnBased:
    """A model that is asked about single frames, as products do.

    period: it is asked the newest thing that the user said anew in the last of every `period`
    seconds (a poller); None: only in the second in which the user speaks, about the frame that is
    there then. Nothing that it delegates is done.
    """

    def __init__(self, name: str, engine: Asked, *, period: int | None = None) -> None:
        if period is not None and period < 1:
            raise ValueError(f"period is {period}; it must be 1 or more")
        self.name = name
        self._engine, self._period = engine, period

    def watch(self, case: str, opening: str, seed: int) -> Watcher:
        def answer(tick: Tick, asked: str) -> Answer:
            prompt = self._engine.renderer.render_question(
                asked, tick.frames, context=opening, system=self._engine.system
            )
            # What is drawn hangs on the stream and the second.
            (reply,) = self._engine.generate_batch([prompt], seeds=[seed * 100_003 + tick.second])
            return reply

        return _Asking(answer, self._period)


class _Asking:
    def __init__(self, answer: Callable[[Tick, str], Answer], period: int | None) -> None:
        self._answer, self._period = answer, period
        self._waiting: tuple[str, ...] = ()  # said in seconds without frames
        self._asked = ""

    def step(self, tick: Tick) -> Stepped | None:
        if not tick.frames:
            self._waiting += tick.queries
            return None
        queries, self._waiting = self._waiting + tick.queries, ()
        self._asked = " ".join(queries) or self._asked
        if self._period is None:
            due = bool(queries)
        else:
            due = bool(self._asked) and tick.second % self._period == self._period - 1
        if not due:
            return Stepped(Step(tick.second, Silence(), queries))
        reply = self._answer(tick, self._asked)
        action = reply.action or in_plain_words(reply.text)
        malformed = None if action is not None else (reply.error or "malformed")
        return Stepped(
            Step(
                tick.second,
                action or Silence(),
                queries,
                malformed=malformed,
                reply=None if malformed is None else reply.text,
                truncated=reply.truncated,
            )
        )

    def close(self) -> None:
        pass


# Policies that look at nothing


class Fixed:
    """Says `text` in every second for which `speaks` is true; it reads neither frames nor words."""

    def __init__(self, name: str, text: str, speaks: Callable[[int], bool]) -> None:
        self.name = name
        self._text, self._speaks = text, speaks

    def watch(self, case: str, opening: str, seed: int) -> Watcher:
        return _Saying({}, self._text, self._speaks)


TRIVIAL: Mapping[str, Callable[[int], bool]] = {
    "always silent": lambda second: False,
    "always speaking": lambda second: True,
    "poll of canned text": lambda second: second > 0,
}
"""Name -> when it speaks; the last says its text anew every second from the second one on."""


class Recorded:
    """A transcript of any system: what it said of each case, by second. What it handed over comes
    back after the case's own delay. A case that the transcript does not name was not played."""

    def __init__(self, name: str, said: Mapping[str, Mapping[int, Action]]) -> None:
        self.name = name
        self._said = said

    @property
    def cases(self) -> Sequence[str]:
        """The cases that it has played."""
        return list(self._said)

    def last(self, case: str) -> int:
        """The last second in which it said something; -1 where it was silent."""
        return max(self._said.get(case, {}), default=-1)

    def watch(self, case: str, opening: str, seed: int) -> Watcher:
        return _Saying(self._said.get(case, {}), "", lambda second: False)


class _Saying:
    def __init__(
        self, actions: Mapping[int, Action], text: str, speaks: Callable[[int], bool]
    ) -> None:
        self._actions, self._text, self._speaks = actions, text, speaks
        self._waiting: tuple[str, ...] = ()
        self._tasks = 0

    def step(self, tick: Tick) -> Stepped | None:
        if not tick.frames:
            self._waiting += tick.queries
            return None
        queries, self._waiting = self._waiting + tick.queries, ()
        action = self._actions.get(tick.second, Silence())
        if self._speaks(tick.second):
            action = Response(self._text)
        task = None
        if isinstance(action, Delegation):
            self._tasks += 1
            task = task_of(self._tasks, tick.second, action)
        return Stepped(Step(tick.second, action, queries, tick.results), task)

    def close(self) -> None:
        pass
