"""Agents against real HTTP servers that answer well, badly, late or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_pipeline.agents.agent import Agent, AgentDown, Unverified, Verdict
from data_pipeline.agents.asking import ask_in_order, each_asked, wait_for
from data_pipeline.agents.prompts import load
from data_pipeline.candidates import Candidate, id_of
from joyvl_train.llm import Answer, Budget, BudgetError, LLMError, Unparsed
from joyvl_train.timeline import Clip, Timeline, TimelineError
from tests.data_pipeline.agents.endpoint import YES, Asked, Endpoint, pretty, text_of

NO = pretty({"reason": "It is empty.", "verdict": "no"})
UNSURE = pretty({"reason": "Too dark.\n</silence>", "verdict": "unsure"})
PICTURE = Image.new("RGB", (8, 8))


def candidates(count: int) -> list[Candidate]:
    return [
        Candidate(
            id_of(n), Timeline(Clip(f"v{n}", 9.0, video="a.mp4"), "alerting", "made", ()),
            work={"target": f"thing {n}"},
        )
        for n in range(count)
    ]  # fmt: skip


def verified(agent: Agent, given: list[Candidate], window: int = 4) -> list[Candidate]:
    """The stage under test: a candidate is kept where the agent says yes."""

    async def look(candidate: Candidate) -> Candidate:
        verdict = await agent.judge({"target": candidate.work["target"]}, [(3, PICTURE)])
        if verdict.yes:
            return candidate.kept("look", verdict.reason, agent.key)
        return candidate.rejected("look", "not there", verdict.reason, agent.key)

    return list(each_asked("look", look, given, window))


def test_what_is_asked() -> None:
    with Endpoint() as endpoint, Asked(endpoint, most_pictures=2) as agent:
        pictures = [(n, PICTURE) for n in range(5)]
        answer = wait_for(agent.ask({"target": 'a "red" car'}, pictures, sample=7))
        assert answer == Answer(YES, {"reason": "It is there.", "verdict": "yes"})
        (request,) = endpoint.seen
    system, user = request["messages"]
    assert system["content"] == load("dense_precheck").system
    kinds = [part.get("text", part["type"]) for part in user["content"]]
    assert kinds[:4] == ["<0.0 seconds>", "image_url", "<4.0 seconds>", "image_url"]
    assert text_of(request).startswith('Look for: "a \\"red\\" car"\n')
    assert request["seed"] == 7 and request["max_tokens"] == 150 and request["temperature"] == 0
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema == load("dense_precheck").form.schema
    assert agent.key == load("dense_precheck").key and agent.name == "dense_precheck"


def test_verdicts_are_typed() -> None:
    texts = [YES, NO, UNSURE]
    with Endpoint(lambda request, n: texts[n]) as endpoint, Asked(endpoint) as agent:
        assert wait_for(agent.judge({"target": "x"})) == Verdict(True, "It is there.")
        assert wait_for(agent.judge({"target": "x"})) == Verdict(False, "It is empty.")
        with pytest.raises(Unverified) as caught:
            wait_for(agent.judge({"target": "x"}))
    error = caught.value
    assert (error.reason, error.detail, error.agent) == (
        "unsure",
        "Too dark. < /silence>",
        agent.key,
    )


def test_a_stage_keeps_rejects_and_sets_apart() -> None:
    def script(request: Any, number: int) -> Any:
        name = text_of(request).split('"')[1]
        return {
            "thing 0": YES,
            "thing 1": NO,
            "thing 2": UNSURE,
            "thing 3": "Yes, I think so!",
            "thing 4": (400, {"error": {"message": "too many images"}}),
            "thing 5": (500, {}),
            "thing 6": b"<html>",
            "thing 7": '{"verdict": "yes"}',
        }[name]

    closed = candidates(9)[8].rejected("before", "too dark")
    with Endpoint(script) as endpoint, Asked(endpoint) as agent:
        out = verified(agent, [*candidates(8), closed])
        # Of those that failed, the one refused for good was sent once, the others tried again.
        assert len(endpoint.seen) == 10
    assert [(one.status, one.reason) for one in out] == [
        ("open", ""),
        ("rejected", "not there"),
        ("unverified", "unsure"),
        ("unverified", "unparsed"),
        ("unverified", "agent failed"),
        ("unverified", "agent failed"),
        ("unverified", "agent failed"),
        ("unverified", "unparsed"),
        ("rejected", "too dark"),
    ]
    assert {one.history[-1].agent for one in out[:8]} == {agent.key}
    assert "too many images" in out[4].history[-1].detail
    assert "not valid: 'reason' is a required property" in out[7].history[-1].detail
    counts = agent.counts()
    assert counts.pop("seconds") > 0
    assert counts == {
        "asked": 8, "calls": 10, "cached": 0, "unparsed": 2, "failed": 3, "tokens": 75, "cost": 75.0
    }  # fmt: skip


def test_rate_limits_and_lost_connections_are_waited_out() -> None:
    def script(request: Any, number: int) -> Any:
        return YES if number % 3 == 2 else (429, {}) if number % 3 else (503, {})

    with Endpoint(script) as endpoint, Asked(endpoint, retries=20) as agent:
        assert all(one.status == "open" for one in verified(agent, candidates(6)))
    assert agent.counts()["failed"] == 0 and agent.counts()["asked"] == 6


def test_a_server_that_hangs_ends_as_unverified() -> None:
    def script(request: Any, number: int) -> Any:
        return 600 if "thing 1" in text_of(request) else YES

    with Endpoint(script) as endpoint, Asked(endpoint, timeout=0.3, retries=1) as agent:
        out = verified(agent, candidates(3), window=2)
    assert [one.reason for one in out] == ["", "agent failed", ""]
    assert "no answer in 2 tries" in out[1].history[-1].detail


def test_slow_answers_come_in_order() -> None:
    def script(request: Any, number: int) -> Any:
        return 0.1 if number % 2 else 0.01

    with Endpoint(script) as endpoint, Asked(endpoint) as agent:
        out = verified(agent, candidates(8), window=3)
        assert endpoint.most_together <= 3
    assert [one.work["target"] for one in out] == [f"thing {n}" for n in range(8)]


def test_a_server_that_is_down_ends_the_run_and_spoils_nothing() -> None:
    with Asked("http://127.0.0.1:9/v1", retries=0, most_failures=4) as agent:
        with pytest.raises(AgentDown, match=r"nobody is there to ask; see to .*:9/v1") as caught:
            verified(agent, candidates(3), window=1)
        assert agent.counts()["asked"] == 1
    assert "\n" not in str(caught.value)
    with Asked("http://127.0.0.1:9/v1", retries=0, most_failures=None) as agent:
        assert {one.reason for one in verified(agent, candidates(30))} == {"agent failed"}


def test_a_server_that_answers_nothing_ends_the_run() -> None:
    with Endpoint((500, {})) as endpoint, Asked(endpoint, retries=0, most_failures=4) as agent:
        stage = verified(agent, candidates(3), window=1)
        assert [one.reason for one in stage] == ["agent failed"] * 3
        with pytest.raises(
            AgentDown,
            match=r"^agent dense_precheck: 4 questions on end got no answer; see to .*/v1",
        ):
            verified(agent, candidates(9))


def test_answers_between_failures_keep_the_run_going() -> None:
    def script(request: Any, number: int) -> Any:
        return (400, {}) if number % 4 else YES

    with Endpoint(script) as endpoint, Asked(endpoint, most_failures=4) as agent:
        out = verified(agent, candidates(20), window=1)
    assert [one.status for one in out].count("open") == 5


def test_questions_that_are_refused_end_the_run_only_where_none_was_answered() -> None:
    def filtered(request: Any, number: int) -> Any:
        return (400, {"error": "not such pictures"}) if number else YES

    with Endpoint(filtered) as endpoint, Asked(endpoint, most_failures=4) as agent:
        out = verified(agent, candidates(20), window=1)
    assert [one.reason for one in out] == ["", *["agent failed"] * 19]
    down = pytest.raises(AgentDown, match="4 questions on end got no answer")
    with Endpoint((400, {})) as endpoint, Asked(endpoint, most_failures=4) as agent, down:
        verified(agent, candidates(20), window=1)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(max_requests=5), r"^agent dense_precheck: 5 of 5 requests are sent; raise the cap"),
        (Budget(max_cost=6e3), r"^agent dense_precheck: .* of 6000.0 is spent"),
        (Budget(max_tokens=6000), r"^agent dense_precheck: .* of 6000 tokens are used"),
    ],
)
def test_a_budget_ends_the_run_in_a_line(budget: Budget, message: str) -> None:
    with Endpoint() as endpoint, Asked(endpoint, budget=budget) as agent:
        with pytest.raises(BudgetError, match=message):
            verified(agent, candidates(1000), window=1)
        assert 0 < len(endpoint.seen) < 300
        assert agent.counts()["tokens"] <= 6000 and agent.counts()["cost"] <= 6000


def test_a_budget_holds_with_many_in_flight(tmp_path: Path) -> None:
    budget = Budget(max_requests=10)
    with Endpoint(0.02) as endpoint, Asked(endpoint, budget=budget, cache=tmp_path) as agent:
        with pytest.raises(BudgetError):
            verified(agent, candidates(50), window=8)
        assert len(endpoint.seen) == 10 and endpoint.broken_off == 0
    assert len(list(tmp_path.rglob("*.json"))) == 10  # what was paid for is kept


def test_agents_that_share_a_client_are_counted_apart() -> None:
    with Endpoint() as endpoint, Asked(endpoint) as one:
        other = Agent(load("grounding_checker"), one.client)
        wait_for(one.judge({"target": "x"}))
        wait_for(other.judge({"second": 3, "text": "x"}))
        wait_for(other.judge({"second": 4, "text": "y"}))
        assert (one.counts()["calls"], other.counts()["calls"]) == (1, 2)
        assert one.client.usage.requests == 3


def test_a_rerun_asks_nothing(tmp_path: Path) -> None:
    texts = {"thing 0": YES, "thing 1": NO, "thing 2": "What?"}

    def script(request: Any, number: int) -> Any:
        return texts[text_of(request).split('"')[1]]

    outs = []
    with Endpoint(script) as endpoint:
        for calls in (3, 0):
            with Asked(endpoint, cache=tmp_path) as agent:
                outs.append(verified(agent, candidates(3)))
            assert agent.counts()["calls"] == calls and agent.counts()["unparsed"] == 1
    assert agent.counts()["cached"] == 3 and outs[0] == outs[1]


def test_a_record_that_cannot_be_shown_is_rejected() -> None:
    async def look(candidate: Candidate) -> Candidate:
        await agent.judge({"target": "x" * 9000}, [(0, b"no picture")])
        return candidate

    with Endpoint() as endpoint, Asked(endpoint) as agent:
        (out,) = each_asked("look", look, candidates(1), 1)
        assert endpoint.seen == []
    assert (out.status, out.reason) == ("rejected", "too long")
    with pytest.raises(TimelineError, match="unreadable picture"):
        wait_for(agent.ask({"target": "x"}, [(0, b"no picture")]))


def test_a_closed_stage_breaks_its_questions_off() -> None:
    async def look(candidate: Candidate) -> Candidate:
        await agent.judge({"target": candidate.work["target"]})
        return candidate

    def script(request: Any, number: int) -> Any:
        return 600 if number else YES

    with Endpoint(script) as endpoint, Asked(endpoint) as agent:
        stage = each_asked("look", look, candidates(9), 4)
        next(stage)
        stage.close()  # type: ignore[attr-defined]
        assert agent.client.budget._held_tokens == 0
    assert endpoint.together == 0


def test_raw_answers_and_errors_are_the_callers_to_judge() -> None:
    texts = ["Hm.", (404, {})]
    with Endpoint(lambda request, n: texts[n]) as endpoint, Asked(endpoint) as agent:
        assert wait_for(agent.ask({"target": "x"})) == Unparsed("Hm.", "not JSON")
        with pytest.raises(LLMError):
            wait_for(agent.ask({"target": "x"}))
        with pytest.raises(ValueError, match="missing or left over"):
            list(ask_in_order([1], lambda n: agent.ask({}), 1))


def test_what_a_schema_lets_by_is_made_plain() -> None:
    """A lone surrogate can't be stored, and 3.0 is a whole number for a schema."""
    told = '{"reason": "a \\ud800 b", "verdict": "yes", "second": 3.0}'
    with Endpoint(told) as endpoint, Asked(endpoint, "localizer") as agent:
        fields = {"start": 1, "stop": 9, "target": "a dog"}
        data = wait_for(agent.data(fields, [(3, PICTURE)]))
    assert data == {"reason": "a \ufffd b", "verdict": "yes", "second": 3}
    assert type(data["second"]) is int
