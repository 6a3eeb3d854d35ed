"""How a step of GRPO is taken: what is rolled out, rewarded and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rl.advantages import Advantages
from rl.policy_loss import Policy
from rl.rewards import WEIGHTS


@dataclass(frozen=True, slots=True)
class Settings:
    """How a step is taken.

    windows: groups of `group` rollouts that a step trains on. rounds: so often as many windows are
    drawn again while fewer than that have taught something. gold: a window's gold actions stand in
    its group beside the rollouts. epochs, updates: passes over a step's rollouts, and the parts
    that its windows are dealt to, each an optimizer step in each pass where it teaches something.
    rows: rollouts that advance together. side: of the pictures of questions. weights, families: of
    the rewards. collapse: (lowest, highest) share of gold's response rate that the policy's may
    have for `patience` steps in a row.
    """

    windows: int = 16
    group: int = 8
    rounds: int = 2
    epochs: int = 1
    updates: int = 1
    rows: int = 256
    side: int = 96
    max_new_tokens: int = 48
    top_p: float = 1.0
    system: str = ""
    early: int = 0
    late: int = 1
    draw_gold: bool = True
    gold: bool = False
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    families: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    advantages: Advantages = field(default_factory=Advantages)
    policy: Policy = field(default_factory=Policy)
    collapse: tuple[float, float] = (0.1, 4.0)
    patience: int = 8
