"""A session as it is lived: a source's seconds in, numbered events out, nothing waited for.

    live = Live("door", model, settings, keeper=lambda: Seen(model.ask))
    await live.run(feed)

Each second is one step of `serve.session.Session`. Memory, background tasks and modules work beside
it; what they come to enters with a later second. A model that does not answer in time leaves that
second silent, with an event that says so, and is asked again at the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from joyvl_train.actions import Action, Delegation, Response, Silence, spoken
from joyvl_train.background import Error, Outcome, Ready, Started, result_of
from joyvl_train.heldout import Answer, Step
from joyvl_train.llm import LLMError
from joyvl_train.memory import Memory, Summary, memory_text
from joyvl_train.pictures import resized, target_size
from joyvl_train.stream import Result
from serve.bridge import Bridge, Solved
from serve.events import EventLog
from serve.feed import Feed
from serve.in_process import EngineError
from serve.live_settings import LiveSettings, Model, Module
from serve.memory import Keeper, Said, block_of
from serve.quantile import quantile
from serve.session import BlockDue, Session, Stepped, SummaryDue, Tick
from serve.source import Second
from serve.speech import SpeechError, Voice


@dataclass(frozen=True, slots=True)
class _Said:
    """A reply of which a filter let through something else."""

    text: str
    action: Action
    error: str | None = None
    truncated: bool = False


class Live:
    """One live session; `close` it in the end. All of its methods run in one event loop.

    keeper, bridge and modules make what works beside a stream. No keeper: `Said`.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        settings: LiveSettings | None = None,
        *,
        keeper: Callable[[], Keeper] | None = None,
        bridge: Callable[[Callable[[Outcome], None]], Bridge] | None = None,
        modules: Callable[[], Sequence[Module]] = tuple,
        mode: str = "default",
        opening: str = "",
        pins: Sequence[str] = (),
        seed: int = 0,
        log: EventLog | None = None,
        voice: Voice | None = None,
    ) -> None:
        self.name, self.model = name, model
        self.settings = settings or LiveSettings()
        self.log = log or EventLog()
        self.counts: Counter[str] = Counter()
        """Events by kind, of all of the session's life."""
        self.latencies: deque[float] = deque(maxlen=600)
        """Seconds that the model took for each of the newest steps."""
        self.overheads: deque[float] = deque(maxlen=600)
        """Seconds that all else took."""
        self.voice = voice
        # Made anew with each beginning: what they know of a stream is forgotten with it.
        said = partial(Said, self.settings.stream.limits.told_chars)
        self._make_keeper = keeper or said
        self._make_bridge, self._make_modules = bridge, modules
        self._opening, self._pins, self._seed = opening, tuple(pins), seed
        self._lock = asyncio.Lock()
        self._beside: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._session_number = 0
        self._looking: dict[str, asyncio.Task[str]] = {}  # module -> its look that is not over
        self.mode = mode
        self._begin(0)

    def _begin(self, tasks: int) -> None:
        """A stream from its start; its tasks are numbered from the one after `tasks` on."""
        self._keeper, self._modules = self._make_keeper(), tuple(self._make_modules())
        self._queries: list[str] = []
        self._results: list[Result] = []
        self._summaries: list[Summary] = []
        self._block: Summary | None = None
        self._last_query: int | None = None
        self._second = -1
        self._offset, self._anew = 0, False
        self.session: Session[Model] = Session(
            self.model,
            self.settings.stream,
            memory=Memory(opening=self._opening),
            pins=self._pins,
            seed=self._seed,
            snapshot=0,
            tasks=tasks,
            frame=self.model.frame,
        )
        self._recent: deque[Image.Image] = deque(maxlen=self.settings.snapshot)
        try:
            self._lean(self.mode)
        except ValueError:
            self.session.close()
            raise
        self._session_number += 1
        number = self._session_number
        self.bridge = self._make_bridge and self._make_bridge(
            lambda outcome: self._outcome(number, outcome)
        )

    # What comes from outside

    def ask(self, text: str) -> bool:
        """The user says something; it enters with the next second. False where too much waits, or
        all is over."""
        if self._closed:
            return False
        if len(self._queries) >= self.settings.waiting:
            self._tell("refused", what="query", reason="too many wait")
            return False
        self._queries.append(text)
        self._tell("query", text=text)
        return True

    def hear(self, text: str) -> bool:
        """The user is heard to say something; `ask` for the rest."""
        if self._closed:
            return False
        self._tell("heard", text=text)
        return self.ask(text)

    def set_mode(self, mode: str) -> None:
        """Speaks less or more from the next second on. Raises `ValueError` for an unknown mode, or
        where the model takes no bias. Nothing, once all is over."""
        if self._closed:
            return
        self._lean(mode)
        self.mode = mode
        self._tell("config", mode=mode)

    def _lean(self, mode: str) -> None:
        known = self.settings.modes
        if mode not in known:
            raise ValueError(f"mode {mode!r}: there are {', '.join(known)}")
        self.model.lean(self.session.handle, known[mode])

    def cancel(self, number: int) -> bool:
        """Ends a background task; False where it does not run."""
        return self.bridge is not None and self.bridge.cancel(number)

    async def give(self, number: int, digest: str) -> bool:
        """What a task came to, from the client; False where it does not run."""
        return self.bridge is not None and await self.bridge.give(number, Solved(digest))

    async def reset(self) -> None:
        """Forgets all: memory, instructions, tasks, what keeper and modules know. Events and tasks
        are numbered on, so that what comes for an old task is nobody's."""
        async with self._lock:
            if self._closed:
                return
            await self._end_session()
            self._begin(self.session.stream.tasks)
            self._tell("reset")

    async def close(self, reason: str = "closed") -> None:
        """Ends all that goes on beside the stream, and lets go of the model."""
        if self._closed:
            return
        self._closed = True
        async with self._lock:
            await self._end_session()
            self._tell("closed", reason=reason)
            self.log.close()

    async def _end_session(self) -> None:
        ending = {*self._beside, *self._looking.values()}
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=10)
        self._looking.clear()
        if self.bridge is not None:
            await self.bridge.close()
        self.session.close()

    # The loop

    async def run(self, feed: Feed, shown: Callable[[Second], None] = lambda second: None) -> None:
        """Steps the seconds of a source until it ends or the session is closed. shown: is told of
        each before it is stepped."""
        dropped = 0
        while not self._closed and (second := await feed.take()) is not None:
            shown(second)
            if feed.dropped > dropped:
                self._tell("dropped", seconds=feed.dropped - dropped)
                dropped = feed.dropped
            await self.step(second)

    async def step(self, given: Second) -> Step | None:
        """One second of the source; what was done in it, None where it was none to the model."""
        async with self._lock:
            if self._closed:
                return None
            second = self._place(given.second)
            notes = await self._notes(second, given.frames)
            begun = time.perf_counter()
            tick = self._tick(second, given, notes)
            reply, took, whole = None, 0.0, False
            try:
                if self.session.begin(tick):
                    asked = time.perf_counter()
                    reply = self._let_through(second, await self._reply(second))
                    took = time.perf_counter() - asked
                whole = True
            finally:
                if not whole:  # broken off: no turn stays open behind it
                    self.session.finish(None)
            done: Step | None = None
            for event in self.session.finish(reply):
                if isinstance(event, Stepped):
                    done = self._stepped(event, took)
                elif isinstance(event, SummaryDue):
                    self._beside_of(self._summarize(self._session_number, event))
                elif isinstance(event, BlockDue):
                    self._beside_of(self._merge(self._session_number, event))
                else:
                    told = event.event
                    self._tell("memory", what=told.kind, second=told.second, detail=told.detail)
            self.latencies.append(took)
            self.overheads.append(time.perf_counter() - begun - took)
            return done

    def _place(self, second: int) -> int:
        """The second in the session: a source that begins anew goes on after the last one."""
        placed = second + self._offset
        if placed <= self._second:
            self._offset += self._second + 1 - placed
            placed = self._second + 1
            self._anew = True
        self._second = placed
        return placed

    def _tick(self, second: int, given: Second, notes: tuple[str, ...]) -> Tick:
        for text in given.queries:
            self._tell("query", text=text, by="source")
        queries, self._queries = (*given.queries, *self._queries), []
        results, self._results = tuple(self._results), []
        summaries, self._summaries = tuple(self._summaries), []
        block, self._block = self._block, None
        if queries:
            self._last_query = second
            recalled = self._keeper.recall(" ".join(queries), self._remembered())
            notes += (recalled,) if recalled else ()
        awaited = self.session.stream.awaited()
        kept = tuple(s for s in summaries if range(s.start, s.stop) in awaited)
        for lost in (s for s in summaries if s not in kept):
            self._tell("memory", what="summary_lost", second=second, detail=f"{lost.start} s")
        self._recent.extend(given.frames)
        frames = tuple(map(self._small, given.frames))
        due = self.session.stream.due_merge()
        fits = (
            block is not None and due and (block.start, block.stop) == (due[0].start, due[-1].stop)
        )
        told = queries, results, kept, block if fits else None, notes
        anew, self._anew = given.anew or self._anew, False
        return Tick(second, frames, *told, anew)

    def _small(self, image: Image.Image) -> Image.Image:
        if self.settings.side is None:
            return image
        width, height = image.size
        side, multiple = self.settings.side, self.settings.multiple
        return resized(image, target_size(width, height, side, multiple))

    def _remembered(self) -> int:
        """The first second that the stream's own memory still tells of."""
        memory = self.session.stream.memory
        past = (*memory.long, *memory.mid)
        return past[0].start if past else 0

    async def _notes(self, second: int, frames: Sequence[Image.Image]) -> tuple[str, ...]:
        if not self._modules or not frames:
            return ()
        # One look at a time of each, or slow ones would fill all threads; what comes late is told
        # with the second in which it comes.
        waiting, self._looking = self._looking, {}
        looks = {
            module.name: waiting.get(module.name)
            or asyncio.create_task(module.look(second, frames))
            for module in self._modules
        }
        await asyncio.wait(looks.values(), timeout=self.settings.module_timeout)
        notes = []
        for module in self._modules:
            look = looks[module.name]
            if not look.done():
                self._looking[module.name] = look
                self._tell("module", module=module.name, error="no answer in time")
            elif look.exception() is not None:
                self._tell("module", module=module.name, error=str(look.exception())[:200])
            elif look.result():
                notes.append(f"{module.name}: {look.result()}")
        return tuple(notes)

    async def _reply(self, second: int) -> Answer | None:
        """The model's answer; None, with an event, where it failed or is late."""
        asked = asyncio.ensure_future(self.model.reply(self.session.handle))
        try:
            await asyncio.wait([asked], timeout=self.settings.step_timeout)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        if not asked.done():
            self._tell(
                "engine", second=second, error=f"no answer in {self.settings.step_timeout:g} s"
            )
            self._beside_of(self._late(second, asked))
            return None
        error = asked.exception()
        if error is None:
            return asked.result()
        if not isinstance(error, EngineError | LLMError):
            raise error
        self._tell("engine", second=second, error=str(error)[:300])
        return None

    async def _late(self, second: int, asked: asyncio.Future[Answer]) -> None:
        """Files what came too late under its second; it never enters the stream."""
        await asyncio.wait([asked], timeout=10 * self.settings.step_timeout)
        if not asked.done():
            asked.cancel()
        elif not asked.cancelled() and asked.exception() is None:
            action = asked.result().action
            text = spoken(action) if action is not None else None
            self._tell("late", second=second, text=text or "")

    def _let_through(self, second: int, reply: Answer | None) -> Answer | None:
        """The reply as it may be said."""
        text = spoken(reply.action) if reply is not None and reply.action is not None else None
        if reply is None or text is None:
            return reply
        asked = self._last_query is not None
        asked = asked and second - (self._last_query or 0) <= self.settings.asked_for
        said = self.settings.say(text, asked)
        if said == text:
            return reply
        self._tell("filtered", second=second, text=text)
        action: Action = Silence()
        if said and isinstance(reply.action, Delegation):
            action = Delegation(said, reply.action.question)
        elif said:
            action = Response(said)
        return _Said(reply.text, action, truncated=reply.truncated)

    def _stepped(self, event: Stepped, took: float) -> Step:
        step = event.step
        told: dict[str, Any] = {"second": step.second, "latency": round(took, 4)}
        if step.malformed is not None:
            kind = "engine" if step.malformed == "no answer" else "malformed"
            self._tell(kind, second=step.second, error=step.malformed, text=step.reply or "")
        text = spoken(step.action)
        names = {Silence: "silence", Response: "response", Delegation: "delegation"}
        self._tell("step", action=names[type(step.action)], text=text or "", **told)
        if text and self.voice is not None:
            self._beside_of(self._speak(self.voice, step.second, text))
        if event.task is not None:
            if self.bridge is None:
                self._outcome(self._session_number, Error(event.task.number, "no background model"))
            else:
                self.bridge.start(replace(event.task, frames=tuple(self._recent)))
        return step

    # Beside the stream

    def _beside_of(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _speak(self, voice: Voice, second: int, text: str) -> None:
        try:
            spoken = await voice.speak(text)
        except SpeechError as error:
            self._tell("speech", second=second, error=str(error)[:300])
            return
        if spoken is not None:
            number, sound = spoken
            self._tell("speech", second=second, number=number, seconds=round(sound.seconds, 2))

    async def _summarize(self, session: int, due: SummaryDue) -> None:
        seconds = due.seconds
        try:
            async with asyncio.timeout(self.settings.memory_timeout):
                text = await self._keeper.chunk(seconds, due.turns)
        except (TimeoutError, EngineError, LLMError, ValueError) as error:
            self._tell("memory", what="failed", second=seconds.stop, detail=str(error)[:200])
            chars = self.settings.stream.limits.told_chars
            text = await Said(chars).chunk(seconds, due.turns)
        if session == self._session_number:
            self._summaries.append(Summary(seconds.start, seconds.stop, text))
            self._tell("summary", start=seconds.start, stop=seconds.stop, text=text)

    async def _merge(self, session: int, due: BlockDue) -> None:
        try:
            async with asyncio.timeout(self.settings.memory_timeout):
                text = await self._keeper.block(due.summaries)
        except (TimeoutError, EngineError, LLMError, ValueError) as error:
            self._tell("memory", what="failed", second=None, detail=str(error)[:200])
            text = ""
        if session == self._session_number:
            self._block = block_of(due.summaries, text, self.settings.stream.limits)

    def _outcome(self, session: int, outcome: Outcome) -> None:
        if session != self._session_number or self.log.closed:
            return  # what comes back after its session has ended is nobody's
        match outcome:
            case Started(number):
                self._tell("task", state="started", task=number)
            case Ready(number, digest, artifact, lost):
                told = {"error": lost} if lost else {}
                self._tell(
                    "task", state="ready", task=number, text=digest, artifact=artifact, **told
                )
            case Error(number, reason):
                self._tell("task", state="error", task=number, error=reason)
        result = result_of(outcome)
        if result is not None:
            self._results.append(result)

    # What is told

    def state(self) -> dict[str, Any]:
        """All that a client needs to draw the session anew."""
        stream = self.session.stream
        memory = stream.memory
        # Users see what was said of a task, never the question that was handed over.
        noted = tuple(replace(each, question=each.note) for each in memory.pending)
        return {
            "session": self.name,
            "second": self._second,
            "mode": self.mode,
            "modes": list(self.settings.modes),
            "last_event": self.log.last,
            "chunk": stream.chunk,
            "chunk_seconds": stream.settings.chunk_seconds,
            "memory": memory_text(replace(memory, pending=noted)),
            "tiers": {
                "long": [vars_of(s) for s in memory.long],
                "mid": [vars_of(s) for s in memory.mid],
                "pinned": [{"second": p.second, "text": p.text} for p in memory.pinned],
                "dialogue": len(memory.dialogue),
            },
            "pending": sorted(stream.open_tasks),
            "counts": dict(self.counts),
            "cache": self.model.cache,
            "latency": _summed(self.latencies),
            "overhead": _summed(self.overheads),
        }

    def note(self, kind: str, **told: Any) -> None:
        """Takes down what befell the session elsewhere."""
        if not self.log.closed:
            self._tell(kind, **told)

    def _tell(self, kind: str, **told: Any) -> None:
        self.counts[kind] += 1
        self.log.add(kind, **told)


def vars_of(summary: Summary) -> dict[str, Any]:
    return {"start": summary.start, "stop": summary.stop, "text": summary.text}


def _summed(values: Sequence[float]) -> dict[str, float]:
    """Mean and 95th percentile of some seconds."""
    if not values:
        return {"mean": 0.0, "p95": 0.0}
    mean = sum(values) / len(values)
    return {"mean": round(mean, 4), "p95": round(quantile(values, 0.95), 4)}
