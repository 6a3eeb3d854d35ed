"""Timelines and turn-based questions as sources of training samples.

The way of a sample is one line a step: timeline -> chunks of turns -> rendered -> token weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol

from PIL import Image

from joyvl_train.actions import Response
from joyvl_train.checkpoint import ImageShape
from joyvl_train.conversation import clean
from joyvl_train.frames import Frames
from joyvl_train.rendering import Rendered, Renderer
from joyvl_train.stream import Chunk, StreamSettings, training_chunks
from joyvl_train.timeline import Timeline
from joyvl_train.weights import LossWeights, Targets, token_weights

Size = tuple[int, int]


class Streams(Protocol):
    """Time-aligned clips by number, each with its pictures."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Timeline, Frames]: ...


class Question(Protocol):
    """A turn-based item: a question about its frames, and the answer."""

    question: str
    answer: str
    context: str
    times: tuple[float, ...]

    def frames(self, size: int) -> tuple[Image.Image, ...]: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Stands for frame `index` of a second while only lengths are asked for."""

    second: int
    index: int


class StreamSamples:
    """The chunks of time-aligned clips as training samples (a `collate.Source`).

    frame_size is (width, height) of every frame. chunks: how many chunks each clip gives; None: one
    each, for clips known to be no longer than a chunk.
    """

    def __init__(
        self,
        streams: Streams,
        renderer: Renderer,
        weights: LossWeights,
        settings: StreamSettings,
        *,
        frame_size: Size,
        system: str = "",
        chunks: Sequence[int] | None = None,
    ) -> None:
        self._streams = streams
        self._renderer = renderer
        self._weights = weights
        self._settings = settings
        self._size = frame_size
        self._system = system
        self._ends = None if chunks is None else list(accumulate(chunks))

    def __len__(self) -> int:
        return len(self._streams) if self._ends is None else self._ends[-1]

    def length(self, index: int) -> int:
        """The number of tokens of sample `index`; no picture is drawn or decoded for it."""
        _, chunk = self._chunk(index)
        shape = self._renderer.shape(self._size)
        return self._renderer.length(chunk.memory_text, chunk.turns, shape, self._system)

    def render(self, index: int) -> tuple[Rendered, Targets]:
        """Sample `index` with its pictures, and what of it is scored."""
        frames, chunk = self._chunk(index)
        groups = {t.second: frames.frames(t.second) for t in chunk.turns if t.frames}
        turns = [
            replace(t, frames=tuple(groups[p.second][p.index] for p in t.frames))
            for t in chunk.turns
        ]
        rendered = self._renderer.render(chunk.memory_text, turns, self._system)
        targets = token_weights(
            rendered, self._renderer, self._weights, from_second=chunk.supervised_from
        )
        return rendered, targets

    def _chunk(self, index: int) -> tuple[Frames, Chunk]:
        clip, number = index, 0
        if self._ends is not None:
            clip = next(i for i, end in enumerate(self._ends) if index < end)
            number = index - (self._ends[clip - 1] if clip else 0)
        timeline, frames = self._streams[clip]
        per_second = max(1, round(timeline.frames_per_second))
        chunks = training_chunks(
            timeline,
            lambda second: tuple(_Place(second, i) for i in range(per_second)),
            self._settings,
        )
        for at, chunk in enumerate(chunks):
            if at == number:
                return frames, chunk
        raise IndexError(f"clip {timeline.clip.id!r} has no chunk {number}")


class QuestionSamples:
    """Turn-based items as training samples (a `collate.Source`), scored with the standard loss."""

    def __init__(
        self,
        item: Callable[[int], Question],
        count: int,
        renderer: Renderer,
        *,
        side: int,
        system: str = "",
    ) -> None:
        self._item = item
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
            item.question, shapes, Response(clean(item.answer)), item.context, self._system
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
        )
        return rendered, token_weights(rendered, self._renderer, LossWeights())


__all__ = ["ImageShape", "QuestionSamples", "StreamSamples", "Streams"]
