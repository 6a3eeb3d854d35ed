"""Teach a model the fine points of timing: GRPO on windows of streams, from an SFT checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from joyvl_train.checkpoint import load, run_device
from joyvl_train.config import Config, check_windows
from joyvl_train.corpus_samples import CorpusClips
from joyvl_train.heldout import Trace, metrics
from joyvl_train.model_weights import save_final
from joyvl_train.parts import freeze, with_lora
from joyvl_train.ranks import leave_others, wait_for_all
from joyvl_train.records import Rejects
from joyvl_train.rendering import Renderer
from joyvl_train.report import page, section
from joyvl_train.run import Run, write_text
from joyvl_train.samples import Streams
from joyvl_train.training import prepare_engine, wandb_lines
from recipes._client import client_of
from recipes._clips import APART, mined, plan_of, question, told, training_clips
from recipes._data import held_out_cases, training_parts
from recipes._grpo_check import check
from recipes._made import as_trained, keep_stream
from recipes._measured import evaluate
from recipes._served import Sampling, served
from recipes._speaking import check_speaker, stream_model, trained_type
from recipes._windows import shown_windows
from recipes._world import settings
from rl.advantages import Advantages
from rl.fit import Best, fit_policy
from rl.grpo import Grpo
from rl.judge import Judge
from rl.plan import Plan
from rl.policy_loss import Policy
from rl.rewards import PARTS
from rl.settings import Settings
from rl.spread import gathered
from rl.supervised import Supervised

CURVES = {
    "Held-out, free-running": ["validation/onset_f1", "validation/content_accuracy"],
    "Reward": ["grpo/reward", "grpo/passed"],
    "Parts of the reward": [f"reward/{part}" for part in PARTS],
    "How often it speaks, and gold": ["grpo/response_rate", "grpo/gold_rate"],
    "Entropy": ["grpo/entropy"],
    "KL to the starting policy": ["grpo/kl"],
    "Ratios clipped": ["grpo/clipped"],
    "Gap to the policy that drew": ["grpo/gap"],
    "Groups that taught nothing": ["grpo/dropped"],
    "Loss of gold streams": ["grpo/supervised_loss"],
    "Malformed, repeated": ["grpo/malformed", "grpo/repeats"],
}


def main(config: Config, run: Run) -> None:
    """Clips -> windows -> rollouts -> rewards -> advantages -> steps -> checkpoint -> measures."""
    check(config)
    run.use_threads()
    prepare_engine(config.engine)
    start = run.find_checkpoint(["sft"])
    as_trained(config, run, start.path)
    check_windows(config)
    if config.command == "windows":
        windows(config, run, start.path)
        run.finish(latest=False)
        return
    if not (run.checkpoint / "config.json").exists():
        train(config, run, start.path)
    leave_others()
    if run.is_main:
        evaluate(config, run, str(run.checkpoint), CURVES, start=start.path)
    run.finish(latest=True)


def gold_rows(config: Config, run: Run, renderer: Renderer, rank: int, ranks: int) -> Supervised:
    """The rows of gold streams of each step: of the world's other clips than SFT has drawn, or of
    all that a corpus has to train on."""
    fresh = replace(config, seed=APART + config.seed)
    parts = training_parts(fresh, renderer, Rejects(run.dir / "rejects.jsonl"))
    return Supervised(
        parts,
        config.grpo.supervised,
        weight=config.grpo.supervised_weight,
        row_tokens=config.train.row_tokens,
        seed=config.seed,
        rank=rank,
        ranks=ranks,
    )


def train(config: Config, run: Run, source: str) -> None:
    """GRPO from the checkpoint at `source`; leaves the best step as the run's own."""
    model, renderer = policy(config, source)
    clips = training_clips(config, run)
    alarms = mined(config, run, model, renderer, clips)
    plan = plan_of(config, run, clips, alarms)
    with (
        served(config, run, renderer, source) as draws,
        closing(trainer(config, run, model, renderer, plan, clips, draws)) as grpo,
    ):
        learn(config, run, renderer, grpo, source)


def learn(config: Config, run: Run, renderer: Renderer, grpo: Grpo, source: str) -> None:
    """All steps; the best one's weights become the run's checkpoint."""
    model = grpo.model
    count = config.data.validation_streams if config.train.eval_every else 0
    cases = held_out_cases(config, "validation", count) if count else []
    best, dtype = run.dir / "best", trained_type(config)
    note = run.dir / "best.json"

    def validate(step: int) -> dict[str, float]:
        with grpo.validating(), grpo.policy_model() as plain:
            traces = streamed(config, grpo, plain, renderer, cases)
        found = metrics(traces, "validation", samples=1)
        return {k: v for k, v in found.items() if k.count("/") == 1 and "." not in k}

    def keep_best(found: Best | None) -> None:
        save_final(model, renderer.processor, best, source, dtype)
        if run.is_main:
            write_text(note, json.dumps(found))
        wait_for_all()

    wait_for_all()
    kept = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    with wandb_lines(config.run.wandb, run.dir / "steps") as tell:

        def log(line: Mapping[str, Any]) -> None:
            run.log(int(line["step"]), line)
            tell(line)

        figures = fit_policy(
            grpo,
            grpo.train,
            log=log,
            keep_log=run.keep_log,
            validate=validate if cases else None,
            best=tuple(kept) if kept else None,
            keep_best=keep_best,
            say=run.say,
        )
    wait_for_all()
    if not note.exists():
        keep_best(None)
    run.metrics(figures)
    if run.is_main:
        keep_stream(config, best)
        os.replace(best, run.checkpoint)
    wait_for_all()


def streamed(
    config: Config, grpo: Grpo, plain: Any, renderer: Renderer, cases: Sequence[Any]
) -> list[Trace]:
    """The traces of these clips, dealt to the ranks."""
    own = list(cases)[grpo.rank :: grpo.ranks]
    bias = config.eval.silence_bias
    traces = stream_model(plain, renderer, config, own, bias, progress=False)
    return gathered(list(traces))


def policy(config: Config, source: str) -> tuple[Any, Renderer]:
    """The model that is trained, frozen and with LoRA as the run asks."""
    dtype = trained_type(config)
    model, processor = load(source, dtype=dtype, control_tokens=config.model.control_tokens)
    processor.limit_pixels(config.model.min_pixels, config.model.max_pixels)
    freeze(model, config.model.freeze)
    model = with_lora(model, **vars(config.model.lora), seed=config.seed).to(run_device())
    renderer = Renderer(processor)
    check_speaker(config, renderer)
    return model, renderer


def trainer(
    config: Config,
    run: Run,
    model: Any,
    renderer: Renderer,
    plan: Plan,
    clips: Streams,
    draws: Sampling | None = None,
) -> Grpo:
    """The trainer of this config's windows, rewards and loss."""
    grpo, reward = config.grpo, config.reward
    judge = None
    if reward.judge:
        caps = {"max_cost": config.agents.max_cost or None}
        tokens = config.agents.max_tokens or None
        judge = Judge(client_of(config.agents, **caps, max_tokens=tokens))
    chosen = Settings(
        windows=grpo.windows,
        group=grpo.group,
        rounds=grpo.rounds,
        epochs=grpo.epochs,
        updates=grpo.updates,
        rows=grpo.rows,
        max_new_tokens=config.eval.max_new_tokens,
        top_p=grpo.top_p,
        system=config.prompt.system,
        early=config.eval.early,
        late=config.eval.late,
        draw_gold=grpo.draw_gold,
        gold=grpo.gold,
        side=config.data.size,
        weights={k: weight for k, weight in vars(config.reward).items() if k in PARTS},
        families=reward.families,
        advantages=Advantages(grpo.advantage, grpo.scale, grpo.decoupled, grpo.discount),  # type: ignore[arg-type]
        policy=Policy(
            clip_low=grpo.clip_low,
            clip_high=grpo.clip_high,
            level=grpo.level,  # type: ignore[arg-type]
            aggregate=grpo.aggregate,  # type: ignore[arg-type]
            kl=grpo.kl,
            cap=grpo.importance_cap,
            temperature=grpo.temperature,
        ),
        collapse=(grpo.collapse_low, grpo.collapse_high),
        patience=grpo.patience,
    )
    return Grpo(
        model,
        renderer,
        plan,
        settings(config),
        chosen,
        replace(config.train, steps=config.grpo.steps),
        config.engine,
        run.dir / "steps",
        seed=config.seed,
        summarize=partial(told, chars=settings(config).limits.told_chars),
        summaries=clips.summaries if isinstance(clips, CorpusClips) else lambda clip: (),
        judge=judge,
        questions=partial(question, config=config) if config.windows.mix.get("question") else None,
        supervised=partial(gold_rows, config, run, renderer) if grpo.supervised else None,
        served=draws,
        checkpointing=config.model.gradient_checkpointing,
    )


# command=windows


def windows(config: Config, run: Run, source: str) -> None:
    """Rolls out some windows and shows them, each rollout with what it earned."""
    model, renderer = policy(config, source)
    clips = training_clips(config, run)
    alarms = mined(config, run, model, renderer, clips)
    plan = plan_of(config, run, clips, alarms)
    with (
        served(config, run, renderer, source) as draws,
        closing(trainer(config, run, model, renderer, plan, clips, draws)) as grpo,
    ):
        groups, _ = grpo.groups(0)
    shown = groups[: config.windows.shown]
    page(
        run.report,
        "Windows",
        [section("Windows, rolled out", *shown_windows(shown, clips))],
        f"{len(shown)} of {len(groups)} windows",
    )
    run.metrics({"windows/rolled": len(groups), **grpo.figures_of(groups)})
    shutil.rmtree(run.dir / "steps", ignore_errors=True)
    run.say(f"windows: {run.report}")
