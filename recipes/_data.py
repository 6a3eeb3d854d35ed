"""What a run trains on and is scored on: the rendered world, or a corpus on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.world import stills
from data_pipeline.world.corpus import WorldStreams, family_weights, held_out
from data_pipeline.world.marking import MemoryMarks, still_marks, stream_marks
from data_pipeline.world.past import past
from data_pipeline.world.splits import Split
from data_pipeline.world.streams import FAMILIES
from data_pipeline.world.summaries import summarize
from joyvl_train.collate import Part
from joyvl_train.config import Config, UserError
from joyvl_train.corpus import Corpus, open_corpus, unusable
from joyvl_train.corpus_samples import corpus_parts
from joyvl_train.frames import Frames, Rate
from joyvl_train.records import Rejects
from joyvl_train.rendering import Renderer
from joyvl_train.samples import QuestionSamples, StreamSamples
from joyvl_train.sides import Side, SideName
from joyvl_train.timeline import Timeline
from joyvl_train.weights import LossWeights
from recipes._world import check_assets, draw, rate, settings

Cases = Sequence[tuple[Timeline, Frames]]


def marks_of(config: Config) -> Callable[[Any, Sequence[bool]], np.ndarray | None]:
    """The marks of a turn-based question's image tokens, as its frames are shown."""
    data = config.data
    return partial(still_marks, side=data.size, pictures=data.kind, change_side=config.codec.side)


def training_parts(config: Config, renderer: Renderer, rejects: Rejects) -> list[Part]:
    """The mixed sources: time-aligned streams under the weighted loss, turn-based plain."""
    data, system = config.data, config.prompt.system
    weights = LossWeights(**vars(config.loss))
    if data.kind == "path":
        without = left_out(config)
        own = side_of(config, "train", rejects, without)
        if not len(own) and own.held:
            raise UserError(
                f"data.held_out={data.held_out}: holds out all {own.held} clips of data.path="
                f"{data.path}, so that none is left to train on; lower it, or bring more clips"
            )
        parts = corpus_parts(
            own,
            renderer,
            weights,
            settings(config),
            turn_share=data.turn_share,
            system=system,
            most_tokens=config.train.row_tokens,
        )
        for family in without:
            if family not in own.met:
                raise UserError(
                    f"data.mix.{family}=0: data.path={data.path} holds no stream of that family to "
                    "train on; mend the name, or leave it out"
                )
        return parts
    check_assets(config)
    families = family_weights(data.families, data.mix, data.hard)
    if not any(families.values()):
        raise UserError(
            f"data.mix={data.mix}: every family that is used has the weight 0; raise one of them"
        )
    if not data.train_streams and data.turn_share < 1:
        raise UserError(
            f"data.train_streams=0: streams are {1 - data.turn_share:g} of the samples; raise it, "
            "or take questions alone (data.turn_share=1)"
        )
    marked = config.train.marks > 0
    in_memory = memory_marks(renderer, config)
    streams = WorldStreams(
        "train",
        config.seed,
        data.train_streams,
        families,
        data.kind,
        data.size,
        rate(config),
        data.footage,
        data.longest,
        data.shortest,
    )
    time_aligned = StreamSamples(
        streams,
        renderer,
        weights,
        settings(config),
        frame_size=(data.size, data.size),
        system=system,
        cut_share=data.cut_share,
        late_share=data.late_share,
        past=past,
        summarize=partial(summarize, chars=settings(config).limits.told_chars),
        marks=partial(stream_marks, side=data.size, pictures=data.kind) if marked else None,
        text_marks=in_memory,
    )
    pool = stills.pool("late")
    question = partial(
        stills.at,
        split="train",
        seed=f"sft/{config.seed}",
        mix=pool.mix,
        pictures=data.kind,
        backgrounds=(*pool.backgrounds, "footage") if data.footage else pool.backgrounds,
    )
    turn_based = QuestionSamples(
        question,
        10**9,
        renderer,
        side=data.size,
        system=system,
        settings=settings(config),
        marks=marks_of(config) if marked else None,
        text_marks=in_memory,
    )
    return [
        Part("streams", time_aligned, 1 - data.turn_share),
        Part("questions", turn_based, data.turn_share, shuffled=False),
    ]


def memory_marks(renderer: Renderer, config: Config) -> MemoryMarks | None:
    """What marks the words that memory text explains, where the run reads marks."""
    return MemoryMarks(renderer.tokenizer, config.data.kind) if config.train.marks else None


def held_out_cases(
    config: Config,
    split: Split,
    count: int,
    hours: float = 0.0,
    families: Iterable[str] = (),
    rejects: Rejects | None = None,
) -> Cases:
    """Clips that training never sees: of the world's split, moved to fresh ones by `data.seed`, or
    those of a corpus on that side; of these, `rejects` takes what can't be used."""
    data = config.data
    if data.kind == "path":
        own = side_of(config, split, Rejects() if rejects is None else rejects)
        cases = list(islice(own.streams(), count or None))
        if len(own) and not cases:
            raise unusable(own)
        if split == "validation" and not cases:
            raise UserError(
                f"data.held_out={data.held_out}: no clip of data.path={data.path} is among those "
                "to validate on; raise it, or set train.eval_every=0"
            )
        return cases
    check_assets(config)
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


def left_out(config: Config) -> list[str]:
    """The families of `data.path` that are not trained on."""
    for family, weight in config.data.mix.items():
        if weight not in (0, 1):
            raise UserError(
                f"data.mix.{family}={weight:g}: streams of data.path are as many as there are; 0 "
                "leaves a family out of training, 1 keeps it"
            )
    return [family for family, weight in config.data.mix.items() if not weight]


def side_of(config: Config, side: SideName, rejects: Rejects, without: Sequence[str] = ()) -> Side:
    """One side of the corpus that `data.path` names; what can't be used is counted in `rejects`.
    `without`: families that are not trained on."""
    data = config.data
    value = data.frames_per_second
    if not isinstance(value, str) and (value < 1 or value != int(value)):
        raise UserError(f"data.frames_per_second={value}: takes a whole number from 1, or auto")
    whole = "auto" if isinstance(value, str) else int(value)
    path = Path(data.path)
    index = path / "index.json" if path.is_dir() else path
    stamp = (index.stat().st_mtime_ns, index.stat().st_size) if index.exists() else None
    places = (data.path, data.image_root, data.cache_dir)
    corpus = _opened(*places, whole, data.size, rejects.path, stamp)
    return Side(corpus, side, data.held_out, rejects, without)


@lru_cache(maxsize=1)
def _opened(
    path: str, root: str, cache: str, rate: Rate, size: int, rejects: Path | None, stamp: object
) -> Corpus:
    """A corpus, gone through once a run. `rejects` is written in full; each side counts its own."""
    return open_corpus(
        path,
        root or None,
        cache_dir=cache,
        frames_per_second=rate,
        size=size,
        multiple=32,
        rejects=Rejects(rejects),
        render=partial(draw, side=size),
    )
