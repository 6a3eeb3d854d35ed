"""In-process streaming generation: many streams in step, one growing KV cache each.

A step encodes what is new since the last one (generally the end of the previous action and one user
turn) and generates the action of the second. The text is the one that `generate` would give on the
full prompt; what is saved is only work: history stays in the cache, a frame's vision features are
computed once, and silence, the usual answer, is guessed and checked within the forward that reads
the user turn, so that a silent second costs one forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from joyvl_train.engine_state import Prompt, Row, after, batches, shared, whole_prompt
from joyvl_train.kv_cache import (
    Rows,
    Store,
    causal_mask,
    grouped_attention,
    takes_increments,
)
from joyvl_train.model_weights import plain_model
from joyvl_train.rendering import Rendered, Renderer, Segment
from joyvl_train.reply import Reply, read_reply
from joyvl_train.sampling import Draw, Sampling, choose, generate_whole
from joyvl_train.stream import Stream
from joyvl_train.vision_features import Images, VisionFeatures

_KEPT_FEATURES = 2**28
"""Bytes of vision features that are kept, for the turns that the next chunk carries over and for
forks that see the same frames."""


class Engine:
    """Streams a model. Not for use by several threads at once.

    model: an image-text-to-text model of transformers, or a PEFT model around one. Where its
    attention is not plain causal attention over images and text, each step generates from the whole
    prompt instead (`incremental` tells; False asks for it). `seed` and the stream's own seed fix
    what is drawn, whatever else is in the batch. `details` adds log-probabilities and gaps to
    replies. `batch_tokens` bounds the padded tokens of one forward. `silence_bias` is added to the
    logit of silence at the start of each second's reply: above 0 the model speaks less, below 0
    more. Close all streams before the model's weights change: what is cached was computed with the
    old ones.
    """

    def __init__(
        self,
        model: nn.Module,
        renderer: Renderer,
        *,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        system: str = "",
        details: bool = False,
        batch_tokens: int = 16384,
        incremental: bool = True,
        silence_bias: float = 0.0,
    ) -> None:
        core = plain_model(model)
        self.model = core
        self.renderer = renderer
        self.sampling = Sampling(max_new_tokens, temperature, top_p)
        self.seed, self.system, self.details = seed, system, details
        self.batch_tokens = batch_tokens
        self.incremental = incremental and takes_increments(core)
        self.forwards = 0
        self.encoded_tokens = 0
        self.vision = VisionFeatures(core, _KEPT_FEATURES)
        self._store = Store()
        self._rows: dict[int, Row] = {}
        self._by_slot: list[int] = []  # slot -> handle; the slots in use are 0..n-1
        self._next_handle = 0
        self._stops = frozenset(renderer.stop_ids)
        self._silence = renderer.silence_ids
        self._first = self._bias(silence_bias)
        self._mrope = renderer.processor.mrope
        self._axes = 3 if self._mrope else 1

    def _bias(self, value: float) -> dict[int, float]:
        """What is added to the logits of a stream's replies at their first token."""
        if not math.isfinite(value):
            raise ValueError(f"silence_bias must be a finite number, got {value}")
        if value and len(self._silence) > 1:
            raise ValueError(
                f"silence_bias={value}: this tokenizer reads silence in {len(self._silence)} "
                "pieces, of which the first begins other replies too; leave it at 0"
            )
        return {self._silence[0]: value} if value else {}

    # Streams

    def open(self, stream: Stream, seed: int | None = None) -> int:
        """A handle for `stream`. `seed` names its draws; by default the number of the opening."""
        return self._open(stream, self._next_handle if seed is None else seed)

    def fork(self, handle: int, stream: Stream | None = None, seed: int | None = None) -> int:
        """A new handle that goes on from all that `handle` has encoded, for a rollout.

        `stream` is the copy that the new handle follows; by default `stream.fork()` of the old one.
        """
        old = self._row(handle)
        new = self.open(stream if stream is not None else self.stream(handle).fork(), seed)
        row = self._rows[new]
        self._rows[new] = replace(old, slot=row.slot, random=row.random, stream=row.stream)
        self._store.reserve(len(self._by_slot), self._store.columns)
        self._store.copy(old.slot, row.slot, old.length + 1)
        return new

    def check_bias(self, silence_bias: float) -> None:
        """Raises `ValueError` for a bias that this model can't be given."""
        self._bias(silence_bias)

    def lean(self, handle: int, silence_bias: float) -> None:
        """From its next reply on the stream has a `silence_bias` of its own."""
        self._row(handle).first = self._bias(silence_bias)

    def _first_of(self, row: Row) -> Mapping[int, float]:
        return self._first if row.first is None else row.first

    def stream(self, handle: int) -> Stream:
        """The stream that `handle` follows."""
        return self._stream(self._row(handle))

    def close(self, handle: int) -> None:
        """Release the stream's memory; its row is used again."""
        row = self._row(handle)
        del self._rows[handle]
        last = self._by_slot.pop()
        if last != handle:
            # Rows in use stay side by side, so that a batch of all streams needs no gathering.
            moved = self._rows[last]
            if moved.length:  # else it has no row yet: the store grows at a stream's first step
                self._store.copy(moved.slot, row.slot, moved.length + 1)
            moved.slot = row.slot
            self._by_slot[row.slot] = last
        if not self._rows:
            self._store.clear()
            self.vision.clear()

    def __len__(self) -> int:
        """Open streams."""
        return len(self._rows)

    # Generation

    def step(self, handles: Sequence[int]) -> list[Reply]:
        """The replies of streams whose last turn is open, in the order of `handles`.

        The streams are not changed: the caller closes each turn with `stream.act`, with the reply's
        action or with what was shown instead. Raises `ValueError` for a handle that is closed or
        twice in the list, and for a turn that is not open or was stepped already.
        """
        rows = self._waiting(handles)
        with self._inference(rows):
            draws = [Draw(self.sampling, row.random, self._first_of(row)) for row in rows]
            if self.incremental:
                prompts = [self._new_prompt(row) for row in rows]
                self._generate(rows, prompts, draws, self._silence)
            else:
                for row, draw in zip(rows, draws, strict=True):
                    self._generate_whole(row, draw)
        return self._replies(rows, draws)

    def generate_batch(
        self,
        prompts: Sequence[Rendered],
        *,
        sampling: Sampling | Sequence[Sampling] | None = None,
        seeds: Sequence[int] | None = None,
        batch: int = 32,
    ) -> list[Reply]:
        """The replies to turn-based prompts, such as `render_question` or `Engine.prompt` gives.

        The prompts share nothing; `seeds` (by default their numbers) fix what is drawn for each.
        """
        count = len(prompts)
        if sampling is None or isinstance(sampling, Sampling):
            sampling = [sampling or self.sampling] * count
        seeds = range(count) if seeds is None else seeds
        replies: list[Reply] = []
        for start in range(0, count, batch):
            part = range(start, min(start + batch, count))
            handles = [self._open(None, seeds[i]) for i in part]
            rows = [self._rows[handle] for handle in handles]
            draws = [Draw(sampling[i], row.random) for i, row in zip(part, rows, strict=True)]
            try:
                with self._inference():
                    if self.incremental:
                        ready = [whole_prompt(prompts[i]) for i in part]
                        self._generate(rows, ready, draws, ())
                    else:
                        for i, row, draw in zip(part, rows, draws, strict=True):
                            self._whole(row, prompts[i], draw)
                replies += self._replies(rows, draws)
            finally:
                for handle in reversed(handles):
                    self.close(handle)
        return replies

    def prompt(self, text: str, frames: Sequence[Any] = ()) -> Rendered:
        """A prompt for `generate_batch` from a chat template's text and the images it places.

        Raises `ValueError` where `text` has not one placeholder an image.
        """
        processor = self.renderer.processor
        images = processor.images(frames) if frames else {}
        shapes = processor.image_shapes(images, len(frames))
        pieces = text.split(processor.image_token)
        if len(pieces) != len(frames) + 1:
            raise ValueError(f"{len(frames)} images, but {len(pieces) - 1} places for them")
        expanded = "".join(p + s.expansion for p, s in zip(pieces, shapes, strict=False))
        ids = processor.tokenizer.encode(expanded + pieces[-1], add_special_tokens=False)
        positions = np.arange(len(ids))[None]
        if self._mrope:
            rope = next(m for m in self.model.modules() if hasattr(m, "get_rope_index"))
            tokens = torch.tensor([ids])
            found, _ = rope.get_rope_index(
                tokens, (tokens == processor.image_id).int(), images.get("image_grid_thw")
            )
            positions = found[:, 0].numpy()
        return Rendered(ids, [], positions, images, len(frames), turn_based=True)

    # Rows

    def _open(self, stream: Stream | None, seed: int) -> int:
        handle = self._next_handle
        self._next_handle += 1
        random = torch.Generator().manual_seed((self.seed * 1_000_003 + seed) % 2**63)
        self._rows[handle] = Row(len(self._by_slot), random, stream)
        self._by_slot.append(handle)
        return handle

    def _row(self, handle: int) -> Row:
        if handle not in self._rows:
            raise ValueError(f"handle {handle} is not open")
        return self._rows[handle]

    def _stream(self, row: Row) -> Stream:
        if row.stream is None:
            raise ValueError("the handle follows no stream")
        return row.stream

    def _waiting(self, handles: Sequence[int]) -> list[Row]:
        """The rows of streams that wait for an action."""
        if len(set(handles)) != len(handles):
            raise ValueError(f"a handle stands twice in {list(handles)}")
        rows = [self._row(handle) for handle in handles]
        for row in rows:
            stream = self._stream(row)
            if stream.open_turn is None:
                raise ValueError("a stream's last turn is not open: observe a second first")
            second = stream.turns[-1].second
            if row.chunk == stream.chunk and row.turns == len(stream.turns):
                raise ValueError(f"second {second} was stepped already")
        return rows

    @contextmanager
    def _inference(self, rows: Sequence[Row] = ()) -> Iterator[None]:
        """No gradients and no dropout inside; the model's mode is put back.

        Where the work fails, the rows' caches are in doubt: their prompts will start anew.
        """
        training = self.model.training
        if training:
            self.model.eval()
        done = False
        try:
            with torch.inference_mode(), grouped_attention(self.model):
                yield
            done = True
        finally:
            if training:
                self.model.train()
            if not done:
                for row in rows:
                    row.chunk = -1

    # Prompts

    def _new_prompt(self, row: Row) -> Prompt:
        """What the row's cache lacks of its stream's prompt; the cache is cropped to fit first."""
        stream = self._stream(row)
        turns = stream.turns
        parts: list[tuple[Segment, tuple[Any, ...] | None]] = []
        if row.chunk != stream.chunk or row.turns == 0:
            row.chunk, row.turns, row.prompt_length, row.prompt_place = stream.chunk, 0, 0, 0
            row.crop(0)
            parts.append((self.renderer.open(stream.memory_text, self.system), None))
        else:
            last = turns[row.turns - 1]
            assert last.action is not None
            answer = self.renderer.assistant(last.action, last.second)
            row.crop(shared(row.generated, answer.ids))
            parts.append((after(answer, len(row.generated)), None))
        for index in range(row.turns, len(turns)):
            turn = turns[index]
            parts.append((self.renderer.user(turn, first=index == 0), turn.frames))
            # The last turn was open when it was asked about; whoever gave up waiting for the answer
            # may have closed it since.
            if index + 1 < len(turns) and turn.action is not None:
                parts.append((self.renderer.assistant(turn.action, turn.second), None))
        ids: list[int] = []
        positions: list[np.ndarray] = []
        images: list[Images] = []
        place = row.place
        for segment, frames in parts:
            ids += segment.ids
            positions.append(segment.positions + place)
            place += segment.advance
            if segment.images:
                images.append(Images(segment.images, frames))
        row.turns = len(turns)
        return Prompt(ids, np.concatenate(positions, axis=1), images)

    # Forwards

    def _generate(
        self,
        rows: Sequence[Row],
        prompts: Sequence[Prompt],
        draws: Sequence[Draw],
        guess: tuple[int, ...],
    ) -> None:
        """Read the prompts and draw each row's reply; `guess` is what a reply likely begins with.

        The guess is read together with the prompt. Where a row's tokens are those guessed, as
        drawn from the logits before each, they are in the cache already; where not, the guess is
        forgotten. So it never changes a reply.
        """
        guessing = [p.plus(guess) for p in prompts]
        for batch in batches(rows, guessing, self.batch_tokens):
            part, drawn = [rows[i] for i in batch], [draws[i] for i in batch]
            logits = self._read(part, [guessing[i] for i in batch], len(guess) + 1)
            going = list(range(len(part)))
            for place in range(len(guess) + 1):
                tokens = self._choose(logits[going, place], [drawn[i] for i in going])
                going = [
                    i
                    for i, token in zip(going, tokens, strict=True)
                    if guess[place : place + 1] == (token,) and not drawn[i].done
                ]
                if not going:
                    break
            for row, draw in zip(part, drawn, strict=True):
                row.prompt_length = row.length - len(guess)
                row.prompt_place = row.place - len(guess)
                row.generated = guess
                row.crop(shared(guess, draw.tokens))
        self._decode([(r, d) for r, d in zip(rows, draws, strict=True) if not d.done])

    def _decode(self, going: list[tuple[Row, Draw]]) -> None:
        """Draw token by token until every row is done."""
        going.sort(key=lambda item: item[0].slot)
        while going:
            left = max(d.sampling.max_new_tokens - len(d.tokens) for _, d in going)
            longest = max(row.length for row, _ in going)
            cache = self._cache([row for row, _ in going], longest + left + 1)
            enough = len(going) // 2  # with half of the rows done, go on with the others alone
            live = list(range(len(going)))
            while len(live) > enough:
                columns = np.zeros((len(going), 1), dtype=np.int64)
                for i in live:
                    columns[i] = going[i][0].length + 1
                ids = np.array([[draw.tokens[-1]] for _, draw in going])
                places = np.array([[row.place] for row, _ in going])
                positions = np.broadcast_to(places, (self._axes, *places.shape))
                logits = self._logits(cache, ids, columns, positions, 1)
                for i in live:
                    row, draw = going[i]
                    row.generated += (draw.tokens[-1],)
                    row.length += 1
                    row.place += 1
                self._choose(logits[live, 0], [going[i][1] for i in live])
                live = [i for i in live if not going[i][1].done]
            cache.save()
            going = [going[i] for i in live]

    def _read(self, rows: Sequence[Row], prompts: Sequence[Prompt], keep: int) -> Tensor:
        """Add the prompts to the rows' caches; the logits `[rows, keep, vocabulary]` at their ends.

        The batch is padded on the left, so that all ends are in the last column.
        """
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = np.full((len(rows), longest), self.renderer.end_id)
        columns = np.zeros((len(rows), longest), dtype=np.int64)
        positions = np.zeros((self._axes, len(rows), longest), dtype=np.int64)
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            pad = longest - len(prompt.ids)
            ids[i, pad:] = prompt.ids
            columns[i, pad:] = np.arange(row.length + 1, row.length + 1 + len(prompt.ids))
            positions[:, i, pad:] = prompt.positions
        images = [image for prompt in prompts for image in prompt.images]
        cache = self._cache(rows, int(columns.max()) + 1)
        logits = self._logits(cache, ids, columns, positions, keep, images)
        cache.save()
        for row, prompt in zip(rows, prompts, strict=True):
            row.length += len(prompt.ids)
            row.place = int(prompt.positions[0, -1]) + 1  # a prompt ends with text
            self.encoded_tokens += len(prompt.ids)
        return logits

    def _cache(self, rows: Sequence[Row], columns: int) -> Rows:
        self._store.reserve(len(self._by_slot), columns)
        return Rows(self._store, [row.slot for row in rows], columns, self.model.device)

    def _logits(
        self,
        cache: Rows,
        ids: np.ndarray,
        columns: np.ndarray,
        positions: np.ndarray,
        keep: int,
        images: Sequence[Images] = (),
    ) -> Tensor:
        """One forward: ids, columns `[rows, new]`, positions `[axes, rows, new]`; columns 0 pad."""
        device = self.model.device
        first, last = int(columns[columns > 0].min()), int(columns.max())
        where = torch.from_numpy(columns).to(device)
        places = torch.from_numpy(np.array(positions)).to(device)
        cache.place(where, first, last)
        extra = {}
        if images:
            extra["mm_encoder_outputs"] = {"image": self.vision(images)}
        output = self.model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=causal_mask(where, last + 1, self.model.dtype),
            position_ids=places if self._mrope else places[0],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
            **extra,
        )
        self.forwards += 1
        logits: Tensor = output.logits
        return logits

    def _choose(self, logits: Tensor, draws: Sequence[Draw]) -> list[int]:
        return choose(logits, draws, self._stops, self.details)

    def _replies(self, rows: Sequence[Row], draws: Sequence[Draw]) -> list[Reply]:
        return [
            read_reply(self.renderer, draw, row.prompt_length)
            for row, draw in zip(rows, draws, strict=True)
        ]

    # Without increments

    def _generate_whole(self, row: Row, draw: Draw) -> None:
        stream = self._stream(row)
        prompt = self.renderer.render(stream.memory_text, stream.turns, self.system)
        self._whole(row, prompt, draw)
        row.chunk, row.turns = stream.chunk, len(stream.turns)

    def _whole(self, row: Row, prompt: Rendered, draw: Draw) -> None:
        """Generate from a whole prompt, on a cache of the model's own."""
        row.prompt_length = len(prompt.ids)
        device = self.model.device
        ids = torch.tensor([prompt.ids], device=device)
        inputs = {name: tensor.to(device) for name, tensor in prompt.images.items()}
        if self._mrope:
            inputs["mm_token_type_ids"] = (ids == self.renderer.processor.image_id).int()
        else:
            inputs = {name: tensor[None] for name, tensor in inputs.items()}
        generate_whole(self.model, ids, inputs, draw, self._stops, self.details)
