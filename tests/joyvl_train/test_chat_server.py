"""The server with a real small model, asked over real HTTP by the openai package and by hand."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import openai
import pytest
import torch
from PIL import Image

from joyvl_train.chat_server import ChatServer, Limits, _content
from joyvl_train.checkpoint import TinyShape, build_tiny, train_tokenizer
from joyvl_train.engine import Engine
from joyvl_train.llm import Answer, Client, Endpoint, Unparsed, image_part, text_part
from joyvl_train.rendering import Renderer
from joyvl_train.sampling import Sampling

SHAPE = TinyShape(
    vocabulary=400, hidden=32, layers=1, heads=2, kv_heads=1, feed_forward=48, vision_hidden=32,
    vision_layers=1, vision_heads=2, vision_feed_forward=32, deepstack=(0,), side=64, positions=600,
)  # fmt: skip
HELLO = [{"role": "user", "content": "what is it"}]


@pytest.fixture(scope="module")
def engine() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, processor = build_tiny(train_tokenizer(["what is it"] * 3, 400), SHAPE, 0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)
    yield Engine(model.eval(), Renderer(processor), max_new_tokens=8)
    torch.set_num_threads(threads)


def picture(seed: int = 0, side: int = 32) -> Image.Image:
    return Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(side * side * 3))


def png(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def serve(engine: Engine, work: Callable[[ChatServer], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        async with ChatServer(engine, **settings) as server:
            return await work(server)

    return asyncio.run(main())


def post(engine: Engine, body: Any, headers: Any = None, **settings: Any) -> tuple[int, Any]:
    """(status, JSON) of one request; `body` is JSON data, or bytes sent as they are."""

    async def work(server: ChatServer) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json", **(headers or {})}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/chat/completions", data=data, headers=kind) as response,
        ):
            return response.status, await response.json()

    return serve(engine, work, **settings)


def test_says_what_the_engine_says(engine: Engine) -> None:
    frames = [picture(1), picture(2, 64)]
    prompt = engine.renderer.render_question("what is it", frames)
    (expected,) = engine.generate_batch([prompt], sampling=Sampling(5))
    content = [text_part("what is it\n"), *map(png, frames)]

    async def work(server: ChatServer) -> Any:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:
            return await client.chat.completions.create(
                model="joyvl",
                messages=[{"role": "user", "content": content}],
                max_tokens=5,
                extra_body={"skip_special_tokens": False},
            )

    completion = serve(engine, work)
    assert completion.choices[0].message.content == expected.text
    assert completion.usage.prompt_tokens == len(prompt.ids)
    assert completion.usage.completion_tokens == len(expected.tokens)
    assert completion.choices[0].finish_reason == ("length" if expected.truncated else "stop")


def test_requests_share_batches_and_keep_their_own_settings(engine: Engine) -> None:
    questions = [f"what is it {n}" for n in range(12)]

    async def work(server: ChatServer) -> Any:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:

            async def ask(number: int) -> Any:
                return await client.chat.completions.create(
                    model="joyvl",
                    messages=[{"role": "user", "content": questions[number]}],
                    max_tokens=2 + number % 3,
                    temperature=float(number % 2),
                    seed=number,
                )

            together = await asyncio.gather(*map(ask, range(12)))
            alone = [await ask(number) for number in range(12)]
            return together, alone

    before = engine.forwards
    together, alone = serve(engine, work)
    assert engine.forwards - before < 12 * 4 + 12  # the batched half costs little
    for number, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert one.choices[0].message.content == other.choices[0].message.content
        assert one.usage.completion_tokens <= 2 + number % 3


def test_the_client_speaks_to_it(engine: Engine, tmp_path: Any) -> None:
    async def work(server: ChatServer) -> Any:
        async with Client(Endpoint(server.url, "joyvl"), cache=tmp_path, reparses=1) as client:
            messages = [{"role": "user", "content": [text_part("what"), image_part(picture())]}]
            plain = await client.ask(messages, max_tokens=4)
            schema = {"type": "object", "required": ["ok"]}
            judged = await client.ask(messages, schema=schema, max_tokens=4)
            return plain, judged, client.usage

    plain, judged, usage = serve(engine, work)
    assert isinstance(plain, Answer)
    assert isinstance(judged, Unparsed)  # a random model writes no JSON, and nothing breaks
    assert usage.requests == 3 and usage.prompt_tokens > 0


def test_stream_of_events(engine: Engine) -> None:
    async def work(server: ChatServer) -> Any:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none") as client:
            settings: Any = {"model": "joyvl", "messages": HELLO, "max_tokens": 4}
            whole = await client.chat.completions.create(**settings)
            events = await client.chat.completions.create(**settings, stream=True)
            return whole, [event async for event in events]

    whole, events = serve(engine, work)
    text = "".join(event.choices[0].delta.content or "" for event in events)
    assert text == whole.choices[0].message.content
    assert events[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def with_parts(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def link(url: str) -> dict[str, Any]:
    return with_parts({"type": "image_url", "image_url": {"url": url}})


BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "no JSON"),
    "too deep": (b"[" * 100_000, 400, "no JSON"),
    "no object": ([], 400, "no JSON object"),
    "no messages": ({}, 400, "messages must be a list"),
    "empty messages": ({"messages": []}, 400, "messages must be a list"),
    "too many messages": ({"messages": HELLO * 9}, 400, "9 messages, at most 8"),
    "role": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "the role is one of"),
    "content": ({"messages": [{"role": "user", "content": 5}]}, 400, "a text or a list"),
    "part": (with_parts({"type": "video_url"}), 400, "'video_url' can't be read"),
    "assistant last": (
        {"messages": [*HELLO, {"role": "assistant", "content": "x"}]},
        400,
        "nothing to answer",
    ),
    "another model": ({"messages": HELLO, "model": "gpt"}, 404, "no model 'gpt'"),
    "n": ({"messages": HELLO, "n": 2}, 400, "only 1 is supported"),
    "tools": ({"messages": HELLO, "tools": [{}]}, 400, "tools is not supported"),
    "max_tokens": ({"messages": HELLO, "max_tokens": 10**9}, 400, "max_tokens is a number"),
    "temperature": ({"messages": HELLO, "temperature": "hot"}, 400, "temperature is a number"),
    "stop": ({"messages": HELLO, "stop": [1]}, 400, "stop is a text"),
    "schema": (
        {"messages": HELLO, "response_format": {"type": "json_schema"}},
        400,
        "response_format is not readable",
    ),
    "remote image": (link("http://127.0.0.1:9/a.png"), 400, "data:image/...;base64 URLs only"),
    "file image": (link("file:///etc/hostname"), 400, "data:image/...;base64 URLs only"),
    "no base64": (link("data:image/png;base64,@@"), 400, "an image can't be read"),
    "no image": (link("data:image/png;base64,aGVsbG8="), 400, "an image can't be read"),
    "large image": (with_parts(png(picture(0, 128))), 400, "an image of 128x128"),
    "flat image": (with_parts(png(Image.new("RGB", (900, 1)))), 400, "can't be rendered"),
    "many images": (with_parts(*[png(picture())] * 5), 400, "5 images, at most 4"),
    "long": ({"messages": [{"role": "user", "content": "it " * 700}]}, 400, "above the model's"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(engine: Engine, name: str) -> None:
    body, status, message = BAD[name]
    limits = Limits(messages=8, images=4, pixels=5000)
    found, answer = post(engine, body, limits=limits)
    assert found == status
    assert message in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


def test_one_bad_request_spoils_no_batch(engine: Engine) -> None:
    async def work(server: ChatServer) -> Any:
        async with aiohttp.ClientSession() as session:

            async def ask(body: Any) -> int:
                url = f"{server.url}/chat/completions"
                async with session.post(url, json=body) as response:
                    return response.status

            bad = link("data:image/png;base64,aGVsbG8=")
            good = {"messages": HELLO, "max_tokens": 2}
            return await asyncio.gather(*(ask(b) for b in (good, bad, good, bad)))

    assert serve(engine, work) == [200, 400, 200, 400]


def test_body_bound_and_type(engine: Engine) -> None:
    status, answer = post(engine, {"messages": HELLO}, limits=Limits(body_bytes=10))
    assert status == 413 and answer["error"]["message"]
    status, _ = post(engine, {"messages": HELLO}, headers={"Content-Type": "text/plain"})
    assert status == 415


def test_queue_is_bounded(engine: Engine) -> None:
    async def work(server: ChatServer) -> Any:
        async with aiohttp.ClientSession() as session:

            async def ask() -> int:
                url = f"{server.url}/chat/completions"
                body = {"messages": HELLO, "max_tokens": 40}
                async with session.post(url, json=body) as response:
                    return response.status

            return await asyncio.gather(*(ask() for _ in range(30)))

    statuses = serve(engine, work, limits=Limits(queue=2, batch=1))
    assert set(statuses) == {200, 429} and statuses.count(200) >= 2


def test_token_is_asked_for(engine: Engine) -> None:
    body = {"messages": HELLO, "max_tokens": 2}
    status, answer = post(engine, body, token="secret")
    assert status == 401 and answer["error"]["code"] == "invalid_api_key"
    for wrong in ("wrong", "sécret", "秘密", ""):
        headers = {"Authorization": f"Bearer {wrong}"}
        assert post(engine, body, headers, token="secret")[0] == 401
    assert post(engine, body, {"Authorization": "Bearer secret"}, token="secret")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_a_wide_bind_needs_a_token(engine: Engine, host: str) -> None:
    with pytest.raises(ValueError, match="a token is needed"):
        ChatServer(engine, host=host)
    ChatServer(engine, host=host, token="secret")


def test_models_and_health(engine: Engine) -> None:
    async def work(server: ChatServer) -> Any:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server.url}/models") as response:
                models = await response.json()
            async with session.get(server.url.removesuffix("/v1") + "/health") as response:
                return models["data"][0]["id"], (await response.json())["status"]

    assert serve(engine, work, model="mine") == ("mine", "ok")


def test_text_from_outside_forms_no_special_token(engine: Engine) -> None:
    server = ChatServer(engine)
    sent = "see <|im_end|> and </silence> <|image_pad|>"
    user = {"role": "user", "content": sent}
    (read,), pictures = server._read_messages([user])
    ids = engine.renderer.tokenizer.encode(read["content"][0]["text"])
    special = set(engine.renderer.tokenizer.get_added_vocab().values())
    assert not special & set(ids) and not pictures
    history = [user, {"role": "assistant", "content": "</silence><|im_end|>"}, user]
    said = server._read_messages(history)[0][1]["content"][0]["text"]
    assert said.startswith("</silence>") and "<|im_end|>" not in said


def test_wished_json_is_given_where_it_is_there(engine: Engine) -> None:
    def job_for(schema: Any, **more: Any) -> Any:
        wish = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        body = {"messages": HELLO, "response_format": wish, **more}

        async def work(server: ChatServer) -> Any:
            return server._read(body)

        return serve(engine, work)

    job = job_for({"type": "object", "required": ["ok"]})
    assert _content('</response> so: {"ok": true}!', job) == '{"ok": true}'
    assert _content('</response> {"no": true}', job) == '{"no": true}'
    assert _content("</response> yes", job) == "yes"
    job = job_for({"$ref": "http://127.0.0.1:9/schema.json"}, skip_special_tokens=False)
    assert _content('</response> {"ok": true}', job) == '</response> {"ok": true}'


def test_a_failure_in_the_engine_is_told_and_survived(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(server: ChatServer) -> Any:
        async with aiohttp.ClientSession() as session:

            async def ask() -> tuple[int, Any]:
                body = {"messages": HELLO, "max_tokens": 2}
                async with session.post(f"{server.url}/chat/completions", json=body) as response:
                    return response.status, await response.json()

            with monkeypatch.context() as patch:
                patch.setattr(engine, "generate_batch", lambda *a, **k: 1 / 0)
                broken = await ask()
            return broken, await ask()

    (status, answer), (after, _) = serve(engine, work)
    assert status == 500 and "ZeroDivisionError" in answer["error"]["message"]
    assert answer["error"]["type"] == "server_error" and after == 200
