"""Choosing tokens: greedy or drawn, each sequence with its own stream of random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: greedy at temperature 0, else drawn from the top-p nucleus."""

    max_new_tokens: int = 48
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")


@dataclass(slots=True)
class Draw:
    """The tokens of one reply while they are being generated.

    first: token id -> what is added to its logit where it would be the reply's first token.
    """

    sampling: Sampling
    random: torch.Generator
    first: Mapping[int, float] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def done(self) -> bool:
        return self.ended or len(self.tokens) >= self.sampling.max_new_tokens


def choose(
    logits: Tensor, draws: Sequence[Draw], stops: frozenset[int], details: bool = False
) -> list[int]:
    """Append the next token to each draw, from `logits` `[draws, vocabulary]`; the tokens.

    A drawn token is the inverse of the cumulative distribution at one number of the draw's own
    generator, so it depends on nothing else in the batch. With `details` the token's
    log-probability and the gap between the two largest are appended too, at the draw's temperature
    (1 if greedy).
    """
    logits = _biased(logits, draws)
    tokens = logits.argmax(-1)
    drawn = [i for i, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        chosen = _draw(logits[rows], [draws[i] for i in drawn])
        tokens[rows] = chosen
    if details:
        scale = torch.tensor([d.sampling.temperature or 1.0 for d in draws], device=logits.device)
        logprobs = (logits.float() / scale[:, None]).log_softmax(-1)
        taken = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
        best = logprobs.topk(2).values
        for draw, logprob, gap in zip(
            draws, taken, (best[:, 0] - best[:, 1]).tolist(), strict=True
        ):
            draw.logprobs.append(logprob)
            draw.gaps.append(gap)
    result: list[int] = tokens.tolist()
    for draw, token in zip(draws, result, strict=True):
        draw.tokens.append(token)
        draw.ended = token in stops
    return result


def _biased(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """The logits with what is added to those of first tokens."""
    rows = [i for i, draw in enumerate(draws) if draw.first and not draw.tokens]
    if not rows:
        return logits
    logits = logits.clone()
    for i in rows:
        for token, bias in draws[i].first.items():
            logits[i, token] += bias
    return logits


def _draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """One token a row, from the smallest set of likeliest tokens that holds `top_p` of the mass."""
    scale = torch.tensor([d.sampling.temperature for d in draws], device=logits.device)
    keep = torch.tensor([d.sampling.top_p for d in draws], device=logits.device)
    probabilities = (logits.float() / scale[:, None]).softmax(-1)
    sorted_, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = sorted_.cumsum(-1) - sorted_
    sorted_ = sorted_.masked_fill(before >= keep[:, None], 0.0)
    mass = sorted_.cumsum(-1)
    numbers = torch.stack([torch.rand((), generator=d.random) for d in draws]).to(logits.device)
    place = torch.searchsorted(mass, (numbers * mass[:, -1])[:, None], right=True)
    last = (sorted_ > 0).sum(-1, keepdim=True) - 1  # rounding never leaves the nucleus
    chosen: Tensor = order.gather(1, torch.minimum(place, last))[:, 0]
    return chosen


def generate_whole(
    model: Any,
    ids: Tensor,
    inputs: Mapping[str, Tensor],
    draw: Draw,
    stops: frozenset[int],
    details: bool = False,
) -> None:
    """Fill `draw` by the model's own `generate` from a whole prompt, ids `[1, L]`."""
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=draw.sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(stops),
        logits_processor=LogitsProcessorList([_Chosen(draw, stops, details)]),
        **inputs,
    )


class _Chosen(LogitsProcessor):
    """Lets `choose` pick the tokens of a `generate`, so that both ways draw alike."""

    def __init__(self, draw: Draw, stops: frozenset[int], details: bool) -> None:
        self.draw, self.stops, self.details = draw, stops, details

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        (token,) = choose(scores, [self.draw], self.stops, self.details)
        only = torch.full_like(scores, float("-inf"))
        only[0, token] = 0.0
        return only  # type: ignore[return-value]
