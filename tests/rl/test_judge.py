"""The judge over real HTTP: what it is asked, once each; failures are unscored, not wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from joyvl_train.actions import Response
from joyvl_train.config import UserError
from joyvl_train.llm import Client
from joyvl_train.llm import Endpoint as Where
from joyvl_train.timeline import Clip, Event, Rule, Timeline
from rl.judge import PATIENCE, Judge, prompt, rubrics
from rl.rewards import examine, reward
from rl.rollout import Rollout, roll
from rl.windows import Window, open_window
from tests.data_pipeline.agents.endpoint import Endpoint
from tests.joyvl_train.scripted import Pictures
from tests.rl.policies import SETTINGS, Scripted, silent

CLIP = Timeline(
    Clip("c", 20.0),
    "commentary",
    "test",
    (
        Event("q", 1, "user", "Say what <|im_end|> happens."),
        Event("a", 5, "assistant", "A ball rolls.", answers="q", rule=Rule("judged")),
        Event("b", 9, "assistant", "It is 3.", answers="q", rule=Rule("number", ("3",))),
    ),
)


def rollouts(*said: str) -> list[Rollout]:
    def script(turn, number: int):
        if turn.second == 5:
            return Response(said[number])
        return Response("3") if turn.second == 9 else silent(turn, number)

    window = Window(0, "answer", 2, 15, 5)
    opened = open_window(window, CLIP, Pictures(20), SETTINGS)
    (found,) = roll(Scripted(script), [opened], len(said))
    return found


def judge_at(endpoint: Endpoint, **options) -> Judge:
    return Judge(Client(Where(endpoint.url, "m", "NO_KEY"), backoff=0.01, **options))


def reads(request, number: int) -> str:
    text = request["messages"][0]["content"][0]["text"]
    said = text.split("What the assistant said")[1]
    return json.dumps({"reason": "r", "right": "ball" in said})


def content(judge: Judge, found: list[Rollout]) -> list[float | None]:
    return [reward(examine(r, judge.right(CLIP)), {"content": 1.0}).value("content") for r in found]


def test_what_no_rule_judges_is_asked_once_and_the_rest_never() -> None:
    found = rollouts("The ball is rolling.", "Nothing.", "Nothing.", "The ball is rolling.")
    with Endpoint(reads) as endpoint:
        judge = judge_at(endpoint)
        judge.look(found)
        assert len(endpoint.seen) == judge.asked == 2
        judge.look(found)
        assert judge.asked == 2
        assert content(judge, found) == [1.0, 0.5, 0.5, 1.0]
        judge.end()


def test_the_question_tells_what_was_due_and_holds_no_control_string() -> None:
    (found,) = rollouts("A ball.")
    text = prompt(CLIP, found.trace.onsets[0], found.trace.emissions[0].text)
    assert rubrics()["commentary"] in text and "A ball rolls." in text and "A ball." in text
    assert "<|im_end|>" not in text and "5" in text


def test_the_events_own_rubric_is_read_and_makes_it_another_question() -> None:
    (found,) = rollouts("A ball.")
    onset = found.trace.onsets[0]
    own = replace(onset, rule=Rule("judged", ("says {where} it rolls", "names its <|im_end|> hue")))
    plain, text = prompt(CLIP, onset, "A ball."), prompt(CLIP, own, "A ball.")
    assert rubrics()["commentary"] in text and text != plain
    assert "- says {where} it rolls\n- names its" in text and "<|im_end|>" not in text
    with Endpoint(reads) as endpoint:
        judge = judge_at(endpoint)
        judge.look([found])
        assert judge.right(CLIP)(onset, "A ball.") is True
        assert judge.right(CLIP)(own, "A ball.") is None
        query = replace(CLIP.events[0], text="Say nothing.")
        other = replace(CLIP, events=(query, *CLIP.events[1:]))
        assert judge.right(other)(onset, "A ball.") is None  # the user had said something else
        judge.end()


@pytest.mark.parametrize("bad", ["no JSON at all", (500, {})])
def test_one_failure_is_unscored_and_counted(bad) -> None:
    found = rollouts("A ball.", "Nothing.")

    def some(request, number: int):
        text = request["messages"][0]["content"][0]["text"]
        return bad if "Nothing." in text else reads(request, number)

    with Endpoint(some) as endpoint:
        judge = judge_at(endpoint, retries=0, reparses=0)
        reason = "no answer" if isinstance(bad, tuple) else "unparseable"
        assert judge.look(found) == {reason: 1}
        assert content(judge, found) == [1.0, None]
        judge.end()


def test_a_judge_that_is_down_ends_the_run() -> None:
    with Endpoint((503, {})) as endpoint:
        judge = judge_at(endpoint, retries=0)
        judge.look(rollouts("A ball."))  # one alone ends nothing
        texts = [f"Ball {number}." for number in range(PATIENCE)]
        with pytest.raises(UserError, match="gave no verdict on 17 texts in a row"):
            judge.look(rollouts(*texts))
        judge.end()


def test_a_verdict_is_of_its_clip_and_of_the_policys_own_seconds() -> None:
    found = rollouts("The ball is rolling.")
    with Endpoint(reads) as endpoint:
        judge = judge_at(endpoint)
        judge.look(found)
        (onset, *_), said = found[0].trace.onsets, "The ball is rolling."
        other = replace(CLIP, family="chat")
        assert judge.right(CLIP)(onset, said) is True and judge.right(other)(onset, said) is None
        past = replace(found[0], window=Window(0, "answer", 6, 15, 6))
        judge.look([replace(past, timeline=other)])
        assert judge.asked == 1
        judge.end()
