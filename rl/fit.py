"""A run of GRPO from its first step, or the one it was broken off at, to its last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from joyvl_train.config import TrainConfig
from joyvl_train.ranks import is_first
from joyvl_train.training import peak_memory
from rl.grpo import Grpo

Best = tuple[float, int]
"""(score, step)"""


def fit_policy(
    trainer: Grpo,
    train: TrainConfig,
    *,
    log: Callable[[Mapping[str, Any]], None],
    keep_log: Callable[[int], None] = lambda step: None,
    validate: Callable[[int], Mapping[str, float]] | None = None,
    best: Best | None = None,
    keep_best: Callable[[Best], None] = lambda best: None,
    score: str = "validation/onset_f1",
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Runs the steps that are left; the figures of training. Every rank calls it.

    Every train.eval_every steps `validate` measures the policy, before the first step too, and
    `keep_best` is called where `score` is above that of `best`, the best that was kept before.
    keep_log: drops what was logged after a step, from which the run goes on. Ends early, with a
    line, where the policy collapses, and at train.minutes.
    """
    resumed = trainer.resume()
    keep_log(trainer.step if resumed else -1)
    kept = resumed or {"seconds": 0.0, "tokens": 0.0, "turns": 0.0, "over": "", "validated": -1}
    begun = time.monotonic() - kept["seconds"]
    tokens, turns, over = kept["tokens"], kept["turns"], kept["over"]
    measured = kept["validated"]

    def validated() -> None:
        nonlocal best, measured
        measured = trainer.step
        if validate is None:
            return
        found = dict(validate(trainer.step))
        if is_first():
            log({"step": trainer.step, **found})
        # Sums may differ in their last bits: one rank's word holds for all.
        value = trainer.of_first(found.get(score))
        if value is not None and (best is None or value > best[0]):
            best = value, trainer.step
            keep_best(best)

    bar = tqdm(
        total=train.steps, initial=trainer.step, desc="grpo", unit="step", disable=not is_first()
    )
    with bar:
        if measured < 0:
            validated()
        while trainer.step < train.steps and not over:
            figures = trainer.update(trainer.step)
            trainer.step += 1
            tokens += figures.get("grpo/tokens", 0.0)
            turns += figures.get("grpo/turns", 0.0)
            bar.update(1)
            spent = time.monotonic() - begun
            if train.minutes:
                trainer.share = trainer.of_first(spent / (60 * train.minutes))
            over = trainer.collapsed(figures) or ("time" if trainer.share >= 1 else "")
            done = trainer.step >= train.steps or bool(over)
            if is_first() and (trainer.step % train.log_every == 0 or done):
                log({"step": trainer.step, **figures})
            if train.eval_every and (trainer.step % train.eval_every == 0 or done):
                validated()
            if train.save_every and (trainer.step % train.save_every == 0 or done):
                state = {"seconds": spent, "tokens": tokens, "turns": turns}
                trainer.save({**state, "over": over, "validated": measured})
    if over and over != "time":
        rest = "; the best step is kept" if best is not None else ""
        say(f"stopped at step {trainer.step}: {over}{rest}")
    left_out = trainer.left_out_of_all()
    return {
        "train/seconds": time.monotonic() - begun,
        "train/steps": float(trainer.step),
        "train/tokens": tokens,
        "train/rollout_turns": turns,
        "train/peak_memory_bytes": float(peak_memory()),
        "train/collapsed": float(bool(over) and over != "time"),
        **({"train/best_step": float(best[1]), "train/best_score": best[0]} if best else {}),
        **{f"train/left_out/{_name(why)}": float(n) for why, n in left_out.items()},
    }


def _name(reason: str) -> str:
    return reason.replace(": ", "/").replace(" ", "_")
