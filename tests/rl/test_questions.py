"""Turn-based questions as windows of one turn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_pipeline.world import stills
from joyvl_train.actions import Action, Response, Silence
from joyvl_train.config import UserError
from joyvl_train.engine import Engine
from joyvl_train.heldout import Episode, Step
from joyvl_train.trainer import generating
from rl.plan import Plan
from rl.policy_loss import Policy, PolicyLoss
from rl.questions import ask, question_window, timeline_of
from rl.rewards import WEIGHTS, examine, reward
from rl.rollout import Rollout, Sampled
from rl.rows import Weighed, bunch, row_batch
from rl.sequences import sequences
from rl.settings import Settings
from rl.windows import Sizes
from tests.rl.tiny_grpo import Clips, lively, trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def item(number: int) -> stills.Still:
    return stills.at(number, "train", 3, mix={"name": 1.0, "count": 1.0})


def test_answers_are_drawn_rewarded_and_scored_as_they_were_drawn() -> None:
    model, renderer = lively()
    windows = [question_window(n) for n in (0, 4)]
    items = [item(w.clip) for w in windows]
    with generating(model) as plain:
        engine = Engine(plain, renderer, max_new_tokens=5, temperature=1.0, details=True)
        found = ask(engine, windows, items, 3, side=64)
    assert [len(group) for group in found] == [3, 3]
    loss = PolicyLoss(model, Policy())
    for group in found:
        for rollout in group:
            (scored,) = sequences(rollout, renderer)
            batch = row_batch([bunch([Weighed(scored, {0: 0.0})])], "tokens")
            with torch.no_grad():
                logp, _ = loss.logprobs(batch)
            assert torch.allclose(logp, batch["drawn"], atol=2e-4)
            assert scored.seconds.tolist() == [0] * len(rollout.sampled[0].ids)


def test_the_right_answer_earns_and_silence_does_not() -> None:
    window, question = question_window(1), item(1)
    timeline = timeline_of(window, question)
    assert [e.role for e in timeline.events] == ["user", "assistant"]

    def earned(action: Action) -> float:
        episode = Episode(timeline)
        episode.note(Step(0, action, ("q",)), None)
        trace = episode.trace("x")
        rollout = Rollout(window, 0, timeline, trace, (Sampled(0, (), ()),), "", (), False)
        return reward(examine(rollout), WEIGHTS).total

    right, wrong = Response(question.answer), Response("Something else.")
    assert earned(right) == 2 > earned(wrong) == 1 > earned(Silence()) == 0


def test_a_step_takes_them_among_the_others(tmp_path: Path) -> None:
    settings = Settings(windows=4, group=3, rounds=1, max_new_tokens=6, side=64)
    mix = {"question": 1.0, "answer": 1.0}
    grpo = trainer(tmp_path, settings=settings, mix=mix, questions=item)
    groups, _ = grpo.groups(0)
    kinds = [group.window.kind for group in groups]
    assert sorted(set(kinds)) == ["answer", "question"]
    assert grpo.update(0)["grpo/rollouts"] == 12


def test_without_a_pool_none_can_be_asked_for() -> None:
    with pytest.raises(UserError, match="there are no questions"):
        Plan(Clips(), Sizes(), {"question": 1.0})
