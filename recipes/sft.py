"""Teach a model when to speak: weighted SFT on streams, then held-out streams, free-running."""

from __future__ import annotations

from data_pipeline.world.cells import CELL
from joyvl_train.checkpoint import control_ids, load
from joyvl_train.config import Config, UserError
from joyvl_train.heldout import metrics
from joyvl_train.model_weights import save_final
from joyvl_train.ranks import leave_others
from joyvl_train.records import Rejects
from joyvl_train.rendering import Renderer
from joyvl_train.run import Run
from joyvl_train.saved_steps import resumed_step
from joyvl_train.training import fit, freeze, prepare_engine, with_lora
from recipes._data import held_out_cases, memory_marks, training_parts
from recipes._made import keep_stream
from recipes._measured import evaluate
from recipes._speaking import check_speaker, stream_model, trained_type

CURVES = {
    "Training loss": ["train/loss"],
    "Validation, free-running": ["validation/onset_f1", "validation/content_accuracy"],
}
MARKED = {"What is asked for, found": ["marks/precision", "marks/recall", "marks/labels"]}


def main(config: Config, run: Run) -> None:
    """Streams and questions -> packed rows -> weighted loss -> checkpoint -> held-out measures."""
    if config.command not in ("run", "evaluate"):
        raise UserError(f"command={config.command}: recipe=sft has run and evaluate")
    check_marks(config)
    shown = CURVES | MARKED if config.train.marks else CURVES
    run.use_threads()
    prepare_engine(config.engine)
    if config.command == "evaluate":
        leave_others()
        start = run.find_checkpoint(["sft", "kept", "base"])
        if run.is_main:
            evaluate(config, run, start.path, shown)
    else:
        start = run.find_checkpoint(["kept", "base"])
        if not (run.checkpoint / "config.json").exists():
            train(config, run, start.path)
        leave_others()  # also where an earlier start has trained
        if run.is_main:
            keep_stream(config, run.checkpoint)
            evaluate(config, run, str(run.checkpoint), shown, base=start.path)
    run.finish(latest=config.command == "run")


def check_marks(config: Config) -> None:
    """Raises `UserError` where marks are wanted that nobody can tell, or that nothing reads."""
    wanted = f"train.marks={config.train.marks:g}"
    if not config.train.marks:
        return
    if config.data.kind == "path":
        raise UserError(
            f"{wanted}: only the rendered world tells what its frames show; take it out"
        )
    if config.data.size % CELL:
        raise UserError(f"{wanted}: marks cells of {CELL} pixels; give a data.size of whole cells")


def train(config: Config, run: Run, source: str) -> None:
    """Weighted SFT of the checkpoint at `source`; leaves the run's own and its figures."""
    dtype = trained_type(config)
    model, processor = load(source, dtype=dtype, control_tokens=config.model.control_tokens)
    processor.limit_pixels(config.model.min_pixels, config.model.max_pixels)
    freeze(model, config.model.freeze)
    tokens = control_ids(processor.tokenizer)
    model = with_lora(model, **vars(config.model.lora), token_ids=tokens, seed=config.seed)
    renderer = Renderer(processor)
    check_speaker(config, renderer)
    side = config.data.size
    if config.train.marks and renderer.shape((side, side)).grid != (side // CELL, side // CELL):
        raise UserError(
            f"train.marks={config.train.marks:g}: marks cells of {CELL} pixels, but to this model "
            f"a frame of {side} pixels has other ones; take it out"
        )
    if config.train.marks and config.data.codec != "off":
        raise UserError(
            f"train.marks={config.train.marks:g}: tells of whole frames alone; take it out, or "
            "data.codec=off"
        )
    rejects = Rejects(run.dir / "rejects.jsonl")
    parts = training_parts(config, renderer, rejects)
    left_out = dict(rejects.counts)
    if left_out:
        run.say(f"left out of training: {rejects}; see {run.dir / 'rejects.jsonl'}")
    count = config.data.validation_streams if config.train.eval_every else 0
    if config.train.eval_every and not count:
        raise UserError(
            f"train.eval_every={config.train.eval_every}: there is nothing to validate on, with "
            "data.validation_streams=0; raise it, or set train.eval_every=0"
        )
    cases = held_out_cases(config, "validation", count, rejects=rejects) if count else []

    def validate(step: int) -> dict[str, float]:
        bias = config.eval.silence_bias
        traces = stream_model(model, renderer, config, cases, bias, progress=False)
        found = metrics(traces, "validation", samples=1)
        return {k: v for k, v in found.items() if k.count("/") == 1 and "." not in k}

    run.keep_log(resumed_step(run.dir / "steps"))
    figures = fit(
        model,
        parts,
        config.train,
        config.engine,
        run.dir / "steps",
        seed=config.seed,
        workers=config.data.workers,
        checkpointing=config.model.gradient_checkpointing,
        log=lambda line: run.log(int(line["step"]), line),
        validate=validate if cases else None,
        marks=config.train.marks,
        mark_fields=told.fields if (told := memory_marks(renderer, config)) else (),
        wandb=config.run.wandb,
        left_out=left_out,
    )
    # Before the checkpoint, whose presence says that training is over.
    run.metrics(figures)
    save_final(model, processor, run.checkpoint, source, dtype)
