"""Sides of a corpus: no footage is on two of them, whatever is added, and each counts its own."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from joyvl_train.config import UserError
from joyvl_train.corpus import Corpus, open_corpus
from joyvl_train.corpus_samples import corpus_parts
from joyvl_train.published import to_raw
from joyvl_train.records import Rejects, StreamLabels, TurnSample, footage, footage_number
from joyvl_train.rendering import Renderer
from joyvl_train.shards import write_shards
from joyvl_train.sides import VALIDATION, Side, SideName, side_of
from joyvl_train.stream import StreamSettings
from joyvl_train.timeline import Clip, Event, Timeline, to_json
from joyvl_train.weights import LossWeights

from .conftest import picture

SIDES: tuple[SideName, ...] = ("train", "validation", "test")
SHARE = 0.4


class Noise:
    def __init__(self, seconds: int = 3) -> None:
        self.seconds = seconds

    def frames(self, second: int) -> tuple[Image.Image, ...]:
        return (picture(second),)


def clip(name: str, seconds: int = 3, **told: Any) -> Timeline:
    asked = Event("q", 0.5, "user", "say fire when you see it")
    return Timeline(Clip(name, float(seconds), **told), "alerting", "test", (asked,))


def question(name: str, shown: str) -> TurnSample:
    return TurnSample(name, "what?", "a dog", (picture(1),), footage=shown)


def shown(name: str, seconds: int = 3, **told: Any) -> tuple[StreamLabels, Noise]:
    return StreamLabels(clip(name, seconds, **told)), Noise()


def named(side: SideName, share: float = SHARE, kind: str = "clip") -> str:
    names = (f"{kind} {n}" for n in range(1000))
    return next(name for name in names if side_of(footage_number(name), share) == side)


def sides_of(corpus: Corpus) -> dict[SideName, Side]:
    return {name: Side(corpus, name, SHARE, Rejects()) for name in SIDES}


# -- what footage is


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (clip("a", video="v/x.mp4"), clip("b", video="./v//x.mp4")),
        (clip("a", video="x.mp4"), clip("b", video="/data/x.mp4")),
        (clip("a", images=("x/001.jpg",)), clip("b", images=("", "x/00734.0.jpg"))),
        (clip("a", images=("f/x_001.jpg",)), clip("b", images=("f/x_734.png",))),
        (clip("a", scene={"a": 1, "b": 2}), clip("b", scene={"b": 2, "a": 1})),
        (clip("a"), clip("a")),
    ],
)
def test_records_of_one_footage(one: Timeline, other: Timeline) -> None:
    assert footage(one.clip, "/data") == footage(other.clip, "/data")


def test_records_of_other_footage() -> None:
    clips = [clip("a", video="x.mp4"), clip("a", video="y.mp4"), clip("a", scene={"a": 1})]
    clips += [clip("a", images=(f"x{n}/1.jpg",)) for n in (1, 2)]
    clips += [clip("a", images=(f"f/x{n}_1.jpg",)) for n in (1, 2)]
    clips += [clip("a"), clip("b")]
    assert len({footage(one.clip) for one in clips}) == len(clips)


def test_the_shares_are_those_asked_for_and_more_moves_none_between_two() -> None:
    numbers = [footage_number(f"video {n}.mp4") for n in range(20_000)]
    counts = Counter(side_of(number, SHARE) for number in numbers)
    assert abs(counts["train"] / 20_000 - (1 - SHARE)) < 0.02
    assert abs(counts["validation"] / (20_000 - counts["train"]) - VALIDATION) < 0.02
    for number in numbers[:2000]:
        less, more = side_of(number, 0.1), side_of(number, 0.6)
        assert less in ("train", more)
    assert {side_of(number, 0.0) for number in numbers} == {"train"}


# -- no footage on two sides


def record(kind: str, shown: int, second: int) -> dict[str, Any]:
    """A published record without a name, about video or folder `shown`."""
    if kind == "images":
        chat = [("user", f"<{t}.0 seconds>\n<image>") for t in range(2)]
        turns = [
            message
            for role, text in chat
            for message in (
                {"role": role, "content": text},
                {"role": "assistant", "content": "</silence>"},
            )
        ]
        names = [f"{shown}/{second + t:04d}.jpg" for t in range(2)]
        return {"messages": turns, "images": names}
    path = {"video_path": f"{shown}.mp4"} if kind == "path" else {"videos": [f"./{shown}.mp4"]}
    said = [{"content": "Fire!", "time": second}]
    return {**path, "question": [], "response": said, "id": str(random.random())}


RECORDS = st.tuples(
    st.sampled_from(["path", "videos", "images"]), st.integers(0, 6), st.integers(0, 9)
)


def written(folder: Path, records: Sequence[tuple[str, int, int]]) -> dict[SideName, set[str]]:
    """The footage of each side of a JSON corpus of these records; each record is on one side."""
    path = folder / "data.json"
    path.write_text(json.dumps([record(*each) for each in records]))
    corpus = open_corpus(path)
    assert not corpus.rejects.total
    found: dict[SideName, set[str]] = {}
    count = 0
    for name, side in sides_of(corpus).items():
        numbers = list(side._numbers)
        count += len(numbers)
        kinds = [("i" if records[n][0] == "images" else "v", records[n][1]) for n in numbers]
        found[name] = {f"{kind}{shown}" for kind, shown in kinds}
    assert count == len(records)
    return found


@given(
    first=st.lists(RECORDS, min_size=1, max_size=12),
    more=st.lists(RECORDS, max_size=5),
    seed=st.integers(),
)
def test_no_footage_is_on_two_sides_and_none_moves(
    tmp_path_factory: Any, first: list[Any], more: list[Any], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("sides")
    before = written(folder, first)
    changed = [*first, *more]
    random.Random(seed).shuffle(changed)
    after = written(folder, changed)
    for found in (before, after):
        assert sum(map(len, found.values())) == len(set().union(*found.values()))
    assert all(before[name] <= after[name] for name in SIDES)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=12), st.integers()
)
def test_questions_follow_their_footage(tmp_path_factory: Any, asked: Any, seed: int) -> None:
    records = [
        question(f"t{n}", f"v{shown}.mp4") if turn else clip(f"s{n}", video=f"v{shown}.mp4")
        for n, (turn, shown) in enumerate(asked)
    ]
    random.Random(seed).shuffle(records)
    folder = tmp_path_factory.mktemp("shards") / "corpus"
    write_shards(
        [r if isinstance(r, TurnSample) else (StreamLabels(r), Noise()) for r in records], folder
    )
    sides = sides_of(open_corpus(folder))
    seen: dict[SideName, set[str]] = {}
    for name, side in sides.items():
        samples = list(side)
        assert name == "train" or not any(isinstance(s, TurnSample) for s in samples)
        seen[name] = {
            s.footage if isinstance(s, TurnSample) else str(s[0].timeline.clip.video)
            for s in samples
        }
    assert not seen["train"] & (seen["validation"] | seen["test"])
    assert not seen["validation"] & seen["test"]
    left = [r for r in records if isinstance(r, TurnSample) and r.footage not in seen["train"]]
    assert sides["train"].rejects.counts["footage held out"] == len(left)
    assert sum(map(len, sides.values())) + len(left) == len(records)


def test_what_is_for_evaluation_is_never_trained_on(renderer: Renderer, tmp_path: Path) -> None:
    own, free, other = named("train"), named("train", kind="free"), named("validation")
    bench = StreamLabels(clip("bench", video=own), use="evaluation")
    asked = replace(question("asked", "elsewhere"), use="evaluation")
    records = [(bench, Noise()), shown("same", video=own), shown(free), shown(other), asked]
    write_shards(records, tmp_path / "shards")
    sides = sides_of(open_corpus(tmp_path / "shards"))
    found = {name: [sample[0].timeline.clip.id for sample in side] for name, side in sides.items()}
    # The other record of that footage goes with it.
    assert found == {"train": [free], "validation": [other], "test": ["bench", "same"]}
    assert sides["train"].held == 4
    assert sides["train"].rejects.counts == {"evaluation only": 1}
    corpus = open_corpus(tmp_path / "shards")
    (part,) = corpus_parts(corpus, renderer, LossWeights(), StreamSettings())
    assert len(part.source) == 3 and corpus.rejects.counts == {"evaluation only": 2}


def test_footage_of_a_benchmarks_record_is_reserved_in_json_too(tmp_path: Path) -> None:
    own, free = named("train"), named("train", kind="free")
    bench = replace(clip("bench", video=own), meta={"use": "evaluation"})
    same, other = clip("same", video=own), clip("other", video=free)
    for records in (
        list(map(to_json, (bench, same, other))),
        list(map(to_raw, (bench, same, other))),
    ):
        (tmp_path / "data.json").write_text(json.dumps(records))
        sides = sides_of(open_corpus(tmp_path / "data.json"))
        assert [sides["train"]._corpus.timeline(n).clip.id for n in sides["train"]._numbers] == [
            "other"
        ]
        assert len(sides["test"]) == 1 and sides["test"].rejects.counts == {"evaluation only": 1}


def test_a_family_is_left_out_of_training_alone(renderer: Renderer, tmp_path: Path) -> None:
    own, other = named("train"), named("validation")
    qa = replace(clip("qa", video=own), family="qa")
    records = [
        shown(own),
        (StreamLabels(qa), Noise()),
        (StreamLabels(replace(qa, clip=replace(qa.clip, id="far", video=other))), Noise()),
        question("asked", own),
    ]
    write_shards(records, tmp_path / "shards")
    corpus = open_corpus(tmp_path / "shards")
    side = Side(corpus, "train", SHARE, Rejects(), ("qa", "chat"))
    parts = corpus_parts(side, renderer, LossWeights(), StreamSettings(), turn_share=0.5)
    assert [len(part.source) for part in parts] == [1, 1]
    assert side.rejects.counts == {"family left out": 1} and side.met == {"qa"}
    held = Side(corpus, "validation", SHARE, Rejects(), ("qa",))
    assert [t.clip.id for t, _ in held.streams()] == ["far"] and not held.rejects.total


# -- how it is opened and counted


def test_sides_are_told_apart_without_a_picture(tmp_path: Path, monkeypatch: Any) -> None:
    write_shards([shown(f"c{n}") for n in range(9)], tmp_path / "shards", per_shard=4)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked at")

    monkeypatch.setattr("joyvl_train.shard_reader.Blobs.__getitem__", refuse)
    corpus = open_corpus(tmp_path / "shards")
    told: list[int] = []
    look_at = type(corpus)._look_at  # type: ignore[attr-defined]
    monkeypatch.setattr(
        type(corpus), "_look_at", lambda self, n, survey: told.append(n) or look_at(self, n, survey)
    )
    sides = sides_of(corpus)
    assert sum(map(len, sides.values())) == 9 and told == list(range(9))


def test_each_side_counts_its_own_rejects(tmp_path: Path) -> None:
    twice = [{"content": text, "time": 1} for text in ("Fire!", "Smoke!")]
    items: list[Any] = [
        {"video_path": named(side), "question": [], "response": twice} for side in SIDES
    ]
    good = {"video_path": "x.mp4", "question": [], "response": []}
    (tmp_path / "data.json").write_text(json.dumps([*items, ["no object"], good]))
    sides = sides_of(open_corpus(tmp_path / "data.json"))
    assert {name: side.rejects.total for name, side in sides.items()} == {
        "train": 2,
        "validation": 1,
        "test": 4,
    }


def test_data_that_changes_has_another_digest(tmp_path: Path) -> None:
    digests = set()
    for n, count in enumerate((5, 6)):
        write_shards([shown(f"c{k}") for k in range(count)], tmp_path / str(n))
        for share in (0.0, 0.5):
            corpus = open_corpus(tmp_path / str(n))
            again = open_corpus(tmp_path / str(n))
            side = Side(corpus, "train", share, Rejects())
            assert side.digest == Side(again, "train", share, Rejects()).digest
            digests.add(side.digest)
    assert len(digests) == 4


# -- shares of the two kinds


@pytest.fixture(scope="module")
def renderer(speakers: Any) -> Renderer:
    found: Renderer = speakers["qwen3_vl"].renderer
    return found


@pytest.mark.parametrize(
    ("share", "record", "words"),
    [
        (1.0, shown("a"), "data.turn_share=1: takes turn-based questions alone"),
        (0.0, question("a", "a"), "data.turn_share=0: takes streams alone"),
    ],
)
def test_the_one_kind_that_is_asked_for_must_be_there(
    renderer: Renderer, tmp_path: Path, share: float, record: Any, words: str
) -> None:
    write_shards([record], tmp_path / "shards")
    corpus = open_corpus(tmp_path / "shards")
    options: Any = (renderer, LossWeights(), StreamSettings())
    with pytest.raises(UserError, match=words):
        corpus_parts(corpus, *options, turn_share=share)
    (part,) = corpus_parts(corpus, *options, turn_share=0.5)
    assert part.weight == 1.0


def test_where_all_that_is_left_is_broken_what_is_held_out_is_told(
    renderer: Renderer, tmp_path: Path
) -> None:
    unseen = replace(
        clip(named("train")), events=(Event("a", 1.5, "assistant", "fire", until=2.0),)
    )

    class Dark(Noise):
        def frames(self, second: int) -> tuple[Image.Image, ...]:
            return () if second == 1 else super().frames(second)

    write_shards([(StreamLabels(unseen), Dark()), shown(named("test"))], tmp_path / "shards")
    side = Side(open_corpus(tmp_path / "shards"), "train", SHARE, Rejects())
    with pytest.raises(UserError, match=r"1 rejected .*, 1 of 2 held out \(data.held_out=0.4\)"):
        corpus_parts(side, renderer, LossWeights(), StreamSettings())
