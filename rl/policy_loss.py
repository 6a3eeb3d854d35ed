"""The clipped policy loss over packed rows of sampled tokens.

    ratio_i = exp(logp_i - old_i)                       (token), or the sequence's geometric mean
    loss_i  = -min(ratio_i A_i, clip(ratio_i, 1 - low, 1 + high) A_i) + kl k3_i

with the two clips apart (DAPO, arXiv 2503.14476), ratios by token (GRPO) or by sequence (GSPO,
2507.18071), and k3 = exp(r) - r - 1, r = ref_i - logp_i, the KL to a reference policy. Tokens were
drawn by an engine whose arithmetic is not that of the training forward: each weighs
min(exp(logp_i - drawn_i), cap), the truncated importance of what was drawn; `drawn` are the log
probabilities that the engine told. Where the first pass over rollouts is the only one, `old` is the
forward's own value and the ratio is 1, which is the plain policy gradient.

Log-probabilities are those at the temperature that was drawn at, over the whole vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from joyvl_train.head import pieces
from joyvl_train.model_weights import plain_model
from joyvl_train.trainer import WeightedLoss

STATS = ("loss", "entropy", "kl", "clipped", "gap", "importance", "tokens")
"""What `PolicyLoss` sums over the tokens of a row, beside the loss."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a policy is trained.

    clip_low, clip_high: how far a ratio may fall below 1 and rise above. level: whose ratio.
    aggregate: the loss is the mean over tokens, or over sequences of their means. kl: the weight of
    the KL to the reference. cap: of importance. temperature: that was drawn at.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    level: Literal["token", "sequence"] = "token"
    aggregate: Literal["tokens", "sequences"] = "tokens"
    kl: float = 0.0
    cap: float = 2.0
    temperature: float = 1.0


def token_losses(
    policy: Policy,
    logp: Tensor,
    old: Tensor,
    advantages: Tensor,
    sequences: Tensor,
    reference: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, KL, whether the clip bound) of each token, all [K].

    sequences [K]: the number of each token's sequence, from 0 on. reference: its log-probabilities
    under the reference policy; None: the KL is 0.
    """
    log_ratio = logp - old
    if policy.level == "sequence":
        count = int(sequences.max().item()) + 1 if len(sequences) else 0
        total = torch.zeros(count, dtype=logp.dtype, device=logp.device)
        lengths = torch.zeros_like(total).index_add(0, sequences, torch.ones_like(logp))
        mean = (total.index_add(0, sequences, log_ratio) / lengths.clamp(min=1))[sequences]
        # The value is the sequence's, the gradient reaches each token through its own.
        log_ratio = mean.detach() + logp - logp.detach()
    ratio = log_ratio.exp()
    bound = ratio.clamp(1 - policy.clip_low, 1 + policy.clip_high)
    free, held = ratio * advantages, bound * advantages
    kl = torch.zeros_like(logp)
    if reference is not None:
        away = reference - logp
        kl = away.exp() - away - 1
    return -torch.minimum(free, held) + policy.kl * kl, kl, held < free


class PolicyLoss(WeightedLoss):
    """A model with its policy loss, as one module; `WeightedLoss` tells of the rest.

    A batch holds, beside what `collate` makes of samples: advantages, drawn [K], token_weights [K]
    (each token's share of the mean, before it is divided), copies [K] (how many rollouts drew it),
    sequences [K], and, where there are some, old and reference [K]. One without advantages is a
    row of gold streams, under the weighted loss.
    """

    def __init__(self, model: Any, policy: Policy, **options: Any) -> None:
        super().__init__(model, **options)
        self.policy = policy

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """loss: the weighted sum of the tokens' losses, to be divided by the caller; stats
        [len(STATS)]: sums over tokens; logp [K], without a gradient."""
        if "advantages" not in batch:
            return super().forward(**batch)
        policy = self.policy
        logp, entropy = self.logprobs(batch)
        own = logp.detach()
        old = batch.get("old", own)
        reference = batch.get("reference")
        losses, kl, clipped = token_losses(
            policy, logp, old, batch["advantages"], batch["sequences"], reference
        )
        # What nobody drew, gold, weighs as it stands.
        gap = torch.where(batch["drawn"].isnan(), 0.0, old - batch["drawn"])
        importance = gap.exp().clamp(max=policy.cap)
        weights = batch["token_weights"]
        loss = (losses * importance * weights).sum()
        if not batch["image_count"] and not self._in_step:
            loss = loss + self._untouched()
        copies = batch["copies"]
        with torch.no_grad():
            told = (entropy, kl, clipped.float(), gap.abs(), importance, torch.ones_like(own))
            sums = [(value.float() * copies).sum() for value in told]
            stats = torch.stack([loss.detach().float(), *sums])
        return {"loss": loss, "stats": stats, "logp": own}

    def logprobs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """(log-probability, entropy) of each sampled token of `batch`, both [K], float32; the
        entropy has no gradient."""
        count = self._calls(dict(batch))
        hidden = self.hidden(batch)
        head = plain_model(self.model).get_output_embeddings()
        if not len(batch["targets"]):
            # Another rank's row has tokens: the head is called all the same.
            nothing = hidden.sum().float() * 0.0
            return nothing.expand(1)[:0], nothing.detach().expand(1)[:0]
        logps, entropies = [], []
        parts = (torch.tensor_split(t, count) for t in (hidden, batch["targets"]))
        for part, wanted in zip(*parts, strict=True):
            arguments = (head, part, wanted, self.policy.temperature)
            if torch.is_grad_enabled() and count > 1:
                logp, entropy = checkpoint(_read, *arguments, use_reentrant=False)
            else:
                logp, entropy = _read(*arguments)
            logps.append(logp)
            entropies.append(entropy)
        return torch.cat(logps), torch.cat(entropies)

    def _calls(self, batch: dict[str, Any]) -> int:
        """In how many pieces the head takes a batch, on all ranks alike where it must."""
        if self._in_step:
            return self._agreed(batch)
        return pieces(len(batch["targets"]), self._vocabulary)


class Reference:
    """The policy that the KL is measured to: `model` as it is now, or, where it has LoRA matrices,
    without them."""

    def __init__(self, model: Any, policy: Policy) -> None:
        self._frozen: PolicyLoss | None = None
        if not hasattr(model, "disable_adapter"):
            self._frozen = PolicyLoss(copy.deepcopy(model).requires_grad_(False).eval(), policy)

    @torch.no_grad()
    def logp(self, loss: PolicyLoss, batch: Mapping[str, Any]) -> Tensor:
        """Its log-probability of each sampled token [K]. loss: of the policy in training."""
        if self._frozen is not None:
            return self._frozen.logprobs(batch)[0].cpu()
        with loss.model.disable_adapter():
            return loss.logprobs(batch)[0].cpu()


def _read(
    head: nn.Module, hidden: Tensor, wanted: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    logits = head(hidden).float() / temperature
    all_logp = logits.log_softmax(-1)
    with torch.no_grad():
        entropy = -(all_logp.exp() * all_logp).sum(-1)
    return all_logp.gather(1, wanted[:, None])[:, 0], entropy
