"""The in-process engine as a live model: what the engine says alone, whatever goes on beside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from joyvl_train.engine import Engine
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
