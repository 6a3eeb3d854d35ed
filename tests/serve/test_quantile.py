"""The quantile that the server's pages and measures tell."""

from __future__ import annotations

import pytest

from serve.quantile import quantile


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.5, 0.0), ([2.0], 0.95, 2.0), ([3, 1, 2, 4], 0.5, 3), (range(100), 0.95, 95)],
)
def test_a_quantile_is_one_of_the_values(values: list[float], share: float, found: float) -> None:
    assert quantile(values, share) == quantile(iter(values), share) == found
