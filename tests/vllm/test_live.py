"""Live sessions on real vLLM: pictures that go by their names, biases, a server that forgets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyvl_train.chat_request import name_of
from joyvl_train.checkpoint import load_for_inference
from joyvl_train.codec import CodecSettings
from joyvl_train.engine import Engine
from joyvl_train.llm import Client, Endpoint
from joyvl_train.rendering import Renderer
from joyvl_train.stream import StreamSettings
from serve.chat_model import ChatModel, control_ids
from serve.in_process import InProcess
from serve.live import Live
from serve.live_settings import LiveSettings
from serve.source import Second
from tests.vllm.served import ASKS, SIDE, needs_vllm

pytestmark = [pytest.mark.slow, needs_vllm]
SETTINGS = LiveSettings(
    StreamSettings(12, 3), step_timeout=60.0, modes={"default": 0.0, "mute": 40}
)


def seconds(count: int) -> list[Second]:
    colours = ("red", "blue", "green", "grey")
    return [
        Second(t, (Image.new("RGB", (SIDE, SIDE), colours[t // 2 % 4]),), t + 1.0)
        for t in range(count)
    ]


CODED = replace(SETTINGS, stream=StreamSettings(12, 3, codec=CodecSettings(side=32)))


async def lived(
    model: Any, count: int = 20, mode: str = "default", settings: LiveSettings = SETTINGS
) -> list[str]:
    """What is said second by second, asked something now and then."""
    live = Live("a", model, settings, mode=mode)
    for second in seconds(count):
        if second.second % 5 == 1:
            live.ask(ASKS[1 + second.second // 5 % 3])
        await live.step(second)
    events = live.log.after(0)
    assert not [e for e in events if e["kind"] == "engine"]
    await live.close()
    return [f"{e['action']} {e['text']}" for e in events if e["kind"] == "step"]


def model_at(server: str, **settings: Any) -> ChatModel:
    client = Client(Endpoint(f"{server}/v1", "tiny", "NO_KEY"), retries=0, timeout=120)
    return ChatModel(client, max_new_tokens=12, raw=True, **settings)


def test_pictures_that_go_by_name_change_nothing(server: str) -> None:
    async def main() -> None:
        whole, named = model_at(server), model_at(server, names=True)
        assert await lived(whole) == await lived(named)
        assert named.resent == 0
        await whole.end()
        await named.end()

    asyncio.run(main())


def test_a_server_that_has_lost_a_picture_gets_it_again(server: str) -> None:
    async def main() -> None:
        named = model_at(server, names=True)
        live = Live("a", named, SETTINGS)
        new = Image.new("RGB", (SIDE, SIDE), "orange")
        for second in [*seconds(4), Second(4, (new,), 5.0)]:
            if second.second == 4:  # as if it had been sent what it has never seen
                (followed,) = named._streams.values()
                followed.held |= {name_of(named.frame(new))}
            await live.step(second)
        assert named.resent == 1
        assert not [e for e in live.log.after(0) if e["kind"] == "engine"]
        await live.close()
        await named.end()

    asyncio.run(main())


@pytest.mark.parametrize("settings", [SETTINGS, CODED], ids=["whole", "coded"])
def test_a_session_says_what_it_says_in_process(
    server: str, folder: Path, settings: LiveSettings
) -> None:
    """The same checkpoint, pictures as JPEG in both."""

    async def main() -> None:
        loaded, processor = load_for_inference(folder, "float32")
        engine = Engine(loaded, Renderer(processor), max_new_tokens=12)
        remote = model_at(server, names=True)
        async with InProcess(engine) as here:
            mine = await lived(here, settings=settings)
            there = await lived(remote, settings=settings)
        same = sum(a == b for a, b in zip(mine, there, strict=True))
        assert same >= len(mine) - 2, list(zip(mine, there, strict=True))
        await remote.end()

    asyncio.run(main())


def test_silence_that_ends_a_reply_at_once_changes_nothing(server: str) -> None:
    async def main() -> None:
        ids = await control_ids(f"{server}/v1", "tiny")
        whole, short = model_at(server), model_at(server, control=ids)
        said = await lived(whole)
        assert await lived(short) == said and len(set(said)) > 1
        # Each silent second took one token less.
        silent = said.count("silence ")
        tokens = [model.client.usage.completion_tokens for model in (whole, short)]
        assert silent and tokens[0] - tokens[1] == silent
        await whole.end()
        await short.end()

    asyncio.run(main())


def test_a_mode_leans_on_the_server_as_it_does_in_process(server: str) -> None:
    async def main() -> None:
        ids = await control_ids(f"{server}/v1", "tiny")
        assert ids is not None and ids.silence != ids.response
        model = model_at(server, control=ids)
        assert set(await lived(model, 8, "mute")) == {"silence "}
        await model.end()

    asyncio.run(main())
