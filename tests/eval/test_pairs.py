"""Win rates: counted by hand, symmetric, and with the unscored apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.grades import Grade, Unscored
from eval.pairs import flat, outcomes, rates

GOOD, FAIR, POOR = Grade(2, 2), Grade(1, 1), Grade(0, 0)
NONE = Unscored("timed out")


def test_outcomes_are_of_cases_that_both_played() -> None:
    mine = {"a": GOOD, "b": FAIR, "c": POOR, "d": NONE, "only": GOOD}
    other = {"a": FAIR, "b": FAIR, "c": GOOD, "d": GOOD, "theirs": GOOD}
    found = outcomes(mine, other)
    assert found == {"a": "win", "b": "tie", "c": "loss", "d": None}
    rate = rates(list(found.values()))
    assert (rate.count, rate.unscored) == (3, 1)
    assert list(rate.share.values()) == pytest.approx([1 / 3] * 3)
    told = flat("poller", rate, "counting")
    assert told["win_rate/poller/counting"] == pytest.approx(1 / 3)
    assert told["win_rate/poller/counting.count"] == 3 and told["unscored/poller/counting"] == 1


def test_nothing_scored_gives_no_rate() -> None:
    rate = rates([None, None])
    assert flat("x", rate) == {"unscored/x": 2.0}


grades = st.builds(Grade, st.integers(0, 2), st.integers(0, 2))


@given(st.dictionaries(st.integers(0, 20).map(str), st.tuples(grades, grades), min_size=1))
def test_one_sides_wins_are_the_others_losses(pairs) -> None:
    mine, other = ({k: v[i] for k, v in pairs.items()} for i in (0, 1))
    one = rates(list(outcomes(mine, other).values()))
    two = rates(list(outcomes(other, mine).values()))
    assert one.share["win"] == pytest.approx(two.share["loss"])
    assert one.share["tie"] == pytest.approx(two.share["tie"])
    assert sum(one.share.values()) == pytest.approx(1)
    assert all(one.low[o] <= one.share[o] + 1e-9 <= one.high[o] + 2e-9 for o in one.share)
