"""What a run trains on and is scored on: the rendered world, or a corpus on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from data_pipeline.assets import cache_folder
from data_pipeline.world import photos, stills
from data_pipeline.world.backgrounds import footage_clips
from data_pipeline.world.corpus import WorldStreams, family_weights, held_out
from data_pipeline.world.scene import SceneError
from data_pipeline.world.splits import SPLITS, Split
from data_pipeline.world.streams import FAMILIES, WorldFrames
from data_pipeline.world.summaries import summarize
from joyvl_train.collate import Part
from joyvl_train.config import Config, UserError
from joyvl_train.corpus import Corpus, open_corpus, unusable
from joyvl_train.frames import Frames
from joyvl_train.memory import Limits
from joyvl_train.records import RecordError, Rejects, TurnSample
from joyvl_train.rendering import Renderer
from joyvl_train.samples import QuestionSamples, StreamSamples, corpus_parts
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Clip, Timeline, TimelineError
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights

Cases = Sequence[tuple[Timeline, Frames]]


def training_parts(config: Config, renderer: Renderer, rejects: Rejects) -> list[Part]:
    """The mixed sources: time-aligned streams under the weighted loss, turn-based plain."""
    data, system = config.data, config.prompt.system
    weights = LossWeights(**vars(config.loss))
    if data.kind == "path":
        corpus = corpus_of(config, rejects)
        kept = Kept(corpus, held=False, share=data.held_out)
        if not len(kept) and not rejects.total:
            raise UserError(
                f"data.held_out={data.held_out}: holds out all {len(corpus)} clips of data.path="
                f"{data.path}, so that none is left to train on; lower it, or bring more clips"
            )
        return corpus_parts(
            kept,
            renderer,
            weights,
            settings(config),
            turn_share=data.turn_share,
            system=system,
            most_tokens=config.train.row_tokens,
        )
    check_assets(config)
    families = family_weights(data.families, data.mix)
    if not any(families.values()):
        raise UserError(
            f"data.mix={data.mix}: every family that is used has the weight 0; raise one of them"
        )
    if not data.train_streams and data.turn_share < 1:
        raise UserError(
            f"data.train_streams=0: streams are {1 - data.turn_share:g} of the samples; raise it, "
            "or take questions alone (data.turn_share=1)"
        )
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
        cut_share=data.cut_share,
        summarize=summarize,
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
    turn_based = QuestionSamples(question, 10**9, renderer, side=data.size, system=system)
    return [
        Part("streams", time_aligned, 1 - data.turn_share),
        Part("questions", turn_based, data.turn_share, shuffled=False),
    ]


def held_out_cases(
    config: Config,
    split: Split,
    count: int,
    hours: float = 0.0,
    families: Iterable[str] = (),
    rejects: Rejects | None = None,
) -> Cases:
    """Clips that training never sees: of the world's split, moved to fresh ones by `data.seed`, or
    those of a corpus that are held out; of these, `rejects` takes what can't be used."""
    data = config.data
    if data.kind == "path":
        corpus = corpus_of(config, Rejects() if rejects is None else rejects)
        kept = Kept(corpus, held=True, share=data.held_out)
        cases = list(islice(kept.streams(), count or None))
        if corpus.rejects.total >= len(corpus):
            raise unusable(corpus)
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


def check_assets(config: Config) -> None:
    """Raises `UserError` where the world's pictures or footage are wanted, but were not fetched."""
    data = config.data
    if data.kind in ("photo", "both") and not photos.available():
        raise UserError(
            f"data={data.kind}: the photographs are not in {cache_folder() / 'photo'}; run "
            "`python -m data_pipeline.assets photo`, or take data=drawn"
        )
    lacking = [split for split in SPLITS if data.footage and not footage_clips(split)]
    if data.kind != "path" and lacking:
        raise UserError(
            f"data.footage=true: no footage for {', '.join(lacking)} is in "
            f"{cache_folder() / 'footage'}; run `python -m data_pipeline.assets footage`, or set "
            "data.footage=false"
        )


def corpus_of(config: Config, rejects: Rejects) -> Corpus:
    """The corpus that `data.path` names; what can't be used is counted in `rejects`."""
    data = config.data
    value = data.frames_per_second
    if not isinstance(value, str) and (value < 1 or value != int(value)):
        raise UserError(f"data.frames_per_second={value}: takes a whole number from 1, or auto")
    return open_corpus(
        data.path,
        data.image_root or None,
        cache_dir=data.cache_dir,
        frames_per_second="auto" if isinstance(value, str) else int(value),
        size=data.size,
        multiple=32,
        rejects=rejects,
        render=partial(_draw, side=data.size),
    )


def _draw(clip: Clip, side: int) -> Frames:
    try:
        return WorldFrames(Timeline(clip, "", "world"), side)
    except SceneError as error:
        raise FrameError("no source", f"clip {clip.id!r}: {error}") from None


class Kept(Corpus):
    """One side of a corpus: the held-out clips or all others, told apart by a hash of the clip's
    id, so that adding clips never moves one across. Turn-based samples are never held out."""

    def __init__(self, corpus: Corpus, *, held: bool, share: float) -> None:
        super().__init__(corpus.rejects, corpus.name)
        self._corpus = corpus
        self._numbers = []
        for number in range(len(corpus)):
            try:
                sample = corpus[number]
            except RecordError:
                continue  # counted already
            turn_based = isinstance(sample, TurnSample)
            if held == (not turn_based and is_held_out(sample[0].clip.id, share)):
                self._numbers.append(number)

    def __len__(self) -> int:
        return len(self._numbers)

    def _load(self, number: int) -> tuple[Timeline, Frames] | TurnSample:
        return self._corpus._load(self._numbers[number])

    def where(self, number: int) -> str:
        """The name of a sample in the rejects."""
        return self._corpus.where(self._numbers[number])

    def streams(self) -> Iterator[tuple[Timeline, Frames]]:
        """The time-aligned clips of this side, each looked at whole: a picture that is broken
        rejects its clip, before anything is measured on it."""
        for number in range(len(self)):
            try:
                sample = self[number]
                if isinstance(sample, TurnSample):
                    continue
                timeline, frames = sample
                for second in range(frames.seconds):
                    frames.frames(second)
            except TimelineError as error:
                self.rejects.add(self.where(number), error.reason, error.detail)
                continue
            yield timeline, frames


def is_held_out(clip: str, share: float) -> bool:
    """Whether the clip of this id is among the `share` that is held out."""
    digest = hashlib.blake2b(clip.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < share * 2**32


def rate(config: Config) -> float:
    """Frames a second of the world's streams."""
    value = config.data.frames_per_second
    if isinstance(value, str) or value < 1 or value != int(value):
        raise UserError(
            f"data.frames_per_second={value}: the world's streams take a whole number from 1"
        )
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
