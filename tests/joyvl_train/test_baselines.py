"""Policies that look at nothing, and a turn-based model that is polled."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from joyvl_train.actions import parse_action
from joyvl_train.baselines import on_turns_of, polled, trivial
from joyvl_train.heldout import free_run, metrics
from joyvl_train.timeline import Clip, Event
from tests.joyvl_train.scripted import Pictures, Reply, Scripted, alerting, delegating, replay


def test_trivial_policies() -> None:
    found = trivial([alerting(), alerting("b"), delegating()], period=5)
    assert set(found) == {"always_silent", "always_speaking", "poll"}
    silent, speaking, poll = (
        metrics(found[name], f"baseline/{name}", samples=20) for name in found
    )
    assert silent["baseline/always_silent/onset_f1"] == 0
    assert silent["baseline/always_silent/silence_accuracy"] == 1
    assert speaking["baseline/always_speaking/recall"] == 1
    assert speaking["baseline/always_speaking/silence_accuracy"] == 0
    # "A bus." and "A car." are equally frequent: the first by the alphabet.
    assert {e.text for e in found["always_speaking"][0].emissions} == {"A bus."}
    assert {e.text for e in found["always_speaking"][2].emissions} == {"42."}
    assert [e.second for e in found["poll"][0].emissions] == [4, 9, 14, 19, 24, 29]
    # The state of 9 to 14 is hit at 9; 14 is past it; 20 is hit by none.
    assert poll["baseline/poll/alerting/recall"] == 0.5
    # Nothing was delegated, so no answer is due.
    assert all([o.id for o in traces[2].onsets] == ["d"] for traces in found.values())


class Questions:
    """A turn-based engine: what it is asked, it writes down; what it says, is given."""

    def __init__(self, *texts: str) -> None:
        self.renderer: Any = self
        self.system = "Be brief."
        self.asked: list[tuple[str, int, str]] = []
        self.batches: list[int] = []
        self.seeds: list[int] = []
        self.texts = texts

    def render_question(
        self, question: str, frames: Sequence[Any], context: str = "", system: str = ""
    ) -> Any:
        assert system == self.system
        self.asked.append((question, len(frames), context))
        return SimpleNamespace(number=len(self.asked) - 1)

    def generate_batch(self, prompts: Sequence[Any], *, seeds: Sequence[int]) -> list[Reply]:
        self.batches.append(len(prompts))
        self.seeds += seeds
        texts = [self.texts[p.number % len(self.texts)] for p in prompts]
        return [
            Reply(text, parse_action(text)) if text.startswith("<") else Reply(text, None, "bad")
            for text in texts
        ]


def test_polled_asks_the_newest_query_and_says_the_answer() -> None:
    timeline = replace(
        alerting(),
        events=(*alerting().events, Event("q2", 13.0, "user", "And now?")),
        opening="It rains.",
    )
    engine = Questions("</response> A car.", "</silence>", "a </response> car")
    (trace,) = polled(engine, [(timeline, Pictures(30, missing=(24,)))], batch=2, progress=False)
    first, now = "Tell me when a car comes.", "And now?"
    assert engine.asked == [(q, 1, "It rains.") for q in (first, first, now, now, now)]
    assert engine.batches == [2, 2, 1]
    assert engine.seeds == [0, 1, 2, 3, 5]  # the question's number, in whatever batch it comes
    assert [(e.second, e.text) for e in trace.emissions] == [(4, "A car."), (19, "A car.")]
    assert [s.second for s in trace.steps if s.malformed] == [14]
    assert trace.steps[13].queries == (now,)
    assert trace.policy == "polled"


def test_policies_are_measured_on_the_models_turns() -> None:
    timelines = [alerting(), alerting("b")]
    pairs = [(timelines[0], Pictures(30, missing=(24, 25))), (timelines[1], Pictures(30))]
    model = free_run(Scripted(replay(timelines)), pairs, progress=False)
    for traces in trivial(timelines).values():
        assert [len(trace.steps) for trace in traces] == [30, 30]
        found = on_turns_of(traces, model)
        assert [len(trace.steps) for trace in found] == [28, 30]
        assert found[1] == traces[1]
        for trace, shown in zip(found, model, strict=True):
            assert trace.score().seconds == shown.score().seconds
    with pytest.raises(ValueError, match="longer"):
        on_turns_of(model[:1], model)


def test_a_polled_model_that_knows_no_grammar_says_what_it_answers() -> None:
    engine = Questions("a car", "", "Yes.\nA car.", "no </silence>")
    (trace,) = polled(engine, [(alerting(), Pictures(30))], progress=False)
    said = [(e.second, e.text) for e in trace.emissions]
    assert said[:2] == [(4, "a car"), (14, "Yes. A car.")]
    assert [s.second for s in trace.steps if s.malformed][:2] == [9, 19]


def test_polled_asks_nothing_before_a_query() -> None:
    engine = Questions("</response> A car.")
    quiet = replace(alerting(), events=())
    (trace,) = polled(engine, [(quiet, Pictures(30))], progress=False)
    assert engine.asked == []
    assert trace.emissions == []


def test_periods_are_checked() -> None:
    with pytest.raises(ValueError, match="period is 0"):
        trivial([alerting()], period=0)
    with pytest.raises(ValueError, match="period is 0"):
        polled(Questions(), [], period=0)
    with pytest.raises(ValueError, match="clip 'a' is unknown"):
        trivial([replace(alerting(), clip=Clip("a"))])


def test_windows_of_the_run_hold_for_trivial_policies_too() -> None:
    assert trivial([alerting()], late=3)["poll"][0].onsets[0].late == 3
