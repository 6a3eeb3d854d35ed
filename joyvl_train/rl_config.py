"""The keys of recipe=grpo: which windows are drawn, how rollouts are rewarded and learnt from."""

from __future__ import annotations

from dataclasses import dataclass

from joyvl_train.config_key import key as _key


@dataclass
class WindowsConfig:
    before: int = _key(6, "seconds of an answer window before what is due", low=0, high=600)
    after: int = _key(4, "seconds of it after what is due", low=0, high=600)
    silence: int = _key(8, "seconds of a silence window", low=1, high=600)
    pending: int = _key(16, "most seconds of a window of an open task", low=1, high=600)
    mix: dict[str, float] = _key(
        {"answer": 1.0, "silence": 0.5, "pending": 0.25},
        "weight of each kind among the windows drawn",
        low=0,
        high=10**6,
    )
    mine: int = _key(
        200,
        "training streams that the starting model is run on, for its own false alarms; 0: none",
        low=0,
        high=10**6,
    )
    remeasure: int = _key(
        50,
        "steps for which a window is passed over of which all rollouts passed, or none",
        low=0,
        high=10**6,
    )
    shown: int = _key(12, "windows that command=windows shows at most", low=1, high=1000)


@dataclass
class RewardConfig:
    format: float = _key(1.0, "weight of the grammar being kept", low=0, high=100)
    timing: float = _key(1.0, "of what is due being met, and how near", low=0, high=100)
    content: float = _key(1.0, "of it being met by a right text", low=0, high=100)
    silence: float = _key(0.5, "of seconds kept silent in which nothing is due", low=0, high=100)
    delegation: float = _key(
        0.5, "of what is hard being handed over, what is easy kept, results told", low=0, high=100
    )
    false_alarm: float = _key(0.5, "of things said that nothing called for", low=0, high=100)
    mistimed: float = _key(0.5, "of states told of late", low=0, high=100)
    repetition: float = _key(0.25, "of repeats that were not asked for", low=0, high=100)
    talk: float = _key(0.5, "of speaking far more often than is due", low=0, high=100)
    families: dict[str, dict[str, float]] = _key(
        {}, "other weights of a family: reward.families.qa.timing=2"
    )
    judge: bool = _key(
        False, "the model at agents.url says whether a text is right that no rule can judge"
    )


@dataclass
class GrpoConfig:
    steps: int = _key(40, "steps, each with rollouts of its own", low=0, high=10**8)
    windows: int = _key(16, "windows of a step that teach something", low=1, high=10**5)
    group: int = _key(8, "rollouts of each window", low=2, high=1024)
    rounds: int = _key(
        2, "times that as many windows are drawn while fewer teach something", low=1, high=100
    )
    epochs: int = _key(1, "passes over a step's rollouts", low=1, high=100)
    updates: int = _key(
        1,
        "parts that a step's windows are dealt to, each an optimizer step in each pass where it "
        "teaches something",
        low=1,
        high=1000,
    )
    rows: int = _key(256, "rollouts that advance together", low=1, high=10**5)
    sampler: str = _key(
        "own",
        "what draws the rollouts: own: the policy in this process; vllm: a vLLM that is started "
        "for it (serve.vllm_python, serve.vllm_port, serve.vllm_options); url: those at grpo.urls",
        choices=("own", "vllm", "url"),
    )
    urls: list[str] = _key(
        [], "vLLM endpoints of this run alone, one for each rank or one for several"
    )
    weights: str = _key(
        "",
        "folder that the endpoints read, too, through which the weights go to them each step, such "
        "as one in /dev/shm; empty: in the run's",
    )
    temperature: float = _key(1.0, "of what is sampled", low=0.05, high=10)
    top_p: float = _key(1.0, "mass of the likeliest tokens that are sampled", low=0.05, high=1)
    clip_low: float = _key(0.2, "how far a ratio may fall below 1", low=0, high=1)
    clip_high: float = _key(0.28, "how far it may rise above 1", low=0, high=100)
    level: str = _key("token", "whose ratio is clipped", choices=("token", "sequence"))
    aggregate: str = _key(
        "tokens",
        "the loss is the mean over tokens, or over sequences of their means",
        choices=("tokens", "sequences"),
    )
    kl: float = _key(0.0, "weight of the KL to the starting policy; 0: none", low=0, high=100)
    importance_cap: float = _key(
        2.0, "most that a token weighs for having been drawn too seldom", low=1, high=1000
    )
    advantage: str = _key(
        "turn",
        "trajectory: a rollout's seconds share its reward; turn: each has what was earned from it "
        "on, beside those that stood where it stood",
        choices=("trajectory", "turn"),
    )
    scale: str = _key(
        "group", "advantages by their group's spread, or as they are", choices=("group", "none")
    )
    decoupled: bool = _key(
        False, "each part of the reward is normalized in its group before they are summed"
    )
    discount: float = _key(0.9, "of what is earned a second later (turn)", low=0, high=1)
    draw_gold: bool = _key(True, "results of delegated tasks come back after drawn delays")
    gold: bool = _key(
        False,
        "a window's gold actions stand in its group as one more rollout: something better to "
        "compare with where the policy never passes",
    )
    supervised: int = _key(
        0,
        "rows of gold streams in each step, learnt from as in recipe=sft; 0: rewards alone",
        low=0,
        high=10**5,
    )
    supervised_weight: float = _key(
        1.0, "what their mean loss counts beside that of the rollouts", low=0, high=1000
    )
    collapse_low: float = _key(
        0.1, "share of gold's response rate below which the policy has collapsed", low=0, high=1
    )
    collapse_high: float = _key(4.0, "share above which it has", low=1, high=10**6)
    patience: int = _key(
        8, "steps in a row after which a collapse ends training", low=1, high=10**6
    )
