"""The rollouts of one window, side by side: judged, compared, and told of in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joyvl_train.timing import Right, said_right
from rl.advantages import Advantages, parts_mean
from rl.rewards import Examined, Reward, examine, reward
from rl.rollout import Rollout
from rl.windows import Window


@dataclass(slots=True)
class Group:
    """A window's rollouts, what each came to, and the advantages, where they differ.

    gold: the gold actions, compared with them but none of them; `advantages` ends with its own.
    part: which of a pass' optimizer steps learns from it.
    """

    window: Window
    rollouts: list[Rollout]
    seen: list[Examined]
    rewards: list[Reward]
    advantages: list[dict[int, float]] | None
    gold: Rollout | None = None
    part: int = 0

    @property
    def learnt_from(self) -> list[Rollout]:
        """The rollouts that `advantages` are of."""
        return [*self.rollouts, *([self.gold] if self.gold is not None else [])]

    @property
    def pass_rate(self) -> float | None:
        """The share of the rollouts that did all that was due and nothing else; None where of one
        of them nobody knows."""
        known = self.passed
        return sum(known) / len(known) if len(known) == len(self.seen) else None

    @property
    def passed(self) -> list[bool]:
        """Whether each did, of those of which it is known."""
        return [seen.passed for seen in self.seen if seen.passed is not None]


def judged(
    window: Window,
    rollouts: list[Rollout],
    weights: Mapping[str, float],
    advantages: Advantages,
    right: Right = said_right,
    gold: Rollout | None = None,
) -> Group:
    """The group of these rollouts; weights: part of the reward -> its weight.

    Where a judge failed on one of them, content counts for none: they could not be compared. What
    `gold` says is right, and nobody is asked about it.
    """
    seen = [examine(rollout, right) for rollout in rollouts]
    if any(each.unscored for each in seen):
        weights = {**weights, "content": 0.0}
    rewards = [reward(each, weights) for each in seen]
    every, all_rewards = list(rollouts), list(rewards)
    if gold is not None:
        every.append(gold)
        all_rewards.append(reward(examine(gold, lambda onset, said: True), weights))
    return Group(window, rollouts, seen, rewards, advantages.of(every, all_rewards), gold)


def told(group: Group) -> dict[str, Any]:
    """The figures of a group, as plain data for other ranks."""
    return {
        "rollouts": len(group.rollouts),
        "seconds": sum(len(seen.seconds) for seen in group.seen),
        "reward": sum(one.total for one in group.rewards),
        "passed": sum(group.passed),
        "known": len(group.passed),
        "said": sum(len(seen.said) for seen in group.seen),
        "gold": sum(len(seen.wanted) for seen in group.seen),
        "broken": sum(rollout.broken for rollout in group.rollouts),
        "repeats": sum(len(seen.repeats) for seen in group.seen),
        "unscored": sum(seen.unscored for seen in group.seen),
        "teaches": group.advantages is not None,
        "parts": parts_mean(group.rewards),
    }


def of_groups(every: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of groups that `told` told of, beside gold."""
    count = sum(one["rollouts"] for one in every)
    if not count:
        return {"grpo/rollouts": 0.0}
    decided = max(1, sum(one["seconds"] for one in every))

    def mean(name: str, over: int = count) -> float:
        return float(sum(one[name] for one in every)) / over

    found = {
        "grpo/rollouts": float(count),
        "grpo/turns": float(decided),
        "grpo/reward": mean("reward"),
        "grpo/response_rate": mean("said", decided),
        "grpo/gold_rate": mean("gold", decided),
        "grpo/malformed": mean("broken"),
        "grpo/repeats": mean("repeats"),
        "grpo/unscored": mean("unscored", 1),
        "grpo/dropped": sum(not one["teaches"] for one in every) / len(every),
    }
    if known := sum(one["known"] for one in every):
        found["grpo/passed"] = mean("passed", known)
    parts: dict[str, list[tuple[float, int]]] = {}
    for one in every:
        for part, value in one["parts"].items():
            parts.setdefault(part, []).append((value, one["rollouts"]))
    for part, values in sorted(parts.items()):
        weight = sum(n for _, n in values)
        found[f"reward/{part}"] = sum(v * n for v, n in values) / weight
    return found
