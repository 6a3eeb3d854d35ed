"""A checkpoint measured on held-out streams, free-running, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_pipeline.world.streams import HELD_OUT
from joyvl_train.baselines import on_turns_of, polled, trivial
from joyvl_train.config import Config
from joyvl_train.heldout import Trace, metrics, write_traces
from joyvl_train.markup import Section
from joyvl_train.published_timing import measures as published_measures
from joyvl_train.records import Rejects
from joyvl_train.report import curves, measures, page, published, section, strips
from joyvl_train.run import Run
from recipes._data import held_out_cases
from recipes._made import as_trained
from recipes._speaking import (
    SUMMED,
    check_speaker,
    chosen_bias,
    engine_of,
    speaker,
    stream_model,
    talkativeness,
)

Curves = Mapping[str, Sequence[str]]
"""Title of a plot -> the keys of the log that it shows."""


def evaluate(
    config: Config,
    run: Run,
    checkpoint: str,
    shown: Curves,
    *,
    base: str | None = None,
    start: str | None = None,
    more: Sequence[Section] = (),
) -> None:
    """Free-running measures on held-out streams, beside trivial policies, the base polled and the
    checkpoint `start`, streaming like the one that is measured. more: sections of the report."""
    data, rejects = config.data, Rejects(run.dir / "rejects.jsonl")
    cases = held_out_cases(config, "test", data.test_streams, data.test_hours, rejects=rejects)
    run.metrics({"data/rejected": rejects.total})
    if rejects.total:
        run.say(f"left out of the data: {rejects}; see {run.dir / 'rejects.jsonl'}")
    if not cases:
        note = "no clip is held out, so nothing is measured; raise data.held_out"
        run.say(note)
        page(run.report, "Training", [section("Loss", curves(run.read_log(), shown))], note)
        return
    # Families that training never held: what transfers.
    own = config.data.kind == "path" or config.data.families
    count = max(8, len(cases) // 10)
    apart = [] if own else held_out_cases(config, "test", count, families=HELD_OUT)
    as_trained(config, run, checkpoint)
    model, renderer = speaker(config, checkpoint)
    check_speaker(config, renderer)
    bias = chosen_bias(config, run, model, renderer)
    run.metrics({"eval/silence_bias": bias})
    seen = stream_model(model, renderer, config, cases, bias)
    write_traces(run.dir / "traces.jsonl", seen)
    transferred = stream_model(model, renderer, config, apart, bias) if apart else []
    del model  # one at a time: the base may be as large
    rows: dict[str, list[Trace]] = {"eval": seen}
    if start is not None:
        before, renderer = speaker(config, start)
        biased = chosen_bias(config, run, before, renderer, "start")
        run.metrics({"baseline/start/silence_bias": biased})
        rows["baseline/start"] = stream_model(before, renderer, config, cases, biased)
        write_traces(run.dir / "start.jsonl", rows["baseline/start"])
        del before
    window = {"early": config.eval.early, "late": config.eval.late}
    timelines = [timeline for timeline, _ in cases]
    for policy, traces in trivial(timelines, config.eval.poll_seconds, **window).items():
        rows[f"baseline/{policy}"] = on_turns_of(traces, seen)
    if base is not None:
        engine = engine_of(*speaker(config, base), config)
        period, batch = config.eval.poll_seconds, config.eval.batch
        asked = polled(engine, cases, period=period, batch=batch, **window)
        rows["baseline/base_polled"] = on_turns_of(asked, seen)
    found: dict[str, float] = dict(published_measures(seen))
    for prefix, traces in rows.items():
        found |= metrics(traces, prefix, samples=config.eval.bootstrap)
    parts = [section("Measures", measures(found, list(rows)))]
    if transferred:
        found |= metrics(transferred, "transfer", samples=config.eval.bootstrap)
        parts.append(section("Families held out of training", measures(found, ["transfer"])))
    run.metrics(found)
    if config.eval.silence_biases:
        parts.append(section("Talkativeness, on validation streams", talkativeness(run, bias)))
    parts += [
        *more,
        section("Second by second", strips(cases, seen, config.eval.strips)),
        section("Training", curves(run.read_log(), shown)),
        section("Published measures", published(found)),
    ]
    page(run.report, "Held-out streams, free-running", parts, summary(found))
    run.say(summary(found))


def summary(found: Mapping[str, float]) -> str:
    """The headline figures in a line."""
    parts = [f"{n} {found[f'eval/{n}']:.3f}" for n in SUMMED if f"eval/{n}" in found]
    return "held-out, free-running: " + ", ".join(parts)
