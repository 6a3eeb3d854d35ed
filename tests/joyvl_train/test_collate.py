"""The plan of rows, and what a batch is made of."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joyvl_train.actions import Response, Silence
from joyvl_train.collate import PackedRows, Part, Row, RowCollator, _shuffled, collate, model_inputs
from joyvl_train.config import UserError
from joyvl_train.records import RecordError
from joyvl_train.stream import Turn
from joyvl_train.video import FrameError
from joyvl_train.weights import LossWeights, token_weights

from .conftest import Speaker, picture


@dataclass
class Lengths:
    """A source of which only lengths matter."""

    lengths: list[int]

    def __len__(self) -> int:
        return len(self.lengths)

    def length(self, index: int) -> int:
        return self.lengths[index]

    def render(self, index: int) -> Any:
        raise AssertionError("a plan renders nothing")


def rows_of(count: int, *args: Any, **kwargs: Any) -> list[Row]:
    return list(islice(PackedRows(*args, **kwargs), count))


def mixes() -> st.SearchStrategy[list[Part]]:
    lengths = st.lists(st.integers(1, 60), min_size=1, max_size=30)
    return st.lists(st.tuples(lengths, st.floats(0.1, 5)), min_size=1, max_size=3).map(
        lambda sources: [
            Part(f"source{i}", Lengths(each), weight, shuffled=i != 1)
            for i, (each, weight) in enumerate(sources)
        ]
    )


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    seed=st.integers(0, 3),
    pack=st.booleans(),
    shuffled=st.booleans(),
)
def test_every_sample_once_an_epoch(
    lengths: list[int], seed: int, pack: bool, shuffled: bool
) -> None:
    part = Part("a", Lengths(lengths), 1.0, shuffled)
    rows = rows_of(200, [part], row_tokens=64, seed=seed, pack=pack)
    planned = Counter(index for row in rows for _, index in row.samples)
    waiting = Counter(index for _, index in rows[-1].state["waiting"])
    drawn = rows[-1].state["drawn"]
    epochs, rest = divmod(drawn, len(lengths))
    counts = [(planned + waiting)[i] for i in range(len(lengths))]
    assert sum(counts) == drawn and rest == sum(n - epochs for n in counts)
    assert set(counts) <= {epochs, epochs + 1}
    for row in rows:
        assert 0 < sum(lengths[i] for _, i in row.samples) <= 64
        assert pack or len(row.samples) == 1
    if not pack and not shuffled:
        assert [row.samples[0][1] for row in rows] == [i % len(lengths) for i in range(200)]


@settings(max_examples=40)
@given(parts=mixes(), seed=st.integers(0, 9), at=st.integers(0, 30), pack=st.booleans())
def test_going_on_from_a_state_is_as_if_never_broken_off(
    parts: list[Part], seed: int, at: int, pack: bool
) -> None:
    whole = rows_of(50, parts, row_tokens=64, seed=seed, pack=pack)
    state = whole[at].state
    rest = rows_of(50 - at - 1, parts, row_tokens=64, seed=seed, pack=pack, state=state)
    assert [r.samples for r in rest] == [r.samples for r in whole[at + 1 :]]
    assert rest[-1].state == whole[-1].state
    # A state passes through JSON, where tuples become lists.
    loaded = json.loads(json.dumps(state))
    again = rows_of(3, parts, row_tokens=64, seed=seed, pack=pack, state=loaded)
    assert [r.samples for r in again] == [r.samples for r in rest[:3]]


@dataclass
class Read(Lengths):
    """Samples from a file, whose content the digest stands for."""

    digest: str = "one"


@pytest.mark.parametrize(
    ("lengths", "digest", "words"),
    [([5, 50, 20], "one", "4 samples of 'a', this run from 3;"), ([5, 50, 20, 9], "two", "others")],
)
def test_going_on_with_other_data_is_one_line(lengths: list[int], digest: str, words: str) -> None:
    parts = [Part("a", Read([5, 50, 20, 33]), 1.0)]
    state = json.loads(json.dumps(rows_of(3, parts, row_tokens=64, seed=0)[-1].state))
    assert rows_of(1, parts, row_tokens=64, seed=0, state=state)
    with pytest.raises(UserError, match=words) as error:
        PackedRows([Part("a", Read(lengths, digest), 1.0)], row_tokens=64, seed=0, state=state)
    assert "begin a new run" in str(error.value)
    # A step that was saved before sources told of themselves is gone on from as it is.
    del state["sources"]
    assert rows_of(1, parts, row_tokens=64, seed=0, state=state)


def test_two_ranks_see_the_same_plan_and_iterating_again_starts_anew() -> None:
    parts = [Part("a", Lengths([5, 50, 20, 33]), 1.0), Part("b", Lengths([7] * 9), 0.5)]
    first, second = (PackedRows(parts, row_tokens=64, seed=4) for _ in range(2))
    one = [row.samples for row in islice(first, 40)]
    assert one == [row.samples for row in islice(second, 40)]
    assert one == [row.samples for row in islice(first, 40)]
    other = [row.samples for row in islice(PackedRows(parts, row_tokens=64, seed=5), 40)]
    assert one != other


def test_sources_are_drawn_by_their_weights() -> None:
    parts = [
        Part("a", Lengths([4] * 10), 3.0),
        Part("b", Lengths([4] * 1000), 1.0),
        Part("never", Lengths([]), 0.0),
    ]
    rows = rows_of(400, parts, row_tokens=64, seed=0)
    drawn = Counter(name for row in rows for name, _ in row.samples)
    total = sum(drawn.values())
    assert set(drawn) == {"a", "b"} and total > 6000
    assert drawn["a"] / total == pytest.approx(0.75, abs=0.03)


def test_rows_are_full() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 900, 500).tolist()
    rows = rows_of(100, [Part("a", Lengths(lengths), 1.0)], row_tokens=2048, seed=0)
    used = sum(lengths[i] for row in rows for _, i in row.samples)
    assert used / (100 * 2048) > 0.95


@settings(max_examples=60)
@given(size=st.integers(1, 600), key=st.text(max_size=4))
def test_a_shuffle_is_a_permutation(size: int, key: str) -> None:
    assert sorted(_shuffled(place, size, key) for place in range(size)) == list(range(size))


def test_a_shuffle_leaves_no_pattern() -> None:
    order = [_shuffled(place, 10**9, "k") for place in range(2000)]
    assert len(set(np.diff(order).tolist())) == 1999
    assert np.corrcoef(np.arange(2000), order)[0, 1] == pytest.approx(0, abs=0.1)
    small = [tuple(_shuffled(place, 6, f"{epoch}") for place in range(6)) for epoch in range(50)]
    assert len(set(small)) > 30


def test_what_cannot_be_planned_is_one_line() -> None:
    fine, long = Part("fine", Lengths([5]), 1.0), Part("long", Lengths([5, 100]), 1.0)
    for parts, message in (
        ([], "nothing to train on"),
        ([Part("a", Lengths([5]), 0.0)], "nothing to train on"),
        ([fine, Part("empty", Lengths([]), 1.0)], "'empty' has no samples"),
        ([long], "sample 1 of 'long' has 100 tokens, more than train.row_tokens=64"),
    ):
        with pytest.raises(UserError, match=message) as error:
            rows_of(3, parts, row_tokens=64, seed=0)
        assert "\n" not in str(error.value)
    state = rows_of(3, [long], row_tokens=128, seed=0)[-1].state
    with pytest.raises(UserError, match="resume with the same data"):
        rows_of(1, [fine], row_tokens=64, seed=0, state=state)


# -- batches


@dataclass
class Chats:
    """Small chats by number; those in `broken` raise."""

    speaker: Speaker
    count: int = 6
    broken: dict[int, Exception] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def length(self, index: int) -> int:
        return len(self.render(index)[0])

    def render(self, index: int) -> Any:
        if index in self.broken:
            raise self.broken[index]
        turns = [
            Turn(s, (picture(10 * index + s),), ("look",), action=Silence())
            for s in range(index % 3 + 1)
        ]
        turns.append(Turn(9, (picture(index, (32, 32)),), action=Response(f"fire {index}")))
        sample = self.speaker.renderer.render("", turns)
        return sample, token_weights(sample, LossWeights())


def test_a_batch_holds_its_samples_end_to_end(speaker: Speaker) -> None:
    samples = [Chats(speaker).render(index) for index in (0, 2, 1)]
    batch = collate(samples)
    ids = batch["input_ids"][0].tolist()
    assert ids == [i for sample, _ in samples for i in sample.ids]
    assert batch["sample_lengths"] == [len(sample) for sample, _ in samples]
    axes = batch["position_ids"].shape[0]
    assert axes == (1 if speaker.name == "idefics3" else 4)
    rows = batch["position_ids"].reshape(axes, -1)
    assert rows[0].tolist() == [i for sample, _ in samples for i in range(len(sample))]
    if axes == 4:
        wanted = np.concatenate([sample.positions for sample, _ in samples], axis=1)
        assert (rows[1:].numpy() == wanted).all()
    start = count = 0
    for sample, targets in samples:
        part = slice(count, count + len(targets.positions))
        assert batch["targets"][part].tolist() == [sample.ids[p] for p in targets.positions]
        # The logits that predict a token stand one before it, within the same sample.
        assert (batch["scored"][part].numpy() == targets.positions + start - 1).all()
        assert batch["scored"][part].min() >= start
        assert torch.equal(batch["weights"][part], torch.from_numpy(targets.weights))
        start, count = start + len(sample), part.stop
    assert batch["denominator"].item() == sum(t.denominator for _, t in samples)
    assert batch["image_count"] == sum(sample.image_count for sample, _ in samples)
    inputs = model_inputs(batch)
    pixels = inputs["pixel_values"]
    wanted = torch.cat([sample.images["pixel_values"] for sample, _ in samples])
    assert torch.equal(pixels[0] if speaker.name == "idefics3" else pixels, wanted)


def test_samples_without_images_make_a_batch(speaker: Speaker) -> None:
    turns = [Turn(0, (), ("hello",), action=Response("hi"))]
    sample = speaker.renderer.render("", turns)
    batch = collate([(sample, token_weights(sample, LossWeights()))] * 2)
    assert set(model_inputs(batch)) == {"input_ids", "position_ids"} and not batch["image_count"]


def test_the_collator_renders_rows_with_the_plans_state(speakers: Any) -> None:
    parts = [Part("a", Chats(speakers["qwen3_vl"]), 1.0)]
    rows = rows_of(2, parts, row_tokens=400, seed=0, buffer=4)
    batch = RowCollator(parts)(rows)
    lengths = [parts[0].source.length(i) for row in rows for _, i in row.samples]
    assert batch["sample_lengths"] == lengths and batch["state"] == rows[-1].state


def test_a_broken_sample_is_left_out(speakers: Any) -> None:
    broken = {
        1: FrameError("damaged", "second 3"),
        2: RecordError("corrupt frame", "picture 0"),
        3: RecordError("corrupt frame", "picture 0"),
    }
    source = Chats(speakers["qwen3_vl"], broken=broken)
    collator = RowCollator([Part("a", source, 1.0)])
    batch = collator([Row((("a", 0), ("a", 1), ("a", 4)), {})])
    assert batch["sample_lengths"] == [source.length(0), source.length(4)]
    # Where nothing would be left, the next whole one stands in.
    alone = collator([Row((("a", 2),), {})])
    assert alone["sample_lengths"] == [source.length(4)]
    every = Chats(speakers["qwen3_vl"], broken=dict.fromkeys(range(6), broken[2]))
    with pytest.raises(UserError, match="are broken"):
        RowCollator([Part("a", every, 1.0)])([Row((("a", 2),), {})])


def test_other_errors_are_not_hidden(speakers: Any) -> None:
    source = Chats(speakers["qwen3_vl"], broken={0: ZeroDivisionError("a bug")})
    with pytest.raises(ZeroDivisionError):
        RowCollator([Part("a", source, 1.0)])([Row((("a", 0),), {})])
