"""Spans -> the weight of each supervised token (Eq. 1 of the JoyAI-VL-Interaction report).

Supervised are, of each assistant turn, the control token, the text and the end-of-turn token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from joyvl_train.config import MAX_WEIGHT, UserError
from joyvl_train.rendering import Rendered, Span


@dataclass(frozen=True, slots=True)
class LossWeights:
    """The weights of Eq. 1, and what "first silence" and the mean's denominator mean.

    normalizer: `tokens` divides by the number of supervised tokens (the published form), `weights`
    by the sum of their weights. silence_run: `run` takes the first silence of every run of silences
    for first, `after_response` only one that follows a response.
    """

    silence_first: float = 1.0
    silence_repeat: float = 0.4
    response: float = 1.5
    other: float = 1.0
    normalizer: Literal["tokens", "weights"] = "tokens"
    silence_run: Literal["run", "after_response"] = "run"

    def __post_init__(self) -> None:
        for name in ("silence_first", "silence_repeat", "response", "other"):
            value = getattr(self, name)
            if not 0 <= value <= MAX_WEIGHT:
                raise UserError(f"loss.{name} is {value}; it must lie in [0, {MAX_WEIGHT:g}]")
        for name, takes in (
            ("normalizer", ("tokens", "weights")),
            ("silence_run", ("run", "after_response")),
        ):
            if getattr(self, name) not in takes:
                raise UserError(f"loss.{name} is {getattr(self, name)!r}; it takes {takes}")


PLAIN = LossWeights(silence_first=1.0, silence_repeat=1.0, response=1.0, other=1.0)
"""The standard loss: turn-based samples have it whatever the weights of the others are."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is scored of one sample.

    positions [K], int64: where the targets themselves stand; weights [K], float32. `denominator` is
    the sample's share of the mean's denominator. marks [L, 1 + fields]:
    see `joyvl_train.marks`.
    """

    positions: np.ndarray
    weights: np.ndarray
    denominator: float
    marks: np.ndarray | None = None


def token_weights(rendered: Rendered, weights: LossWeights, *, from_second: int = 0) -> Targets:
    """The targets of one sample. Turns before `from_second` are context only (carried turns).

    A run of silences starts anew at the sample's first scored turn: with `run` the first silence
    there is a first one, with `after_response` it is not, since no response came before.

    Worked example, a token each for control, text and end: silence, silence, response "fire" has
    the weights [1, 1], [0.4, 1], [1.5, 1, 1]; `tokens` divides by 7, `weights` by 6.9.
    """
    weights = PLAIN if rendered.turn_based else weights
    positions: list[int] = []
    values: list[float] = []
    before: str | None = None  # what the turn before did; None at the sample's start
    for turn in _turns(rendered.spans):
        if turn[0].second < from_second and not rendered.turn_based:
            continue
        silent = all(span.kind != "text" for span in turn)
        first = before != "silence" if weights.silence_run == "run" else before == "response"
        for span in turn:
            value = weights.other
            if span.kind == "control" and span is turn[0]:
                value = weights.response
                if silent:
                    value = weights.silence_first if first else weights.silence_repeat
            positions.extend(range(span.start, span.stop))
            values.extend([value] * (span.stop - span.start))
        before = "silence" if silent else "response"
    array = np.asarray(values, dtype=np.float32)
    total = float(len(array)) if weights.normalizer == "tokens" else float(array.sum())
    return Targets(np.asarray(positions, dtype=np.int64), array, total)


def _turns(spans: Sequence[Span]) -> list[list[Span]]:
    turns: list[list[Span]] = []
    for span in spans:
        if span.role != "assistant":
            continue
        if not turns or turns[-1][-1].kind == "end":
            turns.append([])
        turns[-1].append(span)
    return turns
