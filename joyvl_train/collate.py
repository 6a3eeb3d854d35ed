"""Samples -> packed rows -> batches.

A row is one or more samples end to end, `row_tokens` at most, with positions and attention kept
inside each sample. Which samples share a row is decided from their lengths alone, so that ranks
agree on it without rendering each other's rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from joyvl_train.config import UserError
from joyvl_train.marks import UNKNOWN
from joyvl_train.rendering import Rendered, join_images
from joyvl_train.timeline import TimelineError
from joyvl_train.weights import Targets


class Source(Protocol):
    """Samples by number. `length` is the exact number of tokens that `render` will give.

    A source that reads what may change between two starts of a run has a `digest`, a text that
    changes with it. `render` may raise a `TimelineError` (a `RecordError`, a `FrameError`) where a
    sample turns out to be broken.
    """

    def __len__(self) -> int: ...
    def length(self, index: int) -> int: ...
    def render(self, index: int) -> tuple[Rendered, Targets]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One of the mixed sources: drawn with `weight` against the others', in shuffled epochs.

    shuffled=False keeps the source's own order, for a pool that grows harder as training goes on.
    """

    name: str
    source: Source
    weight: float
    shuffled: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """The samples of one row, as (source name, index), and the plan's state after it."""

    samples: tuple[tuple[str, int], ...]
    state: Mapping[str, Any]


class PackedRows(IterableDataset[Row]):
    """An endless plan of rows, the same for every rank; rendering is left to `RowCollator`.

    A buffer of `buffer` upcoming samples is kept; a row starts with the oldest and takes, again and
    again, the longest that still fits. `state` (of a `Row`) goes on exactly where that row ended.
    pack=False puts one sample in a row. Which of the rows are a rank's or a worker's own is for the
    caller to pick: the plan is whole in each of them.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        row_tokens: int,
        seed: int,
        pack: bool = True,
        buffer: int = 24,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        if not parts or not any(part.weight > 0 for part in parts):
            raise UserError("nothing to train on: no source has a weight above 0")
        for part in parts:
            if part.weight > 0 and not len(part.source):
                raise UserError(
                    f"the source {part.name!r} has no samples, but a weight of {part.weight:g}; "
                    "give it some, or no weight"
                )
        self._parts = {part.name: part for part in parts if part.weight > 0}
        self._sources = {name: _identity(part.source) for name, part in self._parts.items()}
        self._row_tokens = row_tokens
        self._seed = seed
        self._pack = pack
        self._size = buffer if pack else 1
        self._state = state
        if state is not None:
            self._check_same(state)

    def __iter__(self) -> Iterator[Row]:
        state = self._state or {}
        drawn = int(state.get("drawn", 0))
        counts: dict[str, int] = dict(state.get("counts", {}))
        waiting = [(str(name), int(index)) for name, index in state.get("waiting", ())]
        lengths = {key: self._length(key) for key in waiting}
        row: list[tuple[str, int]] = []
        room = self._row_tokens
        while True:
            while len(waiting) < self._size:
                key = self._draw(drawn, counts)
                drawn += 1
                lengths[key] = self._length(key)
                waiting.append(key)
            fits = waiting[:1] if not row else [k for k in waiting if lengths[k] <= room]
            if fits and (self._pack or not row):
                best = max(fits, key=lambda key: lengths[key])
                waiting.remove(best)
                row.append(best)
                room -= lengths[best]
                continue
            lengths = {key: lengths[key] for key in waiting}
            after = {
                "drawn": drawn,
                "counts": dict(counts),
                "waiting": list(waiting),
                "sources": self._sources,
            }
            yield Row(tuple(row), after)
            row, room = [], self._row_tokens

    def _check_same(self, state: Mapping[str, Any]) -> None:
        """The plan goes on by number: each must still stand for the sample that it stood for."""
        told: Mapping[str, Sequence[Any]] = state.get("sources", {})
        names = {name for name, _ in state.get("waiting", ())} | set(state.get("counts", {}))
        unknown = sorted((names | set(told)) - set(self._parts))
        if unknown:
            raise UserError(
                f"the saved step draws from {unknown}, this run from {sorted(self._parts)}; "
                "resume with the same data, or begin a new run"
            )
        for name, (size, digest) in told.items():
            now = self._sources[name]
            if now != [size, digest]:
                others = " others" if now[0] == size else ""
                raise UserError(
                    f"the saved step draws from {size} samples of {name!r}, this run from {now[0]}"
                    f"{others}; put the data and the settings of data and stream back as they "
                    "were, or begin a new run (run.dir)"
                )

    def _length(self, key: tuple[str, int]) -> int:
        name, index = key
        length = self._parts[name].source.length(index)
        if length > self._row_tokens:
            raise UserError(
                f"sample {index} of {name!r} has {length} tokens, more than train.row_tokens="
                f"{self._row_tokens}; raise it, or cut clips shorter (stream.chunk_seconds)"
            )
        return length

    def _draw(self, number: int, counts: dict[str, int]) -> tuple[str, int]:
        names = list(self._parts)
        rng = random.Random(f"{self._seed}/mix/{number}")
        name = rng.choices(names, [self._parts[n].weight for n in names])[0]
        at = counts.get(name, 0)
        counts[name] = at + 1
        size = len(self._parts[name].source)
        epoch, place = divmod(at, size)
        if not self._parts[name].shuffled:
            return name, place
        return name, _shuffled(place, size, f"{self._seed}/{name}/{epoch}")


def _identity(source: Source) -> list[Any]:
    """How many samples a source has, and its digest where it has one, as JSON keeps them."""
    return [len(source), getattr(source, "digest", "")]


def _shuffled(place: int, size: int, key: str) -> int:
    """The `place`-th of a shuffled range(size), without holding it.

    A Feistel network of four rounds permutes the next power of four; what falls outside of
    range(size) is sent on until it falls inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for turn in range(4):
            word = f"{key}/{turn}/{right}".encode()
            mixed = int.from_bytes(blake2b(word, digest_size=8).digest(), "little")
            left, right = right, left ^ (mixed & low)
        place = (left << half) | right
        if place < size:
            return place


Batch = dict[str, Any]

_TRIES = 64


class RowCollator:
    """Renders the rows that reach this rank and makes them one batch.

    A sample that turns out to be broken is left out; where nothing would be left of the batch, the
    next whole sample of its source stands in. `left_out` of the batch names each, with its reason.

    The batch: input_ids [1, T]; position_ids [4, 1, T] (a text row that restarts with each sample,
    then M-RoPE) or [1, T]; sample_lengths; the image tensors; targets [K], the positions whose
    logits predict them [K], weights [K]; denominator; left_out, {"source index": reason}; the
    plan's state after the row; and marks [1, T, 1 + fields], where any sample has some.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._sources = {part.name: part.source for part in parts}

    def __call__(self, rows: Sequence[Row]) -> Batch:
        keys = [key for row in rows for key in row.samples]
        left_out: dict[str, str] = {}
        found = [self._render(name, index, left_out) for name, index in keys]
        samples = [sample for sample in found if sample is not None]
        batch = collate(samples or [self._stand_in(*keys[0], left_out)])
        batch["left_out"] = left_out
        batch["state"] = dict(rows[-1].state)
        return batch

    def _render(
        self, name: str, index: int, left_out: dict[str, str]
    ) -> tuple[Rendered, Targets] | None:
        try:
            return self._sources[name].render(index)
        except TimelineError as error:
            left_out[f"{name} {index}"] = error.reason
            return None

    def _stand_in(
        self, name: str, index: int, left_out: dict[str, str]
    ) -> tuple[Rendered, Targets]:
        size = len(self._sources[name])
        tries = min(size, _TRIES)
        for step in range(1, tries):
            sample = self._render(name, (index + step) % size, left_out)
            if sample is not None:
                return sample
        reasons = ", ".join(sorted(set(left_out.values())))
        raise UserError(
            f"all {tries} samples of {name!r} from {index} on are broken ({reasons}); mend or take "
            "out what rejects.jsonl names"
        )


def collate(samples: Sequence[tuple[Rendered, Targets]]) -> Batch:
    """One packed batch of rendered samples; see `RowCollator` for its fields."""
    lengths = [len(rendered) for rendered, _ in samples]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    mrope = samples[0][0].positions.shape[0] == 3
    rows = [rendered.positions for rendered, _ in samples]
    restart = np.concatenate([np.arange(n) for n in lengths])[None]
    positions = np.concatenate([restart, np.concatenate(rows, axis=1)]) if mrope else restart
    targets = np.concatenate([t.positions + s for (_, t), s in zip(samples, starts, strict=True)])
    ids = np.concatenate([np.asarray(rendered.ids, dtype=np.int64) for rendered, _ in samples])
    position_ids = torch.from_numpy(positions)
    return _marks(samples) | {
        "input_ids": torch.from_numpy(ids)[None],
        "position_ids": position_ids[:, None] if mrope else position_ids,
        "sample_lengths": lengths,
        "images": join_images([r.images for r, _ in samples if r.image_count]),
        "targets": torch.from_numpy(ids[targets]),
        "scored": torch.from_numpy(targets - 1),
        "weights": torch.from_numpy(np.concatenate([t.weights for _, t in samples])),
        "denominator": torch.tensor(sum(t.denominator for _, t in samples), dtype=torch.float64),
        "image_count": sum(r.image_count for r, _ in samples),
    }


def _marks(samples: Sequence[tuple[Rendered, Targets]]) -> dict[str, Tensor]:
    widths = {targets.marks.shape[1] for _, targets in samples if targets.marks is not None}
    if not widths:
        return {}
    (width,) = widths
    every = [
        np.full((len(rendered), width), UNKNOWN) if targets.marks is None else targets.marks
        for rendered, targets in samples
    ]
    return {"marks": torch.from_numpy(np.concatenate(every))[None]}


def model_inputs(batch: Batch) -> dict[str, Any]:
    """What a model's forward takes of a batch."""
    images: dict[str, Tensor] = dict(batch["images"])
    if "image_grid_thw" not in images:
        # The other architectures want a batch axis before the images.
        images = {name: tensor[None] for name, tensor in images.items()}
    return {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], **images}
