"""The weighted cross entropy of a language model's head, without ever holding all logits.

Of a vocabulary of 151 thousand tokens the logits of a thousand positions are 600 MB in float32, and
what cross entropy does with them takes as much again. So positions are taken a few at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
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

    hidden [K, H], targets [K], weights [K]; the loss is summed in float32. The head is called
    `count` times, on as many positions each, and again in the backward pass where that is several.
    """
    # A row without targets still has a gradient, of zeros: other ranks wait for it.
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
