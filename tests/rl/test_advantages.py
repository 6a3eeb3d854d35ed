"""Advantages of small groups by hand: whose reward they follow, and what they are compared with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyvl_train.actions import Action, Response, Silence
from joyvl_train.stream import Turn
from joyvl_train.timeline import Clip, Event, Timeline
from rl.advantages import Advantages, normalized, parts_mean
from rl.rewards import Reward, examine, reward
from rl.rollout import Rollout, roll
from rl.windows import Window, open_window
from tests.joyvl_train.scripted import Pictures
from tests.rl.policies import SETTINGS, Scripted

CLIP = Timeline(Clip("c", 8.0), "alerting", "test", (Event("a", 3, "assistant", "It rings."),))
WEIGHTS = {"timing": 1.0, "false_alarm": 1.0}
SAYS = Response("It rings.")


def group(*speaks: set[int]) -> tuple[list[Rollout], list[Reward]]:
    """A rollout for each set of seconds in which it speaks."""

    def script(turn: Turn, number: int) -> Action:
        return SAYS if turn.second in speaks[number] else Silence()

    window = Window(0, "answer", 1, 6, 3)
    opened = open_window(window, CLIP, Pictures(8), SETTINGS)
    (rollouts,) = roll(Scripted(script), [opened], len(speaks))
    return rollouts, [reward(examine(rollout), WEIGHTS) for rollout in rollouts]


def test_a_trajectory_shares_its_reward_less_the_mean() -> None:
    rollouts, rewards = group({3}, {4}, set(), {1})
    assert [r.total for r in rewards] == [1.0, 0.75, 0.0, -1.0]
    found = Advantages(scale="none").of(rollouts, rewards)
    assert found is not None
    assert [of[1] for of in found] == [pytest.approx(v - 0.1875) for v in (1, 0.75, 0, -1)]
    assert all(set(of) == set(range(1, 6)) and len(set(of.values())) == 1 for of in found)
    scaled = Advantages().of(rollouts, rewards)
    assert scaled is not None
    values = [of[1] for of in scaled]
    assert sum(values) == pytest.approx(0) and sum(v * v for v in values) / 4 == pytest.approx(1)


@pytest.mark.parametrize("level", ["trajectory", "turn"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_a_group_that_agrees_teaches_nothing(level, decoupled) -> None:
    rollouts, rewards = group({3}, {3}, {3})
    assert Advantages(level, decoupled=decoupled).of(rollouts, rewards) is None


def test_a_turn_is_compared_with_those_that_stood_where_it_stood() -> None:
    rollouts, rewards = group({3}, {4}, set(), {1, 3})
    found = Advantages("turn", "none", discount=1.0).of(rollouts, rewards)
    assert found is not None
    on_time, late, never, early = found
    # In second 1 all stand alike; who speaks then loses one, and so do its earnings from then on.
    assert on_time[1] == pytest.approx(1 - (1 + 0.75 + 0 + 0) / 4)
    # From then on the early one has none to be compared with.
    assert all(early[t] == 0 for t in range(2, 6))
    # In second 3 three stand alike: silence costs those that go on to be late or never speak.
    mean = (1 + 0.75 + 0) / 3
    assert [of[3] for of in (on_time, late, never)] == [
        pytest.approx(v - mean) for v in (1, 0.75, 0)
    ]
    # Who has spoken is not blamed in second 4 for what the late one earns there.
    assert on_time[4] == on_time[5] == 0
    assert [late[4], never[4]] == [pytest.approx(0.375), pytest.approx(-0.375)]


def test_a_discount_ends_what_reaches_back() -> None:
    rollouts, rewards = group({3}, set())
    found = Advantages("turn", "none", discount=0.0).of(rollouts, rewards)
    assert found is not None
    assert found[0] == {1: 0, 2: 0, 3: 0.5, 4: 0, 5: 0}


def test_decoupled_parts_weigh_alike_however_large_they_are() -> None:
    rollouts, rewards = group({3}, set(), {3, 1, 5}, {1, 2, 5})
    scaled = [
        Reward(
            {
                p: {t: 100 * v for t, v in c.items()} if p == "timing" else c
                for p, c in r.parts.items()
                if c is not None
            },
            r.weights,
        )
        for r in rewards
    ]
    one = Advantages(decoupled=True).of(rollouts, rewards)
    two = Advantages(decoupled=True).of(rollouts, scaled)
    assert one is not None and two is not None
    for a, b in zip(one, two, strict=True):
        assert a == {t: pytest.approx(v) for t, v in b.items()}


def test_a_part_that_does_not_apply_moves_nobody() -> None:
    rollouts, rewards = group({3}, set(), {4})
    parts = [dict(r.parts) for r in rewards]
    parts[1]["timing"] = None
    rewards = [Reward(p, WEIGHTS) for p in parts]
    found = Advantages(decoupled=True, scale="none").of(rollouts, rewards)
    assert found is not None and found[1][1] == 0
    assert found[0][1] == pytest.approx(0.125) and found[2][1] == pytest.approx(-0.125)
    assert parts_mean(rewards)["timing"] == pytest.approx(0.875)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_normalized_values_sum_to_nothing(values: list[float]) -> None:
    for scale in ("group", "none"):
        found = normalized(values, scale)  # type: ignore[arg-type]
        assert sum(found) == pytest.approx(0, abs=1e-6)
        order = sorted(range(len(values)), key=lambda i: values[i])
        assert [found[i] for i in order] == sorted(found)
