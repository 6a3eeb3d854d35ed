"""The head's loss and gradients, in however many pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from joyvl_train import head
from joyvl_train.head import pieces, score


def given(count: int = 10, kind: torch.dtype = torch.float32) -> tuple[nn.Linear, Any]:
    torch.manual_seed(0)
    linear = nn.Linear(8, 11, bias=False).to(kind)
    hidden = torch.randn(count, 8, dtype=kind, requires_grad=True)
    return linear, (hidden, torch.randint(0, 11, (count,)), torch.rand(count))


def slopes(
    linear: nn.Linear, inputs: Any, count: int
) -> tuple[Tensor, list[bool], tuple[Tensor, ...]]:
    """(loss, what was right, gradients of a third of the loss)"""
    loss, right = score(linear, *inputs, count)
    return loss, right.tolist(), torch.autograd.grad(loss / 3, (inputs[0], linear.weight))


@pytest.mark.parametrize("count", [1, 3, 10, 12])
def test_it_is_the_weighted_cross_entropy(count: int) -> None:
    linear, (hidden, targets, weights) = given()
    losses = cross_entropy(linear(hidden), targets, reduction="none")
    wanted = (losses * weights).sum()
    gradients = torch.autograd.grad(wanted / 3, (hidden, linear.weight))
    found, right, slope = slopes(linear, (hidden, targets, weights), count)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(slope, gradients)
    assert right == (linear(hidden).argmax(-1) == targets).tolist()


def test_in_bf16_it_is_near() -> None:
    linear, inputs = given(40)
    loss, _, gradients = slopes(linear, inputs, 4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _, found = slopes(linear, inputs, 4)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, loss)
    torch.testing.assert_close(rounded, loss, rtol=5e-3, atol=0)
    for slope, wanted in zip(found, gradients, strict=True):
        assert slope.dtype == torch.float32
        assert (slope - wanted).norm() < 0.01 * wanted.norm()


def test_a_row_without_targets_has_gradients_of_zero() -> None:
    linear, inputs = given(0)
    loss, right, found = slopes(linear, inputs, 2)
    assert loss.item() == 0 and right == []
    assert [slope.abs().sum().item() for slope in found] == [0, 0]


def test_what_is_frozen_has_no_gradient() -> None:
    linear, inputs = given()
    linear.weight.requires_grad_(False)
    loss, _ = score(linear, *inputs, 2)
    loss.backward()
    assert linear.weight.grad is None and inputs[0].grad.abs().sum() > 0
    with torch.no_grad():
        again, _ = score(linear, *inputs, 2)
    assert not again.requires_grad
    torch.testing.assert_close(again, loss.detach())


def test_pieces_bound_the_logits_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [pieces(n, 4000) for n in (0, 1, 1024, 1025)] == [1, 1, 1, 2]
    assert pieces(2000, 151_936) == 10
    assert pieces(3, 10**9) == 3
    monkeypatch.setattr(head, "_POSITIONS", 5)
    assert pieces(11, 4000) == 3
