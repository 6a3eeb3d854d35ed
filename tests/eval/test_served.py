"""Cases over the runtime's own API: what is said there is what is said in process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.world.streams import WorldFrames
from eval.play import play
from eval.served import QUALITY, Served
from eval.systems import Streaming
from joyvl_train.actions import Delegation, Response
from joyvl_train.config import UserError
from joyvl_train.engine import Engine
from joyvl_train.frames import Frames
from joyvl_train.llm import Client
from joyvl_train.llm import Endpoint as Where
from joyvl_train.memory import log_summary
from joyvl_train.pictures import decode, encode
from joyvl_train.stream import StreamSettings
from serve.chat_model import ChatModel
from serve.in_process import EngineError, InProcess
from serve.live_settings import LiveSettings
from serve.memory import Said
from serve.server import Server
from serve.session import Tick
from serve.sessions import Served as Model
from serve.sessions import Sessions
from serve.solvers import AskClient
from serve.sources import Sources
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.eval.made_cases import made
from tests.rl.tiny_grpo import lively
from tests.serve.lived import Scripted

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = StreamSettings(20, 5)


class Sent(Frames):
    """Frames as they come out of the JPEG that is sent."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    @property
    def seconds(self) -> int:
        return self._frames.seconds

    def frames(self, second: int) -> list[Any]:
        return [decode(encode(frame, QUALITY)) for frame in self._frames.frames(second)]


@contextmanager
def serving(folder: Path, model: Any, **settings: Any) -> Iterator[str]:
    """The address of a server of this model, in a thread of its own."""
    up, stop = threading.Event(), asyncio.Event()
    told: dict[str, Any] = {}

    async def main() -> None:
        live = LiveSettings(SETTINGS, step_timeout=60, **settings)
        served = Model("m", [model], lambda _: Said(), live)
        sessions = Sessions([served], Sources(), folder / "kept", background=AskClient)
        server = Server(sessions)
        await server.start()
        told.update(url=f"http://127.0.0.1:{server.port}", loop=asyncio.get_running_loop())
        up.set()
        if isinstance(model, InProcess):
            async with model:
                await stop.wait()
                await server.stop()
        else:
            await stop.wait()
            await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert up.wait(30)
    try:
        yield told["url"]
    finally:
        told["loop"].call_soon_threadsafe(stop.set)
        thread.join(30)


def test_what_is_said_over_the_api_is_what_is_said_in_process(tmp_path: Path) -> None:
    case = made(tmp_path)
    frames = Sent(WorldFrames(case.timeline, 32))
    engine, other = (Engine(*lively(), max_new_tokens=6, temperature=1.5) for _ in "ab")
    here = play(case, frames, Streaming("here", engine, SETTINGS, log_summary)).trace
    with serving(tmp_path, InProcess(other)) as url:
        there = play(case, frames, Served("there", url)).trace
    assert [s.action for s in there.steps] == [s.action for s in here.steps]
    assert [s.queries for s in there.steps] == [s.queries for s in here.steps]
    assert len({str(s.action) for s in here.steps}) > 1


def test_tasks_come_back_when_the_case_says(tmp_path: Path) -> None:
    case = made(tmp_path)
    actions = {4: Delegation("Let me see.", "How many?"), 24: Response("A fire appeared.")}
    model = Scripted(actions)  # type: ignore[arg-type]
    with serving(tmp_path, model) as url:
        played = play(case, Sent(WorldFrames(case.timeline, 32)), Served("s", url))
    steps = {step.second: step for step in played.trace.steps}
    assert steps[4].action == actions[4] and steps[24].action == actions[24]
    # What was handed over without need comes back all the same, and the model is told so.
    back = [(s, text) for s, step in steps.items() for _, text in step.results]
    assert len(back) == 1
    assert any(back[0][1] in prompt for prompt in model.prompts)


def test_a_model_that_fails_is_silent_there(tmp_path: Path) -> None:
    case = made(tmp_path)
    model = Scripted(fails={7: EngineError("out of memory")})
    with serving(tmp_path, model) as url:
        played = play(case, Sent(WorldFrames(case.timeline, 32)), Served("s", url))
    assert [s.second for s in played.trace.steps if s.malformed] == [7]


def test_an_endpoint_that_fails_is_silent_there(tmp_path: Path) -> None:
    case = made(tmp_path)
    with Endpoint(lambda asked, number: (500, {}) if number == 7 else "</silence>") as endpoint:
        client = Client(Where(endpoint.url, "m", "NO_KEY"), retries=0)
        with serving(tmp_path, ChatModel(client, strict=True)) as url:
            played = play(case, Sent(WorldFrames(case.timeline, 32)), Served("s", url))
    assert [(s.second, s.malformed) for s in played.trace.steps if s.malformed] == [
        (7, "no answer")
    ]


def test_what_is_no_action_is_counted_as_such(tmp_path: Path) -> None:
    case = made(tmp_path)
    with serving(tmp_path, Scripted({5: None})) as url:
        played = play(case, Sent(WorldFrames(case.timeline, 32)), Served("s", url))
    (step,) = [s for s in played.trace.steps if s.malformed]
    assert (step.second, step.malformed, step.reply) == (5, "empty", "?")


def test_what_the_server_keeps_back_is_not_heard(tmp_path: Path) -> None:
    case = made(tmp_path)
    model = Scripted({9: Response("Psst."), 24: Response("A fire appeared.")})
    with serving(tmp_path, model, say=lambda text, asked: "" if text == "Psst." else text) as url:
        played = play(case, Sent(WorldFrames(case.timeline, 32)), Served("s", url))
    assert [e.second for e in played.trace.emissions] == [24]


def test_a_server_that_goes_is_one_clear_line(tmp_path: Path) -> None:
    case = made(tmp_path)
    frames = Sent(WorldFrames(case.timeline, 32))
    with serving(tmp_path, Scripted()) as url:
        watcher = Served("s", url).watch(case.id, "", 0)
        watcher.step(Tick(0, tuple(frames.frames(0))))
    with pytest.raises(UserError, match=f"cases.served={url}"):
        watcher.step(Tick(1, tuple(frames.frames(1))))
    watcher.close()


def test_nobody_there_is_one_clear_line(tmp_path: Path) -> None:
    case = made(tmp_path)
    with pytest.raises(UserError, match=r"cases.served=http://127.0.0.1:9: no session"):
        play(case, WorldFrames(case.timeline, 32), Served("s", "http://127.0.0.1:9"))
