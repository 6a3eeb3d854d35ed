"""vLLM that hangs, and vLLM that is killed, under a live session."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from joyvl_train.llm import Client, Endpoint
from serve.chat_model import ChatModel
from serve.live import Live
from serve.live_settings import LiveSettings
from serve.vllm_process import Vllm
from tests.vllm.served import PYTHON, needs_vllm
from tests.vllm.test_live import seconds

pytestmark = [pytest.mark.slow, needs_vllm]


def test_it_hangs_and_dies_and_the_stream_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def main() -> None:
        vllm = Vllm(
            PYTHON.absolute(),
            folder,
            "tiny",
            port,
            tmp_path / "vllm.log",
            images=200,
            length=8192,
            dtype="float32",
            options=("--enforce-eager",),
        )
        await vllm.start()
        vllm.keep()
        client = Client(Endpoint(vllm.url, "tiny", "NO_KEY"), retries=0, timeout=20)
        model = ChatModel(client, max_new_tokens=8, raw=True, names=True)
        live = Live("a", model, LiveSettings(step_timeout=3.0))
        shown = iter(seconds(400))

        async def answered() -> bool:
            step = await live.step(next(shown))
            return step is not None and step.malformed != "no answer"

        try:
            assert await answered() and await answered()

            assert vllm._process is not None
            group = vllm._process.pid
            os.killpg(group, signal.SIGSTOP)
            assert not await answered()  # silence, with an event
            os.killpg(group, signal.SIGCONT)
            await asyncio.sleep(3)
            assert await answered() and vllm.starts == 1

            os.killpg(group, signal.SIGKILL)
            assert not await answered()
            async with asyncio.timeout(300):
                while not await answered():
                    await asyncio.sleep(1)
            assert vllm.starts == 2 and vllm._process.pid != group
            # It has lost all pictures that went by their names, and was sent them again.
            assert await answered()
        finally:
            told = events(live)
            await live.close()
            await model.end()
            await vllm.stop()
        assert sorted(told) == list(range(len(told)))  # no second is lost
        assert any("engine" in kinds for kinds in told.values())

    asyncio.run(main())


def events(live: Live) -> dict[int, set[str]]:
    """What each second came to."""
    found: dict[int, set[str]] = {}
    for event in live.log.after(0):
        if event["kind"] in ("step", "engine"):
            found.setdefault(event["second"], set()).add(event["kind"])
    return found
