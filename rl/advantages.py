"""Rewards of a group of rollouts -> the advantage of each of their seconds.

*Trajectory*: all seconds of a rollout share its reward, less the group's mean, by the group's
standard deviation (GRPO, arXiv 2402.03300) or as it is (Dr. GRPO, 2503.20783). *Turn*: a second has
what was earned from it on, discounted, less the mean of those that stood where it stood: rollouts
of the group that had spoken in the same seconds so far, handing over in the same ones, whatever the
texts were. *Decoupled* (GDPO, 2601.05242):
each part is normalized in its group before the parts are summed, so that none drowns another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from joyvl_train.actions import Action, Delegation, Silence
from rl.rewards import Reward
from rl.rollout import Rollout

_NONE = 1e-6
"""A spread below which all of a group count as equal."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """How rewards become advantages."""

    level: Literal["trajectory", "turn"] = "trajectory"
    scale: Literal["group", "none"] = "group"
    decoupled: bool = False
    discount: float = 0.9

    def of(
        self, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
    ) -> list[dict[int, float]] | None:
        """Second -> advantage of each rollout of a group; None where all of them are equal, so
        that nothing is to be learnt."""
        if self.level == "turn":
            found = self._by_turn(rollouts, rewards)
        else:
            whole = self._decoupled(rewards) if self.decoupled else self._whole(rewards)
            found = [
                dict.fromkeys((each.second for each in rollout.sampled), value)
                for rollout, value in zip(rollouts, whole, strict=True)
            ]
        values = [value for of_rollout in found for value in of_rollout.values()]
        return found if any(abs(value) > _NONE for value in values) else None

    def _whole(self, rewards: Sequence[Reward]) -> list[float]:
        return normalized([reward.total for reward in rewards], self.scale)

    def _decoupled(self, rewards: Sequence[Reward]) -> list[float]:
        total = [0.0] * len(rewards)
        for part, weight in rewards[0].weights.items():
            values = [reward.value(part) for reward in rewards]
            known = [i for i, value in enumerate(values) if value is not None]
            shares = normalized([values[i] or 0.0 for i in known], self.scale)
            for i, share in zip(known, shares, strict=True):
                total[i] += weight * share
        return total

    def _by_turn(
        self, rollouts: Sequence[Rollout], rewards: Sequence[Reward]
    ) -> list[dict[int, float]]:
        togo = [self._to_go(r, reward) for r, reward in zip(rollouts, rewards, strict=True)]
        peers: dict[tuple[int, tuple[tuple[int, str], ...]], list[int]] = {}
        for i, rollout in enumerate(rollouts):
            said: tuple[tuple[int, str], ...] = ()
            actions = {step.second: step.action for step in rollout.trace.steps}
            for each in rollout.sampled:
                peers.setdefault((each.second, said), []).append(i)
                if not isinstance(actions[each.second], Silence):
                    said += ((each.second, _spoken_as(actions[each.second])),)
        found: list[dict[int, float]] = [{} for _ in rollouts]
        for (second, _), members in peers.items():
            mean = sum(togo[i][second] for i in members) / len(members)
            for i in members:
                found[i][second] = togo[i][second] - mean
        if self.scale == "group":
            values = [value for of_rollout in found for value in of_rollout.values()]
            spread = math.sqrt(sum(v * v for v in values) / max(1, len(values)))
            if spread > _NONE:
                found = [{t: v / spread for t, v in each.items()} for each in found]
        return found

    def _to_go(self, rollout: Rollout, reward: Reward) -> dict[int, float]:
        ahead, found = 0.0, {}
        for each in reversed(rollout.sampled):
            ahead = reward.credit(each.second) + self.discount * ahead
            found[each.second] = ahead
        return found


def _spoken_as(action: Action) -> str:
    return "delegation" if isinstance(action, Delegation) else "response"


def normalized(values: Sequence[float], scale: Literal["group", "none"]) -> list[float]:
    """Values less their mean, by their standard deviation where `scale` is group; all 0 where they
    are equal."""
    if not values:
        return []
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    if spread <= _NONE:
        return [0.0] * len(values)
    return [(v - mean) / (spread if scale == "group" else 1.0) for v in values]


def parts_mean(rewards: Sequence[Reward]) -> dict[str, float]:
    """Each part's mean over the rollouts to which it applies."""
    found: dict[str, list[float]] = {}
    for reward in rewards:
        for part in reward.parts:
            value = reward.value(part)
            if value is not None:
                found.setdefault(part, []).append(value)
    return {part: sum(values) / len(values) for part, values in sorted(found.items())}
