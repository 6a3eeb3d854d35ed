"""Marks at image tokens: their loss, how they are learnt, and that a resumed run goes on alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from joyvl_train.actions import Response
from joyvl_train.collate import Part, collate
from joyvl_train.config import EngineConfig, TrainConfig
from joyvl_train.marks import UNKNOWN, Marks
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.trainer import WeightedLoss
from joyvl_train.training import fit
from joyvl_train.weights import PLAIN, Targets, token_weights
from tests.tiny_training import picture, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


class Asked:
    """Two pictures, and which of two words the question says; both pictures show the one or the
    other by their number alone, so that marks can be learnt by heart."""

    def __init__(self, renderer: Renderer, marked: bool = True) -> None:
        self._renderer, self._marked = renderer, marked

    def __len__(self) -> int:
        return 8

    def length(self, index: int) -> int:
        return len(self.render(index)[0])

    def render(self, index: int) -> tuple[Rendered, Targets]:
        word, numbers = ("dog", "fire")[index % 2], (index % 4, index // 2)
        rendered = self._renderer.render_question(
            word, [picture(n) for n in numbers], Response("fire now")
        )
        targets = token_weights(rendered, PLAIN)
        if not self._marked:
            return rendered, targets
        at = np.flatnonzero(np.asarray(rendered.ids) == self._renderer.processor.image_id)
        marks = np.full((len(rendered), 2), UNKNOWN)
        marks[at, 0] = np.repeat([n % 2 == index % 2 for n in numbers], len(at) // 2)
        marks[at, 1] = np.repeat(numbers, len(at) // 2)
        return rendered, replace(targets, marks=marks)


def trained(
    folder: Path,
    share: float,
    steps: int = 60,
    *,
    stop: int = 0,
    marked: bool = True,
    every: int = 1,
) -> tuple[list[dict[str, Any]], Any]:
    """(log lines, the model); stopped after `stop` steps where that is above 0."""
    model, processor = tiny()
    lines: list[Any] = []

    def validate(step: int) -> dict[str, float]:
        if step == stop:
            raise InterruptedError
        return {}

    train = TrainConfig(
        steps=steps,
        row_tokens=256,
        precision="fp32",
        save_every=4,
        log_every=every,
        warmup=0,
        learning_rate=3e-3,
        eval_every=1,
    )
    fit(
        model,
        [Part("asked", Asked(Renderer(processor), marked), 1.0)],
        train,
        EngineConfig(),
        folder,
        seed=1,
        marks=share,
        mark_fields=(8,),
        log=lines.append,
        validate=validate,
    )
    return [line for line in lines if "train/loss" in line], model


def batch(samples: Sequence[tuple[Rendered, Targets]]) -> dict[str, Any]:
    return collate(samples)


def test_a_batch_has_marks_where_a_sample_has() -> None:
    _, processor = tiny()
    marked, bare = Asked(Renderer(processor)).render(1), Asked(Renderer(processor), False).render(2)
    assert "marks" not in batch([bare])
    found = batch([bare, marked])["marks"]
    assert found.shape == (*batch([bare, marked])["input_ids"].shape, 2)
    assert (found[0, : len(bare[0])] == UNKNOWN).all()
    found = found[..., 0]
    image = batch([bare, marked])["input_ids"][0] == processor.image_id
    assert ((found[0] != UNKNOWN) == image)[len(bare[0]) :].all()


def test_the_loss_adds_its_share_of_the_marks_mean() -> None:
    model, processor = tiny()
    found = batch([Asked(Renderer(processor)).render(n) for n in (0, 1)])
    plain = WeightedLoss(model)(**found)["loss"].item()
    for share in (1.0, 2.5):
        both = WeightedLoss(model, marks=Marks(model, share))(**found)["loss"].item()
        # A head of zeros holds every mark for as likely as not; the labels are left unread.
        added = share * float(np.log(2)) * found["denominator"].item()
        assert both - plain == pytest.approx(added, rel=1e-4)


def test_unknown_marks_cost_nothing() -> None:
    model, processor = tiny()
    found = batch([Asked(Renderer(processor)).render(0)])
    found["marks"] = torch.full_like(found["marks"], UNKNOWN)
    marks = Marks(model, 1.0)
    plain = WeightedLoss(model)(**found)["loss"]
    loss = WeightedLoss(model, marks=marks)(**found)["loss"]
    assert loss.item() == plain.item()
    loss.backward()
    assert marks.figures() == {}


def test_marks_are_learnt_and_told(tmp_path: Path) -> None:
    lines, _ = trained(tmp_path, 1.0, steps=150)
    assert lines[-1]["marks/precision"] > 0.95 and lines[-1]["marks/recall"] > 0.95
    assert lines[-1]["marks/labels"] > 0.95 and lines[0]["marks/labels"] < 0.5
    assert lines[0].get("marks/recall", 0.0) < 0.5


def test_without_a_share_they_change_nothing(tmp_path: Path) -> None:
    (marked, one), (bare, two) = (
        trained(tmp_path / str(m), 0.0, steps=3, marked=m) for m in (True, False)
    )
    assert marked == bare and "marks/recall" not in marked[-1]
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_figures_of_a_resumed_run_count_what_came_before_it(tmp_path: Path) -> None:
    """Saved after step 4, which has a line of its own, as each saved step."""
    whole, _ = trained(tmp_path / "whole", 1.0, steps=6, every=3)
    with pytest.raises(InterruptedError):
        trained(tmp_path / "cut", 1.0, steps=6, stop=5, every=3)
    rest, _ = trained(tmp_path / "cut", 1.0, steps=6, every=3)
    assert [line["step"] for line in whole] == [3, 4, 6]
    assert rest == whole[2:] and "marks/labels" in whole[2]


def test_a_resumed_run_goes_on_alike(tmp_path: Path) -> None:
    whole, model = trained(tmp_path / "whole", 1.0, steps=10)
    with pytest.raises(InterruptedError):
        trained(tmp_path / "cut", 1.0, steps=10, stop=6)
    rest, again = trained(tmp_path / "cut", 1.0, steps=10)
    assert rest == whole[4:]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
