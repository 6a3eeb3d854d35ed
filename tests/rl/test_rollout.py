"""Rollouts advance in step, share their past, and draw by name; the rest is the stream's."""

from __future__ import annotations

import math

import pytest

from joyvl_train.actions import Action, Delegation, Response, Silence
from joyvl_train.stream import Turn
from joyvl_train.timeline import actions
from rl.advantages import Advantages
from rl.groups import judged
from rl.rewards import WEIGHTS, examine
from rl.rollout import draw_seed, follow_gold, roll
from rl.sequences import sequences
from rl.windows import Window, open_window
from tests.joyvl_train.scripted import Pictures
from tests.rl.policies import SETTINGS, Scripted, gold_of, rolled, silent, windows, world
from tests.rl.tiny_grpo import lively


def test_rollouts_that_say_the_same_are_one_row() -> None:
    timeline, _ = world("alerting")
    window = windows(timeline, "answer")[0]
    sampler = Scripted(silent)
    found = rolled(timeline, window, silent, 4, sampler)
    assert not sampler.rows  # all closed
    assert sampler.batches == [(1, 4)] * (window.stop - window.first)
    assert [r.number for r in found] == [0, 1, 2, 3]
    assert [s.second for s in found[0].sampled] == list(range(window.first, window.stop))


def test_windows_of_a_block_advance_together() -> None:
    timeline, frames = world("counting")
    spans = windows(timeline, "answer")[:3]
    sampler = Scripted(silent)
    opened = [open_window(w, timeline, frames, SETTINGS) for w in spans]
    found = roll(sampler, opened, 2, rows=4)
    assert [len(group) for group in found] == [2, 2, 2]
    assert max(sampler.batches) == (2, 4)  # two windows at a time, then the third
    assert [group[0].window for group in found] == spans


def test_rollouts_part_where_they_say_something_else() -> None:
    timeline, _ = world("alerting")
    window = windows(timeline, "answer")[0]

    def script(turn: Turn, number: int) -> Action:
        said = turn.second == window.first + 1 and number in (1, 3)
        return Response("Now.") if said else Silence()

    sampler = Scripted(script)
    found = rolled(timeline, window, script, 4, sampler)
    length = window.stop - window.first
    assert sampler.batches == [(1, 4)] * 2 + [(2, 4)] * (length - 2) and not sampler.rows
    spoke = [any(isinstance(s.action, Response) for s in r.trace.steps[-length:]) for r in found]
    assert spoke == [False, True, False, True]
    assert [r.number for r in found] == [0, 1, 2, 3]


def test_what_is_said_enters_the_history_of_its_own_rollout() -> None:
    timeline, _ = world("alerting")
    window = windows(timeline, "answer")[0]

    def script(turn: Turn, number: int) -> Action:
        return Response(f"Number {number}.") if turn.second == window.first else Silence()

    first, second = rolled(timeline, window, script, 2)
    said = [{s.second: s.action for s in r.trace.steps}[window.first] for r in (first, second)]
    assert said == [Response("Number 0."), Response("Number 1.")]
    assert [t.action for t in second.turns if t.second == window.first] == [Response("Number 1.")]
    past = [s for s in first.trace.steps if s.second < window.first]
    assert [s.action for s in past] == [gold_of(timeline)(t, 0) for t in first.turns[: len(past)]]


def test_a_delegation_of_its_own_comes_back_to_it_alone() -> None:
    timeline, _ = world("delegation", 5)
    task = next(e for e in timeline.events if e.question is not None)
    window = Window(0, "answer", task.second, timeline.clip.seconds or 0, task.second)

    def script(turn: Turn, number: int) -> Action:
        if turn.second == task.second + number:
            return Delegation("Wait.", "What?")
        return Silence()

    rollouts = rolled(timeline, window, script, 3, early=0, late=1)
    came = [{n: s.second for s in r.trace.steps for n, _ in s.results} for r in rollouts]
    gold = next(e for e in timeline.events if e.role == "background" and e.answers == task.id)
    assert came[0] == {1: gold.second} and came[1] == {1: gold.second + 1}
    assert any("Error" in text for s in rollouts[2].trace.steps for _, text in s.results)


def test_a_malformed_turn_ends_its_rollout_alone() -> None:
    timeline, _ = world("alerting")
    window = windows(timeline, "answer")[0]

    def script(turn: Turn, number: int) -> Action | None:
        return None if number == 1 and turn.second == window.first + 2 else Silence()

    found = rolled(timeline, window, script, 3)
    assert [r.broken for r in found] == [False, True, False]
    assert [len(r.sampled) for r in found] == [window.stop - window.first, 3, len(found[0].sampled)]
    assert found[1].trace.steps[-1].malformed == "empty"


def test_seconds_without_frames_are_left_out_and_a_window_of_them_gives_nothing() -> None:
    timeline, frames = world("alerting")
    window = windows(timeline, "answer")[0]

    some = Pictures(frames.seconds, missing=(window.first, window.first + 1))
    opened = open_window(window, timeline, some, SETTINGS)
    ((rollout,),) = roll(Scripted(silent), [opened], 1)
    assert rollout.sampled[0].second == window.first + 2
    none = Pictures(frames.seconds, missing=tuple(range(window.first, window.stop)))
    opened = open_window(window, timeline, none, SETTINGS)
    assert roll(Scripted(silent), [opened], 2) == [[]]


def test_draws_are_named_by_seed_step_window_and_rollout() -> None:
    timeline, _ = world("alerting")
    one, two = windows(timeline, "answer")[0], Window(1, "silence", 0, 3, 1)
    names = [
        draw_seed(seed, step, window, number)
        for seed in (0, 1)
        for step in (0, 1)
        for window in (one, two)
        for number in (0, 1)
    ]
    assert len(set(names)) == 16 and names[0] == draw_seed(0, 0, one, 0)
    sampler = Scripted(silent)
    rolled(timeline, one, silent, 2, sampler)
    assert sampler.seeds == [draw_seed(0, 0, one, n) for n in (0, 1)]


def test_an_engine_that_fails_leaves_nothing_open() -> None:
    timeline, _ = world("alerting")

    def script(turn: Turn, number: int) -> Action:
        raise RuntimeError("no")

    sampler = Scripted(script)
    with pytest.raises(RuntimeError):
        rolled(timeline, windows(timeline, "answer")[0], script, 3, sampler)
    assert not sampler.rows


def test_gold_is_a_rollout_that_nobody_drew() -> None:
    timeline, frames = world("alerting")
    window = windows(timeline, "answer")[0]
    opened = open_window(window, timeline, frames, SETTINGS)
    _, renderer = lively()
    gold = follow_gold(opened, renderer, 4)
    assert gold is not None and gold.number == 4 and not gold.broken
    due = actions(timeline)
    decided = [s for s in gold.trace.steps if s.second >= window.first]
    assert [s.action for s in decided] == due[window.first : window.stop]
    assert all(math.isnan(p) for each in gold.sampled for p in each.logprobs)
    assert opened.stream.open_turn is None and len(opened.episode.trace("x").steps) == window.first
    (scored,) = sequences(gold, renderer)
    assert len(scored.positions) == gold.tokens
    seen = examine(gold)
    assert seen.passed and not seen.false_alarms
    silents = rolled(timeline, window, silent, 3)
    alone = judged(window, silents, WEIGHTS, Advantages(level="turn"))
    beside = judged(window, silents, WEIGHTS, Advantages(level="turn"), gold=gold)
    assert alone.advantages is None and beside.advantages is not None
    assert beside.pass_rate == 0 and len(beside.rewards) == 3
    spoke = next(s.second for s in decided if not isinstance(s.action, Silence))
    assert beside.advantages[3][spoke] > 0 > beside.advantages[0][spoke]


def test_no_gold_stands_where_something_is_handed_over() -> None:
    timeline, frames = world("delegation", 5)
    task = next(e for e in timeline.events if e.question is not None)
    window = Window(0, "answer", task.second, timeline.clip.seconds or 0, task.second)
    opened = open_window(window, timeline, frames, SETTINGS)
    assert follow_gold(opened, lively()[1], 0) is None
