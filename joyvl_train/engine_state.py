"""What the engine knows of each stream between steps, and the prompts it is about to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from joyvl_train.rendering import Rendered, Segment
from joyvl_train.stream import Stream
from joyvl_train.vision_features import Images


@dataclass(slots=True)
class Prompt:
    """Ids to be encoded, their positions `[axes, n]`, and their images."""

    ids: Sequence[int]
    positions: np.ndarray
    images: list[Images] = field(default_factory=list)

    def plus(self, text: tuple[int, ...]) -> Prompt:
        """This prompt with the ids of a text behind it."""
        added = self.positions[:, -1:] + np.arange(1, len(text) + 1)
        positions = np.concatenate((self.positions, added), axis=1)
        return Prompt([*self.ids, *text], positions, self.images)


@dataclass(slots=True)
class Row:
    """What the cache holds of one stream.

    `length` tokens are cached and the next one stands at `place` on every axis of the positions;
    `prompt_length` and `prompt_place` are these at the end of the last prompt, and `generated` are
    the ids cached after it. `turns` of the chunk are in the prompt.
    first: added to the logits of a reply's first token; None: what the engine adds for all.
    """

    slot: int
    random: torch.Generator
    stream: Stream | None = None
    chunk: int = -1
    turns: int = 0
    length: int = 0
    place: int = 0
    prompt_length: int = 0
    prompt_place: int = 0
    generated: tuple[int, ...] = ()
    first: Mapping[int, float] | None = None

    def crop(self, kept: int) -> None:
        """Forget all but the first `kept` generated tokens."""
        self.generated = self.generated[:kept]
        self.length = self.prompt_length + kept
        self.place = self.prompt_place + kept


def after(segment: Segment, skipped: int) -> Segment:
    """A text segment without its first `skipped` ids, positions counted from its new start."""
    return replace(
        segment,
        ids=segment.ids[skipped:],
        positions=segment.positions[:, skipped:] - skipped,
        advance=segment.advance - skipped,
    )


def whole_prompt(prompt: Rendered) -> Prompt:
    """A turn-based prompt; its images are nobody else's."""
    images = [Images(prompt.images)] if prompt.images else []
    return Prompt(prompt.ids, prompt.positions, images)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with."""
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


def batches(
    rows: Sequence[Row], prompts: Sequence[Prompt], batch_tokens: int
) -> Iterator[list[int]]:
    """Indices of rows to be read together: of about one length, within `batch_tokens`."""
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids)):
        length = len(prompts[i].ids)
        if batch and (
            length > 2 * len(prompts[batch[0]].ids) + 32 or length * (len(batch) + 1) > batch_tokens
        ):
            yield sorted(batch, key=lambda i: rows[i].slot)
            batch = []
        batch.append(i)
    if batch:
        yield sorted(batch, key=lambda i: rows[i].slot)
