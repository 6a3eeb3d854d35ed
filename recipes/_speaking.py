"""A checkpoint on held-out streams, free-running, as talkative as the run asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from joyvl_train.checkpoint import load_for_inference
from joyvl_train.config import Config, UserError
from joyvl_train.engine import Engine
from joyvl_train.heldout import Trace, free_run, metrics
from joyvl_train.records import Rejects
from joyvl_train.rendering import Renderer
from joyvl_train.report import NAMES, Html, paragraph, table
from joyvl_train.run import Run
from joyvl_train.shard_reader import CorpusError
from joyvl_train.trainer import generating
from recipes._data import Cases, held_out_cases, side_of
from recipes._world import settings

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SUMMED = ("onset_f1", "content_accuracy", "false_alarms_per_hour", "silence_accuracy")
_ALARMS = "false_alarms_per_hour"
_AS_GOOD = 0.005
_WORTH = 0.05


def speaker(config: Config, path: str) -> tuple[Any, Renderer]:
    """The checkpoint at `path` on the run's device, once those before are gone."""
    model, processor = load_for_inference(
        path,
        config.model.dtype,
        min_pixels=config.model.min_pixels,
        max_pixels=config.model.max_pixels,
    )
    renderer = Renderer(processor)
    check_codec(config, renderer)
    return model, renderer


def trained_type(config: Config) -> torch.dtype:
    """The type that weights are loaded and written in for training."""
    return _DTYPES.get(config.model.dtype, torch.float32)


def engine_of(model: Any, renderer: Renderer, config: Config, bias: float = 0.0) -> Engine:
    """`model` streaming, as the run asks for it."""
    return Engine(
        model,
        renderer,
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.eval.temperature,
        silence_bias=bias,
        system=config.prompt.system,
    )


def stream_model(
    model: Any,
    renderer: Renderer,
    config: Config,
    cases: Cases,
    bias: float = 0.0,
    progress: bool = True,
) -> list[Trace]:
    """The traces of `model` on `cases`, its own past in its history."""
    with generating(model) as plain:
        return free_run(
            engine_of(plain, renderer, config, bias),
            cases,
            settings(config),
            batch=config.eval.batch,
            early=config.eval.early,
            late=config.eval.late,
            progress=progress,
        )


def check_speaker(config: Config, renderer: Renderer) -> None:
    """Raises `UserError` where a bias is wanted that this model can't be given, or a code of frames
    that it reads at another size."""
    bias, pieces = config.eval.silence_bias, len(renderer.silence_ids)
    if bias and pieces > 1:
        raise UserError(
            f"eval.silence_bias={bias:g}: this model's tokenizer reads silence in {pieces} pieces, "
            "of which the first begins other replies too; take it out"
        )
    check_codec(config, renderer)


def check_codec(config: Config, renderer: Renderer) -> None:
    """Raises `UserError` for a code of frames that this model reads at another size, or that saves
    nothing."""
    side, block, whole = config.codec.side, config.codec.block, config.data.size
    if config.data.codec == "off":
        return
    change, frame = (
        len(renderer.tokenizer.encode(renderer.shape((of, of)).expansion)) for of in (side, whole)
    )
    if change >= frame:
        raise UserError(
            f"codec.side={side}: this model reads such a picture in {change} tokens and a frame of "
            f"data.size={whole} in {frame}: nothing is saved; lower codec.side, or raise data.size"
        )
    grid = renderer.shape((side, side)).grid
    if not renderer.processor.mrope:
        return
    if side % block or grid != (side // block, side // block):
        raise UserError(
            f"codec.side={side}: this model reads a picture of that size in {grid} tokens, not one "
            f"for each {block} pixels; take a multiple of codec.block={block}, which is the patch "
            f"size times merge of the model, and model.min_pixels={side * side} or less"
        )


def chosen_bias(
    config: Config, run: Run, model: Any, renderer: Renderer, of: str = "validation"
) -> float:
    """The bias towards silence that the test is run with: `eval.silence_bias`, or where there are
    `eval.silence_biases` the `best_bias` of them on validation streams. of: names the figures."""
    biases, given = sorted(config.eval.silence_biases), config.eval.silence_bias
    if not biases:
        return given
    if len(renderer.silence_ids) > 1:
        run.say(f"silence is no single token to this model: eval.silence_bias={given:g} stays")
        return given
    rejects = Rejects(run.dir / "rejects.jsonl")
    try:
        none = config.data.kind == "path" and not len(side_of(config, "validation", rejects))
        count = config.eval.bias_streams
        cases = [] if none else held_out_cases(config, "validation", count, rejects=rejects)
    except CorpusError as error:  # training is over: what it has made is still to be measured
        run.say(f"nothing to validate on ({error}): eval.silence_bias={given:g} stays")
        return given
    if rejects.total:
        run.say(f"left out of the validation data: {rejects}; see {rejects.path}")
    found: dict[float, tuple[float, float]] = {}
    for bias in biases:
        traces = stream_model(model, renderer, config, cases, bias)
        measured = metrics(traces, "validation", samples=1)
        known = [n for n in SUMMED if f"validation/{n}" in measured]
        run.metrics({f"{of}/bias_{bias:g}/{n}": measured[f"validation/{n}"] for n in known})
        if "onset_f1" not in known:
            run.say(f"no onset to validate on: eval.silence_bias={given:g} stays")
            return given
        f1, alarms = (measured[f"validation/{n}"] for n in ("onset_f1", _ALARMS))
        found[bias] = f1, alarms
    best = best_bias(found, config.eval.most_false_alarms)
    f1, alarms = found[best]
    run.say(
        f"eval.silence_bias={best:g}: onset F1 {f1:.3f}, {alarms:.1f} false alarms an hour on "
        f"{len(cases)} streams"
    )
    return best


def best_bias(found: Mapping[float, tuple[float, float]], most: float = 0.0) -> float:
    """The bias to take; `found` holds (onset F1, false alarms an hour) of each.

    It is that of the best onset F1, and of those within `_AS_GOOD` of it the most silent. With a
    bound `most` on false alarms it is looked for among those that keep it; where none does that
    costs less than `_WORTH` of onset F1, it is the one of these with the fewest.
    """
    top = max(f1 for f1, _ in found.values())
    pool = {b: (f1, alarms) for b, (f1, alarms) in found.items() if not most or f1 >= top - _WORTH}
    quiet = {b: (f1, alarms) for b, (f1, alarms) in pool.items() if not most or alarms <= most}
    if not quiet:
        return min(pool, key=lambda bias: (pool[bias][1], -pool[bias][0]))
    top = max(f1 for f1, _ in quiet.values())
    return max(bias for bias, (f1, _) in quiet.items() if f1 >= top - _AS_GOOD)


def talkativeness(run: Run, chosen: float) -> Html:
    """What each bias towards silence gave."""
    measured = run.read_metrics()
    biases = sorted({k.split("/")[1] for k in measured if k.startswith("validation/bias_")})
    rows = [
        [f"{name[5:]} (chosen)" if float(name[5:]) == chosen else name[5:]]
        + [measured.get(f"validation/{name}/{n}") for n in SUMMED]
        for name in sorted(biases, key=lambda name: float(name[5:]))
    ]
    if not rows:
        return paragraph(f"There was nothing to choose it by: the bias {chosen:g} stays.")
    return table(["silence bias", *(NAMES[n] for n in SUMMED)], rows)
