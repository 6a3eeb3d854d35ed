"""The in-process engine as a live model: what the engine says alone, whatever goes on beside."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from joyvl_train.actions import Silence
from joyvl_train.engine import Engine
from joyvl_train.reply import Reply
from joyvl_train.stream import Stream, StreamSettings
from serve.in_process import EngineError, InProcess
from serve.live import Live
from serve.live_settings import LiveSettings
from serve.session import Session, Stepped, Tick
from tests.joyvl_train.conftest import picture
from tests.rl.tiny_grpo import lively
from tests.serve.lived import second

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = LiveSettings(StreamSettings(20, 2), step_timeout=60)


def engine(**settings: Any) -> Engine:
    return Engine(*lively(), max_new_tokens=6, **settings)


def asked(number: int) -> tuple[str, ...]:
    return ("fire now",) if number % 3 == 1 else ()


def in_turn(start: int) -> list[str]:
    session = Session(engine(), StreamSettings(20, 2))
    found = []
    for number in range(8):
        tick = Tick(number, (picture(start + number),), asked(number))
        found += [e.step.action for e in session.step(tick) if isinstance(e, Stepped)]
    session.close()
    return [type(action).__name__ for action in found]


async def lived(model: InProcess, start: int) -> list[str]:
    live = Live("a", model, SETTINGS)
    found = []
    for number in range(8):
        for text in asked(number):
            live.ask(text)
        done = await live.step(second(number, picture(start + number)))
        assert done is not None
        found.append(type(done.action).__name__)
    await live.close()
    return found


def test_sessions_side_by_side_say_what_each_says_alone() -> None:
    async def main() -> None:
        model = InProcess(engine())
        async with model:
            found = await asyncio.gather(*(lived(model, 10 * n) for n in range(3)))
            assert list(found) == [in_turn(10 * n) for n in range(3)]
            assert model.steps < 3 * 8  # some seconds were answered together
            await asyncio.sleep(0.05)
            assert len(model.engine) == 0

    asyncio.run(main())


def test_an_engine_that_fails_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        model = InProcess(engine())
        step, calls = model.engine.step, []

        def fails(handles: Any) -> Any:
            calls.append(handles)
            if len(calls) == 3:
                raise RuntimeError("out of memory")
            return step(handles)

        monkeypatch.setattr(model.engine, "step", fails)
        async with model:
            live = Live("a", model, SETTINGS)
            for number in range(6):
                await live.step(second(number, picture(number)))
            wrong = [e for e in live.log.after(0) if e["kind"] == "engine"]
            assert [(e["second"], e["error"]) for e in wrong] == [
                (2, "RuntimeError: out of memory")
            ]
            assert len([e for e in live.log.after(0) if e["kind"] == "step"]) == 5
            await live.close()

    asyncio.run(main())


def test_questions_wait_for_steps_and_an_end_tells_all() -> None:
    async def main() -> None:
        model = InProcess(engine())
        async with model:
            live = Live("a", model, SETTINGS)
            asking = [asyncio.create_task(model.ask("What is there?", (picture(1),))) for _ in "ab"]
            await live.step(second(0, picture(0)))
            assert all(isinstance(each, str) for each in await asyncio.gather(*asking))
            await live.close()
            late = [asyncio.create_task(model.ask("What is there?", (picture(1),))) for _ in "ab"]
            await asyncio.sleep(0.01)
        for each in late:
            with pytest.raises(EngineError, match="ended"):
                await asyncio.wait_for(each, 10)


def test_a_step_of_a_stream_that_was_closed_is_told_so() -> None:
    async def main() -> None:
        model = InProcess(engine())
        async with model:
            stream = Stream()
            handle = model.open(stream)
            stream.observe(0, [picture(0)])
            waiting = asyncio.create_task(model.reply(handle))
            await asyncio.sleep(0)
            model.close(handle)
            with pytest.raises(EngineError, match="closed"):
                await asyncio.wait_for(waiting, 10)

    asyncio.run(main())


def test_a_bias_that_the_model_can_not_take_is_refused() -> None:
    async def main() -> None:
        async with InProcess(engine()) as model:
            live = Live("a", model, SETTINGS)
            with pytest.raises(ValueError, match="finite"):
                model.lean(live.session.handle, float("nan"))
            model.lean(live.session.handle, 50.0)
            for number in range(4):
                done = await live.step(second(number, picture(number)))
                assert done is not None and type(done.action).__name__ == "Silence"
            await live.close()

    asyncio.run(main())


def test_errors_of_asides_are_the_askers() -> None:
    async def main() -> None:
        async with InProcess(engine()) as model:
            with pytest.raises(EngineError):
                await model.ask("What is there?", ("no picture",))

    asyncio.run(main())


@dataclass
class Gate:
    """Holds an engine's batches back until it is opened."""

    model: InProcess
    batches: list[int] = field(default_factory=list)
    """How many streams each had."""
    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        step = self.model.engine.step

        def slow(handles: Any) -> list[Reply]:
            self.batches.append(len(handles))
            assert self.open.wait(60)
            return step(handles)

        self.model.engine.step = slow  # type: ignore[method-assign]


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not done():
            await asyncio.sleep(0.01)


def opened(model: InProcess) -> tuple[Stream, int]:
    stream = Stream()
    stream.observe(0, [picture(0)])
    return stream, model.open(stream)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_second_that_waited_too_long_fails_alone(goes_on: bool) -> None:
    async def main() -> None:
        async with InProcess(engine()) as model:
            gate = Gate(model)
            (_, slow), (late, handle), (_, other) = (opened(model) for _ in range(3))
            running = asyncio.create_task(model.reply(slow))
            await until(lambda: gate.batches)
            waiting = [asyncio.create_task(model.reply(each)) for each in (handle, other)]
            await asyncio.sleep(0)
            late.act(Silence())  # nobody waits for its second any more
            if goes_on:
                late.observe(1, [picture(1)])
                waiting.append(asyncio.create_task(model.reply(handle)))
                await asyncio.sleep(0)
            gate.open.set()
            with pytest.raises(EngineError, match="another second" if goes_on else "was closed"):
                await asyncio.wait_for(waiting.pop(0), 60)
            for each in (running, *waiting):
                assert isinstance(await asyncio.wait_for(each, 60), Reply)
            assert gate.batches == [1, 2 if goes_on else 1]
            assert len(model.engine) == 3 - (not goes_on)  # no cache was dropped

    asyncio.run(main())


def test_a_session_whose_model_is_slow_once_goes_on_and_so_do_the_others() -> None:
    async def main() -> None:
        async with InProcess(engine()) as model:
            gate = Gate(model)
            calm = Live("calm", model, SETTINGS)
            hasty = Live("hasty", model, replace(SETTINGS, step_timeout=0.05))
            first = asyncio.create_task(calm.step(second(0, picture(0))))
            await until(lambda: gate.batches)
            assert await hasty.step(second(0, picture(0))) is None
            hasty.settings = SETTINGS
            next_ = asyncio.create_task(hasty.step(second(1, picture(1))))
            await until(lambda: hasty.session.stream.open_turn is not None)
            gate.open.set()
            assert await first is not None and await next_ is not None
            for number in (2, 3):
                both = [live.step(second(number, picture(number))) for live in (calm, hasty)]
                assert None not in await asyncio.gather(*both)
            wrong = [
                [(e["second"], e["error"]) for e in live.log.after(0) if e["kind"] == "engine"]
                for live in (calm, hasty)
            ]
            assert wrong == [[], [(0, "no answer in 0.05 s")]]
            for live in (calm, hasty):
                await live.close()

    asyncio.run(main())


@asynccontextmanager
async def busy(model: InProcess) -> AsyncIterator[None]:
    """Two streams that ask in turns, so that one of them always waits."""
    stop = asyncio.Event()

    async def ask(number: int) -> None:
        stream = Stream(SETTINGS.stream)
        handle = model.open(stream)
        for place in itertools.count():
            if stop.is_set():
                break
            stream.observe(place, [picture(number)])
            await model.reply(handle)
            stream.act(Silence())
        model.close(handle)

    gate = Gate(model)
    asking = [asyncio.create_task(ask(0))]
    await until(lambda: gate.batches)
    asking.append(asyncio.create_task(ask(1)))
    await asyncio.sleep(0)
    gate.open.set()
    await until(lambda: len(gate.batches) > 10)
    assert set(gate.batches) == {1}
    yield
    stop.set()
    await asyncio.gather(*asking)


def test_the_cache_of_a_closed_stream_goes_where_steps_never_end() -> None:
    async def main() -> None:
        async with InProcess(engine()) as model:
            _, handle = opened(model)
            await model.reply(handle)
            async with busy(model):
                assert len(model.engine) == 3
                model.close(handle)
                await until(lambda: len(model.engine) == 2)

    asyncio.run(main())


def test_questions_are_asked_where_steps_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with InProcess(engine()) as model:
            generate, asked = model.engine.generate_batch, []

            def counted(prompts: Any) -> Any:
                asked.append(prompts)
                return generate(prompts)

            monkeypatch.setattr(model.engine, "generate_batch", counted)
            async with busy(model):
                question = asyncio.create_task(model.ask("What is there?", (picture(1),)))
                unheard = asyncio.create_task(model.ask("Who is there?", (picture(1),)))
                await asyncio.sleep(0)
                unheard.cancel()
                assert isinstance(await asyncio.wait_for(question, 60), str)
                begun = model.steps
                await until(lambda: model.steps > begun + 20)
                assert len(asked) == 1  # what nobody waits for any more is not asked

    asyncio.run(main())
