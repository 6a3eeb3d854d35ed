"""A real HTTP server in a thread of its own, which answers as it is told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from data_pipeline.agents.agent import Agent
from data_pipeline.agents.asking import wait_for
from data_pipeline.agents.prompts import load
from joyvl_train.llm import Client
from joyvl_train.llm import Endpoint as Where

YES = '{"reason": "It is there.", "verdict": "yes"}'
Script = Callable[[dict[str, Any], int], Any]


class Endpoint:
    """`script(request, number)` says what comes back: a text to answer with, (status, body), raw
    bytes, or a number of seconds to wait before an answer."""

    def __init__(self, script: Script | Any = YES) -> None:
        self.script: Script = script if callable(script) else lambda request, number: script
        self.seen: list[dict[str, Any]] = []
        self.together = self.most_together = self.broken_off = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        number = len(self.seen)
        self.seen.append(asked)
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            step = self.script(asked, number)
            if isinstance(step, int | float):
                await asyncio.sleep(step)
                step = YES
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        finally:
            self.together -= 1
        if isinstance(step, bytes):
            return web.Response(body=step, content_type="application/json")
        if isinstance(step, tuple):
            return web.json_response(step[1], status=step[0], headers={"Retry-After": "0.01"})
        choice = {"index": 0, "message": {"role": "assistant", "content": step}}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return web.json_response({"choices": [choice], "usage": usage})


def client(endpoint: Endpoint | str, model: str = "joyvl", **settings: Any) -> Client:
    """A client that waits next to nothing between tries."""
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    defaults = {"concurrency": 64, "retries": 1, "backoff": 0.01, "reparses": 0, "timeout": 20.0}
    prices = {"prompt_price": 1e6, "completion_price": 1e6}
    return Client(Where(url, model, "NO_KEY", **prices), **{**defaults, **settings})


class Asked:
    """An agent on an endpoint; its client is closed at the end."""

    def __init__(self, endpoint: Endpoint | str, name: str = "dense_precheck", **settings: Any):
        own = {"retries", "reparses", "timeout", "cache"} & set(settings)
        self.client = client(endpoint, **{key: settings.pop(key) for key in own})
        self.agent = Agent(load(name), self.client, **settings)

    def __enter__(self) -> Agent:
        return self.agent

    def __exit__(self, *_: object) -> None:
        wait_for(self.client.close())


def text_of(request: dict[str, Any]) -> str:
    """The question of a request, without pictures and their times."""
    return request["messages"][1]["content"][-1]["text"]


def pretty(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)
