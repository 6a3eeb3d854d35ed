"""Sessions over an OpenAI-compatible endpoint: the same words as in process, and its faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

from data_pipeline.agents.own_model import served
from joyvl_train.actions import Response, Silence
from joyvl_train.engine import Engine
from joyvl_train.llm import BudgetError, Client, LLMError
from joyvl_train.llm import Endpoint as Where
from joyvl_train.stream import StreamSettings
from serve.chat_engine import ChatEngine
from serve.chat_model import ChatModel
from serve.session import Session, Stepped, Tick
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.joyvl_train.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engine() -> Engine:
    speaker = build("qwen3_vl")
    return Engine(speaker.model, speaker.renderer, max_new_tokens=6)


def ticks(count: int) -> Iterator[Tick]:
    """Plain greys, which JPEG keeps as they are."""
    for second in range(count):
        grey = Image.new("RGB", (64, 64), (20 * second + 16,) * 3)
        queries = ("What is there?",) if second in (1, 7) else ()
        yield Tick(second, (grey,), queries)


def steps(session: Session, count: int) -> list[tuple[str | None, object]]:
    found = []
    for tick in ticks(count):
        for event in session.step(tick):
            if isinstance(event, Stepped):
                found.append((event.step.reply, event.step.action))
    session.close()
    return found


def test_an_endpoint_says_what_the_engine_says_in_process(engine: Engine) -> None:
    settings = StreamSettings(6, 2)
    here = steps(Session(engine, settings), 10)
    with served(engine) as where:
        remote = ChatEngine(ChatModel(Client(where), max_new_tokens=6, raw=True))
        there = steps(Session(remote, settings), 10)
        remote.end()
    assert there == here and len(here) == 10


def session_on(endpoint: Endpoint, strict: bool = False, **settings) -> tuple[Session, ChatEngine]:
    client = Client(Where(endpoint.url, "m", "NO_KEY"), backoff=0.01, **settings)
    remote = ChatEngine(ChatModel(client, system="Watch.", strict=strict))
    return Session(remote, seed=7), remote


def test_what_is_sent_and_how_answers_are_read() -> None:
    said = ["</silence>", " </response> A dog.\n", "I see a dog.", ""]
    with Endpoint(lambda request, number: said[number]) as endpoint:
        session, remote = session_on(endpoint)
        found = steps(session, 4)
        remote.end()
        last = endpoint.seen[-1]
    assert [action for _, action in found] == [Silence(), Response("A dog."), Silence(), Silence()]
    assert [reply for reply, _ in found] == [None, None, "I see a dog.", ""]
    roles = [message["role"] for message in last["messages"]]
    assert roles == ["system", *["user", "assistant"] * 3, "user"]
    user = last["messages"][3]["content"]
    assert user[0]["text"] == "What is there?\n<1.0 seconds>\n"
    assert user[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    # What was malformed was shown as silence, and so it stands in the history.
    assert [m["content"] for m in last["messages"][2:7:2]] == [
        "</silence>",
        "</response> A dog.",
        "</silence>",
    ]
    assert "skip_special_tokens" not in last and last["seed"] == 7


@pytest.mark.parametrize("script", [(500, {}), (400, {"error": {"message": "no"}}), b"junk", 9])
def test_an_endpoint_without_an_answer_is_a_malformed_second(script) -> None:
    with Endpoint(script) as endpoint:
        session, remote = session_on(endpoint, retries=0, timeout=0.3)
        (event,) = session.step(next(ticks(1)))
        remote.end()
    assert isinstance(event, Stepped) and event.step.malformed == "no answer"
    with Endpoint(script) as endpoint:
        session, remote = session_on(endpoint, strict=True, retries=0, timeout=0.3)
        with pytest.raises(LLMError):
            session.step(next(ticks(1)))
        remote.end()


def test_a_spent_budget_ends_it() -> None:
    with Endpoint("</silence>") as endpoint:
        session, remote = session_on(endpoint, max_tokens=10)
        with pytest.raises(BudgetError):
            session.step(next(ticks(1)))
        assert session.stream.turns[-1].action == Silence()
        remote.end()
