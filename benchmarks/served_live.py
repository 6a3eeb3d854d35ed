"""A checkpoint on real vLLM and a stream to live on it, for the benchmarks of the runtime.

The stream is drawn scenes, one after another, each second marked so that no two pictures are alike:
what is found in a cache was truly seen before.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image

from data_pipeline.world.streams import WorldFrames, stream
from joyvl_train.actions import Action, Delegation, Response, Silence, format_action
from joyvl_train.llm import Client, Endpoint
from serve.chat_model import Cached, ChatModel, cached, control_ids
from serve.live import Live
from serve.source import Second
from serve.vllm_process import Vllm

ROOT = Path(__file__).resolve().parents[1]
NAME = "joyvl"
SIDE = 96
BLOCK = 32
ASKS = (
    "Describe what happens.",
    "How many balls have there been?",
    "What do you see now?",
    "Tell me when a fire breaks out.",
    "What is 17 times 23?",
)
EVERY = 45
"""Seconds from one question of the user to the next."""


class Timed:
    """Stands before a transport of the HTTP client, and measures at the socket: from a request that
    is ready to its answer's head, which a server that streams nothing sends when all is said."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.spent = 0.0

    async def handle_async_request(self, request: Any) -> Any:
        begun = time.perf_counter()
        response = await self._inner.handle_async_request(request)
        self.spent += time.perf_counter() - begun
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all benchmarks on vLLM are told."""
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "tiny")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-vllm/bin/python")
    parser.add_argument("--bias", type=float, default=0.0, help="on silence, as the run chose it")


@asynccontextmanager
async def vllm(
    given: Any, *, length: int = 16384, images: int = 256, options: Sequence[str] = ()
) -> AsyncIterator[str]:
    """The URL of a vLLM on this machine's processors that serves `given.checkpoint`."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        server = Vllm(
            given.python.absolute(),
            given.checkpoint.absolute(),
            NAME,
            port,
            Path(folder) / "vllm.log",
            images=images,
            length=length,
            dtype="float32",
            # Blocks of the prefix cache as small as its attention for processors takes them.
            options=("--enforce-eager", "--block-size", str(BLOCK), *options),
        )
        try:
            await server.start()
            yield server.url
        finally:
            await server.stop()


@asynccontextmanager
async def canned() -> AsyncIterator[str]:
    """The URL of a process that answers at once, and knows nothing: for what is not the model's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_answer, args=(port,))
    process.start()
    try:
        while True:
            if await cached(f"http://127.0.0.1:{port}/v1") is not None:
                break
            await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.join()


def _answer(port: int) -> None:
    rng = random.Random(0)
    things = ("ball", "dog", "fire", "car", "house", "kite")
    asked = 0

    async def chat(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        body = await request.read()
        drawn, thing = rng.random(), rng.choice(things)
        action: Action = Silence()
        if drawn > 0.99:
            action = Delegation("Let me see.", f"{rng.randint(2, 99)} times 17?")
        elif drawn > 0.93:
            action = Response(f"A {rng.choice(('red', 'blue', 'small'))} {thing} appeared.")
        said = format_action(action)
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": 1, "total_tokens": 1}
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"choices": [choice], "usage": usage})

    async def metrics(request: web.Request) -> web.Response:
        told = (f"vllm:prefix_cache_{name}_total {asked}.0" for name in ("queries", "hits"))
        return web.Response(text="\n".join(told))

    async def tokenize(request: web.Request) -> web.Response:
        return web.json_response({"tokens": []})

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/metrics", metrics)
    app.router.add_post("/tokenize", tokenize)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


async def model_at(url: str, limit: int = 48, **settings: Any) -> tuple[ChatModel, Timed]:
    """The model there, and what measures the time that it takes."""
    client = Client(Endpoint(url, NAME, "NO_KEY"), concurrency=256, retries=0, timeout=120)
    transport = client._openai._client
    timed = Timed(transport._transport)
    transport._transport = timed
    model = ChatModel(
        client,
        max_new_tokens=limit,
        raw=True,
        names=True,
        control=await control_ids(url, NAME),
        **settings,
    )
    return model, timed


class Pictures:
    """Pictures of an endless stream, `SIDE` pixels wide, no two alike."""

    def __init__(self, seed: int = 0, scenes: int = 15) -> None:
        self._frames: list[np.ndarray] = []
        for number in range(scenes):
            scene = stream(
                "commentary",
                seed + number,
                "validation",
                kind="describe",
                seconds=40,
                backgrounds=("plain", "texture"),
            )
            drawn = WorldFrames(scene, SIDE)
            self._frames += [np.asarray(drawn.frames(t)[-1]) for t in range(drawn.seconds)]

    def __call__(self, stream_number: int, second: int) -> Image.Image:
        """The picture of a second in one of many streams."""
        shown = self._frames[(second + 37 * stream_number) % len(self._frames)].copy()
        bits = [(second >> n) & 1 for n in range(20)] + [
            (stream_number >> n) & 1 for n in range(12)
        ]
        shown[:8, :32] = np.asarray(bits, np.uint8).reshape(1, 32, 1) * 200 + 20
        return Image.fromarray(shown)


def second_of(pictures: Pictures, number: int, second: int) -> Second:
    """A second of a stream, with a question now and then."""
    at, left = divmod(second, EVERY)
    asked = (ASKS[(at + number) % len(ASKS)],) if left == 5 else ()
    return Second(second, (pictures(number, second),), second + 1.0, asked)


async def rested(live: Live) -> None:
    """Returns when nothing goes on beside the stream."""
    while live._beside:
        await asyncio.wait(set(live._beside))


async def counted(url: str) -> Cached:
    """What the server has looked for in its prefix cache, and found."""
    told = await cached(url)
    if told is None:
        raise SystemExit(f"{url} does not tell of its prefix cache")
    return told


def p95(values: Sequence[float] | np.ndarray) -> float:
    return float(np.percentile(values, 95))
