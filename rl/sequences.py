"""Rollouts -> token sequences whose sampled tokens can be scored again, by a training forward.

One sequence holds a whole rollout where each turn's sampled tokens are those that stand in the
history, as they nearly always are. A turn whose tokens are others (a spelling that the tokenizer
would not choose, a cut within a character, a malformed turn) is scored in a sequence of its own,
which ends with it: what came after it was decided on the history, not on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joyvl_train.rendering import Rendered, Renderer, Segment
from rl.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Scored:
    """A sequence as the segments of its chat, and which of its tokens were sampled.

    positions [K]: where they stand; seconds [K]: the second that each was sampled in; logprobs [K]:
    under the policy that drew them. `rollout` is the rollout's number in its group, `tokens` how
    many were sampled in all of it.
    """

    segments: tuple[Segment, ...]
    positions: np.ndarray
    seconds: np.ndarray
    logprobs: np.ndarray
    rollout: int
    tokens: int

    def __len__(self) -> int:
        return sum(len(segment.ids) for segment in self.segments)


def sequences(rollout: Rollout, renderer: Renderer, system: str = "") -> list[Scored]:
    """The sequences of a rollout, each sampled token in exactly one of them.

    A turn in which a placeholder of an image was drawn is in none: no picture stands behind it.
    """
    if rollout.prompt is not None:
        (own,) = rollout.sampled
        if renderer.processor.image_id in own.ids:
            return []
        asked = [_segment(rollout.prompt), renderer.raw(own.ids)]
        return [_scored(rollout, asked, [(0, len(rollout.prompt))])]
    sampled = {each.second: each for each in rollout.sampled}
    segments: list[Segment] = [renderer.open(rollout.memory_text, system)]
    length = len(segments[0].ids)
    together: list[tuple[int, int]] = []  # (second, where its tokens begin)
    found: list[Scored] = []
    for index, turn in enumerate(rollout.turns):
        segments.append(renderer.user(turn, first=index == 0))
        length += len(segments[-1].ids)
        if turn.action is None:
            break
        answer = renderer.assistant(turn.action, turn.second)
        drawn = sampled.get(turn.second)
        if drawn is not None and renderer.processor.image_id not in drawn.ids:
            if drawn.ids == answer.ids[: len(drawn.ids)]:
                together.append((turn.second, length))
            else:
                alone = [*segments, renderer.raw(drawn.ids, turn.second)]
                found.append(_scored(rollout, alone, [(turn.second, length)]))
        segments.append(answer)
        length += len(answer.ids)
    if together:
        found.insert(0, _scored(rollout, segments, together))
    return found


def _scored(
    rollout: Rollout, segments: Sequence[Segment], places: Sequence[tuple[int, int]]
) -> Scored:
    sampled = {each.second: each for each in rollout.sampled}
    positions = [np.arange(at, at + len(sampled[second].ids)) for second, at in places]
    seconds = [np.full(len(sampled[second].ids), second) for second, _ in places]
    logprobs = [np.asarray(sampled[second].logprobs) for second, _ in places]
    return Scored(
        tuple(segment for segment in segments if segment.ids),
        np.concatenate(positions),
        np.concatenate(seconds),
        np.concatenate(logprobs),
        rollout.number,
        rollout.tokens,
    )


def _segment(prompt: Rendered) -> Segment:
    """A whole prompt as one segment; it ends with text."""
    return Segment(
        tuple(prompt.ids),
        tuple(prompt.spans),
        prompt.positions,
        int(prompt.positions.max()) + 1,
        prompt.images,
        prompt.image_count,
    )


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of sequences by row, `room` tokens a row at most: the longest first, each into the
    first row that has room. Raises `ValueError` for one that is longer than a row."""
    rows: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[number]
        if length > room:
            raise ValueError(f"sequence {number} has {length} tokens, a row {room}")
        place = next((i for i, free in enumerate(left) if free >= length), len(rows))
        if place == len(rows):
            rows.append([])
            left.append(room)
        rows[place].append(number)
        left[place] -= length
    return rows
