"""Win, tie and loss rates between systems, with intervals: bootstrap over cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.grades import Grade, Outcome, Unscored, outcome

OUTCOMES: tuple[Outcome, ...] = ("win", "tie", "loss")
Verdicts = Mapping[str, Grade | Unscored]
"""Case -> what a judge says of one system."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the outcomes over `count` cases, each with its 95 % interval; `unscored` more had
    no verdict."""

    count: int
    unscored: int
    share: Mapping[Outcome, float]
    low: Mapping[Outcome, float]
    high: Mapping[Outcome, float]


def outcomes(mine: Verdicts, other: Verdicts) -> dict[str, Outcome | None]:
    """Case -> the outcome for the first; None where one of them is unscored. Cases that only one of
    them played are left out."""
    found: dict[str, Outcome | None] = {}
    for case in sorted(set(mine) & set(other)):
        one, two = mine[case], other[case]
        scored = isinstance(one, Grade) and isinstance(two, Grade)
        found[case] = outcome(one, two) if scored else None  # type: ignore[arg-type]
    return found


def rates(found: Sequence[Outcome | None], samples: int = 2000, seed: int = 0) -> Rates:
    """The rates over cases. Of no case at all there are none."""
    known = [o for o in found if o is not None]
    table = np.array([[o == name for name in OUTCOMES] for o in known], dtype=float)
    if not known:
        return Rates(0, len(found), {}, {}, {})
    picks = np.random.default_rng(seed).integers(0, len(known), (samples, len(known)))
    drawn = table[picks].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    share = table.mean(axis=0)
    return Rates(
        len(known),
        len(found) - len(known),
        *(dict(zip(OUTCOMES, map(float, part), strict=True)) for part in (share, low, high)),
    )


def flat(opponent: str, found: Rates, scenario: str = "") -> dict[str, float]:
    """Keys of `metrics.json`: `win_rate/<opponent>[/<scenario>]` and the like."""
    end = f"{opponent}/{scenario}" if scenario else opponent
    told: dict[str, float] = {f"unscored/{end}": float(found.unscored)}
    for name in OUTCOMES:
        if found.count:
            key = f"{name}_rate/{end}"
            told[key] = found.share[name]
            told |= {f"{key}.low": found.low[name], f"{key}.high": found.high[name]}
            told[f"{key}.count"] = float(found.count)
    return told
