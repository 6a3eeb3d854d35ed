"""How far judges agree: Krippendorff's alpha, on the ordinal scale of poor, fair, good."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import krippendorff
import numpy as np

from eval.grades import Grade, Unscored

Ratings = Mapping[Hashable, float]
"""What was judged, such as (case, system) -> the points that one judge gives."""


def alpha(judges: Sequence[Ratings]) -> float | None:
    """Alpha over what at least two judges rated; None where there is no such thing, or all of it
    got one and the same grade, of which no agreement can be told."""
    items = sorted({item for judge in judges for item in judge}, key=repr)
    table = np.array([[judge.get(item, np.nan) for item in items] for judge in judges])
    if table.size == 0:
        return None
    table = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    known = table[~np.isnan(table)]
    if known.size == 0 or len(np.unique(known)) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))


def ratings(grades: Mapping[Hashable, Grade | Unscored], axis: str) -> dict[Hashable, float]:
    """The points of an axis, `quality` or `timing`, without what is unscored."""
    return {k: getattr(g, axis) for k, g in grades.items() if isinstance(g, Grade)}
