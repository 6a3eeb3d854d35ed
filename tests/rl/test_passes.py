"""Optimizer steps: by the numbers of windows and gold rows, however they are packed and dealt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rl.passes import gold_dealt
from rl.settings import Settings
from tests.rl import tiny_grpo
from tests.rl.tiny_grpo import trainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_windows_are_dealt_to_optimizer_steps_by_their_numbers(tmp_path: Path) -> None:
    """However rows are packed; parts that teach nothing are no steps."""
    settings = Settings(windows=6, group=3, rounds=1, max_new_tokens=6, updates=4)
    told: list[tuple[float, float, float]] = []
    for row_tokens, pack in ((1500, True), (8192, True), (1500, False)):
        grpo = trainer(tmp_path, settings=settings, row_tokens=row_tokens, pack=pack)
        steps: list[int] = []
        grpo._passes.optimizer.optimizer.register_step_pre_hook(lambda *_: steps.append(1))  # noqa: B023
        groups, _ = grpo.groups(0)
        assert [group.part for group in groups] == [0, 0, 1, 2, 2, 3]
        teach = {group.part for group in groups if group.advantages is not None}
        assert len(grpo.batches(groups)) == len(teach) > 1
        figures = grpo.update(1)
        assert figures["grpo/updates"] == len(steps) > 1
        told.append((figures["grpo/updates"], figures["grpo/entropy"], figures["grpo/reward"]))
    assert told[1] == pytest.approx(told[0], rel=1e-3)
    assert told[2] == pytest.approx(told[0], rel=1e-3)


@pytest.mark.parametrize(("rows", "steps"), [(4, 2), (2, 4), (6, 4), (4, 1)])
def test_gold_rows_are_dealt_alike_on_one_rank_and_two(rows: int, steps: int) -> None:
    every = [
        {"weights": torch.ones(3), "denominator": torch.tensor(1.0), "number": n}
        for n in range(rows)
    ]

    def numbers(of: list[Any]) -> list[int]:
        return sorted(row["number"] for row in of if float(row["denominator"]))

    alone = gold_dealt(every, steps, 0, 1)
    half = rows // 2
    two = [gold_dealt(every[half * r : half * (r + 1)], steps, r, 2) for r in (0, 1)]
    assert sorted(n for part in alone for n in numbers(part)) == list(range(rows))
    counts = [len(part) for part in alone]
    assert max(counts) - min(counts) <= 1
    for whole, first, second in zip(alone, *two, strict=True):
        assert len(first) == len(second)  # ranks call the model in step
        assert numbers([*first, *second]) == numbers(whole)
        assert all(not row["weights"].any() for row in [*first, *second] if not row["denominator"])


def test_the_loss_of_gold_rows_is_over_the_steps_that_have_some(tmp_path: Path) -> None:
    found = []
    for updates in (1, 2):
        settings = Settings(**tiny_grpo.SMALL, updates=updates)
        grpo = trainer(tmp_path, settings=settings, shown=1, learning_rate=0.0)
        found.append(grpo.update(0))
    assert [figures["grpo/updates"] for figures in found] == [1, 2]
    one, several = (figures["grpo/supervised_loss"] for figures in found)
    assert several == pytest.approx(one, rel=1e-4)
