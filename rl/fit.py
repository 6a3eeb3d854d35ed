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


def fit_policy(
    trainer: Grpo,
    train: TrainConfig,
    *,
    log: Callable[[Mapping[str, Any]], None],
    keep_log: Callable[[int], None] = lambda step: None,
    validate: Callable[[int], Mapping[str, float]] | None = None,
    keep_best: Callable[[], None] | None = None,
    score: str = "validation/onset_f1",
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Runs the steps that are left; the figures of training.

    Every train.eval_every steps `validate` measures the policy, before the first step too, and
    `keep_best` is called where `score` is the best so far. Ends early where the policy collapses,
    with a line, and at train.minutes. keep_log: drops what was logged after a step, from which the
    run goes on.
    """
    resumed = trainer.resume()
    keep_log(trainer.step if resumed else -1)
    kept = resumed or {"seconds": 0.0, "tokens": 0.0, "turns": 0.0, "collapsed": False}
    begun = time.monotonic() - kept["seconds"]
    tokens, turns, collapsed = kept["tokens"], kept["turns"], kept["collapsed"]

    def validated() -> None:
        if validate is None:
            return
        with trainer.validating():
            found = validate(trainer.step)
        value = found.get(score)
        if is_first():
            log({"step": trainer.step, **found})
        if value is not None and (trainer.best is None or value > trainer.best[0]):
            trainer.best = value, trainer.step
            if keep_best is not None:
                keep_best()

    bar = tqdm(
        total=train.steps,
        initial=trainer.step,
        desc="grpo",
        unit="step",
        disable=not is_first(),
    )
    with bar:
        if trainer.step == 0:
            validated()
        while trainer.step < train.steps and not collapsed:
            figures = trainer.update(trainer.step)
            trainer.step += 1
            tokens += figures.get("grpo/tokens", 0.0)
            turns += figures.get("grpo/turns", 0.0)
            bar.update(1)
            if is_first() and (trainer.step % train.log_every == 0 or trainer.step == train.steps):
                log({"step": trainer.step, **figures})
            why = trainer.collapsed(figures)
            spent = time.monotonic() - begun
            over = bool(train.minutes) and trainer.agreed(spent >= 60 * train.minutes)
            done = trainer.step >= train.steps or bool(why) or over
            if train.eval_every and (trainer.step % train.eval_every == 0 or done):
                validated()
            if why:
                collapsed = True
                say(f"stopped at step {trainer.step}: {why}; the best step before is kept")
            if train.save_every and (trainer.step % train.save_every == 0 or done):
                state = {"seconds": spent, "tokens": tokens, "turns": turns, "collapsed": collapsed}
                trainer.save(state)
            if over:
                break
    return {
        "train/seconds": time.monotonic() - begun,
        "train/steps": float(trainer.step),
        "train/tokens": tokens,
        "train/rollout_turns": turns,
        "train/peak_memory_bytes": float(peak_memory()),
        "train/collapsed": float(collapsed),
        **{
            f"train/left_out/{why.replace(' ', '_')}": float(n)
            for why, n in trainer.left_out.items()
        },
    }
