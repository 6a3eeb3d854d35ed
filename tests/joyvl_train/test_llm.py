"""The client against a real local server that fails in every way it is told to."""

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from joyvl_train.answer_cache import read_text, write_entry
from joyvl_train.llm import (
    Answer,
    BudgetError,
    Client,
    Endpoint,
    LLMError,
    Unparsed,
    Unreachable,
    image_part,
    text_part,
)

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "Is it on fire?"}]


class Server:
    """Answers with `script` in order (the last entry for ever): a text, or (status, body)."""

    def __init__(self, *script: Any, tokens: tuple[int, int] = (10, 5)) -> None:
        self.script = list(script)
        self.tokens = tokens
        self.seen: list[dict[str, Any]] = []
        self.together = 0
        self.most_together = 0
        self.slow = 0.0
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(await request.json())
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        await asyncio.sleep(self.slow)
        self.together -= 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if step == "hang up":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if isinstance(step, tuple):
            return web.json_response(step[1], status=step[0], headers=self.headers)
        prompt, completion = self.tokens
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": step},
                    }
                ],
                "usage": {
                    "prompt_tokens": prompt,
                    "completion_tokens": completion,
                    "total_tokens": prompt + completion,
                },
            }
        )


def run(server: Server, work: Callable[[Client], Awaitable[Any]], **settings: Any) -> Any:
    """`work` with a client on the running `server`; the client's naps are recorded, not slept."""

    @asynccontextmanager
    async def running() -> Any:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            await runner.cleanup()

    async def main() -> Any:
        naps = settings.pop("naps", [])

        async def sleep(seconds: float) -> None:
            naps.append(seconds)

        prices = settings.pop("prices", (0.0, 0.0))
        async with running() as url:
            endpoint = Endpoint(settings.pop("url", url), "m", "NO_KEY", *prices)
            async with Client(endpoint, sleep=sleep, **settings) as client:
                return await work(client)

    return asyncio.run(main())


def test_answer_and_usage() -> None:
    async def work(client: Client) -> Any:
        return await client.ask(ASK), client.usage

    answer, usage = run(Server("Yes."), work, prices=(1.0, 2.0))
    assert answer == Answer("Yes.")
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 10, 5)
    assert usage.cost == pytest.approx(20e-6)


@pytest.mark.parametrize("failure", [(429, {}), (500, {}), (503, {}), (408, {}), "hang up"])
def test_tries_again_on_what_may_pass(failure: Any) -> None:
    naps: list[float] = []
    server = Server(failure, failure, "Yes.")

    async def work(client: Client) -> Any:
        return await client.ask(ASK), client.usage.retried

    answer, retried = run(server, work, naps=naps, retries=3, backoff=1.0)
    assert answer == Answer("Yes.")
    assert retried == 2 and len(server.seen) == 3
    assert 0.75 <= naps[0] <= 1.25 and 1.5 <= naps[1] <= 2.5


def test_waits_as_long_as_the_server_asks() -> None:
    naps: list[float] = []
    server = Server((429, {}), "Yes.")
    server.headers = {"Retry-After": "7"}
    run(server, lambda client: client.ask(ASK), naps=naps)
    assert naps == [7.0]


def test_gives_up_after_the_last_try() -> None:
    server = Server((500, {}))
    with pytest.raises(LLMError, match="no answer in 3 tries"):
        run(server, lambda client: client.ask(ASK), retries=2)
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    "failure",
    [(400, {}), (401, {}), (404, {}), (429, {"error": {"code": "insufficient_quota"}})],
)
def test_does_not_try_again_on_what_stays(failure: Any) -> None:
    server = Server(failure)
    with pytest.raises(LLMError):
        run(server, lambda client: client.ask(ASK))
    assert len(server.seen) == 1


def test_refused_key_names_the_variable() -> None:
    with pytest.raises(LLMError, match="NO_KEY"):
        run(Server((401, {})), lambda client: client.ask(ASK))


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match="no answer in 2 tries"):
        run(Server(""), lambda c: c.ask(ASK), url="http://127.0.0.1:9/v1", retries=1)
    for failure in ((500, {}), "hang up"):  # somebody is there
        with pytest.raises(LLMError) as caught:
            run(Server(failure), lambda c: c.ask(ASK), retries=1)
        assert not isinstance(caught.value, Unreachable)


def test_slow_server_times_out() -> None:
    server = Server("Yes.")
    server.slow = 0.5
    with pytest.raises(LLMError, match=r"no whole answer in 0\.05 s|Timeout"):
        run(server, lambda client: client.ask(ASK), timeout=0.05, retries=0)


@pytest.mark.parametrize(
    "text",
    ['{"ok": true}', '```json\n{"ok": true}\n```', '<think>fire? yes</think>\n{"ok": true}'],
)
def test_schema_answers(text: str) -> None:
    server = Server(text)
    answer = run(server, lambda client: client.ask(ASK, schema=SCHEMA))
    assert answer == Answer(text, {"ok": True})
    assert server.seen[0]["response_format"]["json_schema"]["schema"] == SCHEMA


def test_asks_again_for_what_does_not_fit() -> None:
    server = Server("Yes!", '{"ok": 1}', '{"ok": false}')
    answer = run(server, lambda client: client.ask(ASK, schema=SCHEMA, max_tokens=9))
    assert isinstance(answer, Answer) and answer.data == {"ok": False}
    assert "not JSON" in server.seen[1]["messages"][-1]["content"]
    assert "not valid" in server.seen[2]["messages"][-1]["content"]
    assert len(server.seen[2]["messages"]) == 3  # a bad answer is not piled on a bad answer


def test_unreadable_to_the_end_is_a_value() -> None:
    server = Server("Yes!")

    async def work(client: Client) -> Any:
        return await client.ask(ASK, schema=SCHEMA), client.usage.unparsed

    answer, unparsed = run(server, work, reparses=2)
    assert answer == Unparsed("Yes!", "not JSON") and unparsed == 1
    assert len(server.seen) == 3


def test_endpoint_without_response_format() -> None:
    refusal = (400, {"error": {"message": "response_format is not supported"}})
    server = Server(refusal, '{"ok": true}')

    async def work(client: Client) -> Any:
        return [await client.ask(ASK, schema=SCHEMA, sample=n) for n in range(2)]

    first, second = run(server, work)
    assert first.data == second.data == {"ok": True}
    assert "response_format" not in server.seen[1] and "response_format" not in server.seen[2]
    assert "schema" in server.seen[1]["messages"][-1]["content"]


@pytest.mark.parametrize("retries", [5, 0])
def test_all_in_flight_go_without_response_format_where_it_is_refused(retries: int) -> None:
    class Plain(Server):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            if "response_format" in await request.json():
                await asyncio.sleep(0.05)  # until all that may be in flight are
                error = {"message": "response_format is not supported"}
                return web.json_response({"error": error}, status=400)
            return await super().answer(request)

    async def work(client: Client) -> Any:
        questions = [[{"role": "user", "content": str(n)}] for n in range(6)]
        return await client.ask_all(questions, schema=SCHEMA), client.usage

    answers, usage = run(Plain('{"ok": true}'), work, concurrency=4, retries=retries)
    assert [answer.data for answer in answers] == [{"ok": True}] * 6
    assert (usage.requests, usage.retried) == (10, 4)


def test_rerun_pays_nothing(tmp_path: Any) -> None:
    async def work(client: Client) -> Any:
        first = await client.ask(ASK, schema=SCHEMA)
        again = await client.ask(ASK, schema=SCHEMA)
        other = await client.ask(ASK, schema=SCHEMA, sample=1)
        return first, again, other, client.usage

    server = Server('{"ok": true}')
    first, again, other, usage = run(server, work, cache=tmp_path)
    assert (first.cached, again.cached, other.cached) == (False, True, False)
    assert first.data == again.data and usage.requests == 2 and usage.cached == 1
    assert usage.prompt_tokens == 20


def test_what_is_asked_twice_at_one_time_is_sent_once(tmp_path: Any) -> None:
    async def work(client: Client) -> Any:
        return await client.ask_all([ASK] * 5), client.usage

    server = Server("yes", "no")
    server.slow = 0.1
    answers, usage = run(server, work, cache=tmp_path)
    assert {answer.text for answer in answers} == {"yes"} and len(server.seen) == 1
    assert [answer.cached for answer in answers] == [False, *[True] * 4] and usage.cached == 4


def test_the_first_answer_is_kept_whoever_asks_again(tmp_path: Any) -> None:
    """Another process may have had the same question in flight."""
    path = tmp_path / "ab" / "abc.json"
    assert write_entry(path, {"text": "yes"}) == "yes"
    assert write_entry(path, {"text": "no"}) == "yes" == read_text(path)
    path.write_text("{torn")
    assert write_entry(path, {"text": "no"}) == "no" == read_text(path)
    assert [each.name for each in path.parent.iterdir()] == ["abc.json"]
    assert write_entry(None, {"text": "no"}) == "no"


def test_answers_are_known_by_the_model_and_the_question_wherever_it_is_served(
    tmp_path: Any,
) -> None:
    async def work(client: Client) -> Any:
        return await client.ask(ASK), client.endpoint.url

    first, url = run(Server("Yes."), work, cache=tmp_path)
    again, other = run(Server("No."), work, cache=tmp_path)
    assert url != other and again == Answer("Yes.", cached=True) and not first.cached
    apart, _ = run(Server("No."), work, cache=tmp_path, namespace="version 2")
    assert apart == Answer("No.")
    (entry,) = (p for p in tmp_path.rglob("*.json") if "version 2" not in p.read_text())
    assert json.loads(entry.read_text())["url"] == url  # who gave it is known


def test_cache_keeps_unparsed_and_survives_damage(tmp_path: Any) -> None:
    async def work(client: Client) -> Any:
        first = await client.ask(ASK, schema=SCHEMA)
        again = await client.ask(ASK, schema=SCHEMA)
        (entry,) = tmp_path.rglob("*.json")
        entry.write_text("{")
        return first, again, await client.ask(ASK, schema=SCHEMA)

    server = Server("no", '{"ok": true}')
    first, again, mended = run(server, work, cache=tmp_path, reparses=0)
    assert isinstance(first, Unparsed) and isinstance(again, Unparsed) and again.cached
    assert mended == Answer('{"ok": true}', {"ok": True})
    assert not list(tmp_path.rglob("*.tmp"))


def test_token_cap_holds_with_many_in_flight() -> None:
    server = Server("Yes.", tokens=(15, 40))  # no more than was set aside
    server.slow = 0.02

    async def work(client: Client) -> Any:
        with pytest.raises(BudgetError, match="tokens are used"):
            await client.ask_all([ASK] * 50, max_tokens=40)
        return client.usage.tokens

    used = run(server, work, max_tokens=1000, concurrency=8)
    assert 0 < used <= 1000


def test_what_is_set_aside_in_flight_ends_nothing() -> None:
    """Each may use 60 tokens or so, and uses 2: of a cap of 300 all fifty can be answered."""
    server = Server("Yes.", tokens=(1, 1))
    server.slow = 0.02

    async def work(client: Client) -> Any:
        return await client.ask_all([ASK] * 50, max_tokens=40), client.usage.tokens

    answers, used = run(server, work, max_tokens=300, concurrency=8)
    assert len(answers) == 50 and used == 100 and server.most_together > 1


def test_caps_hold_where_the_endpoint_tells_no_usage() -> None:
    async def work(client: Client) -> Any:
        with pytest.raises(BudgetError, match="tokens are used"):
            await client.ask_all([ASK] * 50, max_tokens=40)
        return client.usage

    usage = run(Server("Yes.", tokens=(0, 0)), work, max_tokens=1000, prices=(1.0, 1.0))
    assert 0 < usage.tokens <= 1000 and usage.cost > 0


def test_cost_cap() -> None:
    async def work(client: Client) -> Any:
        await client.ask(ASK, max_tokens=100)
        with pytest.raises(BudgetError, match="is spent"):
            await client.ask(ASK, max_tokens=10_000_000)
        return client.usage.cost

    assert run(Server("Yes."), work, prices=(1.0, 1.0), max_cost=1.0) == pytest.approx(15e-6)


def test_concurrency_limit() -> None:
    server = Server("Yes.")
    server.slow = 0.02
    answers = run(server, lambda client: client.ask_all([ASK] * 9), concurrency=3)
    assert answers == [Answer("Yes.")] * 9
    assert server.most_together == 3


def test_failures_stand_in_their_place() -> None:
    async def work(client: Client) -> Any:
        return await client.ask_all([ASK, ASK])

    answers = run(Server((400, {}), "Yes."), work, concurrency=1)
    assert isinstance(answers[0], LLMError) and answers[1] == Answer("Yes.")


def test_rate_limit_spaces_the_starts() -> None:
    naps: list[float] = []
    run(Server("Yes."), lambda c: c.ask_all([ASK] * 3), per_minute=60, naps=naps)
    assert len(naps) == 2
    assert naps[0] == pytest.approx(1.0, abs=0.5) and naps[1] == pytest.approx(2.0, abs=0.5)


def test_images_go_as_jpeg_and_stay_out_of_the_cache(tmp_path: Any) -> None:
    part = image_part(Image.new("RGBA", (8, 6), (255, 0, 0, 255)))
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (8, 6)
    server = Server("Red.")
    messages = [{"role": "user", "content": [text_part("Colour?"), part]}]
    run(server, lambda client: client.ask(messages), cache=tmp_path)
    assert server.seen[0]["messages"] == messages
    (entry,) = tmp_path.rglob("*.json")
    kept = json.loads(entry.read_text())["request"]["messages"][0]["content"]
    assert kept[0] == text_part("Colour?") and data not in entry.read_text()


def test_endpoint_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_URL", raising=False)
    monkeypatch.setenv("JUDGE_MODEL", "m")
    with pytest.raises(LLMError, match="set JUDGE_URL in"):
        Endpoint.from_environment("JUDGE")
    monkeypatch.setenv("JUDGE_URL", "http://127.0.0.1:1/v1")
    assert Endpoint.from_environment("JUDGE") == Endpoint("http://127.0.0.1:1/v1", "m", "JUDGE_KEY")
