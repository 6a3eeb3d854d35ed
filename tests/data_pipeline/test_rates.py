"""Shares and their intervals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.rates import over_clips, wilson


def test_wilsons_interval_as_published() -> None:
    """Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        rate = wilson(hits, count)
        assert (rate.low, rate.high) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_rate_lies_in_its_interval(a: int, b: int) -> None:
    rate = wilson(min(a, b), max(a, b))
    assert 0 <= rate.low <= rate.high <= 1
    if rate.count:
        assert rate.low <= rate.value <= rate.high
    else:
        assert math.isnan(rate.value) and str(rate) == "-"


def test_tries_on_one_clip_are_no_independent_tries() -> None:
    clips = [(10, 10)] * 5 + [(0, 10)] * 5
    pooled, single = over_clips(clips), wilson(50, 100)
    assert pooled.value == single.value == 0.5 and pooled.count == 100
    assert pooled.low < single.low and pooled.high > single.high
    assert over_clips(clips) == pooled
    # As many clips of which each is the same tell more.
    assert over_clips([(1, 2)] * 10).high == 0.5


def test_all_or_none_have_an_interval_too() -> None:
    for hits in (0, 8):
        rate, single = over_clips([(hits, 8)] * 6), wilson(6 if hits else 0, 6)
        assert (rate.value, rate.low, rate.high) == (single.value, single.low, single.high)
        assert rate.count == 48
    assert over_clips([]).count == over_clips([(0, 0)]).count == 0


def test_more_hits_than_tries_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits of 2"):
        wilson(3, 2)
