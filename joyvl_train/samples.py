"""Timelines and turn-based questions as sources of training samples.

The way of a sample is one line a step: timeline -> chunks of turns -> rendered -> token weights.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from PIL import Image

from joyvl_train.actions import ActionFormatError, Response
from joyvl_train.collate import Part
from joyvl_train.config import UserError
from joyvl_train.conversation import clean
from joyvl_train.corpus import Corpus, unusable
from joyvl_train.frames import Frames
from joyvl_train.marks import UNKNOWN
from joyvl_train.memory import Summary, log_summary
from joyvl_train.records import TurnSample
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.stream import Chunk, StreamSettings, Summarize, Turn, training_chunks
from joyvl_train.timeline import Timeline, TimelineError
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights, Targets, token_weights

__all__ = [
    "CorpusQuestions",
    "CorpusStreams",
    "QuestionSamples",
    "StreamSamples",
    "Streams",
    "chunk_counts",
    "corpus_parts",
]

Size = tuple[int, int]

_RECENT_CLIPS = 4


class Streams(Protocol):
    """Time-aligned clips by number, each with its pictures."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Timeline, Frames]: ...


class Question(Protocol):
    """A turn-based item: a question about its frames, and the answer.

    before: the answers to the frames before the last, where each is a turn of its own. further:
    what the frames after the first are asked, where they are not asked the same.
    """

    question: str
    answer: str
    context: str
    before: tuple[str, ...]
    further: tuple[str, ...]
    times: tuple[float, ...]

    def frames(self, size: int) -> tuple[Image.Image, ...]: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Stands for frame `index` of a second, of `size`, while only lengths are asked for."""

    index: int
    size: Size


def frame_sizes(frames: Frames, second: int) -> tuple[Size, ...]:
    """(width, height) of each picture of a second; decoded only where the frames can't tell."""
    offered: Callable[[int], tuple[Size, ...]] | None = getattr(frames, "sizes", None)
    if offered is not None:
        return offered(second)
    return tuple(image.size for image in frames.frames(second))


def chunks_of(
    timeline: Timeline,
    frames: Frames,
    settings: StreamSettings,
    size: Size | None = None,
    summarize: Summarize = log_summary,
    summaries: Sequence[Summary] = (),
) -> list[Chunk]:
    """The chunks of a clip, with places for frames.

    size: that of every frame of clips that have all their frames (a rendered world's); None: the
    frames are asked, and a second that has none is left out. summarize: what memory says of turns
    that are left behind, as far as `summaries` don't tell it.
    """
    per_second = max(1, round(timeline.frames_per_second))

    def places(second: int) -> tuple[_Place, ...]:
        sizes = (size,) * per_second if size is not None else frame_sizes(frames, second)
        return tuple(_Place(index, each) for index, each in enumerate(sizes))

    return list(training_chunks(timeline, places, settings, summarize, summaries))


def chunk_length(chunk: Chunk, renderer: Renderer, system: str) -> int:
    """The number of tokens of a chunk that holds places."""
    turns = [
        replace(turn, frames=tuple(renderer.shape(place.size) for place in turn.frames))
        for turn in chunk.turns
    ]
    return renderer.length(chunk.memory_text, turns, None, system)


def render_chunk(
    chunk: Chunk, frames: Frames, renderer: Renderer, weights: LossWeights, system: str
) -> tuple[Rendered, Targets]:
    """A chunk of places with its pictures, and what of it is scored."""
    turns = []
    for turn in chunk.turns:
        pictures = frames.frames(turn.second)
        if len(pictures) != len(turn.frames):
            raise FrameError(
                "damaged", f"second {turn.second}: {len(pictures)} of {len(turn.frames)} pictures"
            )
        turns.append(replace(turn, frames=pictures))
    rendered = renderer.render(chunk.memory_text, turns, system)
    return rendered, token_weights(rendered, weights, from_second=chunk.supervised_from)


def with_marks(
    targets: Targets,
    rendered: Rendered,
    image_id: int,
    of_images: np.ndarray | None,
    of_text: np.ndarray | None,
) -> Targets:
    """The targets with the marks of the image tokens, in their order, and those of all others.

    None: of these nothing is known.
    """
    if of_images is None and of_text is None:
        return targets
    every = np.full((len(rendered), 1), UNKNOWN) if of_text is None else of_text
    if of_images is not None:
        every[np.asarray(rendered.ids) == image_id, 0] = of_images
    return replace(targets, marks=every)


def chunk_counts(streams: Streams, settings: StreamSettings, size: Size | None = None) -> list[int]:
    """How many chunks each clip gives, for `StreamSamples`."""
    return [len(chunks_of(*streams[i], settings, size)) for i in range(len(streams))]


class StreamSamples:
    """The chunks of time-aligned clips as training samples (a `collate.Source`).

    frame_size: (width, height) of every frame, where each second has all its frames; None: the
    frames themselves are asked. chunks: how many chunks each clip gives (`chunk_counts`); None: a
    sample a clip, and of a clip that gives several chunks one drawn by the clip's number.
    cut_share: so large a share of the clips is cut sooner, after a drawn count of seconds from just
    above `lead` to twice that, so that short clips teach openings, too; not together with `chunks`.
    summarize: (clip, turns) -> what memory says of turns left behind; None: `log_summary`. marks:
    (clip, seconds) -> the marks of their image tokens (`joyvl_train.marks`).
    """

    def __init__(
        self,
        streams: Streams,
        renderer: Renderer,
        weights: LossWeights,
        settings: StreamSettings,
        *,
        frame_size: Size | None = None,
        system: str = "",
        chunks: Sequence[int] | None = None,
        cut_share: float = 0.0,
        summarize: Callable[[Timeline, Sequence[Turn]], str] | None = None,
        marks: Callable[[Timeline, Sequence[int]], np.ndarray] | None = None,
        text_marks: Callable[[Rendered], np.ndarray] | None = None,
    ) -> None:
        assert chunks is None or not cut_share
        self._streams = streams
        self._renderer = renderer
        self._weights = weights
        self._settings = settings
        self._size = frame_size
        self._system = system
        self._ends = None if chunks is None else list(accumulate(chunks, initial=0))[1:]
        self._cut_share = cut_share
        self._summarize = summarize
        self._marks = marks
        self._text_marks = text_marks

    def __len__(self) -> int:
        if self._ends is None:
            return len(self._streams)
        return self._ends[-1] if self._ends else 0

    def length(self, index: int) -> int:
        """The number of tokens of sample `index`; no picture is drawn for it."""
        _, _, chunk = self._chunk(index)
        return chunk_length(chunk, self._renderer, self._system)

    def render(self, index: int) -> tuple[Rendered, Targets]:
        """Sample `index` with its pictures, and what of it is scored."""
        timeline, frames, chunk = self._chunk(index)
        rendered, targets = render_chunk(chunk, frames, self._renderer, self._weights, self._system)
        seconds = [turn.second for turn in chunk.turns]
        marks = self._marks(timeline, seconds) if self._marks else None
        text = self._text_marks(rendered) if self._text_marks else None
        image_id = self._renderer.processor.image_id
        return rendered, with_marks(targets, rendered, image_id, marks, text)

    def _chunk(self, index: int) -> tuple[Timeline, Frames, Chunk]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        clip = index if self._ends is None else bisect_right(self._ends, index)
        timeline, frames = self._streams[clip]
        rng = random.Random(f"chunk/{index}")
        settings = self._settings
        if rng.random() < self._cut_share:
            soon = rng.randint(settings.lead + 1, 2 * settings.lead + 2)
            settings = replace(settings, chunk_seconds=min(settings.chunk_seconds, soon))
        tell = self._summarize
        summarize = log_summary if tell is None else partial(tell, timeline)
        chunks = chunks_of(timeline, frames, settings, self._size, summarize)
        if self._ends is None:
            number = rng.randrange(len(chunks))
        else:
            number = index - (self._ends[clip - 1] if clip else 0)
        return timeline, frames, chunks[number]


class QuestionSamples:
    """Turn-based items as training samples (a `collate.Source`), scored with the standard loss.

    marks: item -> the marks of its image tokens (`joyvl_train.marks`); None where it has none.
    """

    def __init__(
        self,
        item: Callable[[int], Question],
        count: int,
        renderer: Renderer,
        *,
        side: int,
        system: str = "",
        marks: Callable[[Any], np.ndarray | None] | None = None,
        text_marks: Callable[[Rendered], np.ndarray] | None = None,
    ) -> None:
        self._item = item
        self._marks = marks
        self._text_marks = text_marks
        self._count = count
        self._renderer = renderer
        self._side = side
        self._system = system

    def __len__(self) -> int:
        return self._count

    def length(self, index: int) -> int:
        """The number of tokens of item `index`; no picture is drawn for it."""
        item = self._item(index)
        shapes = (self._renderer.shape((self._side, self._side)),) * len(item.times)
        return self._renderer.question_length(
            item.question,
            shapes,
            Response(clean(item.answer)),
            item.context,
            self._system,
            [Response(clean(said)) for said in item.before],
            item.further,
        )

    def render(self, index: int) -> tuple[Rendered, Targets]:
        """Item `index` with its pictures, and what of it is scored."""
        item = self._item(index)
        rendered = self._renderer.render_question(
            item.question,
            item.frames(self._side),
            Response(clean(item.answer)),
            item.context,
            self._system,
            [Response(clean(said)) for said in item.before],
            item.further,
        )
        targets = token_weights(rendered, LossWeights())
        marks = self._marks(item) if self._marks else None
        text = self._text_marks(rendered) if self._text_marks else None
        image_id = self._renderer.processor.image_id
        return rendered, with_marks(targets, rendered, image_id, marks, text)


class CorpusStreams:
    """The chunks of a corpus' streams (a `collate.Source`), as `corpus_parts` found them.

    samples: (record, chunk, tokens) of each, flat. without: (record, second) of the seconds that
    have no picture, flat. So a clip is cut anew without a look at any picture but the sample's own;
    the last few clips stay cut.
    """

    def __init__(
        self,
        corpus: Corpus,
        renderer: Renderer,
        weights: LossWeights,
        settings: StreamSettings,
        samples: Sequence[int],
        system: str = "",
        without: Sequence[int] = (),
    ) -> None:
        self._corpus = corpus
        self._renderer = renderer
        self._weights = weights
        self._settings = settings
        self._samples = array("q", samples)
        self._without = frozenset(zip(without[::2], without[1::2], strict=True))
        self._system = system
        self._recent: OrderedDict[int, tuple[Frames, list[Chunk]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._samples) // 3

    @property
    def digest(self) -> str:
        """Another one wherever a sample is another one."""
        return _digest(self._corpus, self._samples)

    def length(self, index: int) -> int:
        """The number of tokens of sample `index`, as it was counted."""
        return self._samples[3 * index + 2]

    def render(self, index: int) -> tuple[Rendered, Targets]:
        """Sample `index` with its pictures, and what of it is scored.

        Raises `RecordError` or `FrameError` where a picture turns out to be broken.
        """
        record, number, length = self._samples[3 * index : 3 * index + 3]
        try:
            frames, chunks = self._cut(record)
            chunk = chunks[number]
            turns = [replace(turn, frames=frames.frames(turn.second)) for turn in chunk.turns]
            rendered = self._renderer.render(chunk.memory_text, turns, self._system)
            if len(rendered) != length:
                detail = f"{self._corpus.where(record)}: {len(rendered)} tokens, {length} before"
                raise FrameError("damaged", f"{detail}: its pictures are others by now")
        except TimelineError as error:
            self._corpus.rejects.add(self._corpus.where(record), error.reason, error.detail)
            raise
        weighed = token_weights(rendered, self._weights, from_second=chunk.supervised_from)
        return rendered, weighed

    def _cut(self, record: int) -> tuple[Frames, list[Chunk]]:
        if record not in self._recent:
            sample = self._corpus[record]
            assert not isinstance(sample, TurnSample), "streams and questions are told apart once"
            labels, frames = sample

            def places(second: int) -> tuple[None, ...]:
                return () if (record, second) in self._without else (None,)

            told = labels.summaries
            chunks = list(training_chunks(labels.timeline, places, self._settings, summaries=told))
            self._recent[record] = frames, chunks
            if len(self._recent) > _RECENT_CLIPS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(record)
        return self._recent[record]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": OrderedDict()}


class CorpusQuestions:
    """A corpus' turn-based samples (a `collate.Source`), scored with the standard loss.

    samples: (record, tokens) of each, flat.
    """

    def __init__(
        self, corpus: Corpus, renderer: Renderer, samples: Sequence[int], system: str = ""
    ) -> None:
        self._corpus = corpus
        self._renderer = renderer
        self._samples = array("q", samples)
        self._system = system

    def __len__(self) -> int:
        return len(self._samples) // 2

    @property
    def digest(self) -> str:
        """Another one wherever a sample is another one."""
        return _digest(self._corpus, self._samples)

    def length(self, index: int) -> int:
        """The number of tokens of sample `index`, as it was counted."""
        return self._samples[2 * index + 1]

    def render(self, index: int) -> tuple[Rendered, Targets]:
        """Sample `index` with its pictures, and what of it is scored."""
        sample = self._corpus[self._samples[2 * index]]
        assert isinstance(sample, TurnSample), "streams and questions are told apart once"
        rendered = self._renderer.render_question(
            sample.question,
            sample.images,
            Response(clean(sample.answer)),
            sample.context,
            self._system,
        )
        return rendered, token_weights(rendered, LossWeights())


def corpus_parts(
    corpus: Corpus,
    renderer: Renderer,
    weights: LossWeights,
    settings: StreamSettings,
    *,
    turn_share: float = 0.0,
    system: str = "",
    most_tokens: int | None = None,
) -> list[Part]:
    """The sources that `data.path` gives: "streams" and "questions", as far as it holds any.

    Every record is looked at once, so that lengths are known; no stream is decoded for it. What
    can't be used is counted in `corpus.rejects`, samples of more than `most_tokens` tokens among it
    (reason "too long") and those that are for evaluation alone ("evaluation only"). turn_share: the
    questions' share of the samples drawn, where there are both kinds; one kind alone is all that is
    drawn. Raises `UserError` where nothing is left to train on, or nothing but the kind that
    turn_share=0 or 1 rules out.
    """
    streams = array("q")
    without = array("q")
    questions = array("q")
    for record in range(len(corpus)):
        where = corpus.where(record)
        try:
            sample = corpus[record]
            labels = sample if isinstance(sample, TurnSample) else sample[0]
            if labels.use == "evaluation":
                corpus.rejects.add(where, "evaluation only", f"{where}: it is never trained on")
            elif isinstance(sample, TurnSample):
                length = _question_length(sample, renderer, system)
                if _fits(length, most_tokens, corpus, where):
                    questions.extend((record, length))
            else:
                stream, frames = sample
                told = stream.summaries
                chunks = chunks_of(stream.timeline, frames, settings, summaries=told)
                shown = {turn.second for chunk in chunks for turn in chunk.turns}
                for second in set(range(frames.seconds)) - shown:
                    without.extend((record, second))
                for number, chunk in enumerate(chunks):
                    length = chunk_length(chunk, renderer, system)
                    if _fits(length, most_tokens, corpus, f"{where} chunk {number}"):
                        streams.extend((record, number, length))
        except TimelineError as error:
            corpus.rejects.add(where, error.reason, error.detail)
        except ActionFormatError as error:
            corpus.rejects.add(where, "format", str(error))
    parts = [
        Part(
            "streams",
            CorpusStreams(corpus, renderer, weights, settings, streams, system, without),
            1 - turn_share,
        ),
        Part("questions", CorpusQuestions(corpus, renderer, questions, system), turn_share),
    ]
    parts = [part for part in parts if len(part.source)]
    if not parts:
        raise unusable(corpus)
    if len(parts) == 1:
        if not parts[0].weight:
            lacking = "turn-based questions" if turn_share else "streams"
            raise UserError(
                f"data.turn_share={turn_share:g}: takes {lacking} alone, of which data.path="
                f"{corpus.name!r} holds none to train on ({corpus.rejects}{corpus.apart}); change "
                "it, or bring some"
            )
        parts = [replace(parts[0], weight=1.0)]
    return parts


def _digest(corpus: Corpus, samples: array[int]) -> str:
    return blake2b(corpus.digest.encode() + samples.tobytes(), digest_size=20).hexdigest()


def _question_length(sample: TurnSample, renderer: Renderer, system: str) -> int:
    shapes = tuple(renderer.shape(image.size) for image in sample.images)
    answer = Response(clean(sample.answer))
    return renderer.question_length(sample.question, shapes, answer, sample.context, system)


def _fits(length: int, most: int | None, corpus: Corpus, where: str) -> bool:
    if most is None or length <= most:
        return True
    detail = f"{length} tokens, of a row of train.row_tokens={most}; raise it, or cut clips shorter"
    corpus.rejects.add(where, "too long", f"{where}: {detail} (stream.chunk_seconds)")
    return False
