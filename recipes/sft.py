"""Teach a model when to speak: weighted SFT on streams, then held-out streams, free-running."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from data_pipeline.world import stills
from data_pipeline.world.corpus import WorldStreams, family_weights, held_out
from data_pipeline.world.streams import FAMILIES, HELD_OUT
from joyvl_train.checkpoint import load
from joyvl_train.collate import Part
from joyvl_train.config import Config, UserError
from joyvl_train.engine import Engine
from joyvl_train.heldout import Trace, free_run, metrics, polled, trivial, write_traces
from joyvl_train.memory import Limits
from joyvl_train.rendering import Renderer
from joyvl_train.report import curves, measures, page, section, strips
from joyvl_train.run import Run
from joyvl_train.samples import QuestionSamples, StreamSamples
from joyvl_train.stream import StreamSettings
from joyvl_train.trainer import generating, save_final
from joyvl_train.training import fit, freeze, with_lora
from joyvl_train.weights import LossWeights

Cases = Sequence[tuple[Any, Any]]

CURVES = {
    "Training loss": ["train/loss"],
    "Validation, free-running": ["validation/onset_f1", "validation/content_accuracy"],
}


def main(config: Config, run: Run) -> None:
    """Streams and questions -> packed rows -> weighted loss -> checkpoint -> held-out measures."""
    if config.command not in ("run", "evaluate"):
        raise UserError(f"command={config.command}: recipe=sft has run and evaluate")
    run.use_threads()
    start = run.find_checkpoint(["base", "kept"])
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(
        config.model.dtype, torch.float32
    )
    model, processor = load(start.path, dtype=dtype, control_tokens=config.model.control_tokens)
    renderer = Renderer(processor)
    if config.command == "run":
        if not (run.checkpoint / "config.json").exists():
            train(config, run, model, processor, renderer, start.path)
        model, processor = load(run.checkpoint)
        renderer = Renderer(processor)
    evaluate(config, run, model, renderer, None if config.command == "evaluate" else start.path)
    run.finish(latest=config.command == "run")


def train(
    config: Config, run: Run, model: Any, processor: Any, renderer: Renderer, source: str
) -> None:
    """Weighted SFT; leaves the run's checkpoint and its training figures."""
    freeze(model, config.model.freeze)
    model = with_lora(model, config.model)
    cases = held_out_cases(config, "validation", config.data.validation_streams)

    def validate(step: int) -> dict[str, float]:
        traces = stream_model(model, renderer, config, cases, progress=False)
        found = metrics(traces, "validation", samples=1)
        return {k: v for k, v in found.items() if k.count("/") == 1 and "." not in k}

    run.keep_log(0)
    figures = fit(
        model,
        processor,
        sources(config, renderer),
        config.train,
        config.engine,
        run.dir / "steps",
        seed=config.seed,
        workers=config.data.workers,
        checkpointing=config.model.gradient_checkpointing,
        log=lambda line: run.log(int(line["step"]), line),
        validate=validate,
        wandb=config.run.wandb != "off",
    )
    save_final(model, processor, run.checkpoint, source)
    run.metrics(figures)


def sources(config: Config, renderer: Renderer) -> list[Part]:
    """The mixed sources: time-aligned streams under the weighted loss, turn-based plain."""
    data, system = config.data, config.prompt.system
    weights = LossWeights(**vars(config.loss))
    families = family_weights(data.families, data.mix)
    streams = WorldStreams(
        "train",
        config.seed,
        data.train_streams,
        families,
        data.kind,
        data.size,
        rate(config),
        data.footage,
    )
    time_aligned = StreamSamples(
        streams,
        renderer,
        weights,
        settings(config),
        frame_size=(data.size, data.size),
        system=system,
    )
    pool = stills.pool("late")

    def item(index: int) -> stills.Still:
        return stills.at(
            index,
            "train",
            f"sft/{config.seed}",
            mix=pool.mix,
            pictures=data.kind,
            backgrounds=(*pool.backgrounds, "footage") if data.footage else pool.backgrounds,
        )

    turn_based = QuestionSamples(item, 10**9, renderer, side=data.size, system=system)
    return [
        Part("streams", time_aligned, 1 - data.turn_share),
        Part("questions", turn_based, data.turn_share, shuffled=False),
    ]


def evaluate(config: Config, run: Run, model: Any, renderer: Renderer, base: str | None) -> None:
    """Free-running measures on held-out streams, beside trivial policies and the base polled."""
    cases = held_out_cases(config, "test", config.data.test_streams, config.data.test_hours)
    timelines = [timeline for timeline, _ in cases]
    seen = stream_model(model, renderer, config, cases)
    rows: dict[str, list[Trace]] = {"eval": seen}
    window = {"early": config.eval.early, "late": config.eval.late}
    for policy, traces in trivial(timelines, config.eval.poll_seconds, **window).items():
        rows[f"baseline/{policy}"] = traces
    if base is not None:
        asked, processor = load(base)
        with generating(asked) as plain:
            engine = Engine(plain, Renderer(processor), max_new_tokens=config.eval.max_new_tokens)
            rows["baseline/base_polled"] = polled(
                engine, cases, period=config.eval.poll_seconds, batch=config.eval.batch, **window
            )
    write_traces(run.dir / "traces.jsonl", seen)
    found: dict[str, float] = {}
    for prefix, traces in rows.items():
        found |= metrics(traces, prefix, samples=config.eval.bootstrap)
    if not config.data.families:
        apart = held_out_cases(config, "test", max(8, len(cases) // 10), families=HELD_OUT)
        found |= metrics(
            stream_model(model, renderer, config, apart), "transfer", samples=config.eval.bootstrap
        )
    run.metrics(found)
    parts = [
        section("Measures", measures(found, list(rows))),
        section("Training", curves(run.read_log(), CURVES)),
        section("Second by second", strips(cases, seen, config.eval.strips)),
    ]
    page(run.report, "Held-out streams, free-running", parts, summary(found))
    run.say(summary(found))


def stream_model(
    model: Any, renderer: Renderer, config: Config, cases: Cases, progress: bool = True
) -> list[Trace]:
    """The traces of `model` on `cases`, its own past in its history."""
    with generating(model) as plain:
        engine = Engine(
            plain,
            renderer,
            max_new_tokens=config.eval.max_new_tokens,
            temperature=config.eval.temperature,
            system=config.prompt.system,
        )
        return free_run(
            engine,
            cases,
            settings(config),
            batch=config.eval.batch,
            early=config.eval.early,
            late=config.eval.late,
            progress=progress,
        )


def held_out_cases(
    config: Config,
    split: str,
    count: int,
    hours: float = 0.0,
    families: Iterable[str] = (),
) -> Cases:
    """Held-out clips of the world, moved to fresh ones by `data.seed`."""
    data = config.data
    return held_out(
        split,
        data.seed,
        count=count,
        hours=hours,
        families=list(families) or data.families or FAMILIES,
        pictures=data.kind,
        side=data.size,
        frames_per_second=rate(config),
        footage=data.footage,
    )


def rate(config: Config) -> float:
    """Frames a second of the world's streams."""
    value = config.data.frames_per_second
    if isinstance(value, str):
        raise UserError(f"data.frames_per_second={value}: the world's streams take a number")
    return float(value)


def settings(config: Config) -> StreamSettings:
    """How streams are cut into chunks, in training and in evaluation alike."""
    stream = config.stream
    limits = Limits(
        mid=stream.mid,
        long=stream.long,
        pinned=stream.pinned,
        pinned_chars=stream.pinned_chars,
        dialogue_tokens=stream.dialogue_tokens,
    )
    return StreamSettings(stream.chunk_seconds, stream.lead, limits)


def summary(found: Mapping[str, float]) -> str:
    """The headline figures in a line."""
    names = ("onset_f1", "content_accuracy", "false_alarms_per_hour", "silence_accuracy")
    parts = [f"{n} {found[f'eval/{n}']:.3f}" for n in names if f"eval/{n}" in found]
    return "held-out, free-running: " + ", ".join(parts)
