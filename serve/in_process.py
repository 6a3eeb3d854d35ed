"""The in-process engine as the model of live sessions: one thread, whatever waits in one batch.

    async with InProcess(engine) as model:
        handle = model.open(stream)
        reply = await model.reply(handle)

Steps come first; questions about memory wait until no step does, and are asked one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from PIL import Image

from joyvl_train.actions import Response
from joyvl_train.engine import Engine
from joyvl_train.reply import Reply
from joyvl_train.stream import Stream


class EngineError(RuntimeError):
    """The engine failed at a step; the streams of that step are read anew at their next one."""


@dataclass(slots=True)
class _Step:
    handle: int
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
    _waiting: list[_Step] = field(default_factory=list)
    _asides: list[_Aside] = field(default_factory=list)
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
        followed = self._streams.pop(handle)
        if self._worker is not None:
            self._aside(partial(self._drop, [followed]))

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
        """What the model says to the open turn. Raises `EngineError` where it failed."""
        done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Step(handle, done))
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
        waiting = [*(w.done for w in self._waiting), *(a.done for a in self._asides)]
        for future in (*self._running, *waiting):
            _fail(future, EngineError("the engine was ended"))
        self._thread.shutdown()

    def _aside(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asides.append(_Aside(call, done))
        self._wake.set()
        return done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            ready = []
            for step in self._waiting:
                if step.handle not in self._streams:
                    _fail(step.done, EngineError("the stream was closed"))
                elif not step.done.done():
                    ready.append((step.done, self._streams[step.handle]))
            self._waiting.clear()
            if ready:
                self._running = [done for done, _ in ready]
                streams = [stream for _, stream in ready]
                running = loop.run_in_executor(self._thread, self._step, streams)
                # What fails in there belongs to the streams of this batch.
                await asyncio.wait([running])
                error = running.exception()
                if error is not None:
                    self._aside(partial(self._drop, streams))
                for place, (done, _) in enumerate(ready):
                    if error is not None:
                        _fail(done, error)
                    elif not done.done():
                        done.set_result(running.result()[place])
            elif self._asides:
                aside = self._asides.pop(0)
                self._running = [aside.done]
                running = loop.run_in_executor(self._thread, aside.call)
                await asyncio.wait([running])
                error = running.exception()
                if error is not None:
                    _fail(aside.done, error)
                elif not aside.done.done():
                    aside.done.set_result(running.result())
            else:
                self._wake.clear()

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
            if each.slot is not None:
                self.engine.close(each.slot)
                each.slot = None


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        told = isinstance(error, EngineError)
        done.set_exception(error if told else EngineError(f"{type(error).__name__}: {error}"))
        done.exception()  # where nobody waits for it, it is no news
