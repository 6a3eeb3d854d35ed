"""The loss beside a plain reading of its formula, and its gradient beside one by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl.policy_loss import Policy, token_losses

NUMBERS = st.floats(-2, 2)


def by_hand(policy: Policy, logp, old, advantages, sequences, reference):
    """Each token's loss, one at a time."""
    losses = []
    for i, value in enumerate(logp):
        if policy.level == "sequence":
            own = [j for j, s in enumerate(sequences) if s == sequences[i]]
            ratio = math.exp(sum(logp[j] - old[j] for j in own) / len(own))
        else:
            ratio = math.exp(value - old[i])
        bound = min(max(ratio, 1 - policy.clip_low), 1 + policy.clip_high)
        loss = -min(ratio * advantages[i], bound * advantages[i])
        if reference is not None:
            away = reference[i] - value
            loss += policy.kl * (math.exp(away) - away - 1)
        losses.append(loss)
    return losses


@given(
    st.lists(
        st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2)), min_size=1, max_size=9
    ),
    st.sampled_from(["token", "sequence"]),
    st.booleans(),
)
def test_as_the_formula_reads(tokens, level, with_reference) -> None:
    logp, old, advantages, reference, sequences = map(list, zip(*tokens, strict=True))
    policy = Policy(0.2, 0.3, level, kl=0.1)
    given_reference = reference if with_reference else None
    found, kl, clipped = token_losses(
        policy,
        *(torch.tensor(v, dtype=torch.float64) for v in (logp, old, advantages)),
        torch.tensor(sequences),
        torch.tensor(reference, dtype=torch.float64) if with_reference else None,
    )
    wanted = by_hand(policy, logp, old, advantages, sequences, given_reference)
    assert found.tolist() == pytest.approx(wanted)
    assert bool((kl >= 0).all()) and (with_reference or not bool(kl.any()))


def test_the_gradient_of_a_toy_policy() -> None:
    """A softmax over three tokens, drawn twice: grpo's gradient, written out."""
    logits = torch.tensor([[0.2, -0.1, 0.4], [1.0, 0.0, -1.0]], requires_grad=True)
    drawn, advantages = torch.tensor([2, 0]), torch.tensor([1.5, -0.5])
    logp = logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0]
    losses, _, _ = token_losses(Policy(), logp, logp.detach(), advantages, torch.tensor([0, 1]))
    (losses.sum() / 2).backward()
    wanted = torch.zeros(2, 3)
    for i in range(2):
        p = logits.detach()[i].softmax(-1)
        for k in range(3):
            score = float(k == drawn[i]) - p[k]  # d log p(drawn) / d logit k
            wanted[i, k] = -advantages[i] * score / 2
    assert torch.allclose(logits.grad, wanted, atol=1e-7)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_clip_ends_the_gradient_on_the_side_it_bounds(level) -> None:
    policy = Policy(0.2, 0.28, level)
    for advantage, away, moves in (
        (1, 0.5, False),
        (1, -0.5, True),
        (-1, -0.5, False),
        (-1, 0.5, True),
    ):
        logp = torch.tensor([away], requires_grad=True)
        losses, _, clipped = token_losses(
            policy, logp, torch.zeros(1), torch.tensor([float(advantage)]), torch.tensor([0])
        )
        losses.sum().backward()
        assert (bool(logp.grad.abs() > 0), bool(clipped[0])) == (moves, not moves)


def test_without_advantage_only_the_kl_moves() -> None:
    logp = torch.tensor([-0.3, -2.0], requires_grad=True)
    zero, numbers = torch.zeros(2), torch.tensor([0, 0])
    losses, _, _ = token_losses(Policy(), logp, logp.detach(), zero, numbers)
    losses.sum().backward()
    assert not logp.grad.any()
    reference = torch.tensor([-0.3, -1.0])
    losses, kl, _ = token_losses(Policy(kl=0.5), logp, logp.detach(), zero, numbers, reference)
    losses.sum().backward()
    # k3 = e^r - r - 1 with r = 1 for the second token, and d k3 / d logp = 1 - e^r.
    assert kl.tolist() == pytest.approx([0, math.e - 2])
    assert logp.grad.tolist() == pytest.approx([0, 0.5 * (1 - math.e)])
