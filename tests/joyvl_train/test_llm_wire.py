"""Endpoints that answer with anything but a chat completion, on a real socket."""

import asyncio
import contextlib
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.llm import Answer, Budget, BudgetError, Client, Endpoint, LLMError, Unparsed
from joyvl_train.llm_wire import MAX_BODY, Completion, NotACompletion, read_completion

ASK = [{"role": "user", "content": "Is it on fire?"}]
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}


def http(
    body: bytes, kind: str = "application/json", status: str = "200 OK", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def completion(**changed: Any) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return json.dumps({"id": "1", "choices": [CHOICE], "usage": usage, **changed}).encode()


def content(text: Any) -> bytes:
    return completion(choices=[{**CHOICE, "message": {"role": "assistant", "content": text}}])


def asked(sent: bytes, schema: Any = None, tries: list[int] | None = None, **settings: Any) -> Any:
    """The outcome of one question to a server that sends these bytes to whoever connects."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if tries is not None:
            tries.append(1)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        writer.close()

    async def nap(seconds: float) -> None:
        assert 0 <= seconds < 200

    async def main() -> Any:
        async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            settings.setdefault("retries", 1)
            endpoint = Endpoint(url, "m", "NO_KEY")
            async with Client(endpoint, reparses=0, sleep=nap, **settings) as client:
                try:
                    return await client.ask(ASK, schema=schema)
                except LLMError as error:
                    return error

    return asyncio.run(main())


GARBAGE = {
    "nothing": b"",
    "another protocol": b"SSH-2.0-hello\r\n",
    "a page": http(b"<html>Welcome</html>", "text/html"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "no gzip": http(b"abcd", more="Content-Encoding: gzip\r\n"),
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "half of JSON": http(b'{"choices": ['),
    "no text": http(b"\xff\xfe\x00"),
    "depth": http(b"[" * 100_000),
    "null": http(b"null"),
    "a list": http(b"[1]"),
    "no choices": http(b"{}"),
    "choices null": http(completion(choices=None)),
    "choices an object": http(completion(choices={"0": CHOICE})),
    "choices of numbers": http(completion(choices=[1])),
    "no message": http(completion(choices=[{"message": None}])),
    "content a number": http(content(5)),
    "content a list": http(content([1, 2])),
    "a redirect to itself": http(
        b"", status="307 Moved", more="Location: /v1/chat/completions\r\n"
    ),
    "a wait that is no number": http(b"", status="429 Too Many", more="Retry-After: nan\r\n"),
    "a wait without end": http(b"", status="503 Busy", more="Retry-After: inf\r\n"),
    "an error of any depth": http(b"[" * 100_000, status="500 Oh"),
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_tried_again_and_ends_as_an_error(sent: bytes) -> None:
    tries: list[int] = []
    outcome = asked(sent, tries=tries)
    assert isinstance(outcome, LLMError)
    assert "gave no answer in 2 tries" in str(outcome) and len(str(outcome)) < 500
    assert len(tries) >= 2


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"ok": NaN}',
        '{"ok": false, "ok": true}',
        "\ud800",
        None,
        "9" * 5000,
        '{"ok": "true"}',
    ],
)
def test_a_text_that_is_not_what_was_asked_for(text: Any, tmp_path: Path) -> None:
    assert isinstance(asked(http(content(text)), SCHEMA, cache=tmp_path), Unparsed)


def test_a_list_of_no_choices_is_an_empty_text() -> None:
    assert asked(http(completion(choices=[]))) == Answer("")


def test_an_error_is_cut_to_a_line() -> None:
    outcome = asked(http(b'{"error": "' + b"no\\n" * 100_000 + b'"}', status="400 Bad Request"))
    assert isinstance(outcome, LLMError) and len(str(outcome)) < 500 and "\n" not in str(outcome)


def test_an_answer_that_drips_without_end_times_out() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            endpoint = Endpoint(url, "m", "NO_KEY")
            async with Client(endpoint, timeout=0.2, retries=0) as client:
                with pytest.raises(LLMError, match=r"no whole answer in 0\.2 s"):
                    await client.ask(ASK)
                assert client.budget._held_tokens == 0

    asyncio.run(main())


@pytest.mark.parametrize("status", ["200 OK", "500 Oh"])
def test_a_body_without_end_is_broken_off(status: str) -> None:
    sent = [0]

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
                sent[0] += 1 << 20
                await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with Client(Endpoint(url, "m", "NO_KEY"), timeout=60, retries=0) as client:
                with pytest.raises(LLMError, match=f"more than {MAX_BODY} bytes"):
                    await client.ask(ASK)

    asyncio.run(main())
    assert MAX_BODY < sent[0] < 2 * MAX_BODY


def test_a_compressed_body_is_refused_unread() -> None:
    bomb = http(gzip.compress(b" " * (1 << 24)), more="Content-Encoding: gzip\r\n")
    outcome = asked(bomb)
    assert isinstance(outcome, LLMError) and "a compressed body" in str(outcome)


COUNTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([])


@given(COUNTS, COUNTS)
def test_tokens_that_are_no_number_or_below_zero_count_nothing(prompt: Any, answer: Any) -> None:
    usage = {"prompt_tokens": prompt, "completion_tokens": answer}
    read = read_completion(completion(usage=usage))
    whole = [n if type(n) is int and n > 0 else 0 for n in (prompt, answer)]
    assert read == Completion("Yes.", *whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage"]), inner)
    ),
)


@given(JSON)
def test_any_json_is_a_completion_or_none(data: Any) -> None:
    with contextlib.suppress(NotACompletion):
        assert isinstance(read_completion(json.dumps(data).encode()).text, str)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"stop_reason": 7, "message": {"content": ""}}, "</silence>"),
        ({"stop_reason": 7, "message": {"content": None}}, "</silence>"),
        ({"stop_reason": 7, "message": {"content": "Yes."}}, "Yes.</silence>"),
        ({"stop_reason": 8, "message": {"content": "Yes."}}, "Yes."),
        ({"stop_reason": None, "message": {"content": "Yes."}}, "Yes."),
        ({"stop_reason": "7", "message": {"content": "Yes."}}, "Yes."),
        ({"stop_reason": [7], "message": {"content": "Yes."}}, "Yes."),
        ({"stop_reason": True, "message": {"content": "Yes."}}, "Yes."),
    ],
)
def test_the_token_that_ended_an_answer_is_put_back(choice: Any, text: str) -> None:
    body = json.dumps({"choices": [choice]}).encode()
    assert read_completion(body, {7: "</silence>", 1: "one"}).text == text
    assert read_completion(body).text == (choice["message"]["content"] or "")


def test_a_budget_of_ones_own() -> None:
    """Two who ask through one client: each is counted, and held to caps of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(completion(), more="Connection: close\r\n"))
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            endpoint = Endpoint(url, "m", "NO_KEY", prompt_price=1e6, completion_price=2e6)
            async with Client(endpoint, retries=0) as client:
                few, free = Budget(max_requests=2, owner="the judge"), Budget()
                for _ in range(2):
                    await client.ask(ASK, budget=few)
                with pytest.raises(
                    BudgetError, match="^the judge: 2 of 2 requests are sent; raise the cap"
                ):
                    await client.ask(ASK, budget=few)
                await client.ask(ASK, budget=free)
                assert (few.usage.requests, few.usage.tokens, few.usage.cost) == (2, 30, 40.0)
                assert (free.usage.requests, free.usage.tokens, free.usage.cost) == (1, 15, 20.0)
                assert (client.usage.requests, client.usage.tokens) == (3, 45)
                dear = Budget(max_cost=1.0)
                with pytest.raises(BudgetError, match="is spent"):
                    await client.ask(ASK, budget=dear)
                assert client.usage.requests == 3 and dear.usage.requests == 0

    asyncio.run(main())
