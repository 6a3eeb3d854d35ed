"""The weighted cross entropy of a language model's head, without ever holding all logits.

Of a vocabulary of 151 thousand tokens the logits of a thousand positions are 600 MB in float32, and
what cross entropy does with them takes as much again. So positions are taken a few at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

_POSITIONS = 1024
_LOGITS = 2**25
"""The most positions, and logits, that are held at a time."""


def pieces(positions: int, vocabulary: int) -> int:
    """In how many pieces so many positions are taken; 1 where there are none."""
    return max(1, math.ceil(positions / max(1, min(_POSITIONS, _LOGITS // vocabulary))))


def score(
    head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor, count: int = 1
) -> tuple[Tensor, Tensor]:
    """(sum of weight * cross entropy, which targets were the likeliest token [K]).

    hidden [K, H], targets [K], weights [K]; the loss is summed in float32. The positions are taken
    in `count` pieces. A row without targets has gradients all the same, of zeros: other ranks wait
    for them.

    A plain linear head is not called: its gradients are computed with the loss, so that no logits
    are computed twice. Any other one (of LoRA, of weights that ranks hold parts of) is called once
    a piece, and again in the backward pass where there are several.
    """
    if type(head) is nn.Linear and head.bias is None and head.weight.numel():
        held = torch.is_grad_enabled()
        found: tuple[Tensor, Tensor] = _LinearScore.apply(
            hidden, head.weight, targets, weights, count, held
        )
        return found
    return score_by_calls(head, hidden, targets, weights, count)


def score_by_calls(
    head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor, count: int = 1
) -> tuple[Tensor, Tensor]:
    """As `score`, of any head."""
    total = hidden.sum().float() * 0.0
    correct = []
    parts = (torch.tensor_split(t, count) for t in (hidden, targets, weights))
    for part, wanted, weight in zip(*parts, strict=True):
        if torch.is_grad_enabled() and count > 1:
            loss, right = checkpoint(_called, head, part, wanted, weight, use_reentrant=False)
        else:
            loss, right = _called(head, part, wanted, weight)
        total = total + loss
        correct.append(right)
    return total, torch.cat(correct)


def _called(
    head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float()
    losses = cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum(), logits.detach().argmax(-1) == targets


class _LinearScore(torch.autograd.Function):
    """`score` of hidden states and a head's weight [V, H], with the gradients of both.

    The gradient of cross entropy by logits is softmax less one at the target, so that all there is
    to do can be done while a piece's logits are there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        count: int,
        held: bool,
    ) -> tuple[Tensor, Tensor]:
        kind = _arithmetic(hidden)
        head = weight.to(kind)
        of_hidden, of_weight = (
            torch.zeros_like(t) if held and wanted else None
            for t, wanted in zip((hidden, weight), ctx.needs_input_grad, strict=False)
        )
        total = torch.zeros((), device=hidden.device)
        correct = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        for rows in _rows(len(targets), count):
            states, wanted, weigh = hidden[rows].to(kind), targets[rows, None], weights[rows, None]
            logits = (states @ head.T).float()
            correct[rows] = logits.argmax(-1) == targets[rows]
            whole = logits.logsumexp(-1, keepdim=True)
            total += ((whole - logits.gather(1, wanted)) * weigh).sum()
            if of_hidden is None and of_weight is None:
                continue
            slope = logits.sub_(whole).exp_()
            slope.scatter_add_(1, wanted, slope.new_full(wanted.shape, -1.0))
            slope = slope.mul_(weigh).to(kind)
            if of_hidden is not None:
                of_hidden[rows] = slope @ head
            if of_weight is not None:
                of_weight += slope.T @ states
        ctx.found = of_hidden, of_weight
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Taken, not kept: they are scaled in place, and are the largest tensors of a step.
        found, ctx.found = ctx.found, None
        of_hidden, of_weight = (None if t is None else t.mul_(slope) for t in found)
        return of_hidden, of_weight, None, None, None, None


def _rows(positions: int, count: int) -> Iterator[slice]:
    """`count` stretches of about one length; fewer where there are fewer positions."""
    bounds = [round(positions * i / count) for i in range(count + 1)]
    return (slice(*pair) for pair in zip(bounds, bounds[1:], strict=False) if pair[0] < pair[1])


def _arithmetic(hidden: Tensor) -> torch.dtype:
    """What a linear layer would compute in here."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
