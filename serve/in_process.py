"""The in-process engine as the model of live sessions: one thread, whatever waits in one batch.

    async with InProcess(engine) as model:
        handle = model.open(stream)
        reply = await model.reply(handle)

Steps come first; questions about memory wait until no step does, or for a few batches where steps
always do, and are asked one at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from PIL import Image

from joyvl_train.actions import Response
from joyvl_train.engine import Engine
from joyvl_train.reply import Reply
from joyvl_train.stream import Stream, Turn

log = logging.getLogger("joyvl.serve")

_PATIENCE = 4
"""Batches for which a question waits where there is no end of steps."""


class EngineError(RuntimeError):
    """The engine failed at a step; the streams of that step are read anew at their next one."""


@dataclass(slots=True)
class _Step:
    turn: Turn
    done: asyncio.Future[Reply]


@dataclass(slots=True)
class _Aside:
    """Something else for the engine's thread."""

    call: Callable[[], Any]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Followed:
    stream: Stream
    seed: int
    bias: float | None = None
    slot: int | None = None  # the engine's handle; what it holds is a cache of the stream alone


@dataclass(slots=True)
class InProcess:
    """Follows streams with an engine that nothing else uses meanwhile. Runs in one event loop."""

    engine: Engine
    cache: float | None = None
    """Nobody tells; what is new in a second is all that is computed."""
    steps: int = 0
    """Batches that were stepped."""
    _streams: dict[int, _Followed] = field(default_factory=dict)
    _opened: int = 0
    _waiting: dict[int, _Step] = field(default_factory=dict)  # by handle
    _asides: list[_Aside] = field(default_factory=list)
    _gone: list[_Followed] = field(default_factory=list)  # their caches are let go
    _passed_over: int = 0  # batches since an aside had its turn
    _running: list[asyncio.Future[Any]] = field(default_factory=list)  # what the thread works on
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="engine")
    )
    _worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work(), name="engine")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    def open(self, stream: Stream, seed: int | None = None) -> int:
        self._opened += 1
        self._streams[self._opened] = _Followed(stream, seed or 0)
        return self._opened

    def close(self, handle: int) -> None:
        self._gone.append(self._streams.pop(handle))
        self._wake.set()

    def lean(self, handle: int, silence_bias: float) -> None:
        """From its next reply on the stream has this `silence_bias`. Raises `ValueError` where the
        model's tokenizer allows none."""
        self.engine.check_bias(silence_bias)
        self._streams[handle].bias = silence_bias

    @staticmethod
    def frame(image: Image.Image) -> Image.Image:
        """A picture as it is kept in the stream."""
        return image

    async def reply(self, handle: int) -> Reply:
        """What the model says to the open turn, which is asked about once. Raises `EngineError`
        where it failed, and where the turn was closed before it had its place in a batch."""
        followed = self._streams.get(handle)
        turn = None if followed is None else followed.stream.open_turn
        if turn is None:
            raise EngineError("the stream has no open turn")
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        older = self._waiting.pop(handle, None)
        if older is not None:
            _fail(older.done, EngineError("the stream went on to another second"))
        self._waiting[handle] = _Step(turn, done)
        self._wake.set()
        return await done

    async def ask(self, question: str, frames: Sequence[Any]) -> str:
        """The model's answer to a question about `frames`, outside every stream; "" for none."""

        def answer() -> str:
            prompt = self.engine.renderer.render_question(
                question, frames, system=self.engine.system
            )
            (reply,) = self.engine.generate_batch([prompt])
            return reply.action.text if isinstance(reply.action, Response) else ""

        found = await self._aside(answer)
        assert isinstance(found, str)
        return found

    async def end(self) -> None:
        """Ends the engine's thread; what waits is told so."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
            self._worker = None
        waiting = [*(w.done for w in self._waiting.values()), *(a.done for a in self._asides)]
        for future in (*self._running, *waiting):
            _fail(future, EngineError("the engine was ended"))
        self._thread.shutdown()

    def _aside(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asides.append(_Aside(call, done))
        self._wake.set()
        return done

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            if self._gone:
                await self._let_go()
            self._sort_out()
            if self._asides and (not self._waiting or self._passed_over >= _PATIENCE):
                self._passed_over = 0
                await self._answer(self._asides.pop(0))
            elif self._waiting:
                self._passed_over = self._passed_over + 1 if self._asides else 0
                await self._answer_steps()
            elif not self._gone:
                self._wake.clear()

    def _sort_out(self) -> None:
        """Leaves what can be answered. A step whose turn was closed while it waited fails alone:
        within a batch it would fail all of them."""
        for handle, step in tuple(self._waiting.items()):
            followed = self._streams.get(handle)
            if followed is None:
                _fail(step.done, EngineError("the stream was closed"))
            elif followed.stream.open_turn is not step.turn:
                _fail(step.done, EngineError("the turn was closed before it was answered"))
            if step.done.done():
                del self._waiting[handle]
        self._asides = [aside for aside in self._asides if not aside.done.done()]

    async def _answer_steps(self) -> None:
        streams = [self._streams[handle] for handle in self._waiting]
        self._running = [step.done for step in self._waiting.values()]
        self._waiting = {}
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, self._step, streams)
        # What fails in there belongs to the streams of this batch.
        await asyncio.wait([running])
        error = running.exception()
        if error is not None:
            self._gone += streams
        for place, done in enumerate(self._running):
            if error is not None:
                _fail(done, error)
            elif not done.done():
                done.set_result(running.result()[place])

    async def _answer(self, aside: _Aside) -> None:
        self._running = [aside.done]
        running = asyncio.get_running_loop().run_in_executor(self._thread, aside.call)
        await asyncio.wait([running])
        error = running.exception()
        if error is not None:
            _fail(aside.done, error)
        elif not aside.done.done():
            aside.done.set_result(running.result())

    async def _let_go(self) -> None:
        gone, self._gone = self._gone, []
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._drop, gone)
        await asyncio.wait([running])
        error = running.exception()
        if error is not None:  # nobody waits for it; the steps that follow fail by themselves
            log.warning("caches could not be let go: %s: %s", type(error).__name__, error)

    # In the engine's thread

    def _step(self, streams: Sequence[_Followed]) -> list[Reply]:
        for each in streams:
            if each.slot is None:
                each.slot = self.engine.open(each.stream, each.seed)
            if each.bias is not None:
                self.engine.lean(each.slot, each.bias)
        self.steps += 1
        return self.engine.step([each.slot for each in streams if each.slot is not None])

    def _drop(self, streams: Sequence[_Followed]) -> None:
        for each in streams:
            slot, each.slot = each.slot, None
            if slot is not None:
                self.engine.close(slot)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        told = isinstance(error, EngineError)
        done.set_exception(error if told else EngineError(f"{type(error).__name__}: {error}"))
        done.exception()  # where nobody waits for it, it is no news
