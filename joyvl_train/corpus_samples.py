"""Corpora on disk as sources of training samples: what is left out is counted, with its reason."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from joyvl_train.actions import ActionFormatError, Response
from joyvl_train.chunks import Chunk, training_chunks
from joyvl_train.coded_frames import ShownFrames, coded
from joyvl_train.collate import Part
from joyvl_train.config import UserError
from joyvl_train.conversation import clean
from joyvl_train.corpus import Corpus, unusable
from joyvl_train.frames import Frames
from joyvl_train.memory import Summary
from joyvl_train.published import EVALUATION_ONLY
from joyvl_train.records import StreamLabels, TurnSample
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.samples import chunk_length, chunks_of
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Timeline, TimelineError
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights, Targets, token_weights

_RECENT_CLIPS = 4


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
        self._recent: OrderedDict[int, tuple[ShownFrames, list[Chunk]]] = OrderedDict()

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
            turns = [turn.showing(frames.frames(turn.second)) for turn in chunk.turns]
            rendered = self._renderer.render(chunk.memory_text, turns, self._system)
            if len(rendered) != length:
                detail = f"{self._corpus.where(record)}: {len(rendered)} tokens, {length} before"
                raise FrameError("damaged", f"{detail}: its pictures are others by now")
        except TimelineError as error:
            self._corpus.rejects.add(self._corpus.where(record), error.reason, error.detail)
            raise
        weighed = token_weights(rendered, self._weights, from_second=chunk.supervised_from)
        return rendered, weighed

    def _cut(self, record: int) -> tuple[ShownFrames, list[Chunk]]:
        if record not in self._recent:
            sample = self._corpus[record]
            assert not isinstance(sample, TurnSample), "streams and questions are told apart once"
            labels, frames = sample

            def places(second: int) -> tuple[None, ...]:
                return () if (record, second) in self._without else (None,)

            told = labels.summaries
            chunks = list(training_chunks(labels.timeline, places, self._settings, summaries=told))
            self._recent[record] = coded(frames, self._settings), chunks
            if len(self._recent) > _RECENT_CLIPS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(record)
        return self._recent[record]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": OrderedDict()}


class CorpusClips:
    """The streams of a corpus by number, for whoever draws windows of them (`samples.Streams`).

    Nothing is read before it is asked for; a record that turns out to be broken raises
    `TimelineError` each time.
    """

    def __init__(self, corpus: Corpus) -> None:
        survey = corpus.survey()
        apart = survey.questions | survey.evaluation | set(survey.broken)
        self._corpus = corpus
        self._numbers = array("q", (n for n in range(len(corpus)) if n not in apart))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[Timeline, Frames]:
        labels, frames = self._load(index)
        return labels.timeline, frames

    def timeline(self, index: int) -> Timeline:
        """The timeline without a look at its pictures, which may turn out to be of fewer seconds;
        with one where the record does not say how long it lasts."""
        labels = self._corpus.told(self._numbers[index])
        assert not isinstance(labels, TurnSample), "streams and questions are told apart once"
        known = labels.timeline.clip.duration is not None
        return labels.timeline if known else self[index][0]

    def reject(self, index: int, error: TimelineError) -> None:
        """Counts clip `index` among the corpus' rejects, where a picture turned out to be broken
        after it was opened."""
        number = self._numbers[index]
        self._corpus.rejects.add(self._corpus.where(number), error.reason, error.detail)

    def summaries(self, index: int) -> Sequence[Summary]:
        """What the record says in its own words of stretches of its seconds."""
        return self._load(index)[0].summaries

    def _load(self, index: int) -> tuple[StreamLabels, Frames]:
        sample = self._corpus[self._numbers[index]]
        assert not isinstance(sample, TurnSample), "streams and questions are told apart once"
        return sample


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

    Every record is looked at once, so that lengths are known; no stream is decoded for it, unless
    its frames are coded. What can't be used is counted in `corpus.rejects`, samples of more than
    `most_tokens` tokens among it (reason "too long") and those that are for evaluation alone
    ("evaluation only"). turn_share: the questions' share of the samples drawn, where there are both
    kinds; one kind alone is all that is drawn. Raises `UserError` where nothing is left to train
    on, or nothing but the kind that turn_share=0 or 1 rules out.
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
                corpus.rejects.add(where, EVALUATION_ONLY, f"{where}: it is never trained on")
            elif isinstance(sample, TurnSample):
                length = _question_length(sample, renderer, system)
                if _fits(length, most_tokens, corpus, where):
                    questions.extend((record, length))
            else:
                stream, frames = sample
                told = stream.summaries
                shown_as = coded(frames, settings)
                chunks = chunks_of(stream.timeline, shown_as, settings, summaries=told)
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
