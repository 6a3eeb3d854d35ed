"""Train a small model to see and to name, from turn-based questions alone: it learns no timing.

With `checkpoint=` or `model.path=` it goes on from that model.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_pipeline.world import stills
from data_pipeline.world.cells import (
    CELL,
    COLOUR_LABELS,
    READ_ACROSS,
    READ_DOWN,
    cell_labels,
    letter_labels,
    letters_told,
    name_labels,
    state_labels,
)
from data_pipeline.world.splits import Split
from data_pipeline.world.streams import texts as stream_texts
from joyvl_train import content
from joyvl_train.actions import Response, spoken
from joyvl_train.checkpoint import TinyShape, build_tiny, load, train_tokenizer
from joyvl_train.coded_frames import change, colours
from joyvl_train.collate import Part
from joyvl_train.config import Config, LossConfig, UserError
from joyvl_train.dense import UNTOLD, taught_steps, teach_tower
from joyvl_train.engine import Engine
from joyvl_train.model_weights import save_final
from joyvl_train.rendering import Renderer
from joyvl_train.report import curves, page, section, table
from joyvl_train.run import Run
from joyvl_train.samples import QuestionSamples, question_frames
from joyvl_train.saved_steps import resumed_step
from joyvl_train.trainer import generating
from joyvl_train.training import fit
from recipes._data import marks_of, memory_marks
from recipes._speaking import check_codec
from recipes._world import check_assets, settings

_TEXTS = 60_000
_PLAIN_FRAMES = 10_000
_TOWER_KINDS = {
    "name": 2,
    "name_all": 3,
    "describe": 3,
    "count": 1,
    "state": 1,
    "colour": 1,
    "read": 2,
    "translate": 3,
}
_BATCH = 96
_CHANGES = 3
"""With a codec the last of so many batches of the tower's shows changes alone."""
_LETTERS = READ_DOWN * READ_ACROSS
_STAGES = ((0.03, "early"), (0.22, "middle"), (1.0, "late"))
"""Which pool is drawn from up to which share of the training."""


def main(config: Config, run: Run) -> None:
    """Tokenizer -> model -> turn-based samples -> training -> accuracy on unseen questions."""
    if config.command != "run":
        raise UserError(f"command={config.command}: recipe=base has run alone")
    if config.engine.kind != "single":
        raise UserError(f"engine={config.engine.kind}: recipe=base trains on one device")
    check(config)
    run.use_threads()
    given = bool(config.checkpoint or config.model.path)
    if given:
        model, processor = load(run.find_checkpoint([]).path)
    else:
        tokenizer = train_tokenizer(corpus_texts(config.seed), TinyShape().vocabulary)
        shape = TinyShape(vocabulary=len(tokenizer), side=config.data.size)
        model, processor = build_tiny(tokenizer, shape, config.seed)
    renderer = Renderer(processor)
    check_codec(config, renderer)
    # The tower's steps stand before step 0 in the log.
    tower, before = run.dir / "tower", config.train.tower_steps
    run.keep_log(resumed_step(run.dir / "steps") or taught_steps(tower) - before)
    teach_tower(
        model,
        processor,
        labelled(config),
        classes(config.data.kind),
        tower,
        shares=[1.0, 1.0, 1.0, *[4.0 / _LETTERS] * _LETTERS],
        steps=before,
        batch=_BATCH,
        learning_rate=2e-3,
        seed=config.seed,
        precision=config.train.precision,
        workers=config.data.workers,
        log=lambda step, values: run.log(step - before, values),
    )
    parts = [Part("stills", Growing(config, renderer, given), 1.0, shuffled=False)]

    def validate(step: int) -> dict[str, float]:
        found = accuracy(model, renderer, config, "validation", config.data.validation_streams)
        return {f"validation/{kind}": value for kind, (value, _) in found.items()}

    figures = fit(
        model,
        parts,
        config.train,
        config.engine,
        run.dir / "steps",
        seed=config.seed,
        workers=config.data.workers,
        log=lambda line: run.log(int(line["step"]), line),
        validate=validate if config.data.validation_streams else None,
        marks=config.train.marks,
        mark_fields=told.fields if (told := memory_marks(renderer, config)) else (),
        wandb=config.run.wandb,
    )
    run.metrics(figures)
    dtype = None if config.model.dtype == "auto" else getattr(torch, config.model.dtype)
    save_final(model, processor, run.checkpoint, None, dtype)
    found = accuracy(model, renderer, config, "test", 40 * config.data.validation_streams)
    run.metrics({f"eval/{kind}": value for kind, (value, _) in found.items()})
    run.metrics({f"eval/{kind}.count": count for kind, (_, count) in found.items()})
    write_report(run, found)
    if found:
        run.say(f"names and answers right: {found['all'][0]:.3f} of {found['all'][1]}")
    else:
        run.say("data.validation_streams=0: no unseen question is asked")
    run.finish(latest=True)


def check(config: Config) -> None:
    """Raises `UserError` for what this recipe can't do, and for values that it would not read."""
    model, data = config.model, config.data
    if data.kind == "path":
        raise UserError(f"data.path={data.path}: recipe=base draws its own; leave it out")
    if data.size % CELL:
        raise UserError(
            f"data.size={data.size}: recipe=base labels cells of 32 pixels; give a multiple of 32"
        )
    if data.codec != "off" and config.codec.side % CELL:
        raise UserError(
            f"codec.side={config.codec.side}: recipe=base labels cells of 32 pixels; give a "
            "multiple of 32"
        )
    settings(config)  # a codec of values that can't be is told of before anything is made
    unread = {
        "model.freeze": model.freeze,
        "model.lora.rank": model.lora.rank,
        "model.gradient_checkpointing": model.gradient_checkpointing,
        "model.min_pixels": model.min_pixels,
        "model.max_pixels": model.max_pixels,
        "data.turn_share below 1": data.turn_share < 1,
        "loss other than plain": vars(config.loss) != vars(LossConfig(**_PLAIN)),
    }
    for key, value in unread.items():
        if value:
            raise UserError(
                f"recipe=base trains a whole small model and reads no {key}; take it out"
            )
    check_assets(config)


_PLAIN = {"silence_first": 1.0, "silence_repeat": 1.0, "response": 1.0, "other": 1.0}


def corpus_texts(seed: int) -> Iterator[str]:
    """The texts that the tokenizer is trained on."""
    pools = (stills.texts(seed), stream_texts(seed))
    return itertools.chain.from_iterable(itertools.islice(pool, _TEXTS) for pool in pools)


def classes(pictures: str) -> list[int]:
    """How many names, colours, states and, for each point of a cell, letters there are."""
    things = [len(name_labels(pictures)), len(COLOUR_LABELS), len(state_labels(pictures))]
    return [*things, *[len(letters_told())] * _LETTERS]


def labelled(config: Config) -> Callable[[int], tuple[Any, Any]]:
    """Frames by number, each with the name, colour, state and letters at each of its tokens.

    With a codec some batches show what came into a frame, or left it, and so do some figures of the
    log: labels are of what came."""
    side, pictures = config.data.size, config.data.kind
    codec = settings(config).codec

    def item(index: int) -> tuple[Any, Any]:
        # Plain backgrounds first; what is learnt on them carries over to the others.
        stage = ("plain",) if index < _PLAIN_FRAMES else ("plain", "texture", "texture")
        still = stills.at(
            index,
            "train",
            f"tower/{config.seed}",
            mix=_TOWER_KINDS,
            pictures=pictures,
            backgrounds=backgrounds(stage, config),
        )
        if codec is not None and index // _BATCH % _CHANGES == _CHANGES - 1:
            return changed(still, side, codec.side, pictures, index)
        grid, scene, time = side // CELL, still.scenes[0], still.times[0]
        things = cell_labels(scene, time, grid, pictures)
        return still.frames(side)[0], np.concatenate(
            [things, letter_labels(scene, time, grid, side)]
        )

    return item


def changed(
    still: Any, side: int, change_side: int, pictures: Any, seed: int
) -> tuple[Image.Image, np.ndarray]:
    """The picture of the change when some things come into the frame of a still and others leave
    it, with the labels of those that came; of letters, which it is too small for, nothing is
    told."""
    scene, time = still.scenes[0], still.times[0]
    rng = random.Random(f"change/{seed}")
    draws = [rng.random() for _ in scene.tracks]
    came = tuple(track for track, draw in zip(scene.tracks, draws, strict=True) if draw < 0.75)
    stays = tuple(track for track, draw in zip(scene.tracks, draws, strict=True) if draw > 0.9)
    left = tuple(track for track in scene.tracks if track not in came + stays)
    before, now = (
        colours(replace(scene, tracks=there).frame(time, side, side), change_side)
        for there in (stays + left, stays + came)
    )
    grid = change_side // CELL
    things = cell_labels(replace(scene, tracks=came), time, grid, pictures)
    letters = np.full((_LETTERS, grid * grid), UNTOLD)
    return change(now, before)[0], np.concatenate([things, letters])


class Growing(QuestionSamples):
    """An endless pool of stills whose kinds and backgrounds grow harder as training goes on.

    grown: the model has been through that before; its pool is "binding" from the start, and another
    part of the endless row than the one that it has seen.
    """

    def __init__(self, config: Config, renderer: Renderer, grown: bool = False) -> None:
        count = config.train.steps * config.train.rows_per_step * config.train.accumulation
        # About how many samples the run will draw: it sets the pace of the stages.
        tokens = 36 + (config.data.size // CELL) ** 2
        drawn = max(1, count * config.train.row_tokens // tokens)

        row = f"on/{config.seed}" if grown else config.seed

        @lru_cache(maxsize=4096)
        def item(index: int) -> Any:
            grows = (name for share, name in _STAGES if index <= share * drawn or share == 1.0)
            stage = "binding" if grown else next(grows)
            pool = stills.pool(stage)
            return stills.at(
                index,
                "train",
                row,
                mix=pool.mix,
                pictures=config.data.kind,
                backgrounds=backgrounds(pool.backgrounds, config),
            )

        super().__init__(
            item,
            10**9,
            renderer,
            side=config.data.size,
            system=config.prompt.system,
            settings=settings(config),
            marks=marks_of(config) if config.train.marks else None,
            text_marks=memory_marks(renderer, config),
        )


def backgrounds(of_stage: Sequence[str], config: Config) -> tuple[str, ...]:
    """A stage's backgrounds, with real footage from the textures on, where the run asks for it."""
    footage = config.data.footage and "texture" in of_stage
    return (*of_stage, "footage") if footage else tuple(of_stage)


def accuracy(
    model: Any, renderer: Renderer, config: Config, split: Split, count: int
) -> dict[str, tuple[float, int]]:
    """Kind -> (share answered right, count), on `count` unseen questions; "all" for all of them."""
    pool = stills.pool("late")
    items = [
        stills.at(
            index,
            split,
            config.data.seed,
            mix=pool.mix,
            pictures=config.data.kind,
            backgrounds=backgrounds(pool.backgrounds, config),
        )
        for index in range(count)
    ]
    side, system = config.data.size, config.prompt.system
    prompts = [
        renderer.render_question(
            item.question,
            question_frames(item, side, settings(config)),
            None,
            item.context,
            system,
            [Response(said) for said in item.before],
            item.further,
        )
        for item in items
    ]
    with generating(model) as plain:
        engine = Engine(plain, renderer, max_new_tokens=config.eval.max_new_tokens)
        replies = engine.generate_batch(prompts)
    right: dict[str, list[bool]] = defaultdict(list)
    for item, reply in zip(items, replies, strict=True):
        said = spoken(reply.action) if reply.action is not None else None
        good = said is not None and bool(content.right(item.rule, item.answer, said))
        right[item.kind].append(good)
        right["all"].append(good)
    return {kind: (sum(hits) / len(hits), len(hits)) for kind, hits in sorted(right.items())}


def write_report(run: Run, found: dict[str, tuple[float, int]]) -> None:
    """report.html: the loss, the validation curves, and accuracy by kind."""
    log = run.read_log()
    kinds = sorted({key for row in log for key in row if key.startswith("validation/")})
    parts = [
        section(
            "Accuracy on unseen questions",
            table(
                ["kind", "right", "of"], [[k, value, count] for k, (value, count) in found.items()]
            ),
        ),
        section(
            "Training",
            curves(
                log,
                {
                    "Training loss": ["train/loss"],
                    "What is asked for, found": ["marks/precision", "marks/recall"],
                    "Validation accuracy": kinds,
                },
            ),
        ),
    ]
    page(run.report, "The base model: what it sees and names", parts)
