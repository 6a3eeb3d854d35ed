"""The model judge over real HTTP: what it reads, both orders, and all that an endpoint can do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from data_pipeline.world.streams import WorldFrames
from eval.agreement import alpha, ratings
from eval.grades import GRADES, Grade, Unscored
from eval.judge import MOST_LINES, SCHEMA, Pair, judge_pairs, prompt, rubrics
from eval.play import play
from eval.systems import TRIVIAL, Fixed, Recorded
from joyvl_train.actions import Response
from joyvl_train.llm import BudgetError, Client
from joyvl_train.llm import Endpoint as Where
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.eval.made_cases import made

GOOD = {24: Response("A fire appeared.")}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    case = made(tmp_path_factory.mktemp("cases"))
    frames = WorldFrames(case.timeline, 32)
    mine = play(case, frames, Recorded("mine", {"fire": GOOD})).trace
    other = play(case, frames, Fixed("x", "Yes.", TRIVIAL["always silent"])).trace
    return case, mine, other


def answer(a: str, b: str) -> str:
    """JSON with one grade on both axes for each."""
    grades = {
        f"{who}_{axis}": g for who, g in (("a", a), ("b", b)) for axis in ("quality", "timing")
    }
    return json.dumps({"reason": "So it is.", **grades})


def reads(request, number: int) -> str:
    """A judge that reads: who tells of fire is good."""
    text = request["messages"][0]["content"][0]["text"]
    first = text.split("Assistant A said:")[1].split("Due of assistant B:")[0]
    return answer("good", "poor") if "fire" in first else answer("poor", "good")


def judged(endpoint: Endpoint, pairs, **settings):
    async def run():
        async with Client(Where(endpoint.url, "m", "NO_KEY"), backoff=0.01, **settings) as client:
            return await judge_pairs(client, pairs)

    return asyncio.run(run())


def test_a_judge_reads_what_was_due_and_said_and_no_names(pair) -> None:
    case, mine, other = pair
    text = prompt(case, mine, other)
    assert "2 s: Tell me every time a fire appears." in text
    assert "24 s: (seconds 24 to 25; it holds until 36) A fire appeared." in text
    assert "Assistant A said:\n24 s: A fire appeared.\n\nDue of assistant B:" in text
    assert "Assistant B said:\nnothing" in text
    assert rubrics()["monitoring"] in text and "mine" not in text
    talk = play(case, WorldFrames(case.timeline, 32), Fixed("x", "{hm}", lambda t: True)).trace
    assert text.count("{") == 0 and prompt(case, talk, other).count("{hm}") == 40
    assert MOST_LINES >= 40


def test_both_orders_are_judged_and_averaged(pair) -> None:
    with Endpoint(reads) as endpoint:
        found = judged(endpoint, {"fire": pair})
        assert len(endpoint.seen) == 2
    assert found == {"fire": Pair(Grade(2, 2), Grade(0, 0), ("So it is.", "So it is."))}
    # Who always prefers the first place says nothing.
    with Endpoint(answer("good", "fair")) as endpoint:
        (verdict,) = judged(endpoint, {"fire": pair}).values()
    assert verdict.mine == verdict.other == Grade(1.5, 1.5)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("I would say that both did fine.", "unparseable"),
        (answer("great", "good"), "unparseable"),
        ('{"a_quality": "good"}', "unparseable"),
        ("I can't help with that.", "unparseable"),
        ((500, {"error": {"message": "down"}}), "no answer"),
        ((400, {"error": {"message": "refused"}}), "no answer"),
        ((429, {"error": {"message": "slow down"}}), "no answer"),
        (b"<html>", "no answer"),
        (30, "no answer"),
    ],
)
def test_faults_leave_a_pair_unscored_with_a_reason(pair, script, reason: str) -> None:
    with Endpoint(script) as endpoint:
        found = judged(endpoint, {"fire": pair}, retries=1, reparses=1, timeout=0.5)
    verdict = found["fire"]
    assert isinstance(verdict, Unscored) and verdict.reason == reason and verdict.detail


def test_one_order_alone_is_no_verdict(pair) -> None:
    with Endpoint(
        lambda request, number: reads(request, number) if not number else "?"
    ) as endpoint:
        found = judged(endpoint, {"fire": pair}, reparses=0, concurrency=1)
    assert isinstance(found["fire"], Unscored)


def test_answers_are_kept_and_a_budget_ends_it(pair, tmp_path: Path) -> None:
    with Endpoint(reads) as endpoint:
        first = judged(endpoint, {"fire": pair}, cache=tmp_path)
        assert judged(endpoint, {"fire": pair}, cache=tmp_path) == first
        assert len(endpoint.seen) == 2
        with pytest.raises(BudgetError):
            judged(endpoint, {"fire": pair}, max_tokens=10)


def test_the_schema_takes_the_three_grades() -> None:
    assert SCHEMA["properties"]["b_timing"] == {"enum": list(GRADES)}


def test_agreement_of_judges() -> None:
    one = {"a": 2, "b": 1, "c": 0, "d": 2}
    assert alpha([one, one]) == pytest.approx(1.0)
    assert alpha([one, {"a": 0, "b": 1, "c": 2, "d": 0}]) < 0
    assert alpha([one]) is None and alpha([]) is None
    assert alpha([{"a": 1, "b": 1}, {"a": 1, "b": 1}]) is None
    # Ordinal: a step apart disagrees less than two.
    near, far = ({**one, "a": value} for value in (1, 0))
    assert alpha([one, near]) > alpha([one, far])
    grades = {"a": Grade(2, 0), "b": Unscored("no answer")}
    assert ratings(grades, "quality") == {"a": 2}


def test_agreement_matches_a_worked_example() -> None:
    """Nominal and ordinal agree where there are two values: by hand, two coders, four items of
    which three agree. Values 0,0 / 0,0 / 2,2 / 0,2: n0 = 5, n2 = 3, N = 8; observed 2 of 8
    disagreeing pairs, expected 2 * 5 * 3 / (8 * 7): alpha = 1 - (2 / 8) / (30 / 56)."""
    one, two = {"a": 0, "b": 0, "c": 2, "d": 0}, {"a": 0, "b": 0, "c": 2, "d": 2}
    assert alpha([one, two]) == pytest.approx(1 - (2 / 8) / (30 / 56))
