"""Timelines and turn-based questions as sources of training samples.

The way of a sample is one line a step: timeline -> chunks of turns -> rendered -> token weights.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from joyvl_train.actions import Response
from joyvl_train.chunks import Chunk, Summarize, training_chunks
from joyvl_train.coded_frames import Shown, ShownFrames, coded, coded_row, prepared
from joyvl_train.conversation import clean
from joyvl_train.frames import Frames
from joyvl_train.marks import UNKNOWN
from joyvl_train.memory import Summary
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.stream import Predicted, StreamSettings, Turn, told_apart
from joyvl_train.timeline import Timeline
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights, Targets, token_weights

Size = tuple[int, int]

_RECENT = 48
"""Samples whose coded frames are kept: twice as many as wait in a plan of rows."""

T = TypeVar("T")


class _Recent(Generic[T]):
    """What was made of the last `_RECENT` samples: one is rendered soon after its length was
    asked."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, T] = OrderedDict()

    def of(self, index: int, make: Callable[[], T]) -> T:
        if index not in self._kept:
            self._kept[index] = make()
            if len(self._kept) > _RECENT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]


class Streams(Protocol):
    """Time-aligned clips by number, each with its pictures."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Timeline, Frames]: ...


class Past(Protocol):
    """What was before a clip: the second that it begins in, and the memory text of the time
    before."""

    @property
    def start(self) -> int: ...
    @property
    def memory_text(self) -> str: ...


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


def _place(index: int, shown: Shown) -> _Place | Predicted:
    if isinstance(shown, Predicted):
        return Predicted(_Place(index, shown.frame.size))
    return _Place(index, shown.size)


def frame_sizes(frames: ShownFrames, second: int) -> tuple[Size, ...]:
    """(width, height) of each picture of a second; decoded only where the frames can't tell."""
    offered: Callable[[int], tuple[Size, ...]] | None = getattr(frames, "sizes", None)
    if offered is not None:
        return offered(second)
    shown = frames.frames(second)
    return tuple((each.frame if isinstance(each, Predicted) else each).size for each in shown)


def chunks_of(
    timeline: Timeline,
    frames: ShownFrames,
    settings: StreamSettings,
    size: Size | None = None,
    summarize: Summarize | None = None,
    summaries: Sequence[Summary] = (),
) -> list[Chunk]:
    """The chunks of a clip, with places for frames.

    size: that of every frame of clips that have all their frames (a rendered world's); None: the
    frames are asked, and a second that has none is left out. summarize: what memory says of turns
    that are left behind, as far as `summaries` don't tell it; None: what was said in them. Where
    the settings have a codec, `frames` are coded already, and are asked.
    """
    per_second = max(1, round(timeline.frames_per_second))

    def places(second: int) -> tuple[_Place | Predicted, ...]:
        if settings.codec is not None:
            return tuple(_place(index, each) for index, each in enumerate(frames.frames(second)))
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


def moved(chunk: Chunk, start: int) -> Chunk:
    """The chunk of a clip that begins in second `start` of its stream."""
    turns = tuple(replace(turn, second=turn.second + start) for turn in chunk.turns)
    return replace(chunk, turns=turns, supervised_from=chunk.supervised_from + start)


def render_chunk(
    chunk: Chunk,
    frames: ShownFrames,
    renderer: Renderer,
    weights: LossWeights,
    system: str,
    start: int = 0,
) -> tuple[Rendered, Targets]:
    """A chunk of places with its pictures, and what of it is scored; `start`: as of `moved`."""
    turns = []
    for turn in chunk.turns:
        shown = turn.showing(frames.frames(turn.second))
        if len(shown.frames) != len(turn.frames) or shown.predicted != turn.predicted:
            raise FrameError(
                "damaged",
                f"second {turn.second}: {len(shown.frames)} of {len(turn.frames)} pictures",
            )
        turns.append(shown)
    late = moved(replace(chunk, turns=tuple(turns)), start)
    rendered = renderer.render(late.memory_text, late.turns, system)
    return rendered, token_weights(rendered, weights, from_second=late.supervised_from)


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
    found = []
    for index in range(len(streams)):
        timeline, frames = streams[index]
        found.append(len(chunks_of(timeline, coded(frames, settings), settings, size)))
    return found


class StreamSamples:
    """The chunks of time-aligned clips as training samples (a `collate.Source`).

    frame_size: (width, height) of every frame, where each second has all its frames; None: the
    frames themselves are asked. chunks: how many chunks each clip gives (`chunk_counts`); None: a
    sample a clip, and of a clip that gives several chunks one drawn by the clip's number.
    cut_share: so large a share of the clips is cut sooner, after a drawn count of seconds from just
    above `lead` to twice that, so that short clips teach openings, too; not together with `chunks`.
    summarize: (clip, turns) -> what memory says of turns left behind; None: what was said. marks:
    (clip, seconds) -> the marks of their image tokens (`joyvl_train.marks`). late_share: so large a
    share of the clips stands for the latest part of a long stream: (clip, settings, chance) -> the
    second that it begins in, and the memory text that it opens with, is what `past` draws.
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
        late_share: float = 0.0,
        past: Callable[[Timeline, StreamSettings, random.Random], Past] | None = None,
    ) -> None:
        assert chunks is None or not (cut_share or late_share)
        assert past is not None or not late_share
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
        self._late_share, self._past = late_share, past
        self._recent = _Recent[ShownFrames]()

    def __len__(self) -> int:
        if self._ends is None:
            return len(self._streams)
        return self._ends[-1] if self._ends else 0

    def length(self, index: int) -> int:
        """The number of tokens of sample `index`. No picture is drawn for it, unless frames are
        coded: which of them are whole only their pictures tell, and some clips' are kept."""
        _, _, chunk, start = self._chunk(index)
        return chunk_length(moved(chunk, start), self._renderer, self._system)

    def render(self, index: int) -> tuple[Rendered, Targets]:
        """Sample `index` with its pictures, and what of it is scored."""
        timeline, frames, chunk, start = self._chunk(index)
        rendered, targets = render_chunk(
            chunk, frames, self._renderer, self._weights, self._system, start
        )
        seconds = [turn.second for turn in chunk.turns]
        marks = self._marks(timeline, seconds) if self._marks else None
        text = self._text_marks(rendered) if self._text_marks else None
        image_id = self._renderer.processor.image_id
        return rendered, with_marks(targets, rendered, image_id, marks, text)

    def _chunk(self, index: int) -> tuple[Timeline, ShownFrames, Chunk, int]:
        """The clip, its pictures, a chunk of it, and the second that the clip begins in."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        clip = index if self._ends is None else bisect_right(self._ends, index)
        timeline, pictures = self._streams[clip]
        rng = random.Random(f"chunk/{index}")
        settings = self._settings
        if rng.random() < self._cut_share:
            soon = rng.randint(settings.lead + 1, 2 * settings.lead + 2)
            settings = replace(settings, chunk_seconds=min(settings.chunk_seconds, soon))
        frames = self._coded(index, pictures, settings)
        tell = self._summarize
        summarize = None if tell is None else partial(tell, timeline)
        chunks = chunks_of(timeline, frames, settings, self._size, summarize)
        if self._ends is None:
            number = rng.randrange(len(chunks))
        else:
            number = index - (self._ends[clip - 1] if clip else 0)
        chunk, start = chunks[number], 0
        # What memory tells of the clip itself tells it by the clip's own seconds.
        if number == 0 and rng.random() < self._late_share:
            assert self._past is not None
            before = self._past(timeline, self._settings, rng)
            chunk, start = replace(chunk, memory_text=before.memory_text), before.start
        return timeline, frames, chunk, start

    def _coded(self, index: int, frames: Frames, settings: StreamSettings) -> ShownFrames:
        """The frames as they are shown; of those that are coded the last samples' stay."""
        if settings.codec is None:
            return frames
        return self._recent.of(index, lambda: coded(frames, settings))


def question_frames(item: Question, side: int, settings: StreamSettings) -> tuple[Shown, ...]:
    """The item's frames as a model on streams of these settings sees them: coded where each is a
    turn of its own, as it were a second's. Several of one turn are whole, as those are of which a
    stream asks so: of a task that is handed over, or for a summary."""
    frames = item.frames(side)
    return coded_row(frames, settings) if item.before else frames


class QuestionSamples:
    """Turn-based items as training samples (a `collate.Source`), scored with the standard loss.

    settings: of the streams, by whose codec frames are shown (`question_frames`). marks: (item, of
    each frame whether it shows a change alone, () where none does) -> the marks of its image tokens
    (`joyvl_train.marks`); None where it has none.
    """

    def __init__(
        self,
        item: Callable[[int], Question],
        count: int,
        renderer: Renderer,
        *,
        side: int,
        system: str = "",
        settings: StreamSettings | None = None,
        marks: Callable[[Any, tuple[bool, ...]], np.ndarray | None] | None = None,
        text_marks: Callable[[Rendered], np.ndarray] | None = None,
    ) -> None:
        self._item = item
        self._settings = settings or StreamSettings()
        self._recent = _Recent[tuple[Shown, ...]]()
        self._marks = marks
        self._text_marks = text_marks
        self._count = count
        self._renderer = renderer
        self._side = side
        self._system = system

    def __len__(self) -> int:
        return self._count

    def length(self, index: int) -> int:
        """The number of tokens of item `index`; no picture is drawn for it, unless they are
        coded."""
        item = self._item(index)
        shapes: list[Any] = [self._renderer.shape((self._side, self._side))] * len(item.times)
        if self._coded(item):
            shapes = [
                prepared(frame, lambda picture: self._renderer.shape(picture.size))
                for frame in self._frames(index, item)
            ]
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
        frames = self._frames(index, item)
        rendered = self._renderer.render_question(
            item.question,
            frames,
            Response(clean(item.answer)),
            item.context,
            self._system,
            [Response(clean(said)) for said in item.before],
            item.further,
        )
        targets = token_weights(rendered, LossWeights())
        marks = self._marks(item, told_apart(frames)[1]) if self._marks else None
        text = self._text_marks(rendered) if self._text_marks else None
        image_id = self._renderer.processor.image_id
        return rendered, with_marks(targets, rendered, image_id, marks, text)

    def _coded(self, item: Question) -> bool:
        return self._settings.codec is not None and bool(item.before)

    def _frames(self, index: int, item: Question) -> tuple[Shown, ...]:
        """The item's frames as they are shown; the last coded ones stay."""
        if not self._coded(item):
            return item.frames(self._side)
        return self._recent.of(index, lambda: question_frames(item, self._side, self._settings))
