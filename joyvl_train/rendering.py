"""Chat messages -> token ids and spans, through the checkpoint's own chat template and processor.

A chat is rendered as segments: the opening, then by turns a user segment (which ends with the
generation prompt) and an assistant segment (which ends with the end-of-turn token). Each segment is
tokenized on its own, so the prompt of second t+1 extends that of second t token for token, and the
prompt at serving equals the prefix of the training sample, by construction. SFT targets, rollouts,
evaluation and serving all come from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from joyvl_train.actions import CONTROL_TOKENS, DELEGATION, SILENCE, Action, Silence
from joyvl_train.chat_template import TEXT_MARK, apply_template, compile_template, user_body
from joyvl_train.conversation import (
    assistant_text,
    next_content,
    qa_messages,
    split_context,
    system_text,
    user_content,
)
from joyvl_train.processor import CheckpointError, ImageShape, Processor
from joyvl_train.stream import Predicted, Turn, told_apart

Kind = Literal["header", "text", "image", "control", "end"]

_CACHED_SEGMENTS = 8192


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, stop) of one role and kind, in the turn of `second` (-1: turn-based)."""

    second: int
    role: str
    kind: Kind
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Segment:
    """The ids of one part of a chat. `spans` and `positions` count from the segment's start.

    positions: [3, L] for models with M-RoPE (time, height, width), [1, L] for others; `advance` is
    how far the next segment's positions lie behind this one's. images: the image processor's
    tensors for the segment's frames, as `Processor.images` gives them.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    positions: np.ndarray
    advance: int
    images: dict[str, torch.Tensor] = field(default_factory=dict)
    image_count: int = 0


@dataclass(slots=True)
class Rendered:
    """One chat, whole: ids [L], its spans, positions [3 or 1, L] and the tensors of its images."""

    ids: list[int]
    spans: list[Span]
    positions: np.ndarray
    images: dict[str, torch.Tensor]
    image_count: int
    turn_based: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class Renderer:
    """Renders turns for one checkpoint; see the module's text for the invariant it keeps.

    Raises `CheckpointError` where the chat can't be cut into turns: the template's user and
    assistant parts must read the same in every turn, and a turn must have the same tokens alone as
    in the whole chat.
    """

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._template = compile_template(processor)
        self.end_id = self._single(self._template.end)
        stops = (self.end_id, self.tokenizer.eos_token_id)
        self.stop_ids = tuple(dict.fromkeys(i for i in stops if i is not None))
        self._bodies: dict[int, str] = {}
        self._shapes: dict[tuple[int, int], ImageShape] = {}
        self._keep_segments()
        self._check_apart()

    def _keep_segments(self) -> None:
        """Most user turns differ in their time alone, and most answers are silence."""
        self._user_ids = lru_cache(_CACHED_SEGMENTS)(self._tokenize_user)
        self._assistant = lru_cache(_CACHED_SEGMENTS)(self._tokenize_assistant)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_user_ids", "_assistant")
        return {name: value for name, value in self.__dict__.items() if name not in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep_segments()

    def _single(self, text: str) -> int:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise CheckpointError(
                f"the chat template's end of turn {text!r} is no single token: {ids}"
            )
        return int(ids[0])

    def _check_apart(self) -> None:
        """A tokenizer that marks the start of its text (SentencePiece's) can't be used in parts."""
        turns = [Turn(second, (), ("Look.",), (), Silence()) for second in range(2)]
        apart = self.render("memory", turns).ids
        chat = [("system", "memory")]
        for turn in turns:
            chat += [("user", user_content(turn)[0]["text"]), ("assistant", SILENCE)]
        text = apply_template(self.processor, chat)
        whole = self.tokenizer.encode(text, add_special_tokens=False)
        if apart != whole[: len(apart)]:
            raise CheckpointError(
                "the tokenizer reads a turn differently alone than in its chat; "
                "a byte-level one is needed"
            )

    def open(self, memory_text: str = "", system: str = "") -> Segment:
        """What stands before the first user turn: the system prompt and the memory text."""
        text = system_text(self.processor.harmless(memory_text), system)
        if text:
            before, after = self._template.system
            text = before + text + after
        else:
            text = self._template.opening
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False)) if text else ()
        span = (Span(-1, "system", "header", 0, len(ids)),) if ids else ()
        return Segment(ids, span, self._positions(ids, []), len(ids))

    def user(self, turn: Turn, *, first: bool) -> Segment:
        """A user turn and the generation prompt. `first`: no assistant turn stands before it.

        The turn's frames are PIL images, or tensors that `Processor.images` made of one frame.
        """
        return self._user_segment(user_content(turn), turn.frames, turn.second, first)

    def question(self, question: str, frames: Sequence[Any], context: str = "") -> Segment:
        """The user turn of a turn-based sample, with its generation prompt."""
        parts = qa_messages(question, frames, context=context)[-1]["content"]
        return self._user_segment(parts, frames, -1, True)

    def next_frame(self, frame: Any, question: str = "") -> Segment:
        """A further user turn of a turn-based sample, with its generation prompt. The frame may be
        `Predicted`."""
        plain, predicted = told_apart([frame])
        return self._user_segment(next_content(question, any(predicted)), plain, -1, False)

    def assistant(self, action: Action, second: int = -1) -> Segment:
        """An assistant turn: the action's text and the end-of-turn token."""
        return self._assistant(self.processor.harmless(assistant_text(action)), second)

    def raw(self, ids: Sequence[int], second: int = -1) -> Segment:
        """An assistant turn as it was generated, whatever it reads as."""
        span = Span(second, "assistant", "text", 0, len(ids))
        return Segment(tuple(ids), (span,), self._positions(ids, []), len(ids))

    @property
    def silence_ids(self) -> tuple[int, ...]:
        """What a turn of silence is written with; one token where it is a control token."""
        return tuple(self.assistant(Silence()).ids[:-1])

    def segments(
        self, memory_text: str, turns: Iterable[Turn], system: str = ""
    ) -> Iterator[Segment]:
        """The segments of one chunk; the last turn may be open."""
        yield self.open(memory_text, system)
        for index, turn in enumerate(turns):
            yield self.user(turn, first=index == 0)
            if turn.action is not None:
                yield self.assistant(turn.action, turn.second)

    def render(self, memory_text: str, turns: Iterable[Turn], system: str = "") -> Rendered:
        """One chunk as a training sample, or as the prompt of its open last turn."""
        return join(self.segments(memory_text, turns, system))

    def render_question(
        self,
        question: str,
        frames: Sequence[Any],
        answer: Action | None = None,
        context: str = "",
        system: str = "",
        before: Sequence[Action] = (),
        further: Sequence[str] = (),
    ) -> Rendered:
        """A turn-based sample, or with no answer its prompt; see `conversation.qa_messages`."""
        memory_text, _ = split_context(context)
        shown = frames[:1] if before else frames
        parts = [self.open(memory_text, system), self.question(question, shown, context)]
        asked = further or [""] * len(before)
        for action, frame, text in zip(before, frames[1:] if before else (), asked, strict=True):
            parts += [self.assistant(action), self.next_frame(frame, text)]
        if answer is not None:
            parts.append(self.assistant(answer))
        rendered = join(parts)
        rendered.turn_based = True
        return rendered

    def shape(self, size: tuple[int, int]) -> ImageShape:
        """How a frame of `size` (width, height) reads in a prompt."""
        if size not in self._shapes:
            blank = [Image.new("RGB", size)]
            images = self.processor.images(blank)
            self._shapes[size] = self.processor.image_shapes(images, 1)[0]
        return self._shapes[size]

    def length(
        self,
        memory_text: str,
        turns: Iterable[Turn],
        shape: ImageShape | None = None,
        system: str = "",
    ) -> int:
        """The number of tokens of a chunk, without its pictures.

        shape: that of every frame; None: the turns' frames are `ImageShape`s themselves.
        """
        total = len(self.open(memory_text, system).ids)
        for index, turn in enumerate(turns):
            text = _text(user_content(turn))
            shapes = turn.frames if shape is None else (shape,) * len(turn.frames)
            total += len(self._user_ids(text, shapes, index == 0)[0])
            if turn.action is not None:
                total += len(self.assistant(turn.action, turn.second).ids)
        return total

    def question_length(
        self,
        question: str,
        shapes: Sequence[ImageShape | Predicted],
        answer: Action,
        context: str = "",
        system: str = "",
        before: Sequence[Action] = (),
        further: Sequence[str] = (),
    ) -> int:
        """The number of tokens of a turn-based sample whose frames have `shapes`."""
        first = shapes[:1] if before else shapes
        total = len(self.open(split_context(context)[0], system).ids)
        parts = qa_messages(question, first, context=context)[-1]["content"]
        total += len(self._user_ids(_text(parts), tuple(first), True)[0])
        asked = further or [""] * len(before)
        for action, shape, text in zip(before, shapes[1:] if before else (), asked, strict=True):
            total += len(self.assistant(action).ids)
            plain, predicted = told_apart([shape])
            parts = next_content(text, any(predicted))
            total += len(self._user_ids(_text(parts), plain, False)[0])
        return total + len(self.assistant(answer).ids)

    def read(self, ids: Sequence[int]) -> str:
        """The text of generated ids: without the end of turn and what the template leads in."""
        ids = [i for i in ids if i not in self.stop_ids]
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text.removeprefix(self._template.lead)

    # -- pieces --------------------------------------------------------------------------------

    def _user_segment(
        self, parts: list[dict[str, str]], frames: Sequence[Any], second: int, first: bool
    ) -> Segment:
        images = self.processor.images(frames) if frames else {}
        shapes = self.processor.image_shapes(images, len(frames))
        text = _text(parts)
        ids, runs = self._user_ids(text, shapes, first)
        spans = []
        at = 0
        for start, stop in runs:
            if at < start:
                spans.append(Span(second, "user", "text", at, start))
            spans.append(Span(second, "user", "image", start, stop))
            at = stop
        spans.append(Span(second, "user", "text", at, len(ids)))
        positions = self._positions(ids, [s.grid for s in shapes])
        advance = int(positions.max()) + 1
        return Segment(ids, tuple(spans), positions, advance, images, len(frames))

    def _tokenize_user(
        self, text: str, shapes: tuple[Any, ...], first: bool
    ) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        text = self.processor.harmless(text)
        body = self._body(len(shapes)).replace(TEXT_MARK, text.removesuffix("\n"))
        image = self.processor.image_token
        pieces = body.split(image)
        if len(pieces) != len(shapes) + 1:
            raise ValueError(f"{len(shapes)} images, but {len(pieces) - 1} places in {body!r}")
        body = pieces[0] + "".join(
            shape.expansion + piece for shape, piece in zip(shapes, pieces[1:], strict=True)
        )
        before = "" if first else self._template.rest
        full = before + self._template.user + body + self._template.prompt
        ids = tuple(self.tokenizer.encode(full, add_special_tokens=False))
        return ids, _runs(ids, self.processor.image_id)

    def _body(self, images: int) -> str:
        if images not in self._bodies:
            self._bodies[images] = user_body(self.processor, self._template, images)
        return self._bodies[images]

    def _tokenize_assistant(self, text: str, second: int) -> Segment:
        lead = self._template.lead
        encoded = self.tokenizer(
            lead + text + self._template.end,
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        ids = tuple(encoded["input_ids"])
        spans = []
        at = 0
        for kind, stop in _cuts(lead, text, encoded["offset_mapping"], len(ids)):
            if at < stop:
                spans.append(Span(second, "assistant", kind, at, stop))
                at = stop
        return Segment(ids, tuple(spans), self._positions(ids, []), len(ids))

    def _positions(self, ids: Sequence[int], grids: Sequence[tuple[int, int] | None]) -> np.ndarray:
        """Positions of a segment that starts at 0: [3, L] under M-RoPE, else [1, L].

        M-RoPE as Qwen2-VL and its successors define it for images: text counts on along all axes
        alike; an image of h x w tokens takes the start plus (0, row, column) and moves what follows
        by max(h, w).
        """
        if not self.processor.mrope:
            return np.arange(len(ids), dtype=np.int64)[None]
        out = np.empty((3, len(ids)), dtype=np.int64)
        at = position = 0
        for (start, stop), grid in zip(_runs(ids, self.processor.image_id), grids, strict=True):
            assert grid is not None
            height, width = grid
            out[:, at:start] = position + np.arange(start - at)
            position += start - at
            rows, columns = np.divmod(np.arange(height * width), width)
            out[0, start:stop] = position
            out[1, start:stop] = position + rows
            out[2, start:stop] = position + columns
            position += max(height, width)
            at = stop
        out[:, at:] = position + np.arange(len(ids) - at)
        return out


def _text(parts: Iterable[Mapping[str, str]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")


def join(segments: Iterable[Segment]) -> Rendered:
    """The segments of one chat as one sample."""
    ids: list[int] = []
    spans: list[Span] = []
    positions: list[np.ndarray] = []
    images: list[dict[str, torch.Tensor]] = []
    count = offset = 0
    for segment in segments:
        start = len(ids)
        ids.extend(segment.ids)
        spans.extend(
            Span(s.second, s.role, s.kind, s.start + start, s.stop + start) for s in segment.spans
        )
        positions.append(segment.positions + offset)
        offset += segment.advance
        if segment.image_count:
            images.append(segment.images)
            count += segment.image_count
    return Rendered(ids, spans, np.concatenate(positions, axis=1), join_images(images), count)


def join_images(parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The image tensors of several segments or samples, in order.

    Their first axis: patches for Qwen-VL, images (or tiles) for the others.
    """
    if not parts:
        return {}
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _runs(ids: Sequence[int], image_id: int) -> tuple[tuple[int, int], ...]:
    """Where image tokens stand, one run an image; images are never adjacent without a delimiter."""
    array = np.fromiter(ids, dtype=np.int64, count=len(ids)) == image_id
    edges = np.flatnonzero(np.diff(np.concatenate([[0], array.astype(np.int8), [0]])))
    return tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))


def _cuts(
    lead: str, text: str, offsets: Sequence[tuple[int, int]], length: int
) -> Iterator[tuple[Kind, int]]:
    """(kind, token where it stops) for the parts of an assistant turn, in order.

    A token that reaches into a control string belongs to it (" </" of a string in pieces), and what
    the template leads in belongs to the first: the model has to write it.
    """
    inner = offsets[: length - 1]
    control = next(token for token in CONTROL_TOKENS if text.startswith(token))

    def begins_before(border: int) -> int:
        return sum(start < border for start, _ in inner)

    yield "control", begins_before(len(lead) + len(control))
    if DELEGATION in text:
        at = len(lead) + text.index(DELEGATION)
        yield "text", sum(stop <= at for _, stop in inner)
        yield "control", begins_before(at + len(DELEGATION))
    yield "text", length - 1
    yield "end", length
